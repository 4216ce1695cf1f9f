"""Layer normalisation of feature maps, as in ConvNeXt and Segment Anything."""

from __future__ import annotations

from torch import Tensor, nn

EPS = 1e-6  # as in the authors' code; torch's default is 1e-5


class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels (B, C, H, W) of each location separately."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=EPS)

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.movedim(1, -1)).movedim(-1, 1)
