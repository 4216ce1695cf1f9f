"""PASCAL VOC, detection: boxes of 20 classes, in one XML file for each image.

Everingham et al. 2010 (IJCV 88), and the challenge's development kit. The folder is `VOCdevkit/VOC2007` or `VOC2012`:
`ImageSets/Main/<split>.txt` names the images, `JPEGImages/<name>.jpg` and `Annotations/<name>.xml` hold them. In the
files a box is its first and last pixel, counted from 1: 1, 1, 10, 10 is 10 wide. Here it is 0, 0, 10, 10, as for
all boxes of this library. The challenge ignores objects marked `difficult`, whether they are detected or not. An object
marked `truncated` extends beyond its box.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import torch
from torch import Tensor
from torch.utils.data import Dataset

from segedu.datasets.files import item_of, read_image, require
from segedu.datasets.voc import CLASSES

_LAYOUT = "VOCdevkit/VOC2012 with ImageSets/Main, JPEGImages and Annotations"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class VOCDetection(Dataset):
    """Images with boxes.

    Args:
        root: the folder VOC2007, VOC2012 or that of another year.
        split: "train", "val" or "trainval"; "test" if its ground truth is available, as for 2007.
        transforms: called with the sample dict.
        keep_difficult: False drops difficult objects, as is usual in training; evaluation needs them.

    Raises:
        FileNotFoundError: if the folder, the split or, on reading, a file is missing.
        ValueError: if the split lists no images; on reading, if a file is not an image or not XML, or a class, a
            box or a flag is invalid.

    Each item has `image`, `boxes` (N, 4) float32 xyxy, `labels` (N,) int64, indices into `segedu.datasets.voc.CLASSES`,
    and `difficult` and `truncated`, (N,) bool. There are no masks: `VOCSegmentation` reads the images that have them.
    An image without objects has N = 0.
    """

    def __init__(
        self, root: str | Path, split: str = "train", transforms: Callable | None = None, keep_difficult: bool = True
    ):
        self.root, self.transforms, self.keep_difficult = Path(root), transforms, keep_difficult
        path = require(self.root / "ImageSets" / "Main" / f"{split}.txt", self.root, _LAYOUT)
        require(self.root / "Annotations", self.root, _LAYOUT)
        self.names = path.read_text(encoding="utf-8").split()
        if not self.names:
            raise ValueError(f"{path} lists no images, expected lines such as '2007_000027'")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return item_of(self.names, index, self.transforms, self._read)

    def _read(self, name: str) -> dict[str, Tensor]:
        image = read_image(self.root / "JPEGImages" / f"{name}.jpg")
        objects = _read_objects(self.root / "Annotations" / f"{name}.xml", image.shape[1:])
        if not self.keep_difficult:
            objects = [one for one in objects if not one[2]]
        boxes, labels, difficult, truncated = zip(*objects, strict=True) if objects else ((),) * 4
        return {
            "image": torch.from_numpy(image),
            "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor(labels, dtype=torch.int64),
            "difficult": torch.tensor(difficult, dtype=torch.bool),
            "truncated": torch.tensor(truncated, dtype=torch.bool),
        }


def _read_objects(path: Path, size: tuple[int, ...]) -> list[tuple[list[float], int, bool, bool]]:
    """Box, label, difficult and truncated of each object."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, expected an XML file of VOC: the list of images names it")
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the last two: an encoding that is none
        raise ValueError(f"{path} is not XML, expected an annotation of VOC: {error}") from error
    if root.tag != "annotation":
        raise ValueError(f"{path} has the root <{root.tag}>, expected <annotation>")
    return [_read_object(element, path, size) for element in root.findall("object")]


def _read_object(element: ElementTree.Element, path: Path, size: tuple[int, ...]) -> tuple:
    name = (element.findtext("name") or "").strip()
    if name not in CLASSES[1:]:
        raise ValueError(f"{path} has an object of the class {name!r}, expected one of {', '.join(CLASSES[1:])}")
    box = [_number(element.findtext(f"bndbox/{corner}"), corner, path) for corner in _CORNERS]
    H, W = size
    # Convert first and last pixel to box edges. A box that extends slightly beyond the image is clipped.
    edges = [max(box[0] - 1, 0.0), max(box[1] - 1, 0.0), min(box[2], W), min(box[3], H)]
    if not (edges[0] < edges[2] and edges[1] < edges[3]):
        raise ValueError(f"{path} has the box {box}, expected xmin <= xmax and ymin <= ymax in an image of {W} x {H}")
    return edges, CLASSES.index(name), *(_flag(element.findtext(key), key, path) for key in ("difficult", "truncated"))


def _number(text: str | None, corner: str, path: Path) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{path} has the {corner} {text!r}, expected a number of pixels")
    return value


def _flag(text: str | None, key: str, path: Path) -> bool:
    """Read a flag; in the files of some years, a missing flag means 0."""
    value = (text or "0").strip()
    if value not in ("0", "1"):
        raise ValueError(f"{path} has {key} {text!r}, expected 0 or 1")
    return value == "1"
