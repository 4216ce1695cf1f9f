"""Detectors beside torchvision's with the same weights, from images to boxes, and the operations that they use.

`run.py` times the pairs; `tests/detection/test_speed.py` has the limits. Each pair must first give the same boxes.
torchvision's RoIAlign, RoIPool and NMS are compiled C++, ours are readable Python: their ratios have no limit, but the
networks that use them have one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torchvision
import torchvision.models.detection as theirs
from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from randomise import randomise

SIZE = (480, 640)
SAME_BOXES = 1e-2  # pixels


@dataclass(frozen=True)
class Pair:
    """Two functions without arguments that do the same work, and the upper limit of the ratio of their times, if there is one."""

    name: str
    ours: Callable[[], object]
    peer: Callable[[], object]
    bar: float | None = None


def images(count: int = 1) -> Tensor:
    """Random images with large spots: (B, 3, 480, 640)."""
    spots = torch.rand(count, 3, 15, 20, generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(spots, SIZE, mode="bicubic").clamp(0, 1)


# --- networks ---------------------------------------------------------------------------------------------------


def torchvision_net(name: str) -> nn.Module:
    """torchvision's network as with weights for COCO, with frozen normalisation and random weights, in float64.

    Its builders freeze the normalisation only if weights are downloaded.
    """
    torch.manual_seed(0)
    if name == "ssd300_vgg16":
        net = theirs.ssd300_vgg16(weights=None, weights_backbone=None)
    else:
        body = torchvision.models.resnet50(norm_layer=partial(torchvision.ops.FrozenBatchNorm2d, eps=0.0))
        sizes = {"min_size": min(SIZE), "max_size": max(SIZE)}
        if name == "retinanet_resnet50_fpn":
            extra = {"returned_layers": [2, 3, 4], "extra_blocks": LastLevelP6P7(256, 256)}
            net = theirs.RetinaNet(_resnet_fpn_extractor(body, 5, **extra), 91, **sizes)
        else:
            build = theirs.MaskRCNN if name.startswith("mask") else theirs.FasterRCNN
            net = build(_resnet_fpn_extractor(body, 5), 91, **sizes)
    with torch.no_grad():
        for key, weight in randomise(net).named_parameters():
            if "bbox" in key:  # boxes that move by a part of their sides, not by e to the fifth
                weight *= 0.3
    return net


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """Raise if two networks do not predict the same boxes."""
    found, truth = ours["boxes"], theirs["boxes"]
    assert len(found) == len(truth) >= 20, (len(found), len(truth))
    near = (torch.cdist(found, truth, p=float("inf")) < SAME_BOXES).any(dim=1)
    assert near.float().mean() > 0.98, near.float().mean()  # torchvision's constants are those of float32


def network(name: str, build: Callable[[], nn.Module], detect: Callable[[nn.Module, Tensor], list]) -> Pair:
    """One image through both networks, to boxes in pixels of the image."""
    peer, ours = torchvision_net(name), build().double().eval()
    ours.load_state_dict(peer.state_dict(), strict=True)

    @torch.inference_mode()
    def run_ours(batch: Tensor) -> dict[str, Tensor]:
        return detect(ours, batch)[0]

    @torch.inference_mode()
    def run_theirs(batch: Tensor) -> dict[str, Tensor]:
        return peer(list(batch))[0]

    batch = images()
    same(run_ours(batch.double()), run_theirs(batch.double()))
    ours.float(), peer.float()
    return Pair(f"{name} / torchvision", partial(run_ours, batch), partial(run_theirs, batch), 1.10)


def two_stage(masks: bool) -> Pair:
    """Faster or Mask R-CNN on ResNet-50."""
    from segedu.detection import faster_rcnn
    from segedu.instance import mask_rcnn
    from segedu.layers.image_batch import resize_and_pad
    from segedu.layers.normalize import IMAGENET_MEAN

    module, kind = (mask_rcnn, "mask_rcnn") if masks else (faster_rcnn, "faster_rcnn")

    def detect(net: nn.Module, batch: Tensor) -> list[dict[str, Tensor]]:
        return module.postprocess(net(*resize_and_pad(list(batch), min(SIZE), max(SIZE), fill=IMAGENET_MEAN)))

    build = getattr(module, f"{kind}_resnet50_fpn")
    return network(f"{kind.replace('_', '')}_resnet50_fpn", build, detect)


def retinanet() -> Pair:
    """RetinaNet on ResNet-50."""
    from segedu.detection import retinanet
    from segedu.layers.image_batch import resize_and_pad
    from segedu.layers.normalize import IMAGENET_MEAN

    def detect(net: nn.Module, batch: Tensor) -> list[dict[str, Tensor]]:
        return retinanet.postprocess(net(*resize_and_pad(list(batch), min(SIZE), max(SIZE), fill=IMAGENET_MEAN)))

    return network("retinanet_resnet50_fpn", retinanet.retinanet_resnet50_fpn, detect)


def ssd() -> Pair:
    """SSD300 on VGG16."""
    from segedu.detection import ssd
    from segedu.layers.image_batch import resize_boxes

    def detect(net: nn.Module, batch: Tensor) -> list[dict[str, Tensor]]:
        squares = nn.functional.interpolate(batch, (300, 300), mode="bilinear", align_corners=False)
        found = ssd.postprocess(net(squares))
        return [f | {"boxes": resize_boxes(f["boxes"], (300, 300), SIZE)} for f in found]

    return network("ssd300_vgg16", ssd.ssd300_vgg16, detect)


# --- operations -------------------------------------------------------------------------------------------------


def boxes(count: int, size: tuple[int, int] = SIZE) -> Tensor:
    """Boxes of 16 to 200 pixels, many overlapping, as a network predicts them."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.rand(count // 20 + 1, 2, generator=generator).repeat(20, 1)[:count] * torch.tensor(size[::-1])
    centres = centres + 8 * torch.randn(count, 2, generator=generator)
    sides = 16 * (200 / 16) ** torch.rand(count, 2, generator=generator)
    found = torch.cat([centres - sides / 2, centres + sides / 2], dim=1)
    return torch.minimum(found.clamp(min=0), torch.tensor([size[1], size[0]] * 2).float())


def pooling(name: str, gradient: bool) -> Pair:
    """RoIAlign or RoIPool of 256 boxes on 256 channels of stride 8."""
    from segedu.ops.roi_align import roi_align
    from segedu.ops.roi_pool import roi_pool

    features = torch.rand(1, 256, 60, 80, generator=torch.Generator().manual_seed(0)).requires_grad_(gradient)
    regions, options = [boxes(256)], {"output_size": (7, 7), "spatial_scale": 1 / 8}
    if name == "roi_align":
        options |= {"sampling_ratio": 2, "aligned": True}
    ours = partial({"roi_align": roi_align, "roi_pool": roi_pool}[name], features, regions, **options)
    theirs = partial(getattr(torchvision.ops, name), features, regions, **options)
    torch.testing.assert_close(ours(), theirs(), rtol=1e-4, atol=1e-5)
    both = (ours, theirs)
    if gradient:
        both = tuple(lambda pool=pool: torch.autograd.grad(pool().sum(), features) for pool in both)
    return Pair(f"{name}, 256 boxes{', with gradient' if gradient else ''} / torchvision's C++", *both)


def suppression() -> Pair:
    """Greedy NMS."""
    from segedu.ops.nms import nms

    candidates = boxes(1000), torch.rand(1000, generator=torch.Generator().manual_seed(1))
    ours, theirs = partial(nms, *candidates, 0.5), partial(torchvision.ops.nms, *candidates, 0.5)
    assert torch.equal(ours(), theirs())
    return Pair("nms, 1,000 boxes / torchvision's C++", ours, theirs)


NETWORKS = {
    "faster_rcnn": partial(two_stage, masks=False),
    "mask_rcnn": partial(two_stage, masks=True),
    "retinanet": retinanet,
    "ssd": ssd,
}
OPERATIONS = [
    suppression,
    *(partial(pooling, name, gradient) for name in ("roi_align", "roi_pool") for gradient in (False, True)),
]


def network_pairs() -> Iterator[tuple[str, Callable, Callable]]:
    """Yield name, ours, peer, as in `run.py`."""
    for make in NETWORKS.values():
        pair = make()
        yield f"{pair.name} (at most {pair.bar})", pair.ours, pair.peer


def operation_pairs() -> Iterator[tuple[str, Callable, Callable]]:
    """As `network_pairs`."""
    for make in OPERATIONS:
        pair = make()
        yield pair.name, pair.ours, pair.peer
