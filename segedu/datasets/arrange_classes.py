"""Convert the original files of data sets with classes per pixel to the layout of `segedu.datasets.folder`."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from segedu.datasets import camvid, voc
from segedu.datasets.camvid import CamVid
from segedu.datasets.files import read_pixels, require
from segedu.datasets.folder import MASKS
from segedu.datasets.folder_writer import FolderWriter, counted, reduce, size_of_short_side, to_bytes
from segedu.datasets.oxford_pet import OxfordPet
from segedu.datasets.real_data import AERIAL, CAMVID, PETS
from segedu.datasets.real_splits import listed_splits
from segedu.datasets.sample import VOID
from segedu.datasets.voc import VOCSegmentation

PETS_SIDE, AERIAL_SIDE, CAMVID_SIZE = 192, 512, (240, 320)  # pixels: shortest side, longest side, (height, width)
BORDER = 2  # class of the unlabelled border of pets
TEST_BREEDS = 5  # every fifth breed is only tested on
VALIDATION = 8  # every eighth image of a breed is for validation
NEAR = 300  # frames of CamVid, 10 seconds, within which two frames show nearly the same
TILE_SPLITS = {2: "val", 1: "test", 3: "test", 6: "test_shift"}  # of the tiles of Dubai; the others are for training
AERIAL_COLOURS = {  # building, land, road, vegetation, water
    (60, 16, 152): 0, (132, 41, 246): 1, (110, 193, 228): 2, (254, 221, 58): 3, (226, 169, 41): 4,
}  # fmt: skip


def arrange_pets(source: Path, target: Path, progress: bool) -> list[str]:
    """Convert Oxford-IIIT Pet: the folders `images` and `annotations`."""
    writer = FolderWriter(target, MASKS, PETS.classes)
    seen = listed_splits("pets")
    parts = {part: OxfordPet(source, part) for part in ("trainval", "test")}
    work = [(part, number) for part, pets in parts.items() for number in range(len(pets))]
    for part, number in counted(work, progress, len(work)):
        pets = parts[part]
        name, breed, _ = pets.rows[number]
        try:
            sample = pets[number]
        except (ValueError, FileNotFoundError) as error:
            writer.left_out.append(str(error))
            continue
        classes = sample["semantic"].numpy()
        classes = np.where(classes == VOID, BORDER, classes)
        image = to_bytes(sample["image"].numpy())
        small = reduce(image, classes, size_of_short_side(image.shape[:2], PETS_SIDE))
        writer.add(name, *small, _pet_splits(name, breed, part, seen))
    writer.close()
    return writer.left_out


def _pet_splits(name: str, breed: int, part: str, seen: dict[str, str]) -> list[str]:
    """The split of a photograph, see `segedu.datasets.real_data.PETS`."""
    if breed % TEST_BREEDS == TEST_BREEDS - 1:
        return ["test_other_breeds"]
    if name in seen:
        return [seen[name]]
    if part == "test":
        return ["test"]
    return ["val" if int(re.sub(r"\D", "", name) or 0) % VALIDATION == 0 else "train"]


def arrange_voc(source: Path, target: Path, progress: bool) -> list[str]:
    """Convert PASCAL VOC 2012: the folder `VOCdevkit/VOC2012`."""
    writer = FolderWriter(target, MASKS, voc.CLASSES)
    root = source / "VOCdevkit" / "VOC2012"
    parts = {part: VOCSegmentation(root, part) for part in ("train", "val")}
    work = [(part, number) for part, images in parts.items() for number in range(len(images))]
    for part, number in counted(work, progress, len(work)):
        name = parts[part].names[number]
        classes = parts[part][number]["semantic"].numpy()
        writer.add_copy(name, root / "JPEGImages" / f"{name}.jpg", classes, [part])
    writer.close()
    return writer.left_out


def arrange_camvid(source: Path, target: Path, progress: bool) -> list[str]:
    """Convert CamVid in SegNet's version: the folder `CamVid` of its repository."""
    writer = FolderWriter(target, MASKS, CAMVID.classes)
    root = next(iter(source.glob("*/CamVid")), source / "CamVid")
    parts = {part: CamVid(root, part) for part in ("train", "val", "test")}
    names = {part: [Path(name).stem for name in images.names] for part, images in parts.items()}
    work = [(part, number) for part, images in parts.items() for number in range(len(images))]
    for part, number in counted(work, progress, len(work)):
        sample = parts[part][number]
        classes = sample["semantic"].numpy()
        classes = np.where(classes == VOID, len(camvid.CLASSES), classes)
        small = reduce(to_bytes(sample["image"].numpy()), classes, CAMVID_SIZE)
        writer.add(names[part][number], *small, [part, *_camvid_splits(part, number, names)])
    writer.close()
    return writer.left_out


def _camvid_splits(part: str, number: int, names: dict[str, list[str]]) -> list[str]:
    """The further splits of a frame, see `segedu.datasets.real_data.CAMVID`."""
    sequence, frame = _frame(names[part][number])
    if part == "val":
        return ["val_spaced"] if number % 15 == 0 else []
    if part == "test":
        train = {_frame(name)[0] for name in names["train"]}
        return [] if sequence in train else ["test_new_sequence"]
    others = [_frame(name) for name in names["val"] + names["test"]]
    distances = [abs(frame - other) for name, other in others if name == sequence]
    return ["train_strict"] if min(distances, default=NEAR) >= NEAR else []


def _frame(name: str) -> tuple[str, int]:
    """Sequence and number of a frame: 0016E5_07959 -> ("0016E5", 7959)."""
    sequence, _, frame = name.rpartition("_")
    digits = re.sub(r"\D", "", frame)
    return sequence, int(digits or 0)


def arrange_aerial(source: Path, target: Path, progress: bool) -> list[str]:
    """Convert the aerial images of Dubai: folders `Tile 1` to `Tile 8` with images and masks in colours."""
    writer = FolderWriter(target, MASKS, AERIAL.classes)
    images = sorted(source.rglob("Tile */images/*.jpg"))
    for path in counted(images, progress, len(images)):
        tile, part = (int(re.sub(r"\D", "", text)) for text in (path.parts[-3], path.stem))
        mask = require(path.parents[1] / "masks" / f"{path.stem}.png", source, "a mask of the same name in masks")
        image, classes = read_pixels(path, photograph=True), _aerial_classes(read_pixels(mask, photograph=True))
        factor = min(1.0, AERIAL_SIDE / max(classes.shape))
        size = tuple(round(side * factor) for side in classes.shape)
        writer.add(f"t{tile}_{part:02}", *reduce(image, classes, size), [TILE_SPLITS.get(tile, "train")])
    writer.close()
    return writer.left_out


def _aerial_classes(colours: np.ndarray) -> np.ndarray:
    """Classes (H, W) of the colours (H, W, 3) of a mask; 255 for colours that are those of no class."""
    classes = np.full(colours.shape[:2], VOID, np.uint8)
    for colour, number in AERIAL_COLOURS.items():
        classes[(colours[..., :3] == colour).all(axis=-1)] = number
    return classes
