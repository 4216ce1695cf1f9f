"""What methods that find objects ask of their targets and sizes, and masks brought to the size of features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.layers.images import NORMALISED, check_unit_range
from segedu.ops.boxes import check_boxes
from segedu.ops.crowds import without_crowds

Size = tuple[int, int]


def check_sizes(sizes: Sequence[Size] | None, images: Tensor) -> list[Size]:
    """Check a batch of padded images: their values, and which part of each is image.

    What a batch was padded with lies right of this part and below it.

    Args:
        sizes: B pairs (h, w), or None: all of each image.
        images: (B, C, H, W) in [0, 1]; normalised, if the backbone does not do that.

    Returns:
        B pairs of ints.

    Raises:
        TypeError: images are not floating-point numbers.
        ValueError: the values are clearly neither in [0, 1] nor normalised, there is not one pair for each image, or a
            pair does not fit into its image.

    >>> check_sizes([(2, 3)], torch.zeros(1, 3, 4, 4)), check_sizes(None, torch.zeros(1, 3, 4, 4))
    ([(2, 3)], [(4, 4)])
    """
    check_unit_range(images, beyond=NORMALISED)
    batch, height, width = len(images), *images.shape[-2:]
    if sizes is None:
        return [(height, width)] * batch
    if len(sizes) != batch:
        raise ValueError(f"sizes has {len(sizes)} entries, expected one (h, w) for each of {batch} images")
    for i, size in enumerate(sizes):
        if len(size) != 2 or not (1 <= size[0] <= height and 1 <= size[1] <= width):
            raise ValueError(f"sizes[{i}] is {tuple(size)}, expected (h, w) from 1 to {(height, width)}")
    return [(int(h), int(w)) for h, w in sizes]


def check_targets(
    targets: Sequence[Mapping[str, Tensor]], sizes: Sequence[Size], num_classes: int, masks: bool = False
) -> list[dict[str, Tensor]]:
    """Refuse what is not a list of the objects of each image, and leave out crowds.

    Args:
        targets: B dicts with `boxes` (N, 4), `labels` (N,) from 1 to K - 1 and, where asked, `masks` (N, h, w);
            N may be 0. If a dict also has `iscrowd` (N,), its crowds are left out: see `segedu.ops.crowds`.
        sizes: (h, w) of each image.
        num_classes: K, the background counted.
        masks: whether there must be masks.

    Returns:
        The targets without their crowds: the objects that a loss may use.

    Raises:
        TypeError: not a list of dicts of tensors of the right kind.
        ValueError: a wrong length, a key is missing, a shape does not fit, a label out of range, or a box without
            area.

    >>> boxes, labels = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 4.0, 4.0]]), torch.tensor([1, 1])
    >>> target = {"boxes": boxes, "labels": labels, "iscrowd": torch.tensor([False, True])}
    >>> check_targets([target], [(4, 4)], num_classes=2)[0]["boxes"]
    tensor([[0., 0., 2., 2.]])
    """
    keys = ("boxes", "labels", "masks") if masks else ("boxes", "labels")
    if isinstance(targets, Mapping) or not isinstance(targets, Sequence):
        raise TypeError(f"targets has type {type(targets).__name__}, expected a list of dicts, one for each image")
    if len(targets) != len(sizes):
        raise ValueError(f"targets has {len(targets)} entries, expected one dict for each of {len(sizes)} images")
    for i, (target, size) in enumerate(zip(targets, sizes, strict=True)):
        name = f"targets[{i}]"
        if not isinstance(target, Mapping):
            raise TypeError(f"{name} has type {type(target).__name__}, expected a dict with the keys {', '.join(keys)}")
        if not set(keys) <= set(target):
            raise ValueError(f"{name} has the keys {list(target)}, expected {', '.join(keys)}")
        boxes = check_boxes(target["boxes"], f"{name}['boxes']")
        flat = (boxes[:, 2:] <= boxes[:, :2]).any(1).nonzero().flatten()
        if len(flat):
            row = int(flat[0])
            raise ValueError(f"{name}['boxes'][{row}] is {boxes[row].tolist()}, expected a box with an area")
        _check_labels(f"{name}['labels']", target["labels"], len(boxes), num_classes)
        if masks:
            _check_masks(f"{name}['masks']", target["masks"], len(boxes), size)
    return [without_crowds(target, f"targets[{i}]") for i, target in enumerate(targets)]


def _check_labels(name: str, labels: Tensor, count: int, num_classes: int) -> None:
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        kind = f"dtype {labels.dtype}" if isinstance(labels, Tensor) else f"type {type(labels).__name__}"
        raise TypeError(f"{name} has {kind}, expected a tensor of torch.int64")
    if labels.shape != (count,):
        raise ValueError(f"{name} has shape {tuple(labels.shape)}, expected ({count},): one for each box")
    if count and not 1 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise ValueError(f"{name} has the values {labels.tolist()}, expected 1 to {num_classes - 1}")


def _check_masks(name: str, masks: Tensor, count: int, size: Size) -> None:
    if not isinstance(masks, Tensor) or masks.dtype != torch.bool:
        kind = f"dtype {masks.dtype}" if isinstance(masks, Tensor) else f"type {type(masks).__name__}"
        raise TypeError(f"{name} has {kind}, expected a tensor of torch.bool")
    if masks.shape != (count, *size):
        raise ValueError(f"{name} has shape {tuple(masks.shape)}, expected {(count, *size)}: one for each box")


def resize_masks(masks: Tensor, image_size: Size, size: Size) -> Tensor:
    """True masks as small as the masks that a network predicts: bilinear, and more than half counts.

    Args:
        masks: (N, h, w) bool, of the image without its padding.
        image_size: (H, W) of the padded image.
        size: height and width of the result, which stands for the padded image.

    Returns:
        (N, *size) bool. A mask of a few pixels may be empty.

    >>> masks = torch.tensor([[[1, 1, 0, 0], [1, 1, 1, 0]]]).bool()
    >>> resize_masks(masks, (2, 4), (1, 2))
    tensor([[[ True, False]]])
    """
    height, width = image_size
    padded = F.pad(masks.float(), (0, width - masks.shape[-1], 0, height - masks.shape[-2]))
    if not len(masks):
        return masks.new_zeros(0, *size)
    return F.interpolate(padded[:, None], size=size, mode="bilinear", align_corners=False)[:, 0] > 0.5
