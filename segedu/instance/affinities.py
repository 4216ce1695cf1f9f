"""Affinities: for each pixel and each of a few offsets, whether the pixel over there is of the same object.

Paper: Lee, Zung, Li, Jain, Seung, "Superhuman Accuracy on the SNEMI3D Connectomics Challenge", 2017,
    arXiv 1706.00120 (long-range affinities); Wolf, Pape, Bailoni, Rahaman, Kreshuk, Koethe, Hamprecht, "The Mutex
    Watershed: Efficient, Parameter-Free Image Partitioning", ECCV 2018 (decoding).
Idea: The network answers yes or no about pairs of pixels, which needs no number of objects and no shape. Near pairs
    say what to join; but one wrong yes at the border joins two objects. Far pairs say what must stay apart. The
    mutex watershed takes all answers, surest first: a yes joins two clusters unless a surer no forbids it.
Simplified: two dimensions; one class of objects, whose mask is one more channel, as our images have background and
    the paper's neurons fill theirs. The default offsets are ours, for objects of 10 to 40 pixels. All far pairs are
    used, where the paper draws a part of them.
Shapes: images (B, C, H, W) -> dict of `affinities` (B, A, H, W), one channel an offset, and `foreground`
    (B, 1, H, W), logits. `postprocess`: the dict -> B label maps (H, W) int32.
Quality: targets equal a loop over pixels, and decoded they give the label map back where objects are connected; the
    mutex watershed equals a version with sets on random graphs (its tests).
Course: 10-embeddings
Lab: 10_embeddings
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

from segedu.losses.cross_entropy import binary_cross_entropy
from segedu.losses.reduction import full_precision
from segedu.ops.label_maps import drop_small_objects
from segedu.ops.mutex_watershed import mutex_watershed
from segedu.validation.label_maps import check_label_map
from segedu.validation.numbers import check_number
from segedu.validation.tensors import check_dtype, check_floats, check_keys, check_maps, check_no_nan

Offsets = Sequence[tuple[int, int]]
NEAR: Offsets = ((-1, 0), (0, -1))  # what to join
FAR: Offsets = ((-4, 0), (0, -4), (-4, -4), (4, -4), (-12, 0), (0, -12))  # what to keep apart
OFFSETS: Offsets = (*NEAR, *FAR)
OUTSIDE = 255  # target where the other pixel is not in the image: such a pair is ignored
KEYS = ("affinities", "foreground")


class AffinityNet(nn.Module):
    """Any network that gives each pixel A + 1 numbers: a logit for each offset, and that of the foreground.

    Args:
        network: images (B, C, H, W) -> (B, A + 1, H, W), such as a U-Net with padding, which both papers use.
        offsets: A steps (dy, dx) from a pixel to the other one.
    """

    def __init__(self, network: nn.Module, offsets: Offsets = OFFSETS) -> None:
        super().__init__()
        self.network, self.offsets = network, _check_offsets(offsets)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        channels, expected = self.network(images), len(self.offsets) + 1
        if channels.ndim != 4 or channels.shape[1] != expected:
            raise ValueError(f"network gives shape {tuple(channels.shape)}, expected (B, {expected}, H, W)")
        # Both keep the axis of channels, a layout that every network of this chapter has.
        return {"affinities": channels[:, :-1], "foreground": channels[:, -1:]}


def affinity_targets(label_map: Tensor, offsets: Offsets = OFFSETS) -> dict[str, Tensor]:
    """What `affinity_loss` asks for: 1 where pixel (y, x) and pixel (y + dy, x + dx) are of one object.

    Args:
        label_map: (H, W) integers, 0 is background.
        offsets: A steps (dy, dx).

    Returns:
        `affinities` (A, H, W) uint8: 1 for one object, 0 for two, for object and background, and for two pixels of
        the background, and 255 where the other pixel is outside the image. `foreground` (H, W) bool.

    Raises:
        TypeError: `label_map` is not a tensor of integers.
        ValueError: it is not (H, W), is empty or has a negative label; `offsets` are not pairs of integers.

    >>> affinity_targets(torch.tensor([[3, 3, 8, 0, 0]]), [(0, -1)])["affinities"]
    tensor([[[255,   1,   0,   0,   0]]], dtype=torch.uint8)
    """
    labels, offsets = check_label_map("label_map", label_map, (2,)), _check_offsets(offsets)
    affinities = torch.full((len(offsets), *labels.shape), OUTSIDE, dtype=torch.uint8, device=labels.device)
    for affinity, offset in zip(affinities, offsets, strict=True):
        here, there = _pairs(labels.shape, offset)
        affinity[here] = ((labels[here] == labels[there]) & (labels[here] > 0)).byte()
    return {"affinities": affinities, "foreground": labels > 0}


def affinity_loss(
    outputs: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    *,
    entropy_weight: float = 1.0,
    dice_weight: float = 1.0,
    foreground_weight: float = 1.0,
) -> dict[str, Tensor]:
    """Cross-entropy of affinities (Lee et al.), their Dice loss (Wolf et al.), and cross-entropy of the foreground.

    Args:
        outputs: `affinities` (B, A, H, W) and `foreground` (B, 1, H, W) of `AffinityNet`.
        targets: `affinities` (B, A, H, W) of 0, 1 and 255, which is ignored; `foreground` (B, H, W) bool.
        entropy_weight: of the first.
        dice_weight: of the second: 1 - 2 sum p y / (sum p^2 + sum y^2) for each offset over all pairs of the batch,
            mean over offsets that have a pair of one object: without one the ratio is 0 whatever p is.
        foreground_weight: of the third.

    Returns:
        Scalars `entropy`, `dice` and `foreground`, weighted, and `loss`, their sum.

    Raises:
        TypeError: a tensor has the wrong dtype.
        ValueError: a key is missing, shapes do not fit, a target is not 0, 1 or 255, or a weight is negative.
    """
    affinities, logits = _checked(outputs)
    check_keys("targets", targets, KEYS)
    weights = {"entropy": entropy_weight, "dice": dice_weight, "foreground": foreground_weight}
    for name, weight in weights.items():
        check_number(f"{name}_weight", weight)
    parts = {
        "entropy": binary_cross_entropy(affinities, targets["affinities"], ignore_index=OUTSIDE),
        "dice": _dice(full_precision(affinities).sigmoid(), targets["affinities"]),
        "foreground": binary_cross_entropy(logits, targets["foreground"], ignore_index=None),
    }
    parts = {name: weights[name] * part for name, part in parts.items()}
    return {**parts, "loss": sum(parts.values())}


def _dice(p: Tensor, target: Tensor) -> Tensor:
    counted = (target.long() != OUTSIDE).to(p)
    y, p = target.to(p) * counted, p * counted
    true, both, whole = (x.sum((0, 2, 3)) for x in (y, p * y, p**2 + y**2))  # (A,)
    present = true > 0
    return ((1 - 2 * both / whole.clamp(min=1)) * present).sum() / present.sum().clamp(min=1)


def decode_mutex(affinities: Tensor, foreground: Tensor, offsets: Offsets = OFFSETS, min_pixels: int = 1) -> Tensor:
    """Objects by the mutex watershed over the pixels of the foreground.

    Offsets to the four neighbours attract, with the affinity as weight; all others repel, with 1 - affinity.

    Args:
        affinities: (A, H, W) probabilities.
        foreground: (H, W) bool; other pixels have no part in it.
        offsets: those of the network.
        min_pixels: smaller objects become background.

    Returns:
        (H, W) int32 label map, numbered in raster order of first pixels.

    Raises:
        TypeError: a tensor has the wrong dtype.
        ValueError: shapes do not fit, a number is outside [0, 1], `min_pixels` is below 1, or no offset attracts.

    The attraction over the gap between the second and the third pixel comes after what keeps pixels 4 apart.

    >>> affinities = torch.tensor([[[0.0, 0.9, 0.6, 0.9, 0.9]], [[0.0, 0.0, 0.0, 0.0, 0.1]]])
    >>> decode_mutex(affinities, torch.ones(1, 5).bool(), [(0, -1), (0, -4)])
    tensor([[1, 1, 2, 2, 2]], dtype=torch.int32)
    """
    offsets = _check_decode(affinities, foreground, offsets, min_pixels)
    edges, weights, attractive = [], [], []
    for affinity, offset in zip(affinities.detach(), offsets, strict=True):
        pairs, values = _edges(affinity, foreground, offset)
        near = abs(offset[0]) + abs(offset[1]) == 1
        edges.append(pairs)
        weights.append(values if near else 1 - values)
        attractive.append(torch.full(values.shape, near, dtype=torch.bool, device=values.device))
    clusters = mutex_watershed(foreground.numel(), torch.cat(edges), torch.cat(weights), torch.cat(attractive))
    return _as_label_map(clusters, foreground, min_pixels)


def decode_components(
    affinities: Tensor,
    foreground: Tensor,
    offsets: Offsets = OFFSETS,
    min_pixels: int = 1,
    affinity_threshold: float = 0.5,
) -> Tensor:
    """Objects as connected components: neighbours are joined where their affinity is above a threshold.

    What the mutex watershed is measured against. Offsets to other pixels than the four neighbours are not used.

    Args:
        affinities: (A, H, W) probabilities.
        foreground: (H, W) bool; other pixels have no part in it.
        offsets: those of the network.
        min_pixels: smaller objects become background.
        affinity_threshold: in [0, 1].

    Returns:
        (H, W) int32 label map, numbered in raster order of first pixels.
    """
    offsets = _check_decode(affinities, foreground, offsets, min_pixels)
    check_number("affinity_threshold", affinity_threshold, maximum=1)
    edges = [torch.zeros(0, 2, dtype=torch.int64)]
    for affinity, offset in zip(affinities.detach(), offsets, strict=True):
        if abs(offset[0]) + abs(offset[1]) == 1:
            pairs, values = _edges(affinity, foreground, offset)
            edges.append(pairs[values > affinity_threshold].cpu())
    first, second = torch.cat(edges).numpy().T
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=[foreground.numel()] * 2)
    clusters = torch.from_numpy(connected_components(graph, directed=False)[1].astype(np.int64))
    return _as_label_map(clusters, foreground, min_pixels)


def postprocess(
    outputs: Mapping[str, Tensor],
    offsets: Offsets = OFFSETS,
    foreground_threshold: float = 0.5,
    min_pixels: int = 1,
) -> list[Tensor]:
    """Label maps of a batch by the mutex watershed.

    Args:
        outputs: `affinities` and `foreground` of `AffinityNet`.
        offsets: those of the network.
        foreground_threshold: pixels with a greater probability belong to objects.
        min_pixels: smaller objects become background.

    Returns:
        B label maps (H, W) int32, on the device of the outputs.

    Raises:
        TypeError: `outputs` is no dict of floating-point numbers.
        ValueError: a key is missing, a shape does not fit, a number is NaN, or as `decode_mutex`.
    """
    affinities, logits = _checked(outputs)
    check_no_nan("outputs", outputs, KEYS)
    check_number("foreground_threshold", foreground_threshold, maximum=1)
    images = zip(affinities.sigmoid(), logits.sigmoid() > foreground_threshold, strict=True)
    return [decode_mutex(*image, offsets, min_pixels) for image in images]


def _pairs(shape: tuple[int, ...], offset: tuple[int, int]) -> tuple[Any, Any]:
    """Slices of the pixels whose partner is in the image, and of their partners; both empty for large offsets."""
    steps = list(zip(offset, shape, strict=True))
    here = tuple(slice(max(0, -step), max(0, size - max(0, step))) for step, size in steps)
    there = tuple(slice(max(0, step), max(0, size - max(0, -step))) for step, size in steps)
    return here, there


def _edges(affinity: Tensor, foreground: Tensor, offset: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Pairs of pixels of the foreground (E, 2), by their numbers in raster order, and their affinities (E,)."""
    here, there = _pairs(foreground.shape, offset)
    number = torch.arange(foreground.numel(), device=foreground.device).reshape(foreground.shape)
    both = foreground[here] & foreground[there]
    return torch.stack([number[here][both], number[there][both]], dim=1), affinity[here][both]


def _as_label_map(clusters: Tensor, foreground: Tensor, min_pixels: int) -> Tensor:
    """Clusters (H * W,), numbered in raster order, without the background and what is too small."""
    numbers = torch.where(foreground.flatten(), clusters.to(foreground.device) + 1, 0)
    return drop_small_objects(numbers.reshape(foreground.shape), min_pixels)


def _check_offsets(offsets: Offsets) -> tuple[tuple[int, int], ...]:
    pairs = tuple(tuple(offset) for offset in offsets)
    whole = all(len(pair) == 2 and all(isinstance(step, int) for step in pair) for pair in pairs)
    if not pairs or not whole or (0, 0) in pairs:
        raise ValueError(f"offsets is {pairs}, expected one or more pairs of integers (dy, dx) other than (0, 0)")
    return pairs


def _checked(outputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Logits of affinities (B, A, H, W) and of the foreground (B, H, W)."""
    check_maps("outputs", outputs, affinities="B A H W", foreground="B 1 H W")
    return outputs["affinities"], outputs["foreground"][:, 0]


def _check_decode(affinities: Tensor, foreground: Tensor, offsets: Offsets, min_pixels: int) -> Any:
    check_dtype("foreground", foreground, torch.bool, "H W", check_floats("affinities", affinities, "A H W"))
    offsets = _check_offsets(offsets)
    if len(affinities) != len(offsets):
        expected = (len(offsets), *foreground.shape)
        raise ValueError(f"affinities has shape {tuple(affinities.shape)}, expected {expected} for these offsets")
    if not bool(((affinities >= 0) & (affinities <= 1)).all()):
        raise ValueError("affinities has a number outside [0, 1] or a NaN, expected probabilities")
    if not any(abs(dy) + abs(dx) == 1 for dy, dx in offsets):
        raise ValueError(f"offsets is {offsets}, expected one of a neighbour such as (-1, 0): nothing would be joined")
    if not min_pixels >= 1:
        raise ValueError(f"min_pixels is {min_pixels}, expected at least 1")
    return offsets
