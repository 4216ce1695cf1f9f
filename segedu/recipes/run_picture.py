"""The picture that a run leaves behind: image, truth and prediction of three held-out images as one small PNG."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from segedu.datasets.files import replacing
from segedu.recipes.data import Pair, Sets
from segedu.viz import compare, gallery, palette

SURE = 0.25  # detections below this score are not drawn


def write(path: Path, put: Callable[[Path], Any]) -> None:
    """Let `put` write a file beside `path`, then rename it: no half file is ever seen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        put(part)


def three_images(sets: Sets) -> list[Pair]:
    """Three images of the last split: the first of each group, and then the second ones."""
    groups = list(list(sets.held_out.values())[-1].values())
    in_turn = [pairs[i] for i in range(3) for pairs in groups if i < len(pairs)]
    return in_turn[:3]


def save_picture(path: Path, predict: Callable[[Tensor], Any], sets: Sets, kind: str = "classes") -> None:
    """Write image, truth, prediction and, of classes, errors of three held-out images.

    Args:
        path: of the PNG.
        predict: image (C, H, W) -> what `kind` says.
        sets: with images held out.
        kind: "classes" or "objects", (H, W), or "detections" or "panoptic", dicts.
    """
    draw = {
        "classes": _draw_classes,
        "objects": _draw_objects,
        "detections": _draw_detections,
        "panoptic": _draw_panoptic,
    }[kind]
    strips = []
    for image, target in three_images(sets):
        figure = draw(image, target, predict(image))
        figure.set_dpi(72)
        figure.tight_layout(pad=0.6)  # titles are wider now
        figure.canvas.draw()
        strips.append(np.asarray(figure.canvas.buffer_rgba())[..., :3])
        plt.close(figure)
    width = min(strip.shape[1] for strip in strips)
    picture = Image.fromarray(np.concatenate([strip[:, :width] for strip in strips]))
    # 64 colours are enough for tinted grey images, and a third of the bytes.
    write(path, lambda beside: picture.quantize(64).save(beside, format="PNG", optimize=True))


def _draw_classes(image: Tensor, target: Tensor, prediction: Tensor) -> Figure:
    if target.ndim == 3:  # of a volume the slice with the most foreground
        depth = int((target > 0).sum(dim=(1, 2)).argmax())
        image, target, prediction = image[:, depth].expand(3, -1, -1), target[depth], prediction[depth]
    return compare(image, target, prediction)


def _draw_objects(image: Tensor, target: Tensor, prediction: Tensor) -> Figure:
    counts = [int((labels.unique() > 0).sum()) for labels in (target, prediction)]
    names = ("image", f"truth: {counts[0]}", f"found: {counts[1]}")
    return gallery([image] * 3, [None, target, prediction], titles=names, columns=3, width=3.2)


def _draw_panoptic(image: Tensor, target: dict[str, Any], prediction: dict[str, Any]) -> Figure:
    """Segments in colours of their own: their numbers say nothing, so that truth and prediction differ in colour."""
    names = ("image", *(f"{name}: {len(s['segments_info'])}" for name, s in (("truth", target), ("found", prediction))))
    maps = [None, target["panoptic_seg"], prediction["panoptic_seg"]]
    return gallery([image] * 3, maps, titles=names, columns=3, width=3.2)


def _draw_detections(image: Tensor, target: dict[str, Tensor], prediction: dict[str, Tensor]) -> Figure:
    """Boxes in the colours of their classes, masks tinted where there are any."""
    sure = {key: value[prediction["scores"] >= SURE] for key, value in prediction.items()}
    titles = ("image", f"truth: {len(target['labels'])}", f"found: {len(sure['labels'])}")
    masks = [None, target.get("masks"), sure.get("masks")]
    figure = gallery([image] * 3, masks, titles=titles, columns=3, width=3.2)
    colours = palette(max([1, *target["labels"].tolist(), *sure["labels"].tolist()]))
    for axis, found in zip(figure.axes[1:3], (target, sure), strict=True):
        for (left, top, right, bottom), label in zip(found["boxes"].tolist(), found["labels"].tolist(), strict=True):
            corner, size = (left - 0.5, top - 0.5), (right - left, bottom - top)
            axis.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colours[label - 1], linewidth=1.6))
    return figure
