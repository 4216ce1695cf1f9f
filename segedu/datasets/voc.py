"""PASCAL VOC 2012, segmentation: 20 classes and background; ground truth of classes and of instances.

Everingham et al. 2010 (IJCV 88), and the challenge's development kit. The folder is `VOCdevkit/VOC2012`:
`ImageSets/Segmentation/<split>.txt` names the images, `JPEGImages/<name>.jpg`, `SegmentationClass/<name>.png`
and `SegmentationObject/<name>.png` hold them. The ground truth is stored as palette images: the *index* is
the class or the instance, 0 is background, and 255 is void, a border around every object that is not evaluated.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from segedu.datasets.files import item_of, read_image, read_labels, require
from segedu.datasets.sample import compact, make_sample

CLASSES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
).split()
VOID = 255
_LAYOUT = "VOCdevkit/VOC2012 with ImageSets/Segmentation, JPEGImages, SegmentationClass and SegmentationObject"


class VOCSegmentation(Dataset):
    """Images with classes and instances.

    Args:
        root: the folder VOC2012 (or that of another year).
        split: "train", "val" or "trainval"; "test" has no public ground truth.
        transforms: called with the sample dict, see `segedu.datasets.transforms`.

    Each item has the keys of `segedu.datasets.sample`: `semantic` with 255 in the void border; `label_map`,
    `boxes`, `labels` and `masks` of the instances, where void belongs to none.
    """

    def __init__(self, root: str | Path, split: str = "train", transforms: Callable | None = None):
        self.root, self.transforms = Path(root), transforms
        path = require(self.root / "ImageSets" / "Segmentation" / f"{split}.txt", self.root, _LAYOUT)
        self.names = path.read_text(encoding="utf-8").split()
        if not self.names:
            raise ValueError(f"{path} lists no images, expected lines such as '2007_000032'")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return item_of(self.names, index, self.transforms, self._read)

    def _read(self, name: str) -> dict[str, Tensor]:
        image = read_image(self.root / "JPEGImages" / f"{name}.jpg")
        size = image.shape[1:]
        semantic = read_labels(self.root / "SegmentationClass" / f"{name}.png", size)
        is_valid = (semantic < len(CLASSES)) | (semantic == VOID)
        if not is_valid.all():
            invalid = int(semantic[~is_valid][0])
            raise ValueError(f"SegmentationClass/{name}.png has the class {invalid}, expected 0 to 20, or 255 for void")
        objects = read_labels(self.root / "SegmentationObject" / f"{name}.png", size)
        objects[objects == VOID] = 0
        label_map, old = compact(objects)
        # An instance has the class of most of its pixels: masks of classes and of objects were drawn together.
        labels = [int(torch.mode(semantic[objects == object_label]).values) for object_label in old]
        for object_label, label in zip(old.tolist(), labels, strict=True):
            if label in (0, VOID):
                what = "background" if label == 0 else "void"
                raise ValueError(
                    f"SegmentationObject/{name}.png has an object {object_label}, which is {what} among the classes"
                )
        return make_sample(image, label_map.numpy(), labels) | {"semantic": semantic}
