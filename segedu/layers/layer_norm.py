"""Layer normalisation of images, as ConvNeXt and Segment Anything have it."""

from __future__ import annotations

from torch import Tensor, nn

EPS = 1e-6  # of the authors' normalisations; torch's default is 1e-5


class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation of images: over the channels of each place alone.

    Args:
        channels: C of the features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=EPS)

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.movedim(1, -1)).movedim(-1, 1)
