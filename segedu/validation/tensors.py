"""Checks of tensors, and of dicts of tensors that share axes.

Axes are written as "B 2 H W". A number is the length of an axis, `1|2` allows two lengths, and a letter stands for one
length wherever it occurs. An axis may have length 0 only if its letter ends in `?`: "N? 4" also accepts an empty
tensor, of shape (0, 4).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from segedu.validation.exporting import is_exporting
from segedu.validation.numbers import check_length

Sizes = dict[str, int]  # the length that each letter stands for


def check_tensor(name: str, tensor: Tensor, axes: str | None = None, sizes: Sizes | None = None) -> Sizes:
    """Check that a value is a tensor of the expected shape. Any dtype is accepted.

    Args:
        axes: the expected shape, for example "B 3 H W"; None accepts any shape.
        sizes: the letters whose lengths are already known, with these lengths.

    Returns:
        The lengths of the letters in `sizes` and in `axes`.

    >>> check_tensor("images", torch.zeros(1, 3, 4, 6), "B 3 H W")
    {'B': 1, 'H': 4, 'W': 6}
    """
    _check_type(name, tensor, "a tensor", axes)
    return check_shape(name, tensor.shape, axes, sizes) if axes is not None else dict(sizes or {})


def check_floats(name: str, tensor: Tensor, axes: str | None = None, sizes: Sizes | None = None) -> Sizes:
    """Check a floating-point tensor. Arguments and result as for `check_tensor`."""
    _check_type(name, tensor, "a floating-point tensor", axes)
    if not tensor.is_floating_point():
        raise TypeError(f"{name} has dtype {tensor.dtype}, expected a floating-point dtype")
    return check_tensor(name, tensor, axes, sizes)


def check_integer_tensor(name: str, tensor: Tensor, axes: str | None = None, sizes: Sizes | None = None) -> Sizes:
    """Check a tensor of any integer dtype; `torch.bool` is refused. Arguments and result as for `check_tensor`."""
    _check_type(name, tensor, "a tensor of integers", axes)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"{name} has dtype {tensor.dtype}, expected integers")
    return check_tensor(name, tensor, axes, sizes)


def check_numeric(name: str, tensor: Tensor, axes: str | None = None, sizes: Sizes | None = None) -> Sizes:
    """Check a tensor of any integer or floating-point dtype. Arguments and result as for `check_tensor`."""
    _check_type(name, tensor, "a tensor of integers or floats", axes)
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"{name} has dtype {tensor.dtype}, expected integers or floats")
    return check_tensor(name, tensor, axes, sizes)


def check_dtype(
    name: str, tensor: Tensor, dtype: torch.dtype, axes: str | None = None, sizes: Sizes | None = None
) -> Sizes:
    """Check a tensor of one dtype, such as a mask of `torch.bool`. Other arguments and result as for `check_tensor`."""
    _check_type(name, tensor, f"a tensor of {dtype}", axes)
    if tensor.dtype != dtype:
        raise TypeError(f"{name} has dtype {tensor.dtype}, expected {dtype}")
    return check_tensor(name, tensor, axes, sizes)


def check_shape(name: str, shape: Sequence[int], axes: str, sizes: Sizes | None = None) -> Sizes:
    """Check a shape. Arguments and result as for `check_tensor`.

    >>> check_shape("masks", (2, 4, 7), "N H W", {"H": 4, "W": 6})
    Traceback (most recent call last):
    ValueError: masks has shape (2, 4, 7), expected (N, H, W) with H = 4, W = 6, no axis empty
    """
    expected, known = axes.split(), dict(sizes or {})
    fits = len(shape) == len(expected)
    for axis, length in zip(expected, shape, strict=True) if fits else ():
        letter = axis.removesuffix("?")
        allowed = [known.setdefault(letter, length)] if letter.isalpha() else [int(n) for n in letter.split("|")]
        fits = fits and length in allowed and (length > 0 or axis.endswith("?"))
    if not fits:
        letters = [axis.removesuffix("?") for axis in expected]
        form = ", ".join(axis.replace("|", " or ") for axis in letters) + "," * (len(letters) == 1)
        lengths = ", ".join(f"{axis} = {sizes[axis]}" for axis in letters if axis in (sizes or {}))
        not_empty = "" if any(axis.endswith("?") for axis in expected) else ", no axis empty"
        raise ValueError(
            f"{name} has shape {tuple(shape)}, expected ({form}){lengths and ' with ' + lengths}{not_empty}"
        )
    return known


def check_finite(name: str, tensor: Tensor) -> None:
    """Check that no value is NaN or infinite. While a network is exported, values are unknown and not checked."""
    if not is_exporting() and not bool(tensor.isfinite().all()):
        value = tensor[~tensor.isfinite()][0].item()
        raise ValueError(f"{name} has the value {value}, expected finite values")


def check_no_nan(name: str, outputs: Mapping[str, Tensor], keys: Collection[str]) -> None:
    """Check that outputs of a network contain no NaN, which they do if its training diverged.

    NaN exceeds no threshold, so without this check the prediction would silently be all background.
    """
    for key in keys:
        if not is_exporting() and bool(outputs[key].isnan().any()):
            raise ValueError(f"{name}[{key!r}] contains NaN, expected finite values")


def check_keys(name: str, value: Mapping[str, Any], keys: Collection[str]) -> None:
    """Check that a value is a dict with these keys; it may have other keys too."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} has type {type(value).__name__}, expected a dict with the keys {', '.join(keys)}")
    if not set(keys) <= set(value):
        raise ValueError(f"{name} has the keys {list(value)}, expected {', '.join(keys)}")


def check_list(name: str, value: Sequence[Any], length: int, of: str = "image") -> None:
    """Check that a value is a list or tuple of the expected length.

    Args:
        of: what has one entry each, for the message.
    """
    if isinstance(value, Mapping | str | Tensor) or not isinstance(value, Sequence):
        raise TypeError(f"{name} has type {type(value).__name__}, expected a list with one entry for each {of}")
    check_length(name, value, length, of)


def check_tensor_dict(name: str, value: Mapping[str, Tensor], sizes: Sizes | None = None, /, **axes: str) -> Sizes:
    """Check a dict of floating-point tensors that share axes, for example the outputs of a network.

    Args:
        sizes: the letters whose lengths are already known, with these lengths.
        **axes: the expected axes of each key, for example `logits="B K H W"`.

    Returns:
        The lengths of all letters.
    """
    check_keys(name, value, axes)
    for key, expected in axes.items():
        sizes = check_floats(f"{name}[{key!r}]", value[key], expected, sizes)
    return dict(sizes or {})


def check_decoder_outputs(outputs: Mapping[str, Any], /, *keys: str, **axes: str) -> list[Mapping[str, Tensor]]:
    """Check the outputs of a decoder that predicts after every layer.

    Args:
        outputs: the maps of the last layer, `aux_outputs` (a list of dicts with the maps of the earlier layers), and
            `sizes` (one pair (h, w) per image).
        *keys: other keys that the outputs must have.
        **axes: the expected axes of each map; the letter B is the number of images.

    Returns:
        The maps of each layer, in the order of the layers.
    """
    check_keys("outputs", outputs, (*axes, "aux_outputs", "sizes", *keys))
    letters = check_tensor_dict("outputs", outputs, **axes)
    aux = outputs["aux_outputs"]
    if isinstance(aux, Mapping) or not isinstance(aux, Sequence):
        raise TypeError(f"outputs['aux_outputs'] has type {type(aux).__name__}, expected a list of dicts")
    for i, layer in enumerate(aux):
        check_tensor_dict(f"outputs['aux_outputs'][{i}]", layer, letters, **axes)
    check_length("outputs['sizes']", outputs["sizes"], letters["B"], of="image")
    return [*aux, outputs]


def _check_type(name: str, value: object, kind: str, axes: str | None) -> None:
    if not isinstance(value, Tensor):
        shape = "" if axes is None else f" of shape ({', '.join(axes.replace('?', '').split())})"
        raise TypeError(f"{name} has type {type(value).__name__}, expected {kind}{shape}")
