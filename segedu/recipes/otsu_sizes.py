"""A baseline for boxes without masks: thresholded regions, with the class of the objects of the nearest size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from skimage.measure import label
from torch import Tensor, nn

from segedu.ops.masks import boxes_from_masks, masks_from_label_map
from segedu.recipes.baselines import gaussian_otsu


class OtsuSizes(nn.Module):
    """`gaussian_otsu` and connected components, each with the class whose boxes have the nearest size.

    The size of a box is the logarithm of its area. The score of a component decreases with the distance to the mean
    size of the class.

    Args:
        train: dicts of `boxes` (N, 4) and `labels` (N,).
        num_classes: K, with the background.
        smallest: components with fewer pixels are left out.
    """

    name = "Gaussian + Otsu + components"

    def __init__(self, train: Sequence[dict[str, Any]], num_classes: int, smallest: int = 20) -> None:
        super().__init__()
        self.smallest = smallest
        sizes = torch.cat([_sizes(objects["boxes"]) for objects in train])
        labels = torch.cat([objects["labels"] for objects in train])
        means = [
            sizes[labels == k].mean() if (labels == k).any() else torch.tensor(torch.inf) for k in range(num_classes)
        ]
        self.means = torch.stack(means)

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        return [self._detect(image.cpu()) for image in images]

    def _detect(self, image: Tensor) -> dict[str, Tensor]:
        regions = torch.from_numpy(label(gaussian_otsu(image).numpy(), connectivity=1))
        masks = masks_from_label_map(regions)
        boxes = boxes_from_masks(masks[masks.flatten(1).sum(dim=1) >= self.smallest])
        distances, labels = (_sizes(boxes)[:, None] - self.means).abs().min(dim=1)
        return {"boxes": boxes, "labels": labels, "scores": torch.exp(-distances)}


def _sizes(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).clamp(min=1).log()
