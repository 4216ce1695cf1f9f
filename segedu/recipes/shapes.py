"""Recipes of the methods that find objects from the top down, on drawn scenes of balls, squares and triangles."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skimage.measure import label, regionprops
from torch import Tensor, nn
from torch.utils.data import Dataset

from segedu.backbones.fpn import FPN, PoolLevel
from segedu.backbones.vgg import VGG
from segedu.datasets.shapes import CLASSES, Shapes
from segedu.detection import fast_rcnn, faster_rcnn, fcos, rcnn, retinanet, ssd, yolov1
from segedu.detection.fast_rcnn import TwoLayerHead
from segedu.instance import condinst, mask_rcnn, solov2, yolact
from segedu.layers.proposals import Sampling, add_ground_truth
from segedu.recipes.baselines import gaussian_otsu
from segedu.recipes.data import Sets
from segedu.recipes.recipe import Recipe
from segedu.unsupervised.selective_search import FAST, selective_search

Detections = dict[str, Tensor]
SIDES = (12.0, 17.0, 24.0)  # of anchors in pixels
SSD_SCALES = (0.22, 0.32, 0.42, 0.6)  # of default boxes, as parts of 64 pixels
LEAST_SCORE = 0.02  # of a detection that is ranked: precision at high recall needs the weak ones too
Example = tuple[Tensor, Detections]  # image (3, H, W) and its objects


def examples(samples: Dataset) -> list[Example]:
    """Image and objects of each sample, as plain tensors."""
    taken = (samples[i] for i in range(len(samples)))
    keys = ("boxes", "labels", "masks")
    return [(s["image"].as_subclass(Tensor), {key: s[key].as_subclass(Tensor) for key in keys}) for s in taken]


class Examples(Dataset):
    """Images and their objects in memory, turned and mirrored at random in one of the eight ways of a square."""

    def __init__(self, pairs: Sequence[Example]) -> None:
        self.pairs = list(pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Example:
        image, objects = self.pairs[index]
        masks, boxes = objects["masks"], {key: objects[key] for key in ("boxes", "proposals") if key in objects}
        across, down, swapped = torch.randint(0, 2, (3,)).bool().tolist()
        if across:
            image, masks = image.flip(-1), masks.flip(-1)
            boxes = {key: _mirrored(some, 0, image.shape[-1]) for key, some in boxes.items()}
        if down:
            image, masks = image.flip(-2), masks.flip(-2)
            boxes = {key: _mirrored(some, 1, image.shape[-2]) for key, some in boxes.items()}
        if swapped:
            image, masks = image.transpose(-1, -2), masks.transpose(-1, -2)
            boxes = {key: some[:, [1, 0, 3, 2]] for key, some in boxes.items()}
        return image, objects | boxes | {"masks": masks}


def _mirrored(boxes: Tensor, axis: int, length: int) -> Tensor:
    """Boxes xyxy, mirrored along x (axis 0) or y."""
    turned = boxes.clone()
    turned[:, axis], turned[:, axis + 2] = length - boxes[:, axis + 2], length - boxes[:, axis]
    return turned


def shapes_sets(seed: int, folder: Path | None) -> Sets:
    """2,048 scenes to train on and 64 others, 64 x 64."""
    train = Examples(examples(Shapes(2048, seed=2 * seed)))
    return Sets(train, {"val": {"all": examples(Shapes(64, seed=2 * seed + 1))}})


def proposed_sets(number: int, seed: int, folder: Path | None) -> Sets:
    """`number` scenes to train on with what selective search proposes, 0.03 CPU-seconds each; held-out as ever."""
    pairs = [
        (image, objects | {"proposals": selective_search(image, FAST)})
        for image, objects in examples(Shapes(number, seed=2 * seed))
    ]
    return Sets(Examples(pairs), {"val": {"all": examples(Shapes(64, seed=2 * seed + 1))}})


def stack(samples: Sequence[Example]) -> tuple[Tensor, list[Detections]]:
    """A batch of images of one size, and the list of their objects."""
    images, objects = zip(*samples, strict=True)
    return torch.stack(images), list(objects)


class OtsuComponents(nn.Module):
    """`gaussian_otsu`, then connected components; their class is that whose true masks have the nearest shape.

    A shape is two numbers: the share of its box that it fills, and the share of its convex hull. Scores say how near.
    """

    name = "Gaussian + Otsu + components"

    def __init__(self, train: Sequence[Example], num_classes: int, smallest: int = 20) -> None:
        super().__init__()
        self.smallest = smallest
        found: list[list[np.ndarray]] = [[] for _ in range(num_classes)]
        for _, objects in train:
            for mask, kind in zip(objects["masks"], objects["labels"].tolist(), strict=True):
                found[kind] += [shape for shape, _ in self._regions(mask.numpy().astype(int))]
        self.means = np.array([np.mean(shapes, axis=0) if shapes else (np.inf, np.inf) for shapes in found])

    def _regions(self, numbers: np.ndarray) -> list[tuple[np.ndarray, int]]:
        """Shape and number of each region that is large enough."""
        regions = (region for region in regionprops(numbers) if region.area >= self.smallest)
        return [(np.array([region.extent, region.solidity]), region.label) for region in regions]

    def forward(self, images: Tensor) -> list[Detections]:
        return [self._detect(image.cpu()) for image in images]

    def _detect(self, image: Tensor) -> Detections:
        numbers = label(gaussian_otsu(image).numpy(), connectivity=1)
        regions = self._regions(numbers)
        away = np.array([np.hypot(*(shape - self.means).T) for shape, _ in regions]).reshape(-1, len(self.means))
        masks = torch.from_numpy(np.array([numbers == n for _, n in regions]).reshape(-1, *numbers.shape))
        places = [mask.nonzero() for mask in masks]
        boxes = [[*p.amin(0).flip(0).tolist(), *(p.amax(0).flip(0) + 1).tolist()] for p in places]
        labels = torch.from_numpy(away.argmin(axis=1)) if len(away) else torch.zeros(0, dtype=torch.int64)
        scores = torch.from_numpy(np.exp(-away.min(axis=1, initial=np.inf))).float()
        return {"boxes": torch.tensor(boxes).reshape(-1, 4).float(), "labels": labels, "scores": scores, "masks": masks}


class WithTargets(nn.Module):
    """A two-stage network in training: the targets of a batch, which decide on its proposals, come with the images."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Tensor | dict[str, Any]) -> dict[str, Any]:
        return self.model(batch["images"], targets=batch["targets"]) if isinstance(batch, dict) else self.model(batch)


def stack_with_targets(samples: Sequence[Example]) -> tuple[dict[str, Any], list[Detections]]:
    """`stack`, the objects also beside the images."""
    images, targets = stack(samples)
    return {"images": images, "targets": targets}, targets


class WithProposals(nn.Module):
    """A network that judges boxes from elsewhere: with the images in training, from selective search afterwards."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Tensor | dict[str, Any]) -> dict[str, Any]:
        if isinstance(batch, dict):
            return self.model(batch["images"], proposals=batch["proposals"], targets=batch["targets"])
        return self.model(batch, proposals=[selective_search(image, FAST) for image in batch.cpu()])


def stack_with_proposals(samples: Sequence[Example]) -> tuple[dict[str, Any], list[Detections]]:
    """`stack_with_targets`, and the proposals."""
    batch, targets = stack_with_targets(samples)
    return batch | {"proposals": [target["proposals"] for target in targets]}, targets


@torch.no_grad()
def fit_machines(model: WithProposals, sets: Sets, number: int = 256) -> None:
    """The last part of R-CNN's training: machines and boxes, from the features of proposals of some scenes."""
    device = next(model.parameters()).device
    pairs, outputs = sets.train.pairs[:number], []
    model.eval()
    for image, objects in pairs:
        proposals = add_ground_truth([objects["proposals"]], [objects])
        outputs.append(model.model(image[None].to(device), proposals=proposals))
    together = {key: torch.cat([o[key] for o in outputs]) for key in rcnn.KEYS if torch.is_tensor(outputs[0][key])}
    lists = {key: sum([o[key] for o in outputs], []) for key in ("proposals", "sizes")}
    rcnn.fit_heads(model.model, together | lists, [objects for _, objects in pairs])


def features(stages: int = 3) -> VGG:
    """A narrow VGG; its batch normalisation is what a short training from random weights needs."""
    return VGG(((16,), (32,), (64, 64), (64,), (64,))[:stages], batch_norm=True)


def pyramid() -> FPN:
    """One level of stride 8: objects are as large as circles 15 to 26 pixels wide."""
    return FPN(features(), 48, levels=(2,))


def two_stages() -> dict[str, Any]:
    """Backbone, anchors and head of a narrow two-stage network."""
    # the last level is never pooled from: its anchors are for what is larger than usual
    return {
        "backbone": FPN(features(), 48, levels=(2,), extra=PoolLevel()),
        "num_classes": len(CLASSES),
        "rpn": faster_rcnn.RPN(48, sizes=(SIDES, (20.0, 28.0, 34.0))),
        "head": TwoLayerHead(48, size=5, hidden=128),
        "counts": (100, 50),
    }


def small_mask_rcnn() -> mask_rcnn.MaskRCNN:
    """A narrow Mask R-CNN, whose masks have 14 x 14 cells."""
    return mask_rcnn.MaskRCNN(**two_stages(), mask_head=mask_rcnn.MaskHead(48, size=7, depth=2))


def small_yolact() -> yolact.YOLACT:
    """A narrow YOLACT with 16 prototypes."""
    return yolact.YOLACT(
        features(4), len(CLASSES), 48, prototypes=16, scales=SIDES, ratios=(1.0, 0.5, 2.0), square=False
    )


def places() -> fcos.FCOS:
    """FCOS on that pyramid."""
    return fcos.FCOS(pyramid(), len(CLASSES), strides=(8,), offset=0.5, groups=8, depth=2)


def on_shapes(steps: int = 400, **row: Any) -> Recipe:
    """A row on the drawn scenes.

    Args:
        steps: of training.
        **row: what else differs between the methods.

    Returns:
        The row.
    """
    same = {"data": "shapes", "classes": CLASSES, "sets": shapes_sets, "collate": stack, "baseline": OtsuComponents}
    same |= {"batch_size": 16, "learning_rate": 3e-3, "cpu_minutes": 200 / 60, "gpu_minutes": 1.0}
    return Recipe(**(same | {"steps": steps} | row))


BOXES = (
    on_shapes(
        method="rcnn",
        build=lambda: WithProposals(
            rcnn.RCNN(rcnn.CropFeatures(features()), len(CLASSES), crop_size=32, context=4, sampling=Sampling(count=32))
        ),
        sets=partial(proposed_sets, 512),
        collate=stack_with_proposals,
        loss=rcnn.rcnn_loss,
        finish=fit_machines,
        detections=lambda outputs, size: rcnn.postprocess(outputs, score_threshold=-1.0),
        steps=300,
        batch_size=8,
        metric="box_ap50",
        target=0.6,
    ),
    on_shapes(
        method="fast_rcnn",
        build=lambda: WithProposals(
            fast_rcnn.FastRCNN(pyramid(), len(CLASSES), head=TwoLayerHead(48, size=5, hidden=128))
        ),
        sets=partial(proposed_sets, 1024),
        collate=stack_with_proposals,
        loss=fast_rcnn.fast_rcnn_loss,
        detections=lambda outputs, size: fast_rcnn.postprocess(outputs, score_threshold=LEAST_SCORE),
        metric="box_ap50",
        target=0.6,
    ),
    on_shapes(
        method="yolov1",
        build=lambda: yolov1.YOLOv1(features(), len(CLASSES), cells=8, hidden=256, dropout=0.0),
        loss=yolov1.yolov1_loss,
        detections=lambda outputs, size: yolov1.postprocess(outputs, score_threshold=LEAST_SCORE),
        steps=3500,  # all places share two large layers, which see few objects each
        metric="box_ap50",
        target=0.6,
    ),
    on_shapes(
        method="ssd",
        build=lambda: ssd.SSD(
            ssd.SSDFeatures(features(5), 64, ((32, 64, 2),)), len(CLASSES), SSD_SCALES, ((2,), (2,), (2,)), steps=None
        ),
        loss=ssd.ssd_loss,
        detections=lambda outputs, size: ssd.postprocess(outputs),
        metric="box_ap50",
        target=0.6,
    ),
    on_shapes(
        method="retinanet",
        build=lambda: retinanet.RetinaNet(pyramid(), len(CLASSES), (SIDES,), (0.5, 1.0, 2.0), norm_groups=8),
        loss=retinanet.retinanet_loss,
        detections=lambda outputs, size: retinanet.postprocess(outputs, score_threshold=LEAST_SCORE),
        steps=700,
        metric="box_ap50",
        target=0.75,
    ),
    on_shapes(
        method="fcos",
        build=places,
        loss=fcos.fcos_loss,
        detections=lambda outputs, size: fcos.postprocess(outputs, score_threshold=LEAST_SCORE),
        metric="box_ap50",
        target=0.75,
    ),
    on_shapes(
        method="faster_rcnn",
        build=lambda: WithTargets(faster_rcnn.FasterRCNN(**two_stages())),
        collate=stack_with_targets,
        loss=faster_rcnn.faster_rcnn_loss,
        detections=lambda outputs, size: faster_rcnn.postprocess(outputs),
        steps=300,
        metric="box_ap50",
        target=0.75,
    ),
)
MASKS = (
    on_shapes(
        method="mask_rcnn",
        build=lambda: WithTargets(small_mask_rcnn()),
        collate=stack_with_targets,
        loss=mask_rcnn.mask_rcnn_loss,
        detections=lambda outputs, size: mask_rcnn.postprocess(outputs),
        steps=300,
        metric="mask_ap50",
        target=0.6,
    ),
    on_shapes(
        method="yolact",
        build=small_yolact,
        loss=yolact.yolact_loss,
        detections=lambda outputs, size: yolact.postprocess(outputs),
        metric="mask_ap50",
        target=0.6,
    ),
    on_shapes(
        method="condinst",
        build=lambda: condinst.CondInst(places(), width=32, depth=2),
        loss=condinst.condinst_loss,
        detections=lambda outputs, size: condinst.postprocess(outputs, score_threshold=LEAST_SCORE),
        metric="mask_ap50",
        target=0.6,
    ),
    on_shapes(
        method="solov2",
        build=lambda: solov2.SOLOv2(
            FPN(features(), 32, levels=(1, 2)), len(CLASSES), (12, 10), 32, 2, 32, kernel_channels=16, groups=8
        ),
        loss=partial(solov2.solov2_loss, ranges=((1.0, 20.0), (14.0, 64.0))),
        detections=lambda outputs, size: solov2.postprocess(outputs),
        metric="mask_ap50",
        target=0.6,
    ),
)
SHAPES = (*BOXES, *MASKS)
