"""An MLP of linear layers and ReLUs, as in the heads of DETR, MaskFormer and Segment Anything."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn


class ReLULayers(nn.Module):
    """Linear layers with a ReLU between each two, applied to each vector separately.

    Args:
        *widths: channels of the input, between the layers, and of the output.
    """

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, vectors: Tensor) -> Tensor:
        *hidden, last = self.layers
        for layer in hidden:
            vectors = layer(vectors).relu()
        return last(vectors)
