"""Linear maps with a ReLU between each two: what a query becomes a box by, or what it compares pixels with."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn


class ReLULayers(nn.Module):
    """Linear maps with a ReLU between each two, on each vector alone.

    Args:
        *widths: how many numbers go in, are between, and come out.
    """

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, vectors: Tensor) -> Tensor:
        *before, last = self.layers
        for layer in before:
            vectors = layer(vectors).relu()
        return last(vectors)
