"""Label maps of ellipses and ellipsoids, and how well one map has the objects of another."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def blobs(shape: tuple[int, ...], seed: int, count: int = 25, largest: float = 14) -> Tensor:
    """Labels that touch, that the border cuts, of all sizes and with gaps between their numbers."""
    rng = np.random.default_rng(seed)
    places, label_map = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1), np.zeros(shape, np.int32)
    for label in rng.choice(60_000, count, replace=False) + 1:
        center, radii = rng.uniform(0, shape), rng.uniform(0.4, largest, len(shape))
        label_map[(((places - center) / radii) ** 2).sum(axis=-1) < 1] = label
    return torch.from_numpy(label_map)


def centers_of(label_map: Tensor) -> Tensor:
    """Centres of mass, cut down to whole numbers as StarDist does, in order of the labels."""
    return torch.stack([(label_map == n).nonzero().double().mean(dim=0).long() for n in label_map.unique()[1:]])


def mean_iou_of_objects(label_map: Tensor, other: Tensor) -> float:
    """Of each object with the one of the other map that covers most of it; 0 where there is none."""
    ious = []
    for label in label_map.unique()[1:]:
        mask = label_map == label
        best = other == other[mask].bincount(minlength=2)[1:].argmax() + 1
        ious.append(((mask & best).sum() / (mask | best).sum()).item())
    return sum(ious) / len(ious)
