"""A folder of your own images with annotated boxes, and perhaps masks, in the format of COCO or of VOC.

- COCO: `images/` beside `annotations.json`, `instances*.json` or `boxes*.json`, or with these files in `annotations/`.
  Several files are the splits: `boxes_train.json` and `instances_train2017.json` are the split train.
- VOC: `Annotations/<name>.xml` beside `JPEGImages/` or `images/`, with the splits of `ImageSets/Main/<split>.txt`.

Without such splits, `splits/<split>.txt` lists the names of the images of a split, one per line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from segedu.datasets.box_files import AnnotatedImages, Annotation, read_coco, read_voc
from segedu.datasets.files import read_deep_image
from segedu.datasets.folder import (
    ALL,
    LABELS,
    MASKS,
    SUFFIXES,
    find_by_name,
    listed,
    read_classes,
    read_lines,
    read_splits,
)
from segedu.ops.masks import polygons_to_rle, rle_decode

BOXES = "boxes"  # the kind of ground truth, as MASKS and LABELS are
COCO_PATTERNS = ("annotations*.json", "instances*.json", "boxes*.json")
VOC_FOLDERS = ("Annotations", "annotations")
SMALLEST = 1.0  # pixels: an object with a shorter side inside its image is left out


@dataclass(frozen=True)
class Objects:
    """The objects of an image, inside it.

    Attributes:
        boxes: (N, 4) xyxy.
        labels: (N,) from 1 on.
        iscrowd: (N,) bool: to be ignored.
        annotations: as they were read.
        clipped: number of boxes that were reduced by at least 2 pixels to fit into the image.
        left_out: boxes that are degenerate, or outside the image.
    """

    boxes: Tensor
    labels: Tensor
    iscrowd: Tensor
    annotations: list[Annotation]
    clipped: int
    left_out: list[tuple[float, float, float, float]]

    def masks(self, size: tuple[int, int]) -> Tensor:
        """The masks (N, H, W) of an image of that size; of an object without one, its box."""
        masks = torch.zeros(len(self.boxes), *size, dtype=torch.bool)
        for mask, annotation, box in zip(masks, self.annotations, self.boxes.round().int().tolist(), strict=True):
            if annotation.segmentation is None:
                mask[box[1] : box[3], box[0] : box[2]] = True
            else:
                mask[:] = decode_mask(annotation.segmentation, size)
        return masks


def decode_mask(segmentation: list | dict, size: tuple[int, int]) -> Tensor:
    """The mask (H, W) of COCO's polygons or run lengths.

    Raises:
        ValueError: it is neither, or of another size.
    """
    mask = rle_decode(polygons_to_rle(segmentation, size) if isinstance(segmentation, list) else segmentation)
    if tuple(mask.shape) != tuple(size):
        raise ValueError(f"the segmentation has the size {tuple(mask.shape)}, expected {tuple(size)}, as the image")
    return mask


class BoxFolder:
    """What the annotations of a folder say, and where its images are.

    Args:
        root: the folder.

    Attributes:
        files: of COCO, or the folder of VOC's XML files.
        images: name -> file, of the annotated images.
        classes: names, with the background.
        annotations: name of an image -> its objects.
        sizes: name -> (height, width), where the annotations have it.
        splits: name of a split -> names of its images; "all" always exists.
        problems: one sentence per fault in the annotations.
        unused: names of images without annotations.
        has_masks: whether every object has one.

    Raises:
        FileNotFoundError: if a folder is missing.
        ValueError: if a file is not COCO's JSON, or the files have different categories.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.files = find_box_files(self.root)
        is_voc = self.files[0].is_dir()
        files = _image_files(self.root, ("JPEGImages", "images") if is_voc else ("images",))
        read = (
            {ALL: _read_voc(self.root, self.files[0])} if is_voc else {_split_of(p): read_coco(p) for p in self.files}
        )
        self.classes = next(iter(read.values())).classes
        self.problems: list[str] = []
        self.images: dict[str, Path] = {}
        self.annotations: dict[str, list[Annotation]] = {}
        self.sizes: dict[str, tuple[int, int]] = {}
        self.splits: dict[str, list[str]] = {ALL: []}
        for split, part in read.items():
            if part.classes != self.classes:
                raise ValueError(
                    f"{self.root} has files with the categories {', '.join(part.classes[1:])} and "
                    f"{', '.join(self.classes[1:])}, expected the same in all: {', '.join(p.name for p in self.files)}"
                )
            self._add(split, part, files)
        self.splits[ALL] = sorted(self.annotations)
        self.unused = sorted(files.keys() - self.annotations.keys())
        if list(self.splits) == [ALL]:
            self.splits = _listed_splits(self.root, self.images)
        objects = [one for found in self.annotations.values() for one in found if not one.is_crowd]
        self.has_masks = bool(objects) and all(one.segmentation is not None for one in objects)

    def _add(self, split: str, part: AnnotatedImages, files: dict[str, Path]) -> None:
        self.problems += part.problems
        names = {Path(file).stem: file for file in part.annotations}
        missing = sorted(names.keys() - files.keys())
        if missing:
            self.problems.append(
                f"{len(missing)} annotated images are not in the folder of images: {listed(missing)}. Copy them "
                f"there, or remove them from the annotations."
            )
        for name in sorted(names.keys() & files.keys()):
            self.images[name] = files[name]
            self.annotations[name] = part.annotations[names[name]]
            if names[name] in part.sizes:
                self.sizes[name] = part.sizes[names[name]]
        self.splits[split] = sorted(names.keys() & files.keys())

    def check(self) -> None:
        """Raise a ValueError if the annotations have a fault, or no image is annotated."""
        if self.problems:
            raise ValueError(
                f"{self.problems[0].rstrip('.')}; {len(self.problems) - 1} further problems: segedu inspect "
                f"{self.root} prints them"
            )
        if not self.annotations:
            raise ValueError(f"{self.root} has no annotated image, expected at least two")

    def read_image(self, name: str) -> Tensor:
        """An image (3, H, W) in [0, 1].

        Raises:
            ValueError: it cannot be read, or has another size than its annotations say.
        """
        image = torch.from_numpy(read_deep_image(self.images[name]))
        size = tuple(image.shape[1:])
        if self.sizes.get(name, size) != size:
            raise ValueError(
                f"{self.images[name]} has {size[0]} x {size[1]} pixels, expected {self.sizes[name][0]} x "
                f"{self.sizes[name][1]} (height x width), as its annotations say: the boxes belong to another size"
            )
        return image

    def objects(self, name: str, size: tuple[int, int]) -> Objects:
        """The objects of an image of that (height, width): boxes are clipped to it, and degenerate ones left out."""
        kept, boxes, left_out, clipped = [], [], [], 0
        for annotation in self.annotations[name]:
            left, top, right, bottom = annotation.box
            inside = (max(left, 0.0), max(top, 0.0), min(right, size[1]), min(bottom, size[0]))
            if min(inside[2] - inside[0], inside[3] - inside[1]) < SMALLEST:
                left_out.append(annotation.box)
                continue
            clipped += max(abs(a - b) for a, b in zip(inside, annotation.box, strict=True)) >= 2
            kept.append(annotation)
            boxes.append(inside)
        return Objects(
            torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            torch.tensor([one.label for one in kept], dtype=torch.int64),
            torch.tensor([one.is_crowd for one in kept], dtype=torch.bool),
            kept,
            clipped,
            left_out,
        )


def is_box_folder(root: Path) -> bool:
    """Whether a folder has annotations of COCO or VOC, and neither masks nor label maps."""
    return not any((root / name).is_dir() for name in (MASKS, LABELS)) and bool(_candidates(root))


def find_box_files(root: Path) -> list[Path]:
    """The COCO files of a folder, or the one folder of VOC's XML files."""
    if not root.is_dir():
        raise FileNotFoundError(f"root is {str(root)!r}, which is not a folder; expected one with images and boxes")
    found = _candidates(root)
    if not found:
        raise FileNotFoundError(
            f"root is {str(root)!r}, which has no annotations, expected COCO's annotations.json, "
            f"instances_<split>.json or boxes_<split>.json beside images, or VOC's Annotations/<name>.xml"
        )
    return found


def _candidates(root: Path) -> list[Path]:
    folders = (root, root / "annotations")
    coco = sorted({path for folder in folders for pattern in COCO_PATTERNS for path in folder.glob(pattern)})
    voc = [root / name for name in VOC_FOLDERS if any((root / name).glob("[!.]*.[xX][mM][lL]"))]
    return coco or voc[:1]


def _image_files(root: Path, folders: tuple[str, ...]) -> dict[str, Path]:
    """The images below the first of the folders that exists: name without suffix -> path."""
    folder = next((root / name for name in folders if (root / name).is_dir()), None)
    if folder is None:
        raise FileNotFoundError(f"root is {str(root)!r}, which has annotations, expected {' or '.join(folders)} too")
    files = find_by_name(folder, SUFFIXES)
    for path in sorted(p for p in folder.iterdir() if p.is_dir()):  # such as images/train
        for name, file in find_by_name(path, SUFFIXES).items():
            if name in files:
                raise ValueError(f"{file} and {files[name]} have the same name, expected one file per image")
            files[name] = file
    if not files:
        raise ValueError(f"{folder} contains no image, expected files such as <name>.png or <name>.jpg")
    return files


def _split_of(path: Path) -> str:
    """The split of a COCO file: train for instances_train2017.json, and all for annotations.json."""
    return re.sub(r"(?<=[a-z])\d{4}$", "", path.stem.partition("_")[2]) or ALL


def _read_voc(root: Path, folder: Path) -> AnnotatedImages:
    classes = [name for name in read_classes(root, MASKS) if name != "background"]
    return read_voc(sorted(folder.glob("[!.]*.[xX][mM][lL]")), classes)


def _listed_splits(root: Path, images: dict[str, Path]) -> dict[str, list[str]]:
    """The splits of `splits`, or else those of VOC's `ImageSets/Main` that have a usual name."""
    splits = read_splits(root, images)
    if len(splits) > 1:
        return splits
    for path in (root / "ImageSets" / "Main" / f"{name}.txt" for name in ("train", "val", "test")):
        if path.is_file():
            splits[path.stem] = [name for name in read_lines(path) if name in images]
    return {name: names for name, names in splits.items() if names}
