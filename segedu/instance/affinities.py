"""Affinities: for each pixel and each of a few offsets, predict whether the pixel at that offset is of the same object.

Paper: Lee, Zung, Li, Jain, Seung, "Superhuman Accuracy on the SNEMI3D Connectomics Challenge", 2017,
    arXiv 1706.00120 (long-range affinities); Wolf, Pape, Bailoni, Rahaman, Kreshuk, Koethe, Hamprecht, "The Mutex
    Watershed: Efficient, Parameter-Free Image Partitioning", ECCV 2018 (decoding).
Idea: The network classifies pairs of pixels, which needs neither a number of objects nor a shape. Short-range pairs
    decide what to join, but one false positive at a border merges two objects. Long-range pairs decide what must stay
    separate. The mutex watershed processes all pairs in order of confidence: an attractive pair merges two clusters
    unless a more confident repulsive pair forbids it.
Simplified: two dimensions; one class of objects, whose mask is one more channel, because our images have background and
    the paper's neurons fill theirs. The default offsets are ours, for objects of 10 to 40 pixels. All long-range pairs
    are used, where the paper samples some of them.
Shapes: images (B, C, H, W) -> dict of `affinities` (B, A, H, W), one channel per offset, and `foreground`
    (B, 1, H, W), logits. `postprocess`: the dict -> B label maps (H, W) int32.
Quality: targets equal a loop over pixels, and decoded they give the label map back where objects are connected; the
    mutex watershed equals a version with sets on random graphs (its tests). `cells`: instance accuracy 0.744
    at IoU 0.5, the lowest of three seeds (watershed 0.423), in about 20 CPU-s (`segedu train affinities --data cells
    --seeds 3`).
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
from segedu.validation.tensors import (
    check_dtype,
    check_floats,
    check_keys,
    check_no_nan,
    check_shape,
    check_tensor_dict,
)

Offsets = Sequence[tuple[int, int]]
ATTRACTIVE_OFFSETS: Offsets = ((-1, 0), (0, -1))  # to direct neighbours
REPULSIVE_OFFSETS: Offsets = ((-4, 0), (0, -4), (-4, -4), (4, -4), (-12, 0), (0, -12))  # to distant pixels
OFFSETS: Offsets = (*ATTRACTIVE_OFFSETS, *REPULSIVE_OFFSETS)
OUTSIDE = 255  # the target of a pair whose other pixel is outside the image, which is ignored
KEYS = ("affinities", "foreground")


class AffinityNet(nn.Module):
    """Any network with A + 1 output channels: a logit for each offset, and that of the foreground.

    Args:
        network: images (B, C, H, W) -> (B, A + 1, H, W), such as a U-Net with padding, which both papers use.
        offsets: A steps (dy, dx) from a pixel to the other one.
    """

    def __init__(self, network: nn.Module, offsets: Offsets = OFFSETS) -> None:
        super().__init__()
        self.network, self.offsets = network, _check_offsets(offsets)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        channels = self.network(images)
        check_shape("network(images)", channels.shape, f"B? {len(self.offsets) + 1} H W")
        # both keep the axis of channels, as in every network of this chapter
        return {"affinities": channels[:, :-1], "foreground": channels[:, -1:]}


def affinity_targets(label_map: Tensor, offsets: Offsets = OFFSETS) -> dict[str, Tensor]:
    """The targets of `affinity_loss`: 1 where pixels (y, x) and (y + dy, x + dx) belong to the same object.

    Args:
        label_map: (H, W) integers, 0 is background.
        offsets: A steps (dy, dx).

    Returns:
        `affinities` (A, H, W) uint8: 1 for the same object; 0 for different objects, for object and background, and for
        two background pixels; 255 where the other pixel is outside the image. `foreground` (H, W) bool.

    >>> affinity_targets(torch.tensor([[3, 3, 8, 0, 0]]), [(0, -1)])["affinities"]
    tensor([[[255,   1,   0,   0,   0]]], dtype=torch.uint8)
    """
    labels, offsets = check_label_map("label_map", label_map, (2,)), _check_offsets(offsets)
    affinities = torch.full((len(offsets), *labels.shape), OUTSIDE, dtype=torch.uint8, device=labels.device)
    for affinity, offset in zip(affinities, offsets, strict=True):
        pixels, partners = _pairs(labels.shape, offset)
        affinity[pixels] = ((labels[pixels] == labels[partners]) & (labels[pixels] > 0)).byte()
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
        entropy_weight: of the cross-entropy of affinities.
        dice_weight: of the Dice loss: 1 - 2 sum p y / (sum p^2 + sum y^2) for each offset over all pairs of the batch,
            averaged over offsets that have a positive pair: without one the ratio is 0 for every p.
        foreground_weight: of the cross-entropy of the foreground.

    Returns:
        Scalars `entropy`, `dice` and `foreground`, weighted, and `loss`, their sum.
    """
    affinities, logits = _affinities_and_logits(outputs)
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
    valid = (target.long() != OUTSIDE).to(p)
    y, p = target.to(p) * valid, p * valid
    positives, intersection, total = (x.sum((0, 2, 3)) for x in (y, p * y, p**2 + y**2))  # (A,)
    present = positives > 0
    return ((1 - 2 * intersection / total.clamp(min=1)) * present).sum() / present.sum().clamp(min=1)


def decode_mutex(affinities: Tensor, foreground: Tensor, offsets: Offsets = OFFSETS, min_pixels: int = 1) -> Tensor:
    """Objects by the mutex watershed over the pixels of the foreground.

    Offsets to the four neighbours attract, with the affinity as weight; all others repel, with 1 - affinity.

    Args:
        affinities: (A, H, W) probabilities.
        foreground: (H, W) bool; other pixels are background.
        offsets: those of the network.
        min_pixels: smaller objects become background.

    Returns:
        (H, W) int32 label map, numbered in raster order of first pixels.

    The attraction across the gap between the second and the third pixel has a lower weight than the repulsion between
    the first and the last pixel, so it is processed later and forbidden.

    >>> affinities = torch.tensor([[[0.0, 0.9, 0.6, 0.9, 0.9]], [[0.0, 0.0, 0.0, 0.0, 0.1]]])
    >>> decode_mutex(affinities, torch.ones(1, 5).bool(), [(0, -1), (0, -4)])
    tensor([[1, 1, 2, 2, 2]], dtype=torch.int32)
    """
    offsets = _check_decode(affinities, foreground, offsets, min_pixels)
    edges, weights, attractive = [], [], []
    for affinity, offset in zip(affinities.detach(), offsets, strict=True):
        pairs, values = _edges(affinity, foreground, offset)
        is_attractive = abs(offset[0]) + abs(offset[1]) == 1
        edges.append(pairs)
        weights.append(values if is_attractive else 1 - values)
        attractive.append(torch.full(values.shape, is_attractive, dtype=torch.bool, device=values.device))
    clusters = mutex_watershed(foreground.numel(), torch.cat(edges), torch.cat(weights), torch.cat(attractive))
    return _as_label_map(clusters, foreground, min_pixels)


def decode_components(
    affinities: Tensor,
    foreground: Tensor,
    offsets: Offsets = OFFSETS,
    min_pixels: int = 1,
    affinity_threshold: float = 0.5,
) -> Tensor:
    """Objects as connected components: neighbours are joined if their affinity is above a threshold.

    This is the baseline for the mutex watershed. Only offsets to the four neighbours are used.

    Args:
        affinities: (A, H, W) probabilities.
        foreground: (H, W) bool; other pixels are background.
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
    """
    affinities, logits = _affinities_and_logits(outputs)
    check_no_nan("outputs", outputs, KEYS)
    check_number("foreground_threshold", foreground_threshold, maximum=1)
    images = zip(affinities.sigmoid(), logits.sigmoid() > foreground_threshold, strict=True)
    return [decode_mutex(*image, offsets, min_pixels) for image in images]


def _pairs(shape: tuple[int, ...], offset: tuple[int, int]) -> tuple[Any, Any]:
    """Slices of the pixels whose partner is in the image, and of their partners; both empty for large offsets."""
    steps = list(zip(offset, shape, strict=True))
    pixels = tuple(slice(max(0, -step), max(0, size - max(0, step))) for step, size in steps)
    partners = tuple(slice(max(0, step), max(0, size - max(0, -step))) for step, size in steps)
    return pixels, partners


def _edges(affinity: Tensor, foreground: Tensor, offset: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Pairs of foreground pixels (E, 2), by their indices in raster order, and their affinities (E,)."""
    pixels, partners = _pairs(foreground.shape, offset)
    index = torch.arange(foreground.numel(), device=foreground.device).reshape(foreground.shape)
    both = foreground[pixels] & foreground[partners]
    return torch.stack([index[pixels][both], index[partners][both]], dim=1), affinity[pixels][both]


def _as_label_map(clusters: Tensor, foreground: Tensor, min_pixels: int) -> Tensor:
    """The label map of clusters (H * W,), numbered in raster order, without the background and small clusters."""
    labels = torch.where(foreground.flatten(), clusters.to(foreground.device) + 1, 0)
    return drop_small_objects(labels.reshape(foreground.shape), min_pixels)


def _check_offsets(offsets: Offsets) -> tuple[tuple[int, int], ...]:
    pairs = tuple(tuple(offset) for offset in offsets)
    valid = all(len(pair) == 2 and all(isinstance(step, int) for step in pair) for pair in pairs)
    if not pairs or not valid or (0, 0) in pairs:
        raise ValueError(f"offsets is {pairs}, expected one or more pairs of integers (dy, dx) other than (0, 0)")
    return pairs


def _affinities_and_logits(outputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Logits of affinities (B, A, H, W) and of the foreground (B, H, W)."""
    check_tensor_dict("outputs", outputs, affinities="B A H W", foreground="B 1 H W")
    return outputs["affinities"], outputs["foreground"][:, 0]


def _check_decode(affinities: Tensor, foreground: Tensor, offsets: Offsets, min_pixels: int) -> Any:
    check_dtype("foreground", foreground, torch.bool, "H W", check_floats("affinities", affinities, "A H W"))
    offsets = _check_offsets(offsets)
    if len(affinities) != len(offsets):
        expected = (len(offsets), *foreground.shape)
        raise ValueError(f"affinities has shape {tuple(affinities.shape)}, expected {expected}, one channel per offset")
    if not bool(((affinities >= 0) & (affinities <= 1)).all()):
        raise ValueError("affinities contains NaN or values outside [0, 1], expected probabilities")
    if not any(abs(dy) + abs(dx) == 1 for dy, dx in offsets):
        raise ValueError(f"offsets is {offsets}, expected at least one direct neighbour, such as (-1, 0)")
    check_number("min_pixels", min_pixels, minimum=1)
    return offsets
