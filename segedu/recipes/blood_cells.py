"""Detection recipes on real microscope images of blood: red cells, white cells and platelets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from skimage.filters import gaussian, threshold_otsu
from skimage.measure import label, regionprops
from torch import Tensor, nn
from torch.utils.data import Dataset

from segedu.backbones.fpn import FPN
from segedu.backbones.vgg import VGG
from segedu.datasets.bccd import BCCD, CLASSES
from segedu.detection import fcos, retinanet
from segedu.ops.boxes import box_area, clip_boxes
from segedu.recipes.baselines import gaussian_otsu
from segedu.recipes.data import Sets, random_window
from segedu.recipes.recipe import Recipe, quick_layout
from segedu.recipes.shapes import stack
from segedu.recipes.task import DETECTION

Boxes = dict[str, Tensor]  # boxes (N, 4) and labels (N,), in predictions also scores (N,)
BoxExample = tuple[Tensor, Boxes]
WINDOW = 192  # pixels: the side of the training windows
SCALES = (0.85, 1.35)  # by which a training image is resized; a window fits into the smallest one
VISIBLE = 0.4  # fraction of a box inside a window, below which the box is dropped
LOWEST_SCORE = 0.02  # of a detection that is ranked
ANCHOR_SIDES = ((16.0, 23.0), (43.0, 56.0), (78.0, 108.0))  # pixels: of platelets, red cells and white cells
RATIOS = (0.7, 1.0, 1.4)  # cells at the border of an image have oblong boxes


# --- data ---------------------------------------------------------------------------------------------------------


class BloodWindows(Dataset):
    """Random windows of images in memory, resized, flipped and with changed colours."""

    def __init__(self, pairs: Sequence[BoxExample]) -> None:
        self.pairs = list(pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> BoxExample:
        image, objects = self.pairs[index]
        factor = float(torch.empty(()).uniform_(*SCALES))
        image, objects = resize(image, objects, factor)
        image, objects = crop(image, objects, random_window(image, (WINDOW, WINDOW)))
        return change_colours(image), objects


def resize(image: Tensor, objects: Boxes, factor: float) -> BoxExample:
    """Resize an image (3, H, W) and its boxes by about `factor`."""
    height, width = image.shape[1:]
    size = (round(height * factor), round(width * factor))
    scale = torch.tensor([size[1] / width, size[0] / height] * 2)
    resized = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
    return resized, objects | {"boxes": objects["boxes"] * scale}


def crop(image: Tensor, objects: Boxes, window: tuple) -> BoxExample:
    """Crop a window of `random_window` and apply one of the eight symmetries of a square at random.

    A box of which less than `VISIBLE` is inside the window is dropped, and the others are clipped.
    """
    rows, columns = window[1:]
    boxes, side = objects["boxes"] - torch.tensor([columns.start, rows.start] * 2), rows.stop - rows.start
    clipped = clip_boxes(boxes, (side, side))
    keep = box_area(clipped) >= VISIBLE * box_area(boxes)
    clipped, image = clipped[keep], image[window]
    across, down, transposed = torch.randint(0, 2, (3,)).bool().tolist()
    if across:
        image, clipped = image.flip(-1), clipped[:, [2, 1, 0, 3]] * torch.tensor([-1.0, 1, -1, 1])
        clipped = clipped + torch.tensor([side, 0.0, side, 0])
    if down:
        image, clipped = image.flip(-2), clipped[:, [0, 3, 2, 1]] * torch.tensor([1.0, -1, 1, -1])
        clipped = clipped + torch.tensor([0.0, side, 0, side])
    if transposed:
        image, clipped = image.transpose(-1, -2), clipped[:, [1, 0, 3, 2]]
    return image, {"boxes": clipped, "labels": objects["labels"][keep]}


def change_colours(image: Tensor) -> Tensor:
    """Raise the image to a random power, and multiply each channel by a random factor near 1."""
    power = torch.empty(()).uniform_(-0.3, 0.3).exp()
    return (image**power * torch.empty(3, 1, 1).uniform_(0.9, 1.1)).clamp(0, 1)


def blood_sets(seed: int, folder: Path | None) -> Sets:
    """The splits of the folder; they do not depend on the seed."""
    pairs = {split: box_examples(BCCD(folder, split)) for split in ("train", "val", "test")}
    return Sets(BloodWindows(pairs["train"]), {split: {"all": pairs[split]} for split in ("val", "test")})


def box_examples(samples: Dataset) -> list[BoxExample]:
    """Image, boxes and labels of each sample."""
    all_samples = (samples[i] for i in range(len(samples)))
    return [(s["image"], {key: s[key] for key in ("boxes", "labels")}) for s in all_samples]


# --- baseline -----------------------------------------------------------------------------------------------------


class ThresholdBoxes(nn.Module):
    """The boxes of connected components: of purple pixels, which the stain gives to nuclei, and of all other cells.

    Both masks are thresholds by Otsu's method. A purple component is a platelet or a white cell, whichever has the more
    similar mean side in the training images, and every other component is a red cell. The score falls with the ratio
    between the side of the component and the mean side of its class.
    """

    name = "Otsu + components"

    def __init__(self, train: Sequence[BoxExample], num_classes: int, smallest: int = 40) -> None:
        super().__init__()
        self.smallest = smallest
        sides: list[list[float]] = [[] for _ in range(num_classes)]
        for _, objects in train:
            for side, category in zip(box_area(objects["boxes"]).sqrt().tolist(), objects["labels"], strict=True):
                sides[category].append(side)
        self.sides = [float(np.mean(some)) if some else 1.0 for some in sides]

    def forward(self, images: Tensor) -> list[Boxes]:
        return [self._detect(image.cpu()) for image in images]

    def _detect(self, image: Tensor) -> Boxes:
        cells = gaussian_otsu(image).numpy()
        purple = gaussian((image[2] - image[1]).numpy(), 1)  # blue minus green
        is_purple = purple > threshold_otsu(purple) if purple.min() < purple.max() else np.zeros_like(cells)
        rows = [(region.bbox, (2, 3)) for region in regionprops(label(is_purple))]
        rows += [(region.bbox, (1,)) for region in regionprops(label(cells & ~is_purple))]
        boxes, labels, scores = [], [], []
        for (top, left, bottom, right), classes in rows:
            if (bottom - top) * (right - left) >= self.smallest:
                distances = {
                    k: abs(np.log((bottom - top) * (right - left)) / 2 - np.log(self.sides[k])) for k in classes
                }
                nearest = min(distances, key=distances.__getitem__)
                boxes.append([left, top, right, bottom])
                labels.append(nearest)
                scores.append(np.exp(-distances[nearest]))
        return {
            "boxes": torch.tensor(boxes).reshape(-1, 4).float(),
            "labels": torch.tensor(labels, dtype=torch.int64),
            "scores": torch.tensor(scores, dtype=torch.float32),
        }


# --- networks -----------------------------------------------------------------------------------------------------


def pyramid(levels: tuple[int, ...] = (2, 3, 4)) -> FPN:
    """Features of a narrow VGG with the strides 8, 16 and 32, which fit platelets, red cells and white cells."""
    return FPN(VGG(((16,), (32,), (64, 64), (64, 64), (96, 96))[: levels[-1] + 1], batch_norm=True), 64, levels=levels)


def on_blood(**row: Any) -> Recipe:
    """A detection recipe on the images; `row` has what differs between the methods."""
    shared = {"data": "bccd", "task": DETECTION, "classes": CLASSES, "sets": blood_sets, "collate": stack}
    shared |= {"baseline": ThresholdBoxes, "batch_size": 8, "learning_rate": 3e-3, "metric": "box_ap50"}
    return Recipe(**(shared | {"cpu_minutes": 20, "gpu_minutes": 3.0} | row))


RECIPES = (
    on_blood(
        method="retinanet",
        build=lambda: quick_layout(retinanet.RetinaNet(pyramid(), len(CLASSES), ANCHOR_SIDES, RATIOS, norm_groups=8)),
        loss=partial(retinanet.retinanet_loss, giou=True),
        postprocess=lambda outputs, size: retinanet.postprocess(outputs, score_threshold=LOWEST_SCORE),
        steps=1200,
        target=0.75,
    ),
    on_blood(
        method="fcos",
        build=lambda: quick_layout(
            fcos.FCOS(pyramid((2, 3)), len(CLASSES), strides=(8, 16), offset=0.5, groups=8, depth=3)
        ),
        loss=fcos.fcos_loss,
        postprocess=lambda outputs, size: fcos.postprocess(outputs, score_threshold=LOWEST_SCORE),
        steps=1200,
        target=0.75,
    ),
)
