"""What is in a folder of images and masks, and what would make a training go wrong: `inspect_folder`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from tqdm.auto import tqdm

from segedu.datasets.files import is_deep, read_deep_image, read_labels
from segedu.datasets.folder import (
    ALL,
    LABELS,
    MASKS,
    find_images,
    find_target_folder,
    find_targets,
    listed,
    read_classes,
    read_splits,
    read_target,
)
from segedu.datasets.sample import VOID
from segedu.viz import overlay

SIDE = 24  # pixels: the side of the thumbnails that are compared
ALIKE = 0.95  # correlation of two thumbnails from which on the images are probably of the same scene
SHOWN = 12  # images of the contact sheet


@dataclass
class Inspection:
    """The result of `inspect_folder`. `facts` and `problems` are sentences, and `figure` is the contact sheet."""

    root: Path
    facts: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    figure: Figure | None = None


@dataclass
class Readable:
    """What was read of one image."""

    name: str
    size: tuple[int, int]
    thumbnail: np.ndarray  # (SIDE * SIDE,), mean 0 and length 1, or 0 for a constant image
    counts: Counter  # pixels of each value of the ground truth
    deep: bool  # whether the image has 16 bits
    diameters: list[float]  # pixels, of the objects of a label map: that of the disc with the same area


def inspect_folder(root: str | Path, progress: bool = True) -> Inspection:
    """Read every image and its ground truth, and describe the folder in sentences.

    Args:
        root: a folder as for `segedu.datasets.folder.SegmentationFolder`.
        progress: show a progress bar.

    Returns:
        Facts: numbers of images, sizes, splits, share of each class or number and diameters of the objects. Problems:
        files that cannot be read or used, images without ground truth and the reverse, a single class, a class that
        occurs in no mask or in none of the split train, and images that are nearly equal in different splits.
        Each says what to do.

    Raises:
        FileNotFoundError: if the folder has no images or no ground truth.
        ValueError: if the layout is ambiguous, see `SegmentationFolder`.
    """
    root = Path(root)
    images, folder = find_images(root), find_target_folder(root)
    targets, classes, splits = find_targets(root / folder), read_classes(root, folder), read_splits(root, images)
    report = Inspection(root)
    _compare_names(report, images, targets, folder)
    readable = []
    for name in tqdm(sorted(images), desc="inspect", unit="image", disable=not progress, leave=False):
        if name in targets:
            try:
                readable.append(_read(name, images[name], targets[name], folder, classes))
            except (ValueError, OSError) as error:
                report.problems.append(f"{error}.")
    report.facts.append(f"{len(images)} images, of which {len(readable)} can be used with their ground truth.")
    if readable:
        describe_sizes(report, readable)
        describe_splits(report, splits, {one.name for one in readable})
        (_describe_objects if folder == LABELS else _describe_classes)(report, readable, classes, splits)
        find_repeated(report, readable, splits)
        report.figure = draw_contact_sheet(images, targets, [one.name for one in readable], void=folder == MASKS)
    return report


def draw_contact_sheet(images: dict[str, Path], targets: dict[str, Path], names: list[str], void: bool) -> Figure:
    """Up to twelve images at equal distances in the list, with the ground truth drawn over them.

    Args:
        images: name -> file.
        targets: name -> file of the ground truth.
        names: at least one, all with image and ground truth.
        void: whether 255 in the ground truth is an ignored pixel, as in masks of classes, and not object 255.
    """
    chosen = [names[i] for i in np.linspace(0, len(names) - 1, min(SHOWN, len(names))).round().astype(int)]
    columns = min(4, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.7 * rows), layout="constrained")
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.axis("off")
    for axes, name in zip(figure.axes, chosen, strict=False):
        image = torch.from_numpy(read_deep_image(images[name]))
        target = read_labels(targets[name], image.shape[1:])
        axes.imshow(overlay(image, torch.where(target == VOID, 0, target) if void else target))
        axes.set_title(name[:24], fontsize=9)
    return figure


def _read(name: str, image_path: Path, target_path: Path, folder: str, classes: tuple[str, ...]) -> Readable:
    image = read_deep_image(image_path)
    target = read_target(target_path, image.shape[1:], folder, classes)
    values, pixels = target.unique(return_counts=True)
    counts = Counter(dict(zip(values.tolist(), pixels.tolist(), strict=True)))
    diameters = [2 * (area / np.pi) ** 0.5 for value, area in counts.items() if value] if folder == LABELS else []
    return Readable(name, tuple(image.shape[1:]), thumbnail_of(image), counts, is_deep(image_path), diameters)


def thumbnail_of(image: np.ndarray) -> np.ndarray:
    """A small grey copy of an image (3, H, W) in [0, 1], whose product with another is their correlation."""
    grey = Image.fromarray((255 * image.mean(0)).astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BOX)
    pixels = np.asarray(grey, np.float64).ravel()
    pixels = pixels - pixels.mean()
    return pixels / max(float(np.linalg.norm(pixels)), 1e-9)


def _compare_names(report: Inspection, images: dict[str, Path], targets: dict[str, Path], folder: str) -> None:
    without, alone = sorted(images.keys() - targets.keys()), sorted(targets.keys() - images.keys())
    if without:
        report.problems.append(
            f"{len(without)} images have no file of the same name in {folder}: {listed(without)}. "
            f"Annotate them or move them out of images."
        )
    if alone:
        report.problems.append(
            f"{len(alone)} files in {folder} have no image of the same name: {listed(alone)}. "
            f"Compare the spelling of the names with the files in images."
        )


def describe_sizes(report: Inspection, readable: list[Readable]) -> None:
    """Report the sizes of the images, and those with 16 bits."""
    sizes = Counter(one.size for one in readable)
    (height, width), number = sizes.most_common(1)[0]
    small = min(readable, key=lambda one: min(one.size))
    text = f"{len(sizes)} sizes; the most frequent is {height} x {width} pixels ({number} images)"
    report.facts.append(f"{text}; the shortest side is {min(small.size)} pixels ({small.name}).")
    deep = [one.name for one in readable if one.deep]
    if deep:
        report.facts.append(
            f"{len(deep)} images have 16 bits: {listed(deep)}. In each of them, the 1st and 99.8th percentiles of the "
            f"values become black and white, so a difference of brightness between images is lost."
        )


def describe_splits(report: Inspection, splits: dict[str, list[str]], usable: set[str]) -> None:
    """Report the numbers of usable images of each split."""
    own = {name: names for name, names in splits.items() if name != ALL}
    if not own:
        report.facts.append(
            "No splits: write the names of the images to train on to splits/train.txt, and of those to evaluate on to "
            "splits/val.txt, images of the same scene, patient or specimen in the same file."
        )
        return
    counts = ", ".join(f"{name} {len(usable & set(names))}" for name, names in own.items())
    left = len(usable - set().union(*own.values()))
    report.facts.append(f"Splits: {counts}; {left} images in none.")


def _describe_classes(
    report: Inspection, readable: list[Readable], classes: tuple[str, ...], splits: dict[str, list[str]]
) -> None:
    if not classes:
        report.facts.append(
            "No classes.txt, so the classes have no names. If the values of masks number objects in place of classes, "
            "rename the folder masks to labels."
        )
    total = sum((one.counts for one in readable), Counter())
    labelled = sum(number for value, number in total.items() if value != VOID)
    for value in sorted(set(total) | set(range(len(classes)))):
        name = "ignored" if value == VOID else classes[value] if value < len(classes) else ""
        which = f"Class {value} ({name})" if name else f"Class {value}"
        found = [one.name for one in readable if value in one.counts]
        share = total[value] / max(labelled + (total[VOID] if value == VOID else 0), 1)
        report.facts.append(f"{which}: {100 * share:.1f} % of the pixels, in {len(found)} images.")
        if not found:
            report.problems.append(f"{which} is in no mask. Remove it from classes.txt, or annotate it.")
        elif value != VOID and "train" in splits and not set(found) & set(splits["train"]):
            report.problems.append(f"{which} is in no image of the split train, so it is never learned.")
    if len(set(total) - {VOID}) < 2:
        report.problems.append("All masks contain one class only, so there is nothing to separate. Check their values.")


def _describe_objects(
    report: Inspection, readable: list[Readable], classes: tuple[str, ...], splits: dict[str, list[str]]
) -> None:
    numbers = [len(one.diameters) for one in readable]
    diameters = sorted(d for one in readable for d in one.diameters)
    if not diameters:
        report.problems.append("No label map contains an object. Check that the objects are numbered from 1 on.")
        return
    low, middle, high = (diameters[round(q * (len(diameters) - 1))] for q in (0.05, 0.5, 0.95))
    report.facts.append(f"{len(diameters)} objects, {min(numbers)} to {max(numbers)} per image.")
    report.facts.append(
        f"Diameters (of a disc of the same area): 5 % of the objects are below {low:.0f} pixels, half below "
        f"{middle:.0f}, and 95 % below {high:.0f}."
    )
    empty = [one.name for one in readable if not one.diameters]
    if empty:
        report.facts.append(f"{len(empty)} images contain no object: {listed(empty)}.")


def _whole_split(split: str) -> str:
    """The split of which a list has a part: "val" for val_spaced."""
    return next((whole for whole in ("train", "val", "test") if split.startswith(f"{whole}_")), split)


def find_repeated(report: Inspection, readable: list[Readable], splits: dict[str, list[str]]) -> None:
    """Report images that are in several splits, and nearly equal images."""
    split_of: dict[str, set[str]] = {one.name: set() for one in readable}
    for split, names in splits.items():
        for name in names:
            if split != ALL and name in split_of:
                split_of[name].add(_whole_split(split))
    twice = sorted(name for name, found in split_of.items() if len(found) > 1)
    if twice:
        report.problems.append(f"{len(twice)} images are in more than one split: {listed(twice)}. Keep each in one.")
    thumbnails = np.stack([one.thumbnail for one in readable])
    alike = [
        (first.name, readable[j].name)
        for i, first in enumerate(readable)  # one row of the matrix at a time: it would have 800 MB for 10,000 images
        for j in i + 1 + np.flatnonzero(thumbnails[i + 1 :] @ first.thumbnail > ALIKE)
    ]
    across = [f"{a} and {b}" for a, b in alike if split_of[a] and split_of[b] and split_of[a] != split_of[b]]
    if across:
        report.problems.append(
            f"{len(across)} pairs of images in different splits are nearly equal: {listed(across)}. Look at them: if "
            f"they show the same scene, move them to the same split. Otherwise the score is too good."
        )
    elif alike:
        report.facts.append(f"{len(alike)} pairs of images are nearly equal, such as {' and '.join(alike[0])}.")
