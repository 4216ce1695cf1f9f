"""Transforms of an image together with all its targets, on top of torchvision.transforms.v2.

`Joint` applies v2 transforms to image, semantic target and label map, then recomputes masks and boxes
from the label map. They are therefore exact after a crop or a deformation, and objects that left the image are
removed from all targets. The segments of a panoptic target are renumbered too. Labels always use nearest-neighbour
interpolation. Outside the image the semantic target becomes 255 (the ignore_index of the course) and the label map
0: pass `fill=FILL` to v2 transforms that pad. `areas` and `visible` of a synthetic scene are dropped, because they
describe the scene before the transform.
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
from segedu.validation.numbers import check_integer, check_number


class LabelMap(tv_tensors.Mask):
    """A mask of instance ids. Its padding is 0, whereas the padding of a semantic target is 255."""


FILL = {tv_tensors.Image: 0, tv_tensors.Mask: 255, LabelMap: 0}


def _check_sample(sample: dict[str, Tensor], keys: tuple[str, ...]) -> None:
    if not isinstance(sample, dict):
        raise TypeError(f"sample has type {type(sample).__name__}, expected a dict with {', '.join(keys)}")
    missing = [key for key in keys if key not in sample]
    if missing:
        raise ValueError(f"sample has no {missing[0]!r}, expected the keys {', '.join(keys)}")
    image = sample["image"]
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(
            f"sample has an image of shape {tuple(image.shape)}, expected (3, H, W) with at least one pixel"
        )
    for key in ("semantic", "label_map"):
        if sample[key].shape != image.shape[1:]:
            shape = tuple(sample[key].shape)
            raise ValueError(
                f"sample has a {key} of shape {shape}, expected {tuple(image.shape[1:])}, the size of its image"
            )


def to_tv_tensors(sample: dict[str, Tensor]) -> dict[str, Any]:
    """Wrap the entries of a sample in tv_tensors, so that transforms of torchvision.transforms.v2 recognise them.

    Args:
        sample: a dict with all keys of `segedu.datasets.sample.KEYS`.

    Returns:
        `image` as Image, `semantic` as Mask, `label_map` as LabelMap, `masks` as Mask, `boxes` as
        BoundingBoxes (XYXY); other entries as they are. Nothing is copied.
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
    """Apply v2 transforms in order to a sample dict, and return plain tensors.

    Args:
        transforms: transforms of torchvision.transforms.v2 or of this file. Random ones use the global generator of
            PyTorch, so `torch.manual_seed` makes them reproducible.
    """

    def __init__(self, *transforms: v2.Transform):
        for transform in transforms:
            if not isinstance(transform, v2.Transform):
                raise TypeError(f"transforms contains {transform!r}, expected transforms of torchvision.transforms.v2")
        self.transforms = transforms

    def __call__(self, sample: dict[str, Tensor]) -> dict[str, Tensor]:
        _check_sample(sample, ("image", "semantic", "label_map", "labels"))
        transformed = {
            "image": tv_tensors.Image(sample["image"]),
            "semantic": tv_tensors.Mask(sample["semantic"]),
            "label_map": LabelMap(sample["label_map"]),
        }
        for transform in self.transforms:
            transformed = transform(transformed)
        label_map, old_labels = compact(transformed["label_map"].as_subclass(Tensor))
        masks = masks_from_label_map(label_map)
        semantic, labels = transformed["semantic"].as_subclass(Tensor).contiguous(), sample["labels"][old_labels - 1]
        result = {
            "image": transformed["image"].as_subclass(Tensor).clamp(0, 1).contiguous(),
            "semantic": semantic,
            "label_map": label_map,
            "boxes": boxes_from_masks(masks),
            "labels": labels,
            "masks": masks,
        }
        if "iscrowd" in sample:
            result["iscrowd"] = sample["iscrowd"][old_labels - 1]
        if "panoptic_seg" in sample:
            result["panoptic_seg"], result["segments_info"] = panoptic_truth(label_map, labels, semantic)
        return result


class RandomRot90(v2.Transform):
    """Rotate by 0, 90, 180 or 270 degrees with equal probability; 90 and 270 swap height and width."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"turns": int(torch.randint(4, ()))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return tv_tensors.wrap(torch.rot90(inpt.as_subclass(Tensor), params["turns"], (-2, -1)), like=inpt)


class RandomScale(v2.Transform):
    """Resize height and width by one random factor, drawn uniformly between two limits.

    Args:
        limits: smallest and largest factor, above 0.
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
    """Crop a random window; smaller images are padded (255 in the semantic target, 0 in the label map).

    Args:
        size: (H, W), or one integer for both.
    """

    def __init__(self, size: int | tuple[int, int]):
        super().__init__(size, pad_if_needed=True, fill=FILL)


class ElasticDeformation(v2.Transform):
    """Deform image and labels by one smooth random field, as in U-Net (Ronneberger 2015, section 3.1).

    Gaussian displacements on a coarse grid are upsampled by bicubic interpolation; the corners of the grid are the
    corners of the image. The image is sampled bilinearly (the border pixel repeats outside), labels by nearest
    neighbour (outside: 255 in the semantic target, 0 in the label map).

    Args:
        grid: nodes along each axis, 3 in the paper, at least 2.
        sigma: standard deviation of the displacements in pixels, 10 in the paper; 0 changes nothing. The
            images in the paper have 512 x 512 pixels: use less for smaller ones.
        generator: generator of the displacements; None is the global generator of PyTorch.
    """

    def __init__(self, grid: int = 3, sigma: float = 10.0, generator: torch.Generator | None = None):
        super().__init__()
        self.grid, self.sigma = check_integer("grid", grid, 2), check_number("sigma", sigma)
        self.generator = generator

    def field(self, size: tuple[int, int]) -> Tensor:
        """Draw displacements (2, H, W) in pixels, down (dy) and right (dx), from each output pixel to its source."""
        displacements = self.sigma * torch.randn(1, 2, self.grid, self.grid, generator=self.generator)
        return F.interpolate(displacements, size=size, mode="bicubic", align_corners=True)[0]

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = v2.functional.get_size(flat_inputs[0])
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        return {"positions": torch.stack([rows, columns]) + self.field((height, width))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        tensor = inpt.as_subclass(Tensor)
        if isinstance(inpt, tv_tensors.Mask):
            return tv_tensors.wrap(_sample_nearest(tensor, params["positions"], FILL[type(inpt)]), like=inpt)
        return tv_tensors.wrap(_sample_bilinear(tensor, params["positions"]), like=inpt)


def _sample_nearest(labels: Tensor, positions: Tensor, fill: int) -> Tensor:
    """Sample labels (..., H, W) at (row, column) positions (2, h, w); `fill` outside the image."""
    height, width = labels.shape[-2:]
    row, column = positions.round().long()
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    values = labels[..., row.clamp(0, height - 1), column.clamp(0, width - 1)]
    return torch.where(inside, values, torch.tensor(fill, dtype=labels.dtype))


def _sample_bilinear(image: Tensor, positions: Tensor) -> Tensor:
    """Sample an image (C, H, W) at (row, column) positions (2, h, w); the border pixel repeats outside."""
    height, width = image.shape[-2:]
    row, column = positions[0].clamp(0, height - 1), positions[1].clamp(0, width - 1)
    top, left = row.floor().long(), column.floor().long()
    dy, dx = (row - top).to(image.dtype), (column - left).to(image.dtype)
    bottom, right = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    upper = image[:, top, left] * (1 - dx) + image[:, top, right] * dx
    lower = image[:, bottom, left] * (1 - dx) + image[:, bottom, right] * dx
    return upper * (1 - dy) + lower * dy
