"""A OneFormer at tiny width, and pictures, tasks and sentences for it."""

from __future__ import annotations

import torch
from randomise import randomise
from torch import Tensor

from segedu.backbones.swin import Swin
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize
from segedu.panoptic.mask2former.mask2former import MaskedDecoder
from segedu.panoptic.mask2former.pixel_decoder import PixelDecoder
from segedu.panoptic.oneformer import OneFormer, TaskQueries, task_targets
from segedu.panoptic.oneformer_text import TextEncoder, TextMapper, WordTokenizer, segment_sentences

NAMES, THINGS = ("road", "sky", "tree", "car", "bus"), (3, 4)
CLASSES, QUERIES, CONTEXT, WIDTH = len(NAMES), 6, 2, 64
TASKS = ("instance", "panoptic", "semantic")
TOKENIZE = WordTokenizer.of_classes(NAMES)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fresh(text: bool = True, layers: int = 3, dropout: float = 0.0) -> OneFormer:
    body = Swin(
        8, (1, 2, 1, 1), (1, 2, 2, 2), window_size=4, dense=True, normalize=Normalize(IMAGENET_MEAN, IMAGENET_STD)
    )
    pixels = PixelDecoder(body.channels, WIDTH, 2, layers=2, hidden=24)
    decoder = MaskedDecoder(CLASSES, QUERIES, WIDTH, 2, layers=layers, hidden=20)
    queries = TaskQueries(WIDTH, 2, hidden=20, dropout=dropout)
    mapper = TextMapper(TextEncoder(TOKENIZE.vocab_size, TOKENIZE.length, 64, 2), WIDTH, CONTEXT) if text else None
    return OneFormer(body, pixels, decoder, queries, TOKENIZE, TOKENIZE.length, mapper)


def small(text: bool = True) -> OneFormer:
    return randomise(fresh(text))


def images_of(batch: int, size: tuple[int, int]) -> Tensor:
    return torch.rand(batch, 3, *size, generator=generator(batch), dtype=torch.float64)


def segments_of(count: int, size: tuple[int, int], seed: int) -> dict[str, Tensor]:
    """Overlapping rectangles of all classes; each class of stuff at most once."""
    labels = torch.randint(CLASSES, (count,), generator=generator(seed))
    labels = torch.cat([labels[labels < 3].unique(), labels[labels >= 3]])
    masks = torch.zeros(len(labels), *size, dtype=torch.bool)
    # large, for two that no point hits are the same to a matching
    corners = torch.rand(len(labels), 4, generator=generator(seed + 1)) * 0.4 + torch.tensor([0, 0, 0.6, 0.6])
    for mask, (x1, y1, x2, y2) in zip(masks, (corners * torch.tensor([*size[::-1]] * 2)).long().tolist(), strict=True):
        mask[y1:y2, x1:x2] = True
    return {"labels": labels, "masks": masks}


def targets_of(tasks: tuple[str, ...], size: tuple[int, int]) -> list[dict[str, Tensor]]:
    scenes = [segments_of(count, size, 10 * count) for count, _ in zip((5, 9, 0, 7), tasks, strict=False)]
    return [task_targets(scene, task, THINGS) for scene, task in zip(scenes, tasks, strict=True)]


def sentences_of(targets: list[dict[str, Tensor]], tasks: tuple[str, ...]) -> list[list[str]]:
    told = zip(targets, tasks, strict=True)
    return [segment_sentences(target["labels"], task, NAMES, QUERIES - CONTEXT) for target, task in told]
