"""Panoptic recipes on street scenes: four classes of things and six of stuff."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from segedu.backbones.fpn import FPN, PoolLevel
from segedu.datasets.scenes import Scenes
from segedu.datasets.street import CLASSES, THINGS, draw_street
from segedu.detection.fast_rcnn import TwoLayerHead
from segedu.detection.faster_rcnn import RPN
from segedu.instance.mask_rcnn import MaskHead
from segedu.ops.masks import connected_components
from segedu.panoptic.panoptic_fpn import PanopticFPN, SemanticBranch, panoptic_fpn_loss, postprocess, to_network_classes
from segedu.recipes.baselines import WindowForest
from segedu.recipes.data import synthetic_sets
from segedu.recipes.recipe import Recipe, quick_layout
from segedu.recipes.shapes import WithTargets
from segedu.recipes.street_vgg import street_vgg
from segedu.recipes.task import PANOPTIC

STUFF = tuple(category for category in range(len(CLASSES)) if category not in THINGS)
STUFF_AREA = 205  # pixels of 96 x 160: the same share of the image as 4096 pixels of a photograph of 640 x 480
THING_AREA = 16  # pixels: no thing of `street` is smaller
KEYS = ("boxes", "labels", "masks", "semantic", "panoptic_seg", "segments_info")
Example = tuple[Tensor, dict[str, Any]]  # image (3, H, W) and its ground truth in every form


def street_examples(number: int, seed: int) -> list[Example]:
    """Street scenes of 96 x 160, with the 8 bits per channel of a camera, and their ground truth."""
    dataset = Scenes(draw_street, number, seed=seed)
    scenes = (dataset[i] for i in range(number))
    return [((scene["image"] * 255).round() / 255, {key: scene[key] for key in KEYS}) for scene in scenes]


class Mirrored(Dataset):
    """Images and their ground truth in memory. Each access mirrors left to right at random: a street stays upright."""

    def __init__(self, pairs: Sequence[Example]) -> None:
        self.pairs = list(pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Example:
        image, target = self.pairs[index]
        if torch.rand(()) < 0.5:
            return image, target
        boxes = target["boxes"].clone()
        boxes[:, [0, 2]] = image.shape[-1] - target["boxes"][:, [2, 0]]
        maps = {key: target[key].flip(-1) for key in ("masks", "semantic")}
        return image.flip(-1), {**target, "boxes": boxes, **maps}


class ForestComponents(nn.Module):
    """`WindowForest`: each connected component of a thing class is one segment, and so is each stuff class."""

    name = "Forest on 5x5 windows + components"

    def __init__(self, train: Sequence[Example], num_classes: int) -> None:
        super().__init__()
        self.forest = WindowForest([(image, target["semantic"]) for image, target in train[:90]], num_classes)

    def forward(self, images: Tensor) -> list[dict[str, Any]]:
        return [self._segments(labels) for labels in self.forest(images).argmax(dim=1)]

    def _segments(self, labels: Tensor) -> dict[str, Any]:
        seg, info = torch.zeros(labels.shape, dtype=torch.int32), []
        for category in labels.unique().tolist():
            mask, isthing = labels == category, category in THINGS
            components = connected_components(mask)[0] if isthing else mask.int()
            min_area = THING_AREA if isthing else STUFF_AREA
            for component in range(1, int(components.max()) + 1):
                if int((components == component).sum()) >= min_area:
                    info.append({"id": len(info) + 1, "category_id": category, "isthing": isthing})
                    seg[components == component] = len(info)
        return {"panoptic_seg": seg, "segments_info": info}


def stack_with_targets(samples: Sequence[Example]) -> tuple[dict[str, Any], list[dict[str, Tensor]]]:
    """A batch for `WithTargets`: images and targets with the network's class indices, and the targets for the loss."""
    images, ground_truth = zip(*samples, strict=True)
    targets = [to_network_classes({key: target[key] for key in KEYS[:4]}, THINGS, STUFF) for target in ground_truth]
    return {"images": torch.stack(images), "targets": targets}, targets


def small_panoptic_fpn() -> PanopticFPN:
    """A narrow Panoptic FPN on four stages of the pretrained VGG."""
    return PanopticFPN(
        FPN(street_vgg(4), 48, levels=(1, 2, 3), extra=PoolLevel()),
        1 + len(THINGS),
        len(STUFF),
        SemanticBranch(48, 1 + len(STUFF), levels=3, width=48, groups=8),
        rpn=RPN(48, sizes=(14.0, 24.0, 40.0, 70.0), ratios=(0.5, 1.0, 2.0)),
        head=TwoLayerHead(48, size=5, hidden=128),
        mask_head=MaskHead(48, size=7, depth=2),
        max_proposals=(100, 50),
    )


RECIPES = (
    Recipe(
        method="panoptic_fpn",
        data="street",
        task=PANOPTIC,
        classes=CLASSES,
        build=lambda: quick_layout(WithTargets(small_panoptic_fpn())),
        loss=panoptic_fpn_loss,
        sets=partial(synthetic_sets, draw=street_examples, train=1024, held_out=64, dataset=Mirrored),
        collate=stack_with_targets,
        postprocess=lambda outputs, size: [
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
