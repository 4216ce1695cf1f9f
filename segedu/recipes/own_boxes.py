"""A folder of your own images with annotated boxes as the data of a training: reading, random changes, and a baseline.

See `segedu.datasets.box_folder` for the layout, and `segedu.recipes.own_detectors` for what is trained on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from skimage.measure import label, regionprops
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from segedu.datasets.box_folder import BoxFolder
from segedu.ops.boxes import box_area
from segedu.recipes.baselines import gaussian_otsu
from segedu.recipes.data import Sets, brighten, jitter_colours, random_window, resize
from segedu.recipes.own_changes import LIGHT, PHOTO_SCALES
from segedu.recipes.own_images import Preparation, split_names
from segedu.recipes.shapes import Example, Instances
from segedu.viz import palette

VISIBLE = 0.3  # fraction of a box that has to be inside a window; less is left out
Change = Callable[[Tensor, Instances], Example]


class StoredExamples(Sequence[Example]):
    """Prepared images, uint8 (3, h, w), and their objects, in memory; an access returns the image in [0, 1]."""

    def __init__(self, images: list[Tensor], objects: list[Instances]) -> None:
        self.images, self.objects = images, objects

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Example:
        return self.images[index].float() / 255, self.objects[index]


class BoxWindows(Dataset):
    """Random views of stored images. `preparation` is that of the images."""

    def __init__(self, pairs: StoredExamples, change: Change, preparation: Preparation) -> None:
        self.pairs, self.change, self.preparation = pairs, change, preparation

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Example:
        return self.change(*self.pairs[index])


def own_box_sets(
    seed: int,
    root: Path | None,
    *,
    preparation: Preparation,
    change: Change,
    masks: bool = False,
    train_images: int | None = None,
) -> Sets:
    """Read all images of a folder: those of the split train to train on, and those of every other split apart.

    Args:
        seed: not used; every recipe's `sets` takes one.
        root: the folder.
        preparation: of an image.
        change: random change of a training image and its objects.
        masks: read masks too.
        train_images: as in `own_recipe`.

    Raises:
        ValueError: an image or an annotation cannot be used, or the training images have no object.
    """
    folder = BoxFolder(root)
    folder.check()
    splits = split_names(folder)
    splits["train"] = np.random.default_rng(0).permutation(sorted(splits["train"])).tolist()[:train_images]
    total = sum(map(len, splits.values()))
    with tqdm(total=total, desc="read images", unit="image", leave=False) as bar:
        read = {name: _read(folder, names, preparation, masks, bar) for name, names in splits.items()}
    for split in ("train", "val"):
        if split in read and not any(len(objects["labels"]) for objects in read[split].objects):
            raise ValueError(
                f"{folder.root} has no object in the images of the split {split}, expected at least one: segedu "
                f"inspect {folder.root} prints the numbers"
            )
    train = BoxWindows(read.pop("train"), change, preparation)
    return Sets(train, {name: {"all": stored} for name, stored in read.items()})


def _read(folder: BoxFolder, names: list[str], preparation: Preparation, masks: bool, bar: tqdm) -> StoredExamples:
    images, objects = [], []
    for name in names:
        image, found = read_example(folder, name, masks)
        size = preparation.size_of(image.shape[1:])
        images.append((preparation(image) * 255).round().to(torch.uint8))
        objects.append(rescaled(found, tuple(image.shape[1:]), size))
        bar.update()
    return StoredExamples(images, objects)


def read_example(folder: BoxFolder, name: str, masks: bool = False) -> Example:
    """An image (3, H, W) and its objects as they are on the disk.

    Returns:
        The image, and `boxes` (N, 4), `labels` (N,), `iscrowd` (N,) and, if `masks` is True, `masks` (N, H, W).

    Raises:
        ValueError: a file or a mask cannot be used.
    """
    try:
        image = folder.read_image(name)
        found = folder.objects(name, tuple(image.shape[1:]))
        instances = {"boxes": found.boxes, "labels": found.labels, "iscrowd": found.iscrowd}
        if masks:
            instances["masks"] = found.masks(tuple(image.shape[1:]))
    except (ValueError, TypeError, OSError) as error:
        raise ValueError(f"{name}: {error}; segedu inspect {folder.root} names every such file") from None
    return image, instances


def rescaled(objects: Instances, size: tuple[int, int], new: tuple[int, int]) -> Instances:
    """The objects of an image of that (height, width) after it was resized to `new`."""
    scale = torch.tensor([new[1] / size[1], new[0] / size[0]] * 2)
    changed = objects | {"boxes": objects["boxes"] * scale}
    if "masks" in objects and tuple(size) != tuple(new):
        small = [resize(mask[None, None].to(torch.uint8), new, "nearest")[0, 0].bool() for mask in objects["masks"]]
        changed["masks"] = torch.stack(small) if small else torch.zeros(0, *new, dtype=torch.bool)
    return changed


# --- random changes -----------------------------------------------------------------------------------------------


def cropped(image: Tensor, objects: Instances, frame: tuple[int, int, int, int]) -> Example:
    """Crop an image and its objects; outside the image it is black.

    An object of which less than 30 % of its box is left, or no pixel of its mask, is dropped.

    Args:
        image: (3, H, W).
        objects: `boxes`, `labels` and perhaps `iscrowd` and `masks`.
        frame: top, left, height and width.
    """
    top, left, height, width = frame
    missing = (0, max(0, left + width - image.shape[-1]), 0, max(0, top + height - image.shape[-2]))
    index = (..., slice(top, top + height), slice(left, left + width))
    boxes = objects["boxes"] - torch.tensor([left, top, left, top])
    inside = torch.stack([boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)], dim=-1).flatten(1)
    keep = (inside[:, 2:] - inside[:, :2] >= 1).all(dim=1)
    keep &= box_area(inside) >= VISIBLE * box_area(boxes)
    changed = {key: value[keep] for key, value in (objects | {"boxes": inside}).items()}
    if "masks" in objects:
        changed["masks"] = pad(changed["masks"], missing)[index]
        has_pixels = changed["masks"].flatten(1).any(dim=1)
        changed = {key: value[has_pixels] for key, value in changed.items()}
    return pad(image, missing)[index], changed


def box_window(
    image: Tensor, objects: Instances, window: int, limits: tuple[float, float] = (1, 1), whole: bool = False
) -> Example:
    """A random square of an image with its objects, resized to a window by a random factor.

    Args:
        image: (3, H, W).
        objects: its objects.
        window: side of the result in pixels.
        limits: smallest and largest factor.
        whole: the square is instead the whole image, or a random part of it of at least `limits[0]` of its sides, and
            its ratio of height to width changes, as SSD trains.
    """
    factor = float(torch.empty(()).uniform_(*np.log(limits)).exp())
    if whole:
        size = tuple(max(1, round(min(1.0, factor) * side)) for side in image.shape[-2:])
    else:
        size = (round(window / factor), round(window / factor))
    room = image.new_zeros(1, max(image.shape[-2], size[0]), max(image.shape[-1], size[1]))
    _, rows, columns = random_window(room, size)
    image, objects = cropped(image, objects, (rows.start, columns.start, *size))
    resized = resize(image[None], (window, window), "area")[0].clamp(0, 1)
    return resized, rescaled(objects, size, (window, window))


def mirrored(image: Tensor, objects: Instances) -> Example:
    """Mirror left to right with probability 1/2."""
    if torch.rand(()) >= 0.5:
        return image, objects
    left, top, right, bottom = objects["boxes"].unbind(dim=1)
    boxes = torch.stack([image.shape[-1] - right, top, image.shape[-1] - left, bottom], dim=1)
    flipped = {"masks": objects["masks"].flip(-1)} if "masks" in objects else {}
    return image.flip(-1), objects | {"boxes": boxes} | flipped


def light_box_window(image: Tensor, objects: Instances, window: int, whole: bool = False) -> Example:
    """A random window, mirrored and brightened."""
    return brighten(*mirrored(*box_window(image, objects, window, whole=whole)))


def strong_box_window(image: Tensor, objects: Instances, window: int, whole: bool = False) -> Example:
    """A random window of random scale, mirrored, brightened, and with changed colours."""
    view = box_window(image, objects, window, PHOTO_SCALES, whole)
    return jitter_colours(*brighten(*mirrored(*view)))


BOX_AUGMENTATIONS: dict[str, Callable[..., Example]] = {
    "none": box_window,
    LIGHT: light_box_window,
    "strong": strong_box_window,
}


def box_change(augment: str, window: int, whole: bool = False) -> Change:
    """The random change of an image and its objects: "none", "light" or "strong", see `own_changes`."""
    if augment not in BOX_AUGMENTATIONS:
        raise ValueError(f"augment is {augment!r}, expected one of {', '.join(BOX_AUGMENTATIONS)}")
    return partial(BOX_AUGMENTATIONS[augment], window=window, whole=whole)


# --- figures ------------------------------------------------------------------------------------------------------


def draw_boxes(axes: Axes, boxes: Tensor, labels: Tensor, num_classes: int) -> None:
    """Draw boxes (N, 4) in the colours of their classes onto the axes of a figure."""
    colours = palette(num_classes)
    for (left, top, right, bottom), number in zip(boxes.tolist(), labels.tolist(), strict=True):
        corner, size = (left - 0.5, top - 0.5), (right - left, bottom - top)
        axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colours[number - 1], linewidth=1.2))


# --- baseline -----------------------------------------------------------------------------------------------------


class OtsuBoxes(nn.Module):
    """The boxes of the connected components of a threshold, each with the class whose training boxes are most similar.

    A box is described by the logarithms of its width and height and by its mean colour. The score of a component
    decreases with its distance to the mean of the class, in standard deviations.
    """

    name = "Gaussian + Otsu + boxes"

    def __init__(self, train: Sequence[Example], num_classes: int, smallest: int = 20) -> None:
        super().__init__()
        self.smallest = smallest
        features = [(box_features(image, o["boxes"]), o["labels"]) for image, o in train]
        values, labels = (torch.cat(parts) for parts in zip(*features, strict=True))
        self.mean, self.scale = values.mean(dim=0), values.std(dim=0, correction=0).clamp(min=1e-3)
        self.labels = labels.unique()
        scaled = (values - self.mean) / self.scale
        self.centres = torch.stack([scaled[labels == one].mean(dim=0) for one in self.labels])

    def forward(self, images: Tensor) -> list[Instances]:
        return [self._detect(image.cpu()) for image in images]

    def _detect(self, image: Tensor) -> Instances:
        regions = regionprops(label(gaussian_otsu(image).numpy(), connectivity=1))
        found = [region.bbox for region in regions if region.area >= self.smallest]
        boxes = torch.tensor(found, dtype=torch.float32).reshape(-1, 4)[:, [1, 0, 3, 2]]
        scaled = (box_features(image, boxes) - self.mean) / self.scale
        distances = torch.cdist(scaled, self.centres)
        nearest = distances.argmin(dim=1)
        scores = (-distances.gather(1, nearest[:, None])[:, 0]).exp()
        return {"boxes": boxes, "labels": self.labels[nearest], "scores": scores}


def box_features(image: Tensor, boxes: Tensor) -> Tensor:
    """Logarithms of width and height, and mean colour, (N, 5), of the boxes (N, 4) of an image (3, H, W)."""
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1).log()
    colours = [_mean_colour(image, box) for box in boxes.round().int().tolist()]
    return torch.cat([sides, torch.stack(colours) if colours else torch.zeros(0, 3)], dim=1)


def _mean_colour(image: Tensor, box: list[int]) -> Tensor:
    left, top, right, bottom = box
    return image[:, top : max(bottom, top + 1), left : max(right, left + 1)].mean(dim=(1, 2)).nan_to_num()
