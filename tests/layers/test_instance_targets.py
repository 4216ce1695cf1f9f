"""Targets and sizes of methods that find objects; what is refused is tested with each method."""

from __future__ import annotations

import pytest
import torch

from segedu.layers.instance_targets import check_targets, resize_masks
from segedu.validation.images import check_sizes

BOX, LABEL = torch.tensor([[0.0, 0.0, 2.0, 3.0]]), torch.tensor([2])
MASK = torch.ones(1, 3, 4, dtype=torch.bool)


def test_sizes() -> None:
    images = torch.zeros(2, 3, 4, 5)
    assert check_sizes(None, images) == [(4, 5), (4, 5)]
    assert check_sizes([torch.Size((1, 5)), (4, 1)], images) == [(1, 5), (4, 1)]


@pytest.mark.parametrize("sizes", [[(4, 5)], [(4, 5), (0, 5)], [(4, 5), (4, 6)], [(4, 5), (4,)], []])
def test_bad_sizes(sizes: list) -> None:
    with pytest.raises(ValueError, match=r"sizes(\[1\] is| has).*, expected"):
        check_sizes(sizes, torch.zeros(2, 3, 4, 5))


def test_targets_that_pass() -> None:
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    check_targets([none, {"boxes": BOX, "labels": LABEL}], [(3, 4)] * 2, 3)
    check_targets([{"boxes": BOX, "labels": LABEL, "masks": MASK}], [(3, 4)], 3, masks=True)
    check_targets([{**none, "masks": torch.zeros(0, 3, 4).bool()}], [(3, 4)], 3, masks=True)
    check_targets((), (), 3)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"boxes": BOX[0]}, ValueError, r"targets\[0\]\['boxes'\] has shape \(4,\), expected \(N, 4\)"),
        ({"boxes": BOX.flip(1)}, ValueError, r"targets\[0\]\['boxes'\]\[0\] is"),
        ({"boxes": BOX * 0}, ValueError, r"targets\[0\]\['boxes'\]\[0\] is .* expected a box with an area"),
        ({"labels": LABEL[:0]}, ValueError, r"targets\[0\]\['labels'\] has shape \(0,\), expected \(1,\)"),
        ({"labels": LABEL.int()}, TypeError, "dtype torch.int32, expected torch.int64"),
        ({"labels": [1]}, TypeError, "type list, expected a tensor of torch.int64"),
        ({"labels": LABEL + 1}, ValueError, r"has the values \[3\], expected 1 to 2"),
        ({"labels": LABEL - 2}, ValueError, r"has the values \[0\], expected 1 to 2"),
        ({"masks": MASK[:, :2]}, ValueError, r"has shape \(1, 2, 4\), expected \(1, 3, 4\)"),
        ({"masks": MASK.int()}, TypeError, "dtype torch.int32, expected torch.bool"),
        ({"masks": None}, TypeError, "type NoneType, expected a tensor of torch.bool"),
    ],
)
def test_bad_targets(change: dict, error: type[Exception], message: str) -> None:
    target = {"boxes": BOX, "labels": LABEL, "masks": MASK, **change}
    with pytest.raises(error, match=message):
        check_targets([target], [(3, 4)], 3, masks=True)


def test_masks_at_the_size_of_features() -> None:
    mask = torch.zeros(2, 6, 8, dtype=torch.bool)
    mask[0, :4, :4], mask[1, 5, 7] = True, True
    small = resize_masks(mask, (8, 8), (2, 2))  # 6 rows of an image that was padded to 8
    assert small.dtype == torch.bool and small.tolist() == [[[True, False], [False, False]], [[False] * 2] * 2]
    assert resize_masks(mask, (6, 8), (6, 8)).equal(mask)
    assert resize_masks(mask[:0], (8, 8), (2, 3)).shape == (0, 2, 3)
