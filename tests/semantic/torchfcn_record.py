"""What torchfcn 1.9.7 answers for seeded weights, so that FCN is compared with it where it is not installed.

torchfcn does not install beside recent packages. `python tests/semantic/torchfcn_record.py` writes the record
again, after `pip install --no-deps torchfcn==1.9.7` and `pip install pytz`.
"""

from __future__ import annotations

import importlib
import json
import sys
import types
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

RECORD = Path(__file__).with_name("torchfcn_record.json")
CLASSES = 3
NARROW = {64: 3, 128: 4, 256: 5, 512: 6, 4096: 8}  # the paper's widths -> those of the record
VARIANTS = {"fcn32s": "FCN32s", "fcn16s": "FCN16s", "fcn8s": "FCN8s", "fcn8s at once": "FCN8sAtOnce"}
SIZES = ((37, 45), (64, 96))
EVERY = (5, 7)  # rows and columns of the logits that are kept


def seeded(shapes: list[tuple[int, ...]], classes: int = CLASSES) -> list[Tensor]:
    """Weights in the order of execution, float64: He's rule, biases that are not zero, disturbed bilinear kernels.

    Numpy's RandomState gives the same numbers in every version.
    """
    rng = np.random.RandomState(0)
    tensors = []
    for shape in shapes:
        values = torch.from_numpy(rng.standard_normal(shape))
        if len(shape) == 1:
            tensors.append(0.1 * values)
        elif shape[:2] == (classes, classes) and shape[2] == 4:
            tent = torch.tensor([0.25, 0.75, 0.75, 0.25], dtype=torch.float64)
            same = torch.eye(classes, dtype=torch.float64)[:, :, None, None]
            tensors.append(same * torch.outer(tent, tent) + 0.05 * values)
        else:
            tensors.append(values * (2 / np.prod(shape[1:])) ** 0.5)
    return tensors


def image(height: int, width: int) -> Tensor:
    return torch.from_numpy(np.random.RandomState(1).random_sample((1, 3, height, width)))


def torchfcn_module(name: str) -> types.ModuleType:
    """torchfcn.models.fcn8s and its like; the package `fcn`, which only downloads, is left out."""
    sys.modules.setdefault("fcn", types.ModuleType("fcn"))
    return importlib.import_module(f"torchfcn.models.{name}")


class NarrowConv2d(nn.Conv2d):
    """nn.Conv2d of the width that stands in NARROW for the one given."""

    def __init__(self, in_channels: int, out_channels: int, *args: int, **options: int) -> None:
        super().__init__(NARROW.get(in_channels, in_channels), NARROW.get(out_channels, out_channels), *args, **options)


def torchfcn_net(variant: str, classes: int = CLASSES, narrow: bool = True) -> nn.Module:
    """A net of torchfcn, in its own words except for the widths; its last up-sampling is bilinear."""
    module = torchfcn_module(variant.split()[0])
    if not narrow:
        return getattr(module, VARIANTS[variant])(n_class=classes).eval()
    original = module.nn
    module.nn = types.SimpleNamespace(**{**vars(nn), "Conv2d": NarrowConv2d})
    try:
        return getattr(module, VARIANTS[variant])(n_class=classes).eval()
    finally:
        module.nn = original


def in_order(net: nn.Module) -> list[nn.Parameter]:
    """Parameters of a torchfcn net in the order of execution, without the last, fixed up-sampling."""
    steps = [f"conv{stage}_{i}" for stage, count in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, count + 1)]
    steps += ["fc6", "fc7", "score_fr", "score_pool4", "score_pool3", "upscore2", "upscore_pool4"]
    return [parameter for step in steps if hasattr(net, step) for parameter in getattr(net, step).parameters()]


@torch.no_grad()
def fill(parameters: list[nn.Parameter], classes: int = CLASSES) -> None:
    for parameter, values in zip(parameters, seeded([tuple(p.shape) for p in parameters], classes), strict=True):
        parameter.copy_(values)


def sample(logits: Tensor) -> list:
    return logits[0, :, :: EVERY[0], :: EVERY[1]].tolist()


def main() -> None:
    """Write the record."""
    record = {}
    for variant in VARIANTS:
        net = torchfcn_net(variant).double()
        fill(in_order(net))
        with torch.no_grad():
            record[variant] = {f"{h}x{w}": sample(net(image(h, w))) for h, w in SIZES}
    RECORD.write_text(json.dumps(record, indent=None, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
