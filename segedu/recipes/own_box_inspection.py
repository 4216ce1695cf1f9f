"""What is in a folder of images with boxes, and what would make a training go wrong: `inspect_boxes`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm.auto import tqdm

from segedu.datasets.box_folder import BoxFolder, Objects, decode_mask
from segedu.datasets.files import is_deep
from segedu.datasets.folder import listed
from segedu.recipes.inspection import (
    SHOWN,
    Inspection,
    Readable,
    describe_sizes,
    describe_splits,
    find_repeated,
    thumbnail_of,
)
from segedu.recipes.own_boxes import draw_boxes

DEVIATION = 0.5  # IoU of a box and the box around its mask, below which they probably belong to different objects


@dataclass
class _Faults:
    """Names of images, or numbers of objects, with a fault."""

    degenerate: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)
    deviating: list[str] = field(default_factory=list)
    fractions: bool = False


def inspect_boxes(root: str | Path, progress: bool = True) -> Inspection:
    """Read every image and its annotations, and describe the folder in sentences.

    Args:
        root: a folder as for `segedu.datasets.box_folder.BoxFolder`.
        progress: show a progress bar.

    Returns:
        Facts: numbers of images, sizes, splits, objects and images of each class, crowds, sides of the boxes. Problems:
        what is wrong in the annotations, missing and unreadable images, boxes that are degenerate or extend beyond
        their image, masks that cannot be read, classes that do not occur, nearly equal images in different splits.

    Raises:
        FileNotFoundError, ValueError: the folder or a file of annotations cannot be read, see `BoxFolder`.
    """
    folder = BoxFolder(root)
    report = Inspection(folder.root, problems=list(folder.problems))
    readable, objects, faults = [], {}, _Faults()
    for name in tqdm(sorted(folder.annotations), desc="inspect", unit="image", disable=not progress, leave=False):
        try:
            image = folder.read_image(name)
        except (ValueError, OSError) as error:
            report.problems.append(f"{error}.")
            continue
        objects[name] = folder.objects(name, tuple(image.shape[1:]))
        _find_faults(faults, name, objects[name], image)
        deep = is_deep(folder.images[name])
        readable.append(Readable(name, tuple(image.shape[1:]), thumbnail_of(image.numpy()), Counter(), deep, []))
    names = ", ".join(path.name for path in folder.files)
    report.facts.append(f"{names}: {len(folder.annotations)} annotated images, of which {len(readable)} can be used.")
    if folder.unused:
        report.facts.append(
            f"{len(folder.unused)} images have no annotations and are not used: {listed(folder.unused)}."
        )
    if readable:
        describe_sizes(report, readable)
        describe_splits(report, folder.splits, set(objects))
        _describe_boxes(report, folder, objects)
        _report_faults(report, faults)
        find_repeated(report, readable, folder.splits)
        report.figure = draw_boxes_sheet(folder, list(objects))
    return report


def _find_faults(faults: _Faults, name: str, objects: Objects, image: Tensor) -> None:
    faults.degenerate += [f"{name} ({', '.join(f'{edge:g}' for edge in box)})" for box in objects.left_out]
    faults.fractions |= any(max(map(abs, box)) <= 1 and max(box) > 0 for box in objects.left_out)
    faults.outside += [name] * objects.clipped
    for annotation, box in zip(objects.annotations, objects.boxes, strict=True):
        if annotation.segmentation is None:
            continue
        try:
            mask = decode_mask(annotation.segmentation, tuple(image.shape[1:]))
        except (ValueError, TypeError, KeyError) as error:
            faults.masks.append(f"{name} ({error})")
            continue
        if not annotation.is_crowd and _iou_with_mask(mask, box.tolist()) < DEVIATION:
            faults.deviating.append(name)


def _iou_with_mask(mask: Tensor, box: list[float]) -> float:
    """IoU of a box and the tight box around a mask; 0 for an empty mask."""
    rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
    if not len(rows):
        return 0.0
    tight = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    width, height = (max(0.0, min(box[i + 2], tight[i + 2]) - max(box[i], tight[i])) for i in (0, 1))
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, tight)]
    return width * height / max(sum(areas) - width * height, 1e-9)


def _describe_boxes(report: Inspection, folder: BoxFolder, objects: dict[str, Objects]) -> None:
    counts: Counter = Counter()
    images: dict[int, list[str]] = {label: [] for label in range(1, len(folder.classes))}
    for name, found in objects.items():
        labels = found.labels[~found.iscrowd].tolist()
        counts.update(labels)
        for label in set(labels):
            images[label].append(name)
    for label, name in enumerate(folder.classes[1:], start=1):
        report.facts.append(f"Class {label} ({name}): {counts[label]} objects, in {len(images[label])} images.")
        if not counts[label]:
            report.problems.append(f"Class {label} ({name}) has no object. Remove the class, or annotate it.")
        elif "train" in folder.splits and not set(images[label]) & set(folder.splits["train"]):
            report.problems.append(f"Class {label} ({name}) is in no image of the split train, so it is never learned.")
    crowds = sum(int(found.iscrowd.sum()) for found in objects.values())
    with_mask = sum(one.segmentation is not None for found in objects.values() for one in found.annotations)
    total = sum(len(found.labels) for found in objects.values())
    report.facts.append(
        f"{total} boxes, of which {with_mask} have a mask, and {crowds} are crowds (COCO) or difficult (VOC), which "
        f"losses and metrics ignore."
    )
    sides = torch.cat([(f.boxes[:, 2:] - f.boxes[:, :2]).prod(dim=1).sqrt() for f in objects.values()])
    if len(sides):
        low, middle, high = sides.quantile(torch.tensor([0.05, 0.5, 0.95])).tolist()
        report.facts.append(
            f"Sides of the boxes (of a square of the same area): 5 % are below {low:.0f} pixels, half below "
            f"{middle:.0f}, and 95 % below {high:.0f}."
        )
    empty = [name for name, found in objects.items() if not len(found.labels)]
    if empty:
        report.facts.append(f"{len(empty)} images contain no object: {listed(empty)}.")


def _report_faults(report: Inspection, faults: _Faults) -> None:
    if faults.degenerate:
        hint = "They look like fractions of the image: multiply them by its width and height. " * faults.fractions
        report.problems.append(
            f"{len(faults.degenerate)} boxes have no area inside their image, and a training leaves them out: "
            f"{listed(faults.degenerate)}. {hint}COCO's boxes are x, y, width and height in pixels."
        )
    if faults.outside:
        report.problems.append(
            f"{len(faults.outside)} boxes extend beyond their image by 2 pixels or more, and a training clips them: "
            f"{listed(sorted(set(faults.outside)))}. If there are many, the boxes may be corners in place of widths, "
            f"or the images may have been resized."
        )
    if faults.masks:
        report.problems.append(f"{len(faults.masks)} masks cannot be read: {listed(faults.masks)}.")
    if faults.deviating:
        report.problems.append(
            f"{len(faults.deviating)} boxes differ much from their mask: {listed(sorted(set(faults.deviating)))}. Look "
            f"at the contact sheet: the mask or the box may belong to another object."
        )


def draw_boxes_sheet(folder: BoxFolder, names: list[str]) -> Figure:
    """Up to twelve images at equal distances in the list, with their boxes in the colours of the classes."""
    chosen = [names[i] for i in np.linspace(0, len(names) - 1, min(SHOWN, len(names))).round().astype(int)]
    columns = min(4, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.7 * rows), layout="constrained")
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.axis("off")
    for axes, name in zip(figure.axes, chosen, strict=False):
        image = folder.read_image(name)
        objects = folder.objects(name, tuple(image.shape[1:]))
        axes.imshow(image.permute(1, 2, 0).numpy())
        draw_boxes(axes, objects.boxes, objects.labels, len(folder.classes))
        axes.set_title(name[:24], fontsize=9)
    return figure
