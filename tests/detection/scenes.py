"""Synthetic scenes to learn by heart, and a small backbone to do it with."""

from __future__ import annotations

import torch
from torch import Tensor

from segedu.backbones.fpn import FPN, PoolLevel
from segedu.backbones.resnet import BasicBlock, ResNet
from segedu.datasets.shapes import Shapes


def scenes(count: int, size: tuple[int, int] = (64, 64)) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Images (B, 3, H, W) and their targets; labels 1 to 3."""
    drawn = [Shapes(count, seed=3, size=size)[i] for i in range(count)]
    targets = [{key: scene[key] for key in ("boxes", "labels", "masks")} for scene in drawn]
    return torch.stack([scene["image"] for scene in drawn]), targets


def small_resnet() -> ResNet:
    return ResNet(BasicBlock, (1, 1, 1, 1), (16, 16, 32, 32))


def small_pyramid(channels: int) -> FPN:
    return FPN(small_resnet(), channels, extra=PoolLevel())
