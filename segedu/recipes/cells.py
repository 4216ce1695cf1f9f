"""Recipes of the methods that find cells, on drawn cells and on real nuclei."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from segedu.backbones.erfnet import ERFNetEncoder
from segedu.backbones.fpn import FPN, PoolLevel
from segedu.backbones.stardist_unet import StarDistUNet
from segedu.backbones.vgg import VGG
from segedu.datasets.cells import Cells
from segedu.detection.fast_rcnn import TwoLayerHead
from segedu.detection.faster_rcnn import RPN
from segedu.instance import mask_rcnn, signed_distance, spatial_embedding, stardist
from segedu.instance.cellpose import cellpose
from segedu.layers.proposals import Sampling
from segedu.ops.masks import boxes_from_masks, label_map_from_masks, masks_from_label_map
from segedu.recipes.baselines import OtsuWatershed
from segedu.recipes.data import Pair, Sets, checked_windows, crop_flip_gamma, even_out, nuclei_images
from segedu.recipes.recipe import Recipe, quick_layout
from segedu.recipes.shapes import WithTargets, stack_with_targets
from segedu.semantic.res_unet import res_unet
from segedu.semantic.unet import UNet

Targets = Callable[[Tensor], dict[str, Tensor]]  # label map (H, W) -> what a network is to predict
SLIVER = 8  # pixels
RADIUS = 7.0  # pixels: about the mean distance from inside a nucleus to its border


class Objects(Dataset):
    """Images and label maps in memory, changed anew each time; the targets are made of what came out."""

    def __init__(self, pairs: Sequence[Pair], change: Callable[[Tensor, Tensor], Pair], targets: Targets) -> None:
        self.pairs, self.change, self.targets = list(pairs), change, targets

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        image, label_map = self.change(*self.pairs[index])
        return image, self.targets(label_map)


def objects_of(samples: Dataset, change: Callable[[Tensor], Tensor] = lambda image: image) -> list[Pair]:
    """Image and label map of each sample, as plain tensors, the image changed once."""
    taken = (samples[i] for i in range(len(samples)))
    plain = ((sample["image"].as_subclass(Tensor), sample["label_map"].as_subclass(Tensor)) for sample in taken)
    return [(change(image), label_map) for image, label_map in plain]


def cells_sets(seed: int, folder: Path | None, targets: Targets) -> Sets:
    """64 scenes to train on, 128 x 128, in windows of 64 x 64, and 32 others: a window costs a quarter of a scene."""
    train = objects_of(Cells(64, seed=2 * seed))
    held_out = {"val": {"all": objects_of(Cells(32, seed=2 * seed + 1))}}
    return Sets(Objects(train, partial(crop_flip_gamma, size=64), targets), held_out)


def nuclei_sets(seed: int, folder: Path | None, targets: Targets) -> Sets:
    """The split of the folder's index.csv. Near-duplicates across its splits are likely."""
    train, held_out = nuclei_images(folder)
    pairs = {split: {domain: objects_of(part, even_out) for domain, part in group.items()} for split, group in held_out}
    return Sets(Objects(checked_windows(train, objects_of(train, even_out)), crop_flip_gamma, targets), pairs)


def boxes_and_masks(label_map: Tensor) -> dict[str, Tensor]:
    """The objects of a label map, all of class 1, but slivers that the edge of a window leaves over."""
    masks = masks_from_label_map(label_map)
    masks = masks[masks.sum(dim=(1, 2)) >= SLIVER]
    return {"boxes": boxes_from_masks(masks), "labels": torch.ones(len(masks), dtype=torch.int64), "masks": masks}


def nuclei_mask_rcnn() -> nn.Module:
    """Mask R-CNN on a narrow VGG, from stride 4 on: half of the nuclei are less than 13 pixels wide.

    Anchors go from 6 to 100 pixels. All boxes are pooled from the finest level, and masks have 14 x 14 cells.
    """
    backbone = VGG(((16,), (32, 32), (64, 64), (96, 96), (96,))[:4], batch_norm=True)
    return WithTargets(
        mask_rcnn.MaskRCNN(
            FPN(backbone, 64, levels=(1, 2, 3), extra=PoolLevel()),
            num_classes=2,
            rpn=RPN(64, sizes=((6.0, 11.0), (16.0, 24.0), (34.0, 50.0), (70.0, 100.0)), ratios=(0.6, 1.0, 1.7)),
            head=TwoLayerHead(64, size=7, hidden=256),
            mask_head=mask_rcnn.MaskHead(64, size=7, depth=2),
            sampling=Sampling(count=64, positive_share=0.5, high=0.5),
            counts=(300, 1000),
            detect={"score_threshold": 0.5, "iou_threshold": 0.4, "count": 500},
        )
    )


def paint(outputs: dict[str, Any], size: tuple[int, int]) -> list[Tensor]:
    """The masks of each image in one label map: pixels that several want go to the surest, and rims go."""
    return [_without_rims(found["masks"], found["scores"]) for found in mask_rcnn.postprocess(outputs)]


def _without_rims(masks: Tensor, scores: Tensor) -> Tensor:
    """A second mask of a nucleus, slightly larger, leaves a rim: less than half of it is in sight, and it goes."""
    label_map = label_map_from_masks(masks, scores)
    in_sight = label_map.flatten().long().bincount(minlength=len(masks) + 1)[1:]  # (N,) pixels
    whole = 2 * in_sight >= masks.sum(dim=(1, 2))
    return label_map_from_masks(masks[whole], scores[whole])


def star_network(channels: int) -> nn.Module:
    """StarDist with batch normalisation, its distances starting at a nucleus of usual size.

    StarDist's own settings train 40,000 steps without either. In a few hundred, the plain network learns no shape.
    """
    model = stardist.StarDist(StarDistUNet(3, channels, batch_norm=True), width=4 * channels)
    nn.init.constant_(model.dist.bias, RADIUS)
    return model


def embedding_network(widths: Sequence[int], dilations: Sequence[Sequence[int]], unit: float) -> nn.Module:
    """ERFNet shorter than the paper's and without dropout, for a short training."""
    return spatial_embedding.SpatialEmbedding(ERFNetEncoder(3, widths, dilations, (0.0, 0.0)), unit=unit)


def embedding_verbs(unit: float) -> dict[str, Any]:
    """Loss and postprocess of a row whose offsets are in units of so many pixels."""
    return {
        "loss": partial(spatial_embedding.spatial_embedding_loss, unit=unit, foreground_weight=10.0),
        # without these, the rim that an object's own Gaussian leaves over becomes an object
        "label_maps": lambda outputs, size: spatial_embedding.postprocess(
            outputs, unit=unit, min_pixels=15, min_free=0.5
        ),
    }


def on_cells(
    method: str, targets: Targets, verbs: dict[str, Any], drawn: dict[str, Any], real: dict[str, Any]
) -> tuple[Recipe, Recipe]:
    """The rows of a method: on drawn cells, with a narrow network, and on real nuclei, with a wider one.

    Args:
        method: its name.
        targets: of one label map.
        verbs: `loss` of outputs and a stack of targets; `label_maps` of outputs and the images' size.
        drawn: `build`, `steps`, `learning_rate` and `target` on drawn cells, and whatever else is to differ.
        real: the same on the nuclei.

    Returns:
        Two rows.
    """
    same: dict[str, Any] = {
        "method": method,
        "classes": ("background", "nucleus"),
        "baseline": OtsuWatershed,
        "batch_size": 8,
        "metric": "instance_accuracy",
        **verbs,
    }
    on_drawn = {"data": "cells", "sets": partial(cells_sets, targets=targets), "cpu_minutes": 1, "gpu_minutes": 0.5}
    on_real = {"data": "nuclei", "sets": partial(nuclei_sets, targets=targets), "cpu_minutes": 60, "gpu_minutes": 5}
    return Recipe(**(same | on_drawn | drawn)), Recipe(**(same | on_real | real))


CELLS = (
    *on_cells(
        "signed_distance",
        signed_distance.signed_distance_targets,
        {
            "loss": signed_distance.signed_distance_loss,
            "label_maps": lambda outputs, size: signed_distance.postprocess(outputs),
        },
        drawn={
            # a short training needs batch normalisation, which the plain U-Net does not have
            "build": lambda: quick_layout(signed_distance.SignedDistance(res_unet(3, 1, [8, 16, 32, 64]))),
            "steps": 200,
            "learning_rate": 1e-2,
            "target": 0.75,
        },
        real={
            "build": lambda: quick_layout(signed_distance.SignedDistance(UNet(3, 1, 16, depth=3, padding=1))),
            "steps": 2000,
            "learning_rate": 5e-3,
            "target": 0.72,
        },
    ),
    *on_cells(
        "stardist",
        stardist.stardist_targets,
        {"loss": stardist.stardist_loss, "label_maps": stardist.postprocess},
        drawn={"build": lambda: quick_layout(star_network(8)), "steps": 150, "learning_rate": 1e-2, "target": 0.7},
        real={"build": lambda: quick_layout(star_network(32)), "steps": 2500, "learning_rate": 3e-3, "target": 0.78},
    ),
    *on_cells(
        "cellpose",
        cellpose.cellpose_targets,
        {"loss": cellpose.cellpose_loss, "label_maps": lambda outputs, size: cellpose.postprocess(outputs)},
        drawn={
            "build": lambda: quick_layout(cellpose.Cellpose(3, [8, 16, 32, 64])),
            "steps": 100,
            "learning_rate": 1e-2,
            "target": 0.9,
        },
        real={
            "build": lambda: quick_layout(cellpose.Cellpose(3, [16, 32, 64, 128])),
            "steps": 2000,
            "learning_rate": 1e-3,
            "target": 0.78,
        },
    ),
    *on_cells(
        "spatial_embedding",
        spatial_embedding.spatial_embedding_targets,
        {},
        drawn={
            "build": lambda: quick_layout(embedding_network((12, 24, 48), ((1, 1), (1, 2, 4)), unit=128.0)),
            **embedding_verbs(128.0),
            "steps": 150,
            "learning_rate": 1e-2,
            "target": 0.7,
        },
        real={
            "build": lambda: quick_layout(embedding_network((16, 64, 128), ((1, 1, 1), (2, 4, 8, 2)), unit=64.0)),
            **embedding_verbs(64.0),
            "steps": 1500,
            "learning_rate": 3e-3,
            "target": 0.72,
        },
    ),
    Recipe(
        method="mask_rcnn",
        data="nuclei",
        classes=("background", "nucleus"),
        build=nuclei_mask_rcnn,
        loss=mask_rcnn.mask_rcnn_loss,
        label_maps=paint,
        sets=partial(nuclei_sets, targets=boxes_and_masks),
        collate=stack_with_targets,
        baseline=OtsuWatershed,
        steps=1600,
        batch_size=8,
        learning_rate=3e-3,
        metric="instance_accuracy",
        target=0.72,
        cpu_minutes=60,
        gpu_minutes=5,
    ),
)
