"""Normalisation of images inside a network, so that images stay in [0, 1] everywhere else."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segedu.validation.images import check_unit_range

# Of the red, green and blue of ImageNet's training images in [0, 1]; torchvision's classifiers use these digits.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Blue, green, red from 0 to 255: the digits in the prototxt files of VGG and FCN.
CAFFE_MEAN = (104.00699, 116.66877, 122.67892)


class Normalize(nn.Module):
    """Subtract a mean and divide by a standard deviation, channel by channel.

    Neither is in the state dict, because weights from other sources do not contain them and are loaded strictly. If the
    mean lies in [0, 1], images that are clearly outside this range are refused (`check_unit_range`).

    Args:
        mean: one value per channel. If all are between 0 and 1, images are expected in [0, 1].
        std: one value per channel, above 0.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if not len(mean) or len(mean) != len(std) or min(std) <= 0:
            given = f"mean is {tuple(mean)} and std {tuple(std)}"
            raise ValueError(f"{given}, expected one value of each per channel, those of std above 0")
        self.unit_range = all(0 < value < 1 for value in mean)
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        _check_channels(images, len(self.mean))
        if self.unit_range:
            check_unit_range(images)
        return (images - self.mean) / self.std


class CaffeNormalize(nn.Module):
    """Convert images to the input of Caffe networks: BGR from 0 to 255, minus the mean of ImageNet's pixels."""

    def __init__(self) -> None:
        super().__init__()
        mean = torch.tensor(CAFFE_MEAN).reshape(3, 1, 1)
        self.register_buffer("mean", mean, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        _check_channels(images, 3)
        check_unit_range(images)
        return 255 * images.flip(-3) - self.mean


def _check_channels(images: Tensor, channels: int) -> None:
    if images.ndim < 3 or images.shape[-3] != channels:
        raise ValueError(f"images has shape {tuple(images.shape)}, expected (..., {channels}, H, W)")
