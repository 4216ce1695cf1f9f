"""A DETR with a mask head at tiny width, and outputs and objects with masks drawn at random."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from detection.small_detr import generator, random_outputs, scene
from randomise import randomise
from torch import Tensor

from segedu.backbones.resnet import BasicBlock, ResNet
from segedu.detection.detr import DETR
from segedu.layers.batch_norm import freeze_batch_norm
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize
from segedu.layers.transformer import Transformer
from segedu.panoptic.detr_panoptic import DETRPanoptic

CLASSES, QUERIES, EMBED, HEADS, CHANNELS = 4, 5, 128, 8, (8, 8, 12, 16)


def small() -> DETRPanoptic:
    body = ResNet(BasicBlock, (1, 1, 1, 1), CHANNELS, normalize=Normalize(IMAGENET_MEAN, IMAGENET_STD))
    detr = DETR(freeze_batch_norm(body), Transformer(EMBED, HEADS, 2, 3, 20, dropout=0.0), CLASSES, QUERIES)
    return randomise(DETRPanoptic(detr, HEADS))


def with_masks(batch: int = 3) -> dict:
    """Three decoder layers, nine queries, whose masks are blobs."""
    outputs = random_outputs(batch)
    noise = torch.randn(batch, 9, 4, 6, generator=generator(5), dtype=torch.float64)
    return {**outputs, "mask_logits": 4 * F.interpolate(noise, (16, 24), mode="bicubic"), "image_size": (64, 96)}


def scene_with_masks(size: tuple[int, int], count: int, seed: int) -> dict[str, Tensor]:
    noise = torch.randn(max(count, 1), 1, 4, 4, generator=generator(seed), dtype=torch.float64)
    return {**scene(size, count, seed), "masks": (F.interpolate(noise, size, mode="bilinear") > 0.4)[:count, 0]}
