"""Trained weights: official files by their publishers, and our own small ones.

`from segedu.weights import load` loads a model with its weights. The names of this package are imported on first use,
because the scripts in `own` belong to this package and import the methods themselves.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segedu.weights.catalogue import WEIGHTS
    from segedu.weights.pretrained import WeightsError, load

__all__ = ["WEIGHTS", "WeightsError", "load"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'segedu.weights' has no attribute {name!r}")
    return getattr(import_module("segedu.weights.pretrained"), name)
