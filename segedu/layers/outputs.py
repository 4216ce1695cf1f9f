"""What a loss, or the step from outputs to label maps, asks of the tensors that it is given.

Axes are written as "B 2 H W": a number is the length of an axis, `1|2` leaves a choice, and a letter stands for one
length wherever it occurs. No axis may be empty.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from segedu.ops.exporting import is_exporting

Sizes = dict[str, int]


def check_keys(name: str, given: Mapping[str, Any], keys: Collection[str]) -> None:
    """Refuse what is not a dict with these keys, and maybe others.

    Args:
        name: of the argument.
        given: its value.
        keys: that it must have.

    Raises:
        TypeError: not a dict.
        ValueError: a key is missing.
    """
    if not isinstance(given, Mapping):
        raise TypeError(f"{name} has type {type(given).__name__}, expected a dict with the keys {', '.join(keys)}")
    if not set(keys) <= set(given):
        raise ValueError(f"{name} has the keys {list(given)}, expected {', '.join(keys)}")


def check_maps(name: str, given: Mapping[str, Tensor], sizes: Sizes | None = None, /, **axes: str) -> Sizes:
    """Refuse what is not a dict of floating-point tensors that fit each other.

    Args:
        name: of the argument.
        given: its value.
        sizes: what letters stand for already.
        **axes: of each key.

    Returns:
        What letters stand for now.

    Raises:
        TypeError: not a dict, or a value is no tensor of floating-point numbers.
        ValueError: a key is missing, or a shape does not fit.
    """
    check_keys(name, given, axes)
    for key, wanted in axes.items():
        sizes = check_floats(f"{name}[{key!r}]", given[key], wanted, sizes)
    return dict(sizes or {})


def check_layers(outputs: Mapping[str, Any], /, *keys: str, **axes: str) -> list[Mapping[str, Tensor]]:
    """Refuse what is not the answer of a decoder whose every layer is asked.

    Args:
        outputs: a dict of the last layer's maps, of `aux_outputs`, dicts of the same maps of the layers before it, and
            of `sizes`, a pair for each image.
        *keys: that it must have beside these.
        **axes: of each key of a layer; the letter B stands for images.

    Returns:
        The maps of each layer, the last one's at the end.

    Raises:
        TypeError: not a dict, `aux_outputs` is no list, or a value is no tensor of floating-point numbers.
        ValueError: a key is missing, a shape does not fit, or `sizes` has another length.
    """
    check_keys("outputs", outputs, (*axes, "aux_outputs", "sizes", *keys))
    letters = check_maps("outputs", outputs, **axes)
    aux, sizes = outputs["aux_outputs"], outputs["sizes"]
    if isinstance(aux, Mapping) or not isinstance(aux, Sequence):
        raise TypeError(f"outputs['aux_outputs'] has type {type(aux).__name__}, expected a list of dicts")
    for i, layer in enumerate(aux):
        check_maps(f"outputs['aux_outputs'][{i}]", layer, letters, **axes)
    if len(sizes) != letters["B"]:
        raise ValueError(f"outputs['sizes'] has {len(sizes)} pairs, expected one for each of {letters['B']} images")
    return [*aux, outputs]


def check_floats(name: str, tensor: Tensor, axes: str, sizes: Sizes | None = None) -> Sizes:
    """Refuse what is not a tensor of floating-point numbers with these axes.

    Args:
        name: of the argument.
        tensor: its value.
        axes: that it must have.
        sizes: what letters stand for already.

    Returns:
        What letters stand for now.

    Raises:
        TypeError: not a tensor of floating-point numbers.
        ValueError: the shape does not fit.
    """
    _check_kind(name, tensor, isinstance(tensor, Tensor) and tensor.is_floating_point(), "floating-point numbers")
    return check_shape(name, tensor, axes, sizes)


def check_mask(name: str, mask: Tensor, axes: str, sizes: Sizes | None = None) -> Sizes:
    """Refuse what is not a tensor of bools with these axes.

    Args:
        name: of the argument.
        mask: its value.
        axes: that it must have.
        sizes: what letters stand for already.

    Returns:
        What letters stand for now.

    Raises:
        TypeError: not a tensor of bools.
        ValueError: the shape does not fit.
    """
    _check_kind(name, mask, isinstance(mask, Tensor) and mask.dtype == torch.bool, "torch.bool")
    return check_shape(name, mask, axes, sizes)


def check_shape(name: str, tensor: Tensor, axes: str, sizes: Sizes | None = None) -> Sizes:
    """Refuse a tensor with other axes.

    Args:
        name: of the argument.
        tensor: its value.
        axes: that it must have.
        sizes: what letters stand for already.

    Returns:
        What letters stand for now.

    Raises:
        TypeError: not a tensor.
        ValueError: the shape does not fit.
    """
    _check_kind(name, tensor, isinstance(tensor, Tensor), "numbers")
    wanted, known = axes.split(), dict(sizes or {})
    fits = tensor.ndim == len(wanted) and 0 not in tensor.shape
    for axis, length in zip(wanted, tensor.shape, strict=True) if fits else ():
        allowed = [known.setdefault(axis, length)] if axis.isalpha() else [int(n) for n in axis.split("|")]
        fits = fits and length in allowed
    if not fits:
        shape = ", ".join(axis.replace("|", " or ") for axis in wanted)
        there = ", ".join(f"{axis} = {sizes[axis]}" for axis in wanted if axis in (sizes or {}))
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)}, expected ({shape}){there and ' with ' + there}, no axis empty"
        )
    return known


def onnx_outputs(outputs: dict[str, Any]) -> dict[str, Any]:
    """In an export to ONNX: the outputs that are tensors. An ONNX program cannot return `sizes` or `image_size`.

    Args:
        outputs: of a network.

    Returns:
        The outputs without numbers, tuples of numbers, and lists of these. Otherwise, and in `torch.export`, all of
        them.

    >>> onnx_outputs({"logits": torch.zeros(1), "sizes": [(4, 4)]})
    {'logits': tensor([0.]), 'sizes': [(4, 4)]}
    """
    if not (is_exporting() and torch.onnx.is_in_onnx_export()):
        return outputs
    return {name: value for name, value in outputs.items() if _has_tensors(value)}


def _has_tensors(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return all(map(_has_tensors, value))
    return isinstance(value, Tensor)


def check_no_nan(name: str, given: Mapping[str, Tensor], keys: Collection[str]) -> None:
    """Refuse outputs of a network that has diverged: a NaN is above no threshold, and would pass for background.

    Args:
        name: of the argument.
        given: a dict.
        keys: whose tensors are looked at.

    Raises:
        ValueError: one has a NaN.
    """
    for key in keys:
        if not is_exporting() and bool(given[key].isnan().any()):
            raise ValueError(f"{name}[{key!r}] has a NaN, expected numbers")


def _check_kind(name: str, given: object, fits: bool, wanted: str) -> None:
    if not isinstance(given, Tensor):
        raise TypeError(f"{name} has type {type(given).__name__}, expected a tensor of {wanted}")
    if not fits:
        raise TypeError(f"{name} has dtype {given.dtype}, expected {wanted}")
