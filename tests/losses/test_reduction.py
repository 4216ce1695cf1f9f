"""The weighting and reduction that all losses share. Bad input is in `tests/bad_input/losses_reduction.py`."""

import pytest
import torch

from segedu.losses.reduction import reduce_loss, true_class_weight
from segedu.validation.numbers import check_number
from segedu.validation.targets import check_soft_target, valid_pixels


def test_reductions():
    loss, weight = torch.tensor([1.0, 2.0, 8.0]), torch.tensor([3.0, 1.0, 0.0])
    assert reduce_loss(loss, weight, "none").tolist() == [3, 2, 0]
    assert reduce_loss(loss, weight, "sum").item() == 5
    assert reduce_loss(loss, weight, "mean").item() == 1.25
    assert reduce_loss(loss, 0 * weight, "mean").item() == 0


def test_weight_of_the_true_class():
    target = torch.tensor([[[2, 0, 255]]])
    weights = torch.tensor([0.5, 1.0, 4.0])
    logits = torch.zeros(1, 3, 1, 3, dtype=torch.float64)
    weight = true_class_weight(target, target != 255, weights, logits)
    assert weight.tolist() == [[[4.0, 0.5, 0.0]]] and weight.dtype == torch.float64
    assert true_class_weight(target, target != 255, None, logits).tolist() == [[[1, 1, 0]]]


def test_soft_targets():
    soft, counted = check_soft_target(torch.zeros(3), torch.tensor([0.25, 255.0, 1.0]), 255)
    assert soft.tolist() == [0.25, 0, 1] and counted.tolist() == [True, False, True]
    with pytest.raises(ValueError, match="target has the value nan"):
        check_soft_target(torch.zeros(2), torch.tensor([0.5, torch.nan]), 255)


@pytest.mark.parametrize(
    ("value", "options"), [(0, {}), (1, {"maximum": 1}), (1e-9, {"exclusive": True}), (2, {"minimum": 2})]
)
def test_numbers_at_their_bounds(value, options):
    assert check_number("x", value, **options) == value


def test_ignoring_minus_one_does_not_ignore_255():
    assert valid_pixels(torch.tensor([255, 1], dtype=torch.uint8), -1).all()
