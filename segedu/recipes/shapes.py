"""Synthetic scenes of balls, squares and triangles for recipes: data, batches, a baseline, and the semantic recipe."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from skimage.measure import label, regionprops
from torch import Tensor, nn
from torch.utils.data import Dataset

from segedu.backbones.vgg import VGG
from segedu.datasets.shapes import CLASSES, Shapes
from segedu.recipes.baselines import Otsu, gaussian_otsu
from segedu.recipes.data import Pair, Pairs, flip, pairs_of, synthetic_sets
from segedu.recipes.loss import PixelsAndOverlap
from segedu.recipes.recipe import Recipe
from segedu.recipes.task import SEMANTIC
from segedu.semantic.unet import UNet

Instances = dict[str, Tensor]  # boxes (N, 4), labels (N,), masks (N, H, W), maybe proposals (P, 4) or scores (N,)
Example = tuple[Tensor, Instances]  # image (3, H, W) and its objects


def examples(samples: Dataset) -> list[Example]:
    """Image and objects of each sample, as plain tensors."""
    all_samples = (samples[i] for i in range(len(samples)))
    keys = ("boxes", "labels", "masks")
    return [(s["image"].as_subclass(Tensor), {key: s[key].as_subclass(Tensor) for key in keys}) for s in all_samples]


def draw_examples(number: int, seed: int) -> list[Example]:
    """Scenes of 64 x 64 pixels with their objects."""
    return examples(Shapes(number, seed=seed))


def draw_pairs(number: int, seed: int) -> list[Pair]:
    """Scenes of 64 x 64 pixels with their classes."""
    return pairs_of(Shapes(number, seed=seed))


class Examples(Dataset):
    """Images and their objects in memory. Each access applies one of the eight symmetries of a square at random."""

    def __init__(self, pairs: Sequence[Example]) -> None:
        self.pairs = list(pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Example:
        image, objects = self.pairs[index]
        masks, boxes = objects["masks"], {key: objects[key] for key in ("boxes", "proposals") if key in objects}
        across, down, transposed = torch.randint(0, 2, (3,)).bool().tolist()
        if across:
            image, masks = image.flip(-1), masks.flip(-1)
            boxes = {key: _mirrored(xyxy, 0, image.shape[-1]) for key, xyxy in boxes.items()}
        if down:
            image, masks = image.flip(-2), masks.flip(-2)
            boxes = {key: _mirrored(xyxy, 1, image.shape[-2]) for key, xyxy in boxes.items()}
        if transposed:
            image, masks = image.transpose(-1, -2), masks.transpose(-1, -2)
            boxes = {key: xyxy[:, [1, 0, 3, 2]] for key, xyxy in boxes.items()}
        return image, objects | boxes | {"masks": masks}


def _mirrored(boxes: Tensor, axis: int, length: int) -> Tensor:
    """Boxes xyxy, mirrored along x (axis 0) or y (axis 1) in an image of that length."""
    mirrored = boxes.clone()
    mirrored[:, axis], mirrored[:, axis + 2] = length - boxes[:, axis + 2], length - boxes[:, axis]
    return mirrored


def stack(samples: Sequence[Example]) -> tuple[Tensor, list[Instances]]:
    """A batch of images of one size, and the list of their objects."""
    images, objects = zip(*samples, strict=True)
    return torch.stack(images), list(objects)


def stack_with_targets(samples: Sequence[Example]) -> tuple[dict[str, Any], list[Instances]]:
    """`stack` for `WithTargets`: the model's input holds the objects as well."""
    images, targets = stack(samples)
    return {"images": images, "targets": targets}, targets


def stack_with_proposals(samples: Sequence[Example]) -> tuple[dict[str, Any], list[Instances]]:
    """`stack_with_targets`, and the proposals."""
    batch, targets = stack_with_targets(samples)
    return batch | {"proposals": [target["proposals"] for target in targets]}, targets


def features(stages: int = 3) -> VGG:
    """A narrow VGG. Short training from random weights needs its batch normalisation."""
    return VGG(((16,), (32,), (64, 64), (64,), (64,))[:stages], batch_norm=True)


class WithTargets(nn.Module):
    """A two-stage network. In training, its input has the targets, from which it samples proposals."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Tensor | dict[str, Any]) -> dict[str, Any]:
        return self.model(**batch) if isinstance(batch, dict) else self.model(batch)


class OtsuComponents(nn.Module):
    """`gaussian_otsu` and connected components, each with the class whose ground-truth masks have the nearest shape.

    A shape is described by two values, the shares of its bounding box and of its convex hull that it fills. The score
    of a component decreases with its distance to the mean shape of the class.
    """

    name = "Gaussian + Otsu + components"

    def __init__(self, train: Sequence[Example], num_classes: int, smallest: int = 20) -> None:
        super().__init__()
        self.smallest = smallest
        shapes: list[list[np.ndarray]] = [[] for _ in range(num_classes)]
        for _, objects in train:
            for mask, category in zip(objects["masks"], objects["labels"].tolist(), strict=True):
                shapes[category] += [shape for shape, _ in self._regions(mask.numpy().astype(int))]
        self.means = np.array([np.mean(some, axis=0) if some else (np.inf, np.inf) for some in shapes])

    def _regions(self, label_map: np.ndarray) -> list[tuple[np.ndarray, int]]:
        """Shape and label of each region that is large enough."""
        regions = (region for region in regionprops(label_map) if region.area >= self.smallest)
        return [(np.array([region.extent, region.solidity]), region.label) for region in regions]

    def forward(self, images: Tensor) -> list[Instances]:
        return [self._detect(image.cpu()) for image in images]

    def _detect(self, image: Tensor) -> Instances:
        label_map = label(gaussian_otsu(image).numpy(), connectivity=1)
        regions = self._regions(label_map)
        distances = np.array([np.hypot(*(shape - self.means).T) for shape, _ in regions]).reshape(-1, len(self.means))
        masks = torch.from_numpy(np.array([label_map == n for _, n in regions]).reshape(-1, *label_map.shape))
        pixels = [mask.nonzero() for mask in masks]
        boxes = [[*p.amin(0).flip(0).tolist(), *(p.amax(0).flip(0) + 1).tolist()] for p in pixels]
        labels = torch.from_numpy(distances.argmin(axis=1)) if len(distances) else torch.zeros(0, dtype=torch.int64)
        scores = torch.from_numpy(np.exp(-distances.min(axis=1, initial=np.inf))).float()
        return {"boxes": torch.tensor(boxes).reshape(-1, 4).float(), "labels": labels, "scores": scores, "masks": masks}


RECIPES = (
    Recipe(
        method="unet",
        data="shapes",
        task=SEMANTIC,
        classes=CLASSES,
        build=lambda: UNet(3, 4, base_channels=12, depth=3, padding=1),
        loss=PixelsAndOverlap(),
        sets=partial(synthetic_sets, draw=draw_pairs, train=256, held_out=64, dataset=partial(Pairs, change=flip)),
        baseline=Otsu,
        steps=600,
        batch_size=16,
        learning_rate=3e-3,
        metric="mean_iou",
        target=0.80,
        cpu_minutes=5,
        gpu_minutes=0.5,
    ),
)
