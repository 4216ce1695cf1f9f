"""Convert the original files of data sets with one label per object to the layout of `segedu.datasets.folder`."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.measure import label

from segedu.datasets.dsb2018 import DataScienceBowl
from segedu.datasets.files import read_pixels, require
from segedu.datasets.folder import LABELS
from segedu.datasets.folder_writer import FolderWriter, counted, reduce, size_of_short_side, stretch, to_bytes
from segedu.datasets.penn_fudan import PennFudan
from segedu.datasets.real_data import BBBC039, NUCLEI, PENNFUDAN, PHASE_CELLS
from segedu.datasets.real_splits import listed_splits

PENNFUDAN_SIDE = 256  # pixels: shortest side
NUCLEI_SIDE = 640  # pixels: images with a longer side are halved until they are smaller
BOX = Image.Resampling.BOX


def arrange_pennfudan(source: Path, target: Path, progress: bool) -> list[str]:
    """Convert Penn-Fudan: the folder `PennFudanPed`."""
    writer = FolderWriter(target, LABELS, PENNFUDAN.classes)
    people, splits = PennFudan(source / "PennFudanPed"), listed_splits("pennfudan")
    for number in counted(range(len(people)), progress, len(people)):
        name, sample = people.names[number], people[number]
        image = to_bytes(sample["image"].numpy())
        size = size_of_short_side(image.shape[:2], PENNFUDAN_SIDE)
        writer.add(name, *reduce(image, sample["label_map"].numpy(), size), [splits.get(name, "train")])
    writer.close()
    return writer.left_out


def arrange_nuclei(source: Path, target: Path, progress: bool) -> list[str]:
    """Convert the 2018 Data Science Bowl: one folder per image, which has a file per nucleus.

    `items.csv` has the kind of each image: fluo (bright nuclei on a dark background, with the size of the image), he
    (stained tissue, in colour) or bright (grey, with a bright background).
    """
    writer = FolderWriter(target, LABELS, NUCLEI.classes)
    root = source / "stage1_train" if (source / "stage1_train").is_dir() else source
    nuclei, splits = DataScienceBowl(root.parent, root.name), listed_splits("nuclei_grouped")
    rows = [("name", "split", "kind", "kaggle_id")]
    for number in counted(range(len(nuclei)), progress, len(nuclei)):
        full_name = nuclei.names[number]
        try:
            sample = nuclei[number]
        except (ValueError, FileNotFoundError) as error:
            writer.left_out.append(str(error))
            continue
        name, image, labels = full_name[:16], to_bytes(sample["image"].numpy()), sample["label_map"].numpy()
        split, kind = splits.get(name, "train"), nuclei_kind(image)
        while max(image.shape[:2]) >= NUCLEI_SIDE:
            image, labels = reduce(image, labels, (image.shape[0] // 2, image.shape[1] // 2), BOX)
        writer.add(name, image, labels, [split], lossless=image.ndim == 2)
        rows.append((name, split, kind, full_name))
    writer.close()
    with (target / "items.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return writer.left_out


def nuclei_kind(image: np.ndarray) -> str:
    """The kind of a microscope image, (H, W) grey or (H, W, 3) colour, uint8: he, bright, or fluo and its size."""
    if image.ndim == 3:
        return "he"
    if np.median(image) > 127:
        return "bright"
    size = "x".join(map(str, image.shape))
    return f"fluo_{size if size in ('256x256', '360x360', '520x696') else 'other'}"


def arrange_bbbc039(source: Path, target: Path, progress: bool) -> list[str]:
    """Convert BBBC039: the folders `images`, `masks` and `metadata`.

    In a mask, touching nuclei have different colours, but nuclei apart may have the same one.
    """
    writer = FolderWriter(target, LABELS, BBBC039.classes)
    lists = {"train": "training", "val": "validation", "test": "test"}
    work = [
        (split, Path(line.strip()).stem)
        for split, part in lists.items()
        for line in require(source / "metadata" / f"{part}.txt", source, "three lists of images").read_text().split()
    ]
    for split, name in counted(work, progress, len(work)):
        values = read_pixels(source / "images" / f"{name}.tif")
        colours = read_pixels(source / "masks" / f"{name}.png")
        nuclei = label(colours[..., 0] if colours.ndim == 3 else colours, background=0, connectivity=2)
        writer.add(name, stretch(values), nuclei, [split], lossless=True)
    writer.close()
    return writer.left_out


def arrange_phase_cells(source: Path, target: Path, progress: bool) -> list[str]:
    """Convert the labelled images of Usiigaci: folders such as `train/set1` with raw.tif and instances_ids.png."""
    writer = FolderWriter(target, LABELS, PHASE_CELLS.classes)
    splits = listed_splits("phase_cells")
    sets = sorted(source.glob("*/Mask R-CNN/*/set*"), key=lambda path: int(path.name[3:]))
    for folder in counted(sets, progress, len(sets)):
        name = f"{folder.parent.name}_{int(folder.name[3:]):02}"
        values, cells = read_pixels(folder / "raw.tif"), read_pixels(folder / "instances_ids.png")
        size = (values.shape[0] // 2, values.shape[1] // 2)
        small = reduce(stretch(values), cells if cells.ndim == 2 else cells[..., 0], size, BOX)
        writer.add(name, *small, [splits.get(name, "train")])
    writer.close()
    return writer.left_out
