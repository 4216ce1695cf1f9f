"""Targets of methods that predict objects: they are checked, crowds are removed, and masks are resized."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor

from segedu.ops.crowds import without_crowds
from segedu.validation.images import Size
from segedu.validation.targets import check_instance_targets


def check_targets(
    targets: Sequence[Mapping[str, Tensor]], sizes: Sequence[Size], num_classes: int, masks: bool = False
) -> list[dict[str, Tensor]]:
    """Check the targets of detectors and remove crowds.

    Args:
        targets: B dicts with `boxes` (N, 4), `labels` (N,) from 1 to K - 1 and, if `masks` is True, `masks` (N, h, w);
            N may be 0. If a dict also has `iscrowd` (N,), its crowds are removed: see `segedu.ops.crowds`.
        sizes: (h, w) of each image.
        num_classes: K, with the background.
        masks: whether `masks` are required.

    Returns:
        The targets without their crowds: the objects that a loss may use.

    >>> import torch
    >>> boxes, labels = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 4.0, 4.0]]), torch.tensor([1, 1])
    >>> target = {"boxes": boxes, "labels": labels, "iscrowd": torch.tensor([False, True])}
    >>> check_targets([target], [(4, 4)], num_classes=2)[0]["boxes"]
    tensor([[0., 0., 2., 2.]])
    """
    check_instance_targets(targets, sizes, num_classes, masks)
    return [without_crowds(target, f"targets[{i}]") for i, target in enumerate(targets)]


def resize_masks(masks: Tensor, image_size: Size, size: Size) -> Tensor:
    """Resize ground-truth masks bilinearly to the predicted resolution, thresholded at 1/2.

    Args:
        masks: (N, h, w) bool, of the image without its padding.
        image_size: (H, W) of the padded image.
        size: height and width of the result, which covers the padded image.

    Returns:
        (N, *size) bool. A mask of a few pixels may become empty.

    >>> import torch
    >>> masks = torch.tensor([[[1, 1, 0, 0], [1, 1, 1, 0]]]).bool()
    >>> resize_masks(masks, (2, 4), (1, 2))
    tensor([[[ True, False]]])
    """
    height, width = image_size
    padded = F.pad(masks.float(), (0, width - masks.shape[-1], 0, height - masks.shape[-2]))
    if not len(masks):
        return masks.new_zeros(0, *size)
    return F.interpolate(padded[:, None], size=size, mode="bilinear", align_corners=False)[:, 0] > 0.5
