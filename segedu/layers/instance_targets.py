"""What methods that find objects ask of their targets and sizes, and masks brought to the size of features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor

from segedu.ops.crowds import without_crowds
from segedu.validation.targets import check_instance_targets

Size = tuple[int, int]


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
    check_instance_targets(targets, sizes, num_classes, masks)
    return [without_crowds(target, f"targets[{i}]") for i, target in enumerate(targets)]


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
