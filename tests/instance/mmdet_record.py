"""What mmdet 3.3.0 answers for seeded weights and inputs, so that tests compare where it is not installed.

    python tests/instance/mmdet_record.py

writes the record again, after `pip install --no-deps mmdet==3.3.0 mmengine==0.10.7 mmcv-lite==2.1.0 addict yapf
termcolor terminaltables`. mmcv-lite has no compiled operations; nothing that is recorded needs them.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

RECORD = Path(__file__).with_name("mmdet_record.json")
SIZES = ((64, 96), (96, 128))
GRIDS, CLASSES = (10, 8, 6, 4, 3), 4
RANGES = ((1, 24), (20, 48), (40, 96), (80, 192), (160, 999))
EVERY = 23  # of all numbers of an output, every so many-th is kept
SOLO = {"width": 8, "depth": 2, "mask_width": 8, "kernel_channels": 12, "groups": 4}
BOXES = [
    [(8, 8, 24, 40), (36, 60, 60, 88)],
    [(4, 48, 60, 92)],
]  # top, left, bottom, right, of two images; no cell twice
LABELS = [[1, 3], [2]]


def numbers(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    """Numpy's RandomState gives the same numbers in every version."""
    return scale * torch.from_numpy(np.random.RandomState(seed).standard_normal(shape))


def fill(state: dict[str, Tensor]) -> None:
    """Fill the float64 tensors of a state dict; which numbers, is told by the order of the names."""
    for seed, (name, tensor) in enumerate(sorted(state.items())):
        if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
            tensor.copy_(0.5 + numbers(*tensor.shape, seed=seed).abs())
        elif tensor.is_floating_point():
            inputs = np.prod(tensor.shape[1:]) if tensor.ndim > 1 else 16
            tensor.copy_(numbers(*tensor.shape, seed=seed) / inputs**0.5)


def images(size: tuple[int, int]) -> Tensor:
    """Two images, normalised already."""
    return numbers(2, 3, *size, seed=7)


def sample(tensor: Tensor) -> list[float]:
    return tensor.detach().double().flatten()[::EVERY].tolist()


def head_inputs() -> dict[str, Tensor]:
    """Features, places with their strides, and weights for five mask heads of CondInst."""
    places = torch.tensor([[4, 4], [20, 36], [88, 8], [48, 48], [64, 64]], dtype=torch.float64)
    strides = torch.tensor([8, 8, 16, 32, 128], dtype=torch.float64)
    return {
        "features": numbers(8, 9, 12, seed=2),
        "places": places,
        "strides": strides,
        "weights": numbers(5, 169, seed=3),
    }


def nms_inputs() -> tuple[Tensor, Tensor]:
    """Boxes (60, 4) and scores (60, 3) in (0, 1)."""
    random = np.random.RandomState(4)
    corner, sides = 30 * random.random_sample((60, 2)), 5 + 15 * random.random_sample((60, 2))
    boxes = torch.from_numpy(np.concatenate([corner, corner + sides], 1))
    return boxes, torch.from_numpy(random.random_sample((60, 3)))


def without_operations() -> None:
    """Let mmdet be imported with mmcv-lite: names of compiled operations stand for modules that do nothing."""

    class Anything(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (nn.Module,), {})

    names = (
        "carafe",
        "deform_conv",
        "merge_cells",
        "modulated_deform_conv",
        "multi_scale_deform_attn",
        "nms",
        "roi_align",
    )
    for name in ("", *(f".{name}" for name in names)):
        module = Anything(f"mmcv.ops{name}")
        module.__path__ = []
        sys.modules[module.__name__] = module
    sys.modules.setdefault("shapely", Anything("shapely"))
    sys.modules.setdefault("shapely.geometry", Anything("shapely.geometry"))


def masks_of(size: tuple[int, int]) -> list[Tensor]:
    """The true masks of two images, (N, H, W) bool: rectangles."""
    drawn = [torch.zeros(len(boxes), *size, dtype=torch.bool) for boxes in BOXES]
    for masks, boxes in zip(drawn, BOXES, strict=True):
        for mask, (top, left, bottom, right) in zip(masks, boxes, strict=True):
            mask[top:bottom, left:right] = True
    return drawn


def solov2(size: tuple[int, int]) -> dict[str, Any]:
    from mmdet.models import FPN, ResNet, SOLOV2Head
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    norm = {"type": "GN", "num_groups": SOLO["groups"]}
    features = {"feat_channels": SOLO["mask_width"], "start_level": 0, "end_level": 3, "out_channels": 12}
    head = SOLOV2Head(
        CLASSES - 1, 8, feat_channels=SOLO["width"], stacked_convs=SOLO["depth"], strides=(8, 8, 16, 32, 32),
        scale_ranges=RANGES, pos_scale=0.2, num_grids=list(GRIDS), norm_cfg=norm,
        mask_feature_head={**features, "mask_stride": 4, "norm_cfg": norm},
        loss_mask={"type": "DiceLoss", "use_sigmoid": True, "loss_weight": 3.0, "eps": 0.0},
        loss_cls={"type": "FocalLoss", "use_sigmoid": True, "gamma": 2.0, "alpha": 0.25, "loss_weight": 1.0},
    )  # fmt: skip
    net = nn.Module()
    net.backbone = ResNet(18, base_channels=8)
    net.neck, net.mask_head = FPN([8, 16, 32, 64], 8, num_outs=5), head
    net.double().eval()
    fill(net.state_dict())
    with torch.no_grad():
        kernels, logits, masks = head(net.neck(net.backbone(images(size))))
    truth = []
    for drawn, boxes, labels in zip(masks_of(size), BOXES, LABELS, strict=True):
        corners = torch.tensor([[left, top, right, bottom] for top, left, bottom, right in boxes], dtype=torch.float64)
        bitmaps = BitmapMasks(drawn.numpy().astype(np.uint8), *size)
        truth.append(InstanceData(bboxes=corners, labels=torch.tensor(labels) - 1, masks=bitmaps))
    losses = head.loss_by_feat(kernels, [x.clone() for x in logits], masks, truth, [{}, {}])
    options = {"nms_pre": 500, "score_thr": 0.1, "mask_thr": 0.5, "filter_thr": 0.05, "max_per_img": 100}
    head.test_cfg = types.SimpleNamespace(**options, kernel="gaussian", sigma=2.0)
    meta = {"img_shape": size, "ori_shape": size}
    found = head.predict_by_feat(kernels, [x.clone() for x in logits], masks, [meta, meta])
    return {
        "keys": sorted(net.state_dict()) if size == SIZES[0] else [],
        "kernels": [sample(x) for x in kernels],
        "class_logits": [sample(x) for x in logits],
        "mask_features": sample(masks),
        "losses": {name: float(value) for name, value in losses.items()},
        "found": [[x.scores.tolist(), (x.labels + 1).tolist(), x.masks.flatten(1).sum(1).tolist()] for x in found],
    }


def condinst() -> dict[str, Any]:
    from mmdet.models.dense_heads.condinst_head import CondInstMaskHead
    from mmengine.structures import InstanceData

    features = {"in_channels": 8, "feat_channels": 8, "start_level": 0, "end_level": 2, "out_channels": 8}
    features |= {"mask_stride": 8, "num_stacked_convs": 1}
    head = CondInstMaskHead(features, loss_mask={"type": "DiceLoss"})
    given = head_inputs()
    info = InstanceData(param_preds=given["weights"], points=given["places"], strides=given["strides"])
    return {"masks": sample(head.forward_single(given["features"], info)[0])}


def yolact() -> dict[str, Any]:
    from mmdet.models.dense_heads.yolact_head import YOLACTProtonet
    from mmdet.models.layers.bbox_nms import fast_nms

    boxes, scores = nms_inputs()
    background = torch.zeros(len(scores), 1, dtype=torch.float64)
    found, labels, _ = fast_nms(boxes, torch.cat([scores, background], 1), boxes, 0.0, 0.3, 40)
    net = YOLACTProtonet.__new__(YOLACTProtonet)
    nn.Module.__init__(net)
    inside = net.crop_single(torch.ones(9, 12, len(boxes), dtype=torch.float64), boxes / torch.tensor([60, 45, 60, 45]))
    return {"fast_nms": [found[:, 4].tolist(), labels.tolist()], "inside": inside.sum((0, 1)).tolist()}


if __name__ == "__main__":
    without_operations()
    record = {"solov2": {f"{h}x{w}": solov2((h, w)) for h, w in SIZES}, "condinst": condinst(), "yolact": yolact()}
    RECORD.write_text(json.dumps(record) + "\n", encoding="utf-8")
