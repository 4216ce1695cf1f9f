"""Which outputs of a network an ONNX program can return."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from segedu.validation.exporting import is_exporting


def onnx_outputs(outputs: dict[str, Any]) -> dict[str, Any]:
    """Keep only the outputs that are tensors while a network is exported to ONNX, otherwise keep all outputs.

    An ONNX program cannot return Python numbers such as `sizes` or `image_size`. `torch.export` can.

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
