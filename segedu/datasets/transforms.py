"""Transforms that move an image and all its truth together, on top of torchvision.transforms.v2.

`Joint` applies v2 transforms to image, semantic target and label map, then computes masks and boxes anew
from the label map: after a crop or a bend they are exact, and objects that left the image are gone from all.
Where a sample has panoptic truth, its segments are numbered anew too. Labels are always sampled by nearest
neighbour. Where a transform looks beyond the image, the semantic target becomes 255 (the ignore_index of the
course) and the label map 0: pass `fill=FILL` to v2 transforms that pad. `areas` and `visible` of a drawn scene
do not survive: they describe the scene as it was drawn.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from segedu.datasets.sample import KEYS, compact, panoptic_truth
from segedu.ops.masks import boxes_from_masks, masks_from_label_map


class LabelMap(tv_tensors.Mask):
    """A mask whose numbers are instances: padding must be 0 in it, where it is 255 in a semantic target."""


FILL = {tv_tensors.Image: 0, tv_tensors.Mask: 255, LabelMap: 0}


def _check_sample(sample: dict[str, Tensor], keys: tuple[str, ...]) -> None:
    if not isinstance(sample, dict):
        raise TypeError(f"sample has type {type(sample).__name__}, expected a dict with {', '.join(keys)}")
    absent = [key for key in keys if key not in sample]
    if absent:
        raise ValueError(f"sample has no {absent[0]!r}, expected the keys {', '.join(keys)}")
    image = sample["image"]
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"sample has an image of shape {tuple(image.shape)}, expected (3, H, W), not empty")
    for key in ("semantic", "label_map"):
        if sample[key].shape != image.shape[1:]:
            shape = tuple(sample[key].shape)
            raise ValueError(f"sample has a {key} of shape {shape}, expected {tuple(image.shape[1:])} as its image")


def to_tv_tensors(sample: dict[str, Tensor]) -> dict[str, Any]:
    """Wrap a sample so that any transform of torchvision.transforms.v2 knows what each entry is.

    Args:
        sample: with all keys of `segedu.datasets.sample.KEYS`.

    Returns:
        `image` as Image, `semantic` as Mask, `label_map` as LabelMap, `masks` as Mask, `boxes` as
        BoundingBoxes (XYXY); other entries as they are. Nothing is copied.

    Raises:
        TypeError: if `sample` is no dict.
        ValueError: if a key is missing or sizes differ.
    """
    _check_sample(sample, KEYS)
    size = tuple(sample["image"].shape[1:])
    return sample | {
        "image": tv_tensors.Image(sample["image"]),
        "semantic": tv_tensors.Mask(sample["semantic"]),
        "label_map": LabelMap(sample["label_map"]),
        "masks": tv_tensors.Mask(sample["masks"]),
        "boxes": tv_tensors.BoundingBoxes(sample["boxes"], format="XYXY", canvas_size=size),
    }


class Joint:
    """Apply v2 transforms, one after the other, to a sample dict; give plain tensors back.

    Args:
        transforms: of torchvision.transforms.v2 or of this file. Random ones draw from torch's global
            generator, so `torch.manual_seed` fixes them.

    Raises:
        TypeError: if something is no v2 transform; on calling, if the sample is no dict.
        ValueError: on calling, if a key is missing or sizes differ.
    """

    def __init__(self, *transforms: v2.Transform):
        for transform in transforms:
            if not isinstance(transform, v2.Transform):
                raise TypeError(f"transforms hold {transform!r}, expected transforms of torchvision.transforms.v2")
        self.transforms = transforms

    def __call__(self, sample: dict[str, Tensor]) -> dict[str, Tensor]:
        _check_sample(sample, ("image", "semantic", "label_map", "labels"))
        moved = {
            "image": tv_tensors.Image(sample["image"]),
            "semantic": tv_tensors.Mask(sample["semantic"]),
            "label_map": LabelMap(sample["label_map"]),
        }
        for transform in self.transforms:
            moved = transform(moved)
        label_map, old = compact(moved["label_map"].as_subclass(Tensor))
        masks = masks_from_label_map(label_map)
        semantic, labels = moved["semantic"].as_subclass(Tensor).contiguous(), sample["labels"][old - 1]
        result = {
            "image": moved["image"].as_subclass(Tensor).clamp(0, 1).contiguous(),
            "semantic": semantic,
            "label_map": label_map,
            "boxes": boxes_from_masks(masks),
            "labels": labels,
            "masks": masks,
        }
        if "iscrowd" in sample:
            result["iscrowd"] = sample["iscrowd"][old - 1]
        if "panoptic_seg" in sample:
            result["panoptic_seg"], result["segments_info"] = panoptic_truth(label_map, labels, semantic)
        return result


class RandomRot90(v2.Transform):
    """Turn by 0, 90, 180 or 270 degrees, each as likely; height and width change places at 90 and 270."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"turns": int(torch.randint(4, ()))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return tv_tensors.wrap(torch.rot90(inpt.as_subclass(Tensor), params["turns"], (-2, -1)), like=inpt)


class RandomScale(v2.Transform):
    """Enlarge or shrink height and width by one random factor, drawn evenly between two limits.

    Args:
        limits: smallest and largest factor, above 0.

    Raises:
        ValueError: if the limits are not in order or not positive.
    """

    def __init__(self, limits: tuple[float, float] = (0.75, 1.33)):
        super().__init__()
        if not 0 < limits[0] <= limits[1]:
            raise ValueError(f"limits is {limits!r}, expected 0 < smallest <= largest")
        self.limits = limits

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = v2.functional.get_size(flat_inputs[0])
        factor = float(torch.empty(()).uniform_(*self.limits))
        return {"size": [max(1, round(height * factor)), max(1, round(width * factor))]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return self._call_kernel(v2.functional.resize, inpt, params["size"])  # masks: nearest


class RandomCrop(v2.RandomCrop):
    """Cut out a window of a fixed size; smaller images are padded (255 in semantic, 0 in the label map).

    Args:
        size: height and width, or one number for both.
    """

    def __init__(self, size: int | tuple[int, int]):
        super().__init__(size, pad_if_needed=True, fill=FILL)


class ElasticDeformation(v2.Transform):
    """Bend image and labels by one smooth random field, as in U-Net (Ronneberger 2015, section 3.1).

    Displacements are drawn on a coarse grid from a Gaussian and filled in by bicubic interpolation; the
    corners of the grid are the corners of the image. The image is sampled bilinearly (beyond its border
    the border pixel repeats), labels by nearest neighbour (beyond the border: 255 in the semantic target,
    0 in the label map).

    Args:
        grid: nodes along each axis, 3 in the paper, at least 2.
        sigma: standard deviation of the displacements in pixels, 10 in the paper; 0 changes nothing. The
            paper's images have 512 pixels a side: take less for smaller ones.
        generator: where the displacements are drawn from; None is torch's global generator.

    Raises:
        TypeError: if `grid` is not a whole number.
        ValueError: if `grid` is below 2 or `sigma` negative.
    """

    def __init__(self, grid: int = 3, sigma: float = 10.0, generator: torch.Generator | None = None):
        super().__init__()
        if isinstance(grid, bool) or not isinstance(grid, int):
            raise TypeError(f"grid is {grid!r}, expected a whole number of nodes along each axis")
        if grid < 2:
            raise ValueError(f"grid is {grid}, expected at least 2 nodes along each axis")
        if not 0 <= sigma < float("inf"):
            raise ValueError(f"sigma is {sigma!r}, expected a number of pixels of at least 0")
        self.grid, self.sigma, self.generator = grid, sigma, generator

    def field(self, size: tuple[int, int]) -> Tensor:
        """Draw displacements (2, H, W) in pixels: where each output pixel looks, down (dy) and right (dx)."""
        nodes = self.sigma * torch.randn(1, 2, self.grid, self.grid, generator=self.generator)
        return F.interpolate(nodes, size=size, mode="bicubic", align_corners=True)[0]

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = v2.functional.get_size(flat_inputs[0])
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        return {"at": torch.stack([rows, columns]) + self.field((height, width))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        plain = inpt.as_subclass(Tensor)
        if isinstance(inpt, tv_tensors.Mask):
            return tv_tensors.wrap(_sample_nearest(plain, params["at"], FILL[type(inpt)]), like=inpt)
        return tv_tensors.wrap(_sample_bilinear(plain, params["at"]), like=inpt)


def _sample_nearest(labels: Tensor, at: Tensor, fill: int) -> Tensor:
    """Labels (..., H, W) at positions (2, h, w) in (row, column); `fill` beyond the border."""
    height, width = labels.shape[-2:]
    row, column = at.round().long()
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    taken = labels[..., row.clamp(0, height - 1), column.clamp(0, width - 1)]
    return torch.where(inside, taken, torch.tensor(fill, dtype=labels.dtype))


def _sample_bilinear(image: Tensor, at: Tensor) -> Tensor:
    """Image (C, H, W) at positions (2, h, w) in (row, column); the border pixel beyond the border."""
    height, width = image.shape[-2:]
    row, column = at[0].clamp(0, height - 1), at[1].clamp(0, width - 1)
    top, left = row.floor().long(), column.floor().long()
    down, right = (row - top).to(image.dtype), (column - left).to(image.dtype)
    below, beside = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    upper = image[:, top, left] * (1 - right) + image[:, top, beside] * right
    lower = image[:, below, left] * (1 - right) + image[:, below, beside] * right
    return upper * (1 - down) + lower * down
