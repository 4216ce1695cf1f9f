"""Checks of tensors: dtypes, axes, and letters that stand for one length."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from segedu.validation.tensors import (
    check_dtype,
    check_floats,
    check_keys,
    check_no_nan,
    check_tensor,
    check_tensor_dict,
)

MAP, MASK = torch.zeros(2, 3), torch.ones(2, 3).bool()
OUTPUTS = {"flows": torch.zeros(4, 2, 5, 6), "logits": torch.zeros(4, 5, 6)}


def test_letters_stand_for_what_came_first() -> None:
    assert check_tensor_dict("outputs", OUTPUTS, flows="B 2 H W", logits="B H W") == {"B": 4, "H": 5, "W": 6}
    assert check_tensor_dict("outputs", OUTPUTS, {"A": 9}, logits="B H W") == {"A": 9, "B": 4, "H": 5, "W": 6}
    assert check_floats("sigma", OUTPUTS["flows"], "B 1|2 H W") == {"B": 4, "H": 5, "W": 6}
    known = {"H": 2}
    assert check_dtype("inside", MASK, torch.bool, "H W", known) == {"H": 2, "W": 3} and known == {"H": 2}
    assert check_tensor("square", torch.zeros(3, 3).long(), "N N") == {"N": 3}


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: check_keys("outputs", MAP, ("flows",)),
            TypeError,
            "outputs has type Tensor, expected a dict with the",
        ),
        (lambda: check_keys("outputs", {"a": 0, 1: 0}, ("flows",)), ValueError, r"has the keys \['a', 1\], expected f"),
        (
            lambda: check_tensor_dict("outputs", OUTPUTS | {"logits": MASK}, logits="B H W"),
            TypeError,
            r"outputs\['logits'\] has dtype torch.bool, expected a floating-point dtype",
        ),
        (
            lambda: check_tensor_dict("outputs", OUTPUTS | {"logits": MAP[None]}, flows="B 2 H W", logits="B H W"),
            ValueError,
            r"outputs\['logits'\] has shape \(1, 2, 3\), expected \(B, H, W\) with B = 4, H = 5, W = 6, no axis empty",
        ),
        (lambda: check_tensor_dict("targets", OUTPUTS, {"B": 1}, logits="B H W"), ValueError, r"targets.* with B = 1"),
        (lambda: check_floats("map", [0.0], "N"), TypeError, "map has type list, expected a floating-point tensor"),
        (lambda: check_floats("map", MAP, "2 H W"), ValueError, r"map has shape \(2, 3\), expected \(2, H, W\), no"),
        (lambda: check_floats("map", MAP, "3 W"), ValueError, r"expected \(3, W\)"),
        (lambda: check_floats("map", MAP, "1|3 W"), ValueError, r"expected \(1 or 3, W\)"),
        (
            lambda: check_floats("map", MAP[:0], "H W"),
            ValueError,
            r"map has shape \(0, 3\), expected \(H, W\), no axis",
        ),
        (
            lambda: check_dtype("inside", MAP, torch.bool, "H W"),
            TypeError,
            "inside has dtype torch.float32, expected torch.bool",
        ),
        (
            lambda: check_dtype("inside", None, torch.bool, "H W"),
            TypeError,
            "inside has type NoneType, expected a tensor of torch.b",
        ),
        (lambda: check_dtype("inside", MASK, torch.bool, "W"), ValueError, "inside has shape"),
        (lambda: check_tensor("square", MAP, "N N"), ValueError, "square has shape"),
        (lambda: check_tensor("classes", 3, "H W"), TypeError, "classes has type int"),
        (
            lambda: check_no_nan("outputs", {"a": MAP, "b": MAP / 0}, ("a", "b")),
            ValueError,
            r"outputs\['b'\] contains NaN, expected",
        ),
    ],
)
def test_what_is_refused(call: Callable, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


def test_infinite_numbers_are_numbers() -> None:
    check_no_nan("outputs", {"a": MAP - torch.inf, "b": MAP / 0}, ("a",))
