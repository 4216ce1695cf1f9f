"""Official weights where they can be downloaded, and random ones elsewhere, so that a lab also runs offline."""

from __future__ import annotations

import pkgutil
from typing import Any

from torch import nn

from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize
from segedu.weights.catalogue import WEIGHTS
from segedu.weights.pretrained import WeightsError, load


def load_or_random(name: str, **options: Any) -> nn.Module:
    """Load a model with its trained weights or, after a printed sentence, build it with random weights.

    Args:
        name: a key of `WEIGHTS`.
        **options: passed to the builder, as in `load`.

    Raises:
        ValueError: `name` is not a key of `WEIGHTS`.
    """
    try:
        return load(name, **options)
    except WeightsError as error:
        print(f"The weights {name} could not be downloaded, so the network starts from random weights. ({error})")
    weights = WEIGHTS[name]
    normalize = {} if weights.normalizes else {"normalize": Normalize(IMAGENET_MEAN, IMAGENET_STD)}
    return pkgutil.resolve_name(weights.builder)(**normalize | dict(weights.options) | options)
