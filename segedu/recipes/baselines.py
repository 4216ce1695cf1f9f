"""Baselines without a network, the first row of every table of results.

Each is a module like a model, so that the same evaluation measures both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from skimage.filters import gaussian, threshold_otsu
from torch import Tensor, nn

from segedu.metrics.confusion import confusion_matrix
from segedu.metrics.semantic import dice_per_class_from_confusion
from segedu.recipes.data import Pair
from segedu.unsupervised.watershed import distance_markers, watershed


def gaussian_otsu(image: Tensor, sigma: float = 1.0) -> Tensor:
    """Smooth an image (3, H, W) in grey and threshold it by Otsu's method; the smaller side is the foreground.

    `sigma` is the Gaussian's, in pixels. Returns a bool mask (H, W). A constant image has no foreground.
    """
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"image has shape {tuple(image.shape)}, expected (3, H, W)")
    grey = gaussian(image.mean(dim=0).numpy(), sigma)
    if grey.min() == grey.max():
        return torch.zeros(grey.shape, dtype=torch.bool)
    bright = grey > threshold_otsu(grey)
    return torch.from_numpy(bright if bright.mean() <= 0.5 else ~bright)


def _as_logits(labels: Tensor, num_classes: int) -> Tensor:
    return nn.functional.one_hot(labels, num_classes).movedim(-1, 1).float()


class Otsu(nn.Module):
    """`gaussian_otsu` as class 1, all other pixels as background."""

    name = "Gaussian + Otsu"

    def __init__(self, train: Sequence[Pair], num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, images: Tensor) -> Tensor:
        labels = torch.stack([gaussian_otsu(image.cpu()) for image in images]).long()
        return _as_logits(labels, self.num_classes)


class OtsuWatershed(nn.Module):
    """`gaussian_otsu`, separated into objects by a watershed from the peaks of the distance to the background."""

    name = "Gaussian + Otsu + watershed"

    def __init__(self, train: Sequence[Pair] = (), num_classes: int = 2, min_distance: float = 10.0) -> None:
        super().__init__()
        self.min_distance = min_distance

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self._label_map(image.cpu()) for image in images]

    def _label_map(self, image: Tensor) -> Tensor:
        mask = gaussian_otsu(image)
        distance = torch.from_numpy(ndimage.distance_transform_edt(mask.numpy()))
        return watershed(-distance, distance_markers(mask, self.min_distance), mask)


class Thresholds(nn.Module):
    """The best thresholds: after a Gaussian, every grey value is mapped to one class.

    That class is either the most frequent one of the grey value in the training images, or the class in which the grey
    value is most frequent. The rule with the higher mean Dice of the foreground classes on the training images is used.
    """

    name = "Gaussian + best thresholds"

    def __init__(self, train: Sequence[Pair], num_classes: int, bins: int = 64) -> None:
        super().__init__()
        self.num_classes, self.bins = num_classes, bins
        counts = torch.zeros(bins, num_classes, dtype=torch.float64)
        for image, target in train:
            counts += torch.bincount(
                (self._bin(image) * num_classes + target).flatten(), minlength=counts.numel()
            ).view(bins, num_classes)
        tables = [counts.argmax(dim=1), (counts / counts.sum(dim=0).clamp(min=1)).argmax(dim=1)]
        self.table = max(tables, key=lambda table: self._dice(table, train))

    def _bin(self, image: Tensor) -> Tensor:
        smooth = ndimage.gaussian_filter(image.mean(dim=0).numpy(), sigma=1)
        return torch.from_numpy(np.clip(smooth * self.bins, 0, self.bins - 1).astype(np.int64))

    def _dice(self, table: Tensor, pairs: Sequence[Pair]) -> float:
        preds = torch.cat([table[self._bin(image)].flatten() for image, _ in pairs])
        target = torch.cat([target.flatten() for _, target in pairs])
        matrix = confusion_matrix(preds, target, self.num_classes)
        return float(dice_per_class_from_confusion(matrix)[1:].nanmean())

    def forward(self, images: Tensor) -> Tensor:
        labels = torch.stack([self.table[self._bin(image.cpu())] for image in images])
        return _as_logits(labels, self.num_classes)


def window_features(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The colours in the 5x5 window around each pixel, and its relative position in the image.

    The image has shape (3, H, W), `rows` and `columns` (P,). Returns float32 (P, 77).
    """
    padded = np.pad(image, ((0, 0), (2, 2), (2, 2)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(1, 2))[:, rows, columns]
    colours = windows.transpose(1, 0, 2, 3).reshape(len(rows), -1)
    position = np.stack([rows / image.shape[1], columns / image.shape[2]], axis=1)
    return np.concatenate([colours, position], axis=1).astype(np.float32)


def some_windows(pairs: Sequence[Pair], number: int, void: int = 255) -> tuple[np.ndarray, np.ndarray]:
    """`window_features` (P, 77) and classes (P,) of random pixels, at most `number` per image.

    Images have shape (3, H, W) and targets (H, W). Pixels with the target `void` are left out.
    """
    rng, features, classes = np.random.default_rng(0), [], []
    for image, target in pairs:
        labels = target.numpy()
        rows, columns = np.nonzero(labels != void)
        picks = rng.choice(len(rows), min(number, len(rows)), replace=False)
        features.append(window_features(image.numpy(), rows[picks], columns[picks]))
        classes.append(labels[rows[picks], columns[picks]])
    return np.concatenate(features), np.concatenate(classes)


class WindowForest(nn.Module):
    """A random forest on the position and the 5x5 window of each pixel."""

    name = "Forest on 5x5 windows"

    def __init__(self, train: Sequence[Pair], num_classes: int, balanced: bool = False) -> None:
        from sklearn.ensemble import RandomForestClassifier

        super().__init__()
        weights = "balanced_subsample" if balanced else None
        forest = RandomForestClassifier(30, min_samples_leaf=3, random_state=0, class_weight=weights)
        self.num_classes, self.forest = num_classes, forest.fit(*some_windows(train[:90], 250))

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        rows, columns = (axis.ravel() for axis in np.mgrid[:height, :width])
        labels = [self.forest.predict(window_features(image.cpu().numpy(), rows, columns)) for image in images]
        return _as_logits(torch.from_numpy(np.stack(labels)).view(-1, height, width), self.num_classes)
