"""Recipes of panoptic methods on drawn streets: four kinds of things, six of stuff."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from segedu.backbones.fpn import FPN, PoolLevel
from segedu.backbones.vgg import VGG
from segedu.datasets.scenes import Scenes
from segedu.datasets.street import CLASSES, THINGS, draw_street
from segedu.detection.fast_rcnn import TwoLayerHead
from segedu.detection.faster_rcnn import RPN
from segedu.instance.mask_rcnn import MaskHead
from segedu.ops.masks import connected_components
from segedu.panoptic.panoptic_fpn import PanopticFPN, SemanticBranch, panoptic_fpn_loss, postprocess, to_network_classes
from segedu.recipes.baselines import WindowForest
from segedu.recipes.data import Sets
from segedu.recipes.recipe import Recipe, quick_layout
from segedu.recipes.shapes import WithTargets
from segedu.weights import load
from segedu.weights.catalogue import STREET_VGG_STAGES

STUFF = tuple(category for category in range(len(CLASSES)) if category not in THINGS)
STUFF_AREA = 205  # pixels of 96 x 160: as large a share of the image as 4096 are of a photograph of 640 x 480
SMALLEST = 16  # pixels of a thing: `street` has none below
KEYS = ("boxes", "labels", "masks", "semantic", "panoptic_seg", "segments_info")
Example = tuple[Tensor, dict[str, Any]]  # image (3, H, W) and every kind of truth about it


def street_examples(number: int, seed: int) -> list[Example]:
    """Images in 8 bits a channel, as a camera gives them, and their truth."""
    scenes = Scenes(draw_street, number, seed=seed)
    taken = (scenes[i] for i in range(number))
    return [((s["image"] * 255).round() / 255, {key: s[key] for key in KEYS}) for s in taken]


class Mirrored(Dataset):
    """Images and their truth for training, mirrored left to right at random: a street stays upright."""

    def __init__(self, pairs: Sequence[Example]) -> None:
        self.pairs = list(pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Example:
        image, truth = self.pairs[index]
        if torch.rand(()) < 0.5:
            return image, truth
        boxes = truth["boxes"].clone()
        boxes[:, [0, 2]] = image.shape[-1] - truth["boxes"][:, [2, 0]]
        return image.flip(-1), {**truth, "boxes": boxes, **{key: truth[key].flip(-1) for key in ("masks", "semantic")}}


def street_sets(seed: int, folder: Path | None) -> Sets:
    """1,024 scenes to train on and 64 others, 96 x 160."""
    train = Mirrored(street_examples(1024, 2 * seed))
    return Sets(train, {"val": {"all": street_examples(64, 2 * seed + 1)}})


class ForestComponents(nn.Module):
    """`WindowForest`, in which connected pixels of a thing are one thing, and those of stuff one segment."""

    name = "Forest on 5x5 windows + components"

    def __init__(self, train: Sequence[Example], num_classes: int) -> None:
        super().__init__()
        self.forest = WindowForest([(image, truth["semantic"]) for image, truth in train[:90]], num_classes)

    def forward(self, images: Tensor) -> list[dict[str, Any]]:
        return [self._segments(labels) for labels in self.forest(images).argmax(dim=1)]

    def _segments(self, labels: Tensor) -> dict[str, Any]:
        seg, info = torch.zeros(labels.shape, dtype=torch.int32), []
        for category in labels.unique().tolist():
            mask, isthing = labels == category, category in THINGS
            numbers = connected_components(mask)[0] if isthing else mask.int()
            smallest = SMALLEST if isthing else STUFF_AREA
            for number in range(1, int(numbers.max()) + 1):
                if int((numbers == number).sum()) >= smallest:
                    info.append({"id": len(info) + 1, "category_id": category, "isthing": isthing})
                    seg[numbers == number] = len(info)
        return {"panoptic_seg": seg, "segments_info": info}


def stack_with_targets(samples: Sequence[Example]) -> tuple[dict[str, Any], list[dict[str, Tensor]]]:
    """A batch of images and their targets in the network's numbers; the targets once more."""
    images, truths = zip(*samples, strict=True)
    targets = [to_network_classes({key: truth[key] for key in KEYS[:4]}, THINGS, STUFF) for truth in truths]
    return {"images": torch.stack(images), "targets": targets}, targets


def small_panoptic_fpn() -> PanopticFPN:
    """A narrow Panoptic FPN on the small VGG that named windows of other streets, as papers start from ImageNet's."""
    body = VGG(STREET_VGG_STAGES[:4], batch_norm=True)
    whole = load("street_vgg").state_dict()
    body.load_state_dict({key: whole[key] for key in body.state_dict()})
    return PanopticFPN(
        FPN(body, 48, levels=(1, 2, 3), extra=PoolLevel()),
        1 + len(THINGS),
        len(STUFF),
        SemanticBranch(48, 1 + len(STUFF), levels=3, width=48, groups=8),
        rpn=RPN(48, sizes=(14.0, 24.0, 40.0, 70.0), ratios=(0.5, 1.0, 2.0)),
        head=TwoLayerHead(48, size=5, hidden=128),
        mask_head=MaskHead(48, size=7, depth=2),
        counts=(100, 50),
    )


PANOPTIC = (
    Recipe(
        method="panoptic_fpn",
        data="street",
        classes=CLASSES,
        build=lambda: quick_layout(WithTargets(small_panoptic_fpn())),
        loss=panoptic_fpn_loss,
        sets=street_sets,
        collate=stack_with_targets,
        panoptic=lambda outputs, size: [
            {"panoptic_seg": seg, "segments_info": info}
            for seg, info in postprocess(outputs, THINGS, STUFF, stuff_area=STUFF_AREA)
        ],
        baseline=ForestComponents,
        steps=800,
        batch_size=8,
        learning_rate=3e-3,
        metric="pq",
        target=0.6,
        cpu_minutes=5,
        gpu_minutes=1,
    ),
)
