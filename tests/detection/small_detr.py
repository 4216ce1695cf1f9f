"""A DETR at tiny width, batches of images for it, and outputs and targets drawn at random."""

from __future__ import annotations

import torch
from randomise import randomise
from torch import Tensor, nn
from torchvision.models import resnet as tv_resnet

from segedu.backbones.resnet import BasicBlock, ResNet
from segedu.detection.detr import DETR
from segedu.layers.batch_norm import freeze_batch_norm
from segedu.layers.image_batch import pad_to_batch
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize
from segedu.layers.transformer import Transformer

QUERIES, CLASSES = 5, 4


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small() -> DETR:
    body = ResNet(BasicBlock, (1, 1, 1, 1), (8, 8, 12, 16), normalize=Normalize(IMAGENET_MEAN, IMAGENET_STD))
    transformer = Transformer(16, 2, 2, 3, 20, dropout=0.0)
    return randomise(DETR(freeze_batch_norm(body), transformer, CLASSES, QUERIES))


def batch_of(sizes: list[tuple[int, int]], multiple: int = 32) -> tuple[Tensor, list[tuple[int, int]]]:
    images = [torch.rand(3, *size, generator=generator(i), dtype=torch.float64) for i, size in enumerate(sizes)]
    return pad_to_batch(images, multiple, fill=torch.tensor(IMAGENET_MEAN).tolist())


def random_outputs(batch: int = 3) -> dict:
    """Three decoder layers, nine queries."""
    sizes = [(40, 96), (64, 50), (30, 31)][:batch]
    layered = []
    for i in range(3):
        logits = torch.randn(batch, 9, CLASSES + 1, generator=generator(i), dtype=torch.float64)
        boxes = torch.rand(batch, 9, 4, generator=generator(9 + i), dtype=torch.float64) * 0.6 + 0.1
        layered.append({"class_logits": 2 * logits, "boxes": boxes})
    return {**layered[-1], "aux_outputs": layered[:-1], "sizes": sizes}


def scene(size: tuple[int, int], count: int, seed: int) -> dict[str, Tensor]:
    h, w = size
    corners = torch.rand(count, 2, 2, generator=generator(seed), dtype=torch.float64).sort(dim=1).values
    labels = torch.randint(1, CLASSES, (count,), generator=generator(seed + 1))
    return {"boxes": corners.flatten(1) * torch.tensor([w, h, w, h]), "labels": labels}


def official_state(depth: int) -> dict[str, Tensor]:
    """Keys and shapes of the authors' files, from torch's transformer and torchvision's ResNet of `depth` layers."""
    transformer, body = nn.Transformer(256, 8, 6, 6, 2048, batch_first=True), getattr(tv_resnet, f"resnet{depth}")()
    linear = nn.Linear(256, 256)
    modules = {
        "backbone.0.body": body, "transformer": transformer, "input_proj": nn.Conv2d(2048, 256, 1),
        "class_embed": nn.Linear(256, 92), "query_embed": nn.Embedding(100, 256),
        "bbox_embed.layers.0": linear, "bbox_embed.layers.1": linear, "bbox_embed.layers.2": nn.Linear(256, 4),
    }  # fmt: skip
    state = {f"{name}.{key}": value for name, part in modules.items() for key, value in part.state_dict().items()}
    left_out = ("num_batches_tracked", "body.fc.weight", "body.fc.bias", "encoder.norm.weight", "encoder.norm.bias")
    return {key: value for key, value in state.items() if not key.endswith(left_out)}


NOTHING = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
