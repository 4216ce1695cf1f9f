"""A network that is applied to reduced photographs, and whose logits are upsampled."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from segedu.recipes.own_images import reduced_size, resize


class Reduced(nn.Module):
    """A network that is applied to reduced images; its logits are upsampled to the size of the images.

    Args:
        network: images (B, 3, h, w) -> logits (B, K, h, w).
        longest_side: images with a longer side are reduced to it.
        mirrored: in evaluation, average the probabilities with those of the mirrored image. The logits are then the
            logarithms of the averages.
    """

    def __init__(self, network: nn.Module, longest_side: int, mirrored: bool = True) -> None:
        super().__init__()
        self.network, self.longest_side, self.mirrored = network, longest_side, mirrored

    def forward(self, images: Tensor) -> Tensor:
        small = resize(images, reduced_size(images.shape[-2:], self.longest_side), "area")
        logits = self.network(small)
        if self.mirrored and not self.training:
            of_mirrored = self.network(small.flip(-1)).flip(-1)
            logits = torch.stack([logits.log_softmax(dim=1), of_mirrored.log_softmax(dim=1)]).logsumexp(dim=0)
        return logits if small is images else interpolate(logits, images.shape[-2:], mode="bilinear")
