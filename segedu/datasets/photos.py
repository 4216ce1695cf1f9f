"""Sixteen photographs that scikit-image, scikit-learn and matplotlib install, with masks by two annotators.

The annotators are not people: they are two runs of the same AI model, which did not see each other's work. Each read
coordinates from enlarged parts of a photograph, and drew polygons, curves through points, and bands along centre lines,
without thresholds, region growing or snapping to edges, because the masks serve to evaluate such methods. Two runs of
one model may share errors, so their agreement can differ from that of two people. No person has checked the masks.
`photos.json` holds the masks of the first annotator, and `photos_second.json` those of the second, as COCO files with
run-length encodings. Each pixel belongs to at most one segment. A pixel without a segment is background. Three of the
photographs have special rules:

- `ihc`: only nuclei in one window are annotated; outside it, all pixels but those of these nuclei are void;
- `chelsea`: a blurred area below the chin is void, because it is not clear whether it is part of the cat;
- `retina`: only vessels at least 8 pixels wide are annotated.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import skimage.data
from matplotlib.cbook import get_sample_data
from PIL import Image
from skimage.color import gray2rgb
from sklearn.datasets import load_sample_image
from torch import Tensor
from torch.utils.data import Dataset

from segedu.datasets.files import item_of
from segedu.datasets.sample import VOID, make_sample
from segedu.ops.masks import rle_decode

FILES = {"first": "photos.json", "second": "photos_second.json"}
_READERS = {
    "astronaut": skimage.data.astronaut,
    "camera": skimage.data.camera,
    "cell": skimage.data.cell,
    "chelsea": skimage.data.cat,
    "china": lambda: load_sample_image("china.jpg"),
    "clock": skimage.data.clock,
    "coffee": skimage.data.coffee,
    "coins": skimage.data.coins,
    "flower": lambda: load_sample_image("flower.jpg"),
    "grace_hopper": lambda: np.asarray(Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False))),
    "ihc": skimage.data.immunohistochemistry,
    "microaneurysms": skimage.data.microaneurysms,
    "motorcycle_left": lambda: skimage.data.stereo_motorcycle()[0],
    "page": skimage.data.page,
    "retina": skimage.data.retina,
    "rocket": skimage.data.rocket,
}
NAMES = tuple(_READERS)


class Photos(Dataset):
    """The photographs, as the sample dicts of `segedu.datasets.sample`.

    Args:
        names: some of `NAMES`; all by default.
        annotator: "first" or "second".
        transforms: called with the sample dict, see `segedu.datasets.transforms`.

    Raises:
        ValueError: if a name or the annotator is not known.

    Each item has `image`, `semantic` (an index into `classes`, with 0 for background and 255 for void), `label_map`,
    `boxes`, `labels` and `masks` of the things, and `panoptic_seg` with `segments_info`, in which the background is one
    segment of class 0. `classes` are the names of all classes, and `is_thing` says which of them are things.

    >>> Photos(["coins"])[0]["masks"].shape
    torch.Size([24, 303, 384])
    """

    def __init__(
        self, names: Sequence[str] | None = None, annotator: str = "first", transforms: Callable | None = None
    ) -> None:
        self.names, self.annotator, self.transforms = list(NAMES if names is None else names), annotator, transforms
        if unknown := [name for name in self.names if name not in NAMES]:
            raise ValueError(f"names has {unknown[0]!r}, expected some of {', '.join(NAMES)}")
        if annotator not in FILES:
            raise ValueError(f"annotator is {annotator!r}, expected one of {', '.join(FILES)}")
        categories = [category for category in _annotations(annotator)["categories"] if category["name"] != "void"]
        self.classes = ("background", *(category["name"] for category in categories))
        self.is_thing = (False, *(bool(category["isthing"]) for category in categories))
        ids = {category["id"]: category["name"] for category in _annotations(annotator)["categories"]}
        self._labels = {number: VOID if name == "void" else self.classes.index(name) for number, name in ids.items()}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Tensor | list]:
        return item_of(self.names, index, self.transforms, self._read)

    def _read(self, name: str) -> dict[str, Tensor | list]:
        pixels = read_photo(name)
        content = _annotations(self.annotator)
        photo = next(image for image in content["images"] if image["file_name"] == name)
        label_map, stuff, labels = np.zeros(pixels.shape[:2], np.int32), np.zeros(pixels.shape[:2], np.int64), []
        for segment in (one for one in content["annotations"] if one["image_id"] == photo["id"]):
            mask = rle_decode(segment["segmentation"]).numpy()
            label = self._labels[segment["category_id"]]
            if label == VOID:
                stuff[mask] = VOID
            elif self.is_thing[label]:
                labels.append(label)
                label_map[mask] = len(labels)
            else:
                stuff[mask] = label
        if "window" in photo:  # y0, x0, y1, x1
            y0, x0, y1, x1 = photo["window"]
            outside = np.ones(stuff.shape, bool)
            outside[y0:y1, x0:x1] = False
            stuff[outside] = VOID
        image = np.moveaxis(pixels.astype(np.float32) / 255, 2, 0)
        return make_sample(image, label_map, np.array(labels, np.int64), stuff)


def read_photo(name: str) -> np.ndarray:
    """The pixels of a photograph, (H, W, 3) uint8; a grey one has three equal channels."""
    if name not in NAMES:
        raise ValueError(f"name is {name!r}, expected one of {', '.join(NAMES)}")
    pixels = np.asarray(_READERS[name]())
    return gray2rgb(pixels) if pixels.ndim == 2 else pixels[..., :3]


@cache
def _annotations(annotator: str) -> dict:
    return json.loads((Path(__file__).parent / FILES[annotator]).read_text(encoding="utf-8"))
