"""Random numbers in every tensor of a model, for comparisons of two implementations."""

from __future__ import annotations

import math

import torch
from torch import nn


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Draw all parameters and running statistics, and set float64 and evaluation mode.

    Fresh layers have biases and means of 0 and variances of 1, which hide mistakes. Kernels get the deviation
    1 / sqrt(inputs), so that values keep their size through a hundred layers.
    """
    generator = torch.Generator().manual_seed(seed)
    model.double().eval()
    with torch.no_grad():
        for name, tensor in model.state_dict(keep_vars=True).items():
            if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator, dtype=torch.float64))
            elif tensor.is_floating_point():
                inputs = math.prod(tensor.shape[1:]) if tensor.ndim > 1 else 16
                drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
                tensor.copy_(drawn / math.sqrt(inputs))
    return model
