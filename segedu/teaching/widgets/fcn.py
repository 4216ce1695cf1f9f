"""Upper bound of scores at stride 32, 16 or 8: the ground truth itself, pooled and upsampled again (chapter 5)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from torch import Tensor

from segedu.datasets.street import CLASSES, draw_street
from segedu.metrics.semantic import mean_iou, pixel_accuracy
from segedu.teaching.widgets.explore import explore, is_live
from segedu.viz import outline, palette, show

VOID = 255
STRIDES = {"32, FCN-32s": 32, "16, FCN-16s": 16, "8, FCN-8s": 8, "4": 4, "2": 2}
SIZE = (192, 320)
WRONG = "#D55E00"


@lru_cache(maxsize=16)
def street(seed: int) -> tuple[Tensor, Tensor]:
    """Image (3, H, W) and semantic target (H, W) of one scene; cached, because a slider returns to earlier values."""
    sample = draw_street(seed, SIZE)
    return sample["image"], sample["semantic"]


def pooled_target(target: Tensor, stride: int, num_classes: int) -> Tensor:
    """Compute the fraction of each class in each cell: the best possible scores for cells of this size.

    Args:
        target: (H, W) int64; 255 does not count.
        stride: side of a cell in pixels. A cell that reaches beyond the image counts the pixels inside.
        num_classes: K.

    Returns:
        (K, h, w) floats; 0 for all classes if all pixels of a cell are void.

    >>> pooled_target(torch.tensor([[0, 0, 1, 255], [0, 1, 1, 255]]), 2, 2).tolist()
    [[[0.75, 0.0]], [[0.25, 1.0]]]
    """
    height, width = target.shape
    target = F.pad(target, (0, -width % stride, 0, -height % stride), value=VOID)
    is_labelled = (target != VOID)[None]
    one_hot = (target == torch.arange(num_classes)[:, None, None]).double()
    pooled = F.avg_pool2d(one_hot, stride), F.avg_pool2d(is_labelled.double(), stride)
    return pooled[0] / pooled[1].clamp(min=1e-9)


def upsampled_labels(scores: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Interpolate scores of cells (K, h, w) bilinearly to the image's size, and take the best class: labels (H, W)."""
    pixels = F.interpolate(scores[None], scale_factor=stride, mode="bilinear", align_corners=False)
    return pixels[0, :, : size[0], : size[1]].argmax(0)


def upper_bound(target: Tensor, stride: int, num_classes: int) -> Tensor:
    """Labels (H, W) of a network whose scores at this stride are the pooled ground truth: an upper bound."""
    return upsampled_labels(pooled_target(target, stride, num_classes), stride, tuple(target.shape))


def class_picture(labels: Tensor, lines: bool = True) -> np.ndarray:
    """Colour the classes of a street (H, W) as (H, W, 3); void, and outlines if `lines`, are dark."""
    array = labels.numpy()
    dark = (array == VOID) | (outline(array) & lines)
    colours = palette(len(CLASSES))[np.where(array == VOID, 0, array)]
    return np.where(dark[..., None], 0.15, colours)


def error_picture(image: Tensor, errors: Tensor) -> np.ndarray:
    """Colour wrong pixels (H, W) bool in vermilion on the image (3, H, W) in grey; returns (H, W, 3)."""
    background = 0.5 + 0.3 * image.mean(0).numpy()[..., None].repeat(3, axis=2)
    colour = np.array(ListedColormap([WRONG])(0)[:3])
    return np.where(errors.numpy()[..., None], colour, background)


def draw_upper_bound(stride: int = 32, seed: int = 3) -> None:
    """Show the ground truth, its cells, the upsampled cells, and the pixels where those are wrong."""
    image, target = street(seed)
    scores = pooled_target(target, stride, len(CLASSES))
    cell_labels = torch.where(scores.sum(0) > 0, scores.argmax(0), VOID)
    labels = upsampled_labels(scores, stride, tuple(target.shape))
    errors = (labels != target) & (target != VOID)
    iou = float(mean_iou(labels, target, len(CLASSES), ignore_index=VOID))
    accuracy = float(pixel_accuracy(labels, target, len(CLASSES), ignore_index=VOID))
    height, width = cell_labels.shape
    panels = {
        "ground truth": class_picture(target),
        f"scores: {height} x {width} cells": class_picture(cell_labels, lines=False),
        "upsampled": class_picture(labels),
        "wrong pixels": error_picture(image, errors),
    }
    fig, axes = plt.subplots(2, 2, figsize=(8.4, 5.9), layout="constrained")
    for ax, (title, picture) in zip(axes.flat, panels.items(), strict=True):
        step = stride if "cells" in title else 1
        ax.imshow(picture, extent=(0, step * picture.shape[1], step * picture.shape[0], 0))
        ax.set_title(title, fontsize=10)
        ax.set(xticks=[], yticks=[], xlim=(0, target.shape[1]), ylim=(target.shape[0], 0))
    classes = [k for k in range(len(CLASSES)) if (target == k).any()]
    handles = [Patch(facecolor=palette(len(CLASSES))[k], edgecolor="black", label=CLASSES[k]) for k in classes]
    fig.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=9, frameon=False)
    missing = [CLASSES[k] for k in classes if not (labels == k).any()]
    summary = f"{iou:.2f} mean IoU, {accuracy:.1%} of pixels"
    summary += f"; lost: {', '.join(missing)}" if missing else ""
    fig.suptitle(f"stride {stride}: upper bound {summary}", fontsize=11)
    show(
        fig,
        alt=f"Classes of a street; the same pooled to {height} by {width} cells of {stride} pixels; the cells after "
        f"bilinear upsampling; and {int(errors.sum())} wrong pixels along outlines. The upper bound is {summary}.",
    )


def stride_slider() -> Any:
    """Build a slider over the strides; JupyterLab intercepts the arrow keys in a drop-down list."""
    from ipywidgets import SelectionSlider

    return SelectionSlider(options=list(STRIDES.items()), value=32)


def explorer() -> None:
    """Show the chapter's widget: live controls in a notebook, three static frames elsewhere."""
    explore(
        draw_upper_bound,
        static=[{"stride": stride, "seed": 3} for stride in (32, 16, 8)],
        labels={"stride": "stride of the scores", "seed": "scene"},
        stride=stride_slider() if is_live() else STRIDES,
        seed=(0, 20, 1),
    )
