"""MaskFormers at tiny width, batches of images for them, and outputs and segments drawn at random."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from randomise import randomise
from torch import Tensor

from segedu.backbones.resnet import Bottleneck, ResNet
from segedu.backbones.swin import Swin
from segedu.layers.image_batch import pad_to_batch
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize
from segedu.layers.transformer import Transformer
from segedu.panoptic.maskformer import MaskFormer, PixelDecoder

QUERIES, CLASSES, WIDTH, EMBED, HEADS, HIDDEN, LAYERS, MASK_DIM = 5, 4, 32, 24, 2, 20, 3, 12
SWIN = {"embed_dim": 8, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 2, 2), "window_size": 3}
RESNET = (2, 2, 3, 4)  # a quarter of the channels


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(kind: str = "resnet", dropout: float = 0.0) -> MaskFormer:
    normalize = Normalize(IMAGENET_MEAN, IMAGENET_STD)
    if kind == "swin":
        body = Swin(**SWIN, normalize=normalize, dense=True)
    else:
        body = ResNet(Bottleneck, (1, 1, 1, 1), RESNET, normalize=normalize)
    pixels = PixelDecoder(body.channels[-4:], WIDTH, MASK_DIM)
    transformer = Transformer(EMBED, HEADS, 0, LAYERS, HIDDEN, dropout)
    return randomise(MaskFormer(body, pixels, transformer, CLASSES, QUERIES))


def batch_of(sizes: list[tuple[int, int]], multiple: int = 32) -> tuple[Tensor, list[tuple[int, int]]]:
    images = [torch.rand(3, *size, generator=generator(i), dtype=torch.float64) for i, size in enumerate(sizes)]
    return pad_to_batch(images, multiple, fill=torch.tensor(IMAGENET_MEAN).tolist())


def random_outputs(layers: int = 3, queries: int = 9) -> dict:
    """Three images, nine queries whose masks are blobs."""
    sizes, image_size, layered = [(40, 64), (37, 50), (22, 31)], (44, 64), []
    for i in range(layers):
        logits = torch.randn(3, queries, CLASSES + 1, generator=generator(i), dtype=torch.float64)
        noise = torch.randn(3, queries, 4, 5, generator=generator(9 + i), dtype=torch.float64)
        layered.append({"class_logits": 2 * logits, "mask_logits": 4 * F.interpolate(noise, (11, 16), mode="bicubic")})
    return {**layered[-1], "aux_outputs": layered[:-1], "sizes": sizes, "image_size": image_size}


def segments(size: tuple[int, int], count: int, seed: int) -> dict[str, Tensor]:
    """Random masks that cover a third of the image; they may overlap."""
    noise = torch.randn(max(count, 1), 1, 4, 4, generator=generator(seed), dtype=torch.float64)
    masks = (F.interpolate(noise, size, mode="bilinear") > 0.4)[:count, 0]
    return {"labels": torch.randint(CLASSES, (count,), generator=generator(seed + 1)), "masks": masks}
