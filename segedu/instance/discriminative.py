"""Discriminative loss: embeddings of one object are pulled together, and those of different objects pushed apart.

Paper: De Brabandere, Neven, Van Gool, "Semantic Instance Segmentation with a Discriminative Loss Function", CVPR
    2017 workshops, arXiv 1708.02551.
Idea: The network predicts an embedding vector for each pixel. A pull term draws the vectors of an object to their mean,
    a push term drives the means of different objects apart, and both stop at a margin, beyond which the loss is 0. If
    the push reaches more than twice as far as the pull, a ball around any vector of an object contains only that
    object.
Simplified: one class of objects. Its mask is one more channel of the same network, trained with binary cross-entropy,
    where the paper takes masks from elsewhere. A cluster starts from the first remaining pixel, not a random one.
Shapes: images (B, C, H, W) -> dict of `embeddings` (B, D, H, W) and `foreground` (B, 1, H, W), logits.
    `postprocess`: the dict -> B label maps (H, W) int32.
Quality: the loss equals a loop over objects and pixels; embeddings that meet both margins give the label map back
    (its tests). `cells`, with y and x as input: instance accuracy 0.749 at IoU 0.5, the lowest of three seeds
    (watershed 0.423), in about 54 CPU-s (`segedu train discriminative --data cells --seeds 3`).
Course: 10-embeddings
Lab: 10_embeddings
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn
from torch.linalg import vector_norm

from segedu.losses.cross_entropy import binary_cross_entropy
from segedu.losses.reduction import full_precision
from segedu.ops.label_maps import relabel_sequential
from segedu.validation.label_maps import check_label_map
from segedu.validation.numbers import check_integer, check_number
from segedu.validation.tensors import (
    check_dtype,
    check_floats,
    check_keys,
    check_no_nan,
    check_shape,
    check_tensor_dict,
)

PULL_MARGIN, PUSH_MARGIN = 0.5, 1.5  # the paper's: an object is at most 1 wide, and 2 from the next one


class DiscriminativeEmbedding(nn.Module):
    """Any network with D + 1 output channels: the embedding of each pixel, and the logit of the foreground.

    Args:
        network: images (B, C, H, W) -> (B, D + 1, H, W), such as a U-Net with padding. The paper: a ResNet-38.
        embed_dim: D, 8 in the paper on Cityscapes.
    """

    def __init__(self, network: nn.Module, embed_dim: int = 8) -> None:
        super().__init__()
        check_integer("embed_dim", embed_dim)
        self.network, self.embed_dim = network, embed_dim

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        channels = self.network(images)
        check_shape("network(images)", channels.shape, f"B? {self.embed_dim + 1} H W")
        # both keep the axis of channels, as in every network of this chapter
        return {"embeddings": channels[:, :-1], "foreground": channels[:, -1:]}


def pull_push(
    embeddings: Tensor, label_map: Tensor, pull_margin: float = PULL_MARGIN, push_margin: float = PUSH_MARGIN
) -> tuple[Tensor, Tensor, Tensor]:
    """The three loss terms of one image with C objects, whose means are m; background pixels are not used.

        pull = 1/C sum_c 1/N_c sum_i max(0, |x_i - m_c| - pull_margin)^2
        push = 1/(C (C - 1)) sum_{a != b} max(0, 2 push_margin - |m_a - m_b|)^2
        regular = 1/C sum_c |m_c|

    Args:
        embeddings: (D, H, W) vectors x.
        label_map: (H, W) integers, 0 is background.
        pull_margin: vectors nearer than this to their mean are not pulled.
        push_margin: means that are twice this apart are not pushed.

    Returns:
        Three scalars. Without objects all are 0; with a single object the push is 0.

    Example:
        The means are 1 and 5, so 4 apart: with a push margin of 3, 2 are missing. Each pixel of the first object is 1/2
        outside the pull margin.

        >>> pull_push(torch.tensor([[[0.0, 2.0, 9.0, 5.0]]]), torch.tensor([[1, 1, 0, 2]]), 0.5, 3.0)
        (tensor(0.1250), tensor(4.), tensor(3.))
    """
    check_floats("embeddings", embeddings, "D H W")
    labels = check_label_map("label_map", label_map, shape=embeddings.shape[1:])
    check_number("pull_margin", pull_margin)
    check_number("push_margin", push_margin)
    inside = labels > 0
    points = full_precision(embeddings)[:, inside].T  # (P, D)
    object_labels, index, counts = labels[inside].unique(return_inverse=True, return_counts=True)
    if not len(object_labels):
        return points.sum(), points.sum(), points.sum()  # the sum of nothing is 0, with a gradient of 0
    objects = len(object_labels)
    sums = points.new_zeros(objects, points.shape[1]).index_add(0, index, points)
    means = sums / counts[:, None]  # (C, D)
    too_far = (vector_norm(points - means[index], dim=1) - pull_margin).clamp(min=0)
    pull = (too_far**2 / counts[index]).sum() / objects
    a, b = torch.triu_indices(objects, objects, offset=1, device=points.device)  # each pair once
    too_near = (2 * push_margin - vector_norm(means[a] - means[b], dim=1)).clamp(min=0)
    push = 2 * (too_near**2).sum() / max(objects * (objects - 1), 1)
    return pull, push, vector_norm(means, dim=1).mean()


def discriminative_targets(label_map: Tensor) -> dict[str, Tensor]:
    """The targets of `discriminative_loss` for one image: `label_map` (H, W) as int32, 0 for the background."""
    labels = check_label_map("label_map", label_map, (2,))
    return {"label_map": labels.int() if labels.max() < 2**31 else relabel_sequential(labels)}


def discriminative_loss(
    outputs: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    *,
    pull_margin: float = PULL_MARGIN,
    push_margin: float = PUSH_MARGIN,
    regular_weight: float = 1e-3,
    foreground_weight: float = 1.0,
) -> dict[str, Tensor]:
    """Pull, push and regularisation, means over images, and the cross-entropy of the foreground.

    Args:
        outputs: `embeddings` (B, D, H, W) and `foreground` (B, 1, H, W) of `DiscriminativeEmbedding`.
        targets: `label_map` (B, H, W), integers.
        pull_margin: of `pull_push`.
        push_margin: of `pull_push`.
        regular_weight: the paper's gamma; pull and push have weight 1.
        foreground_weight: of the cross-entropy.

    Returns:
        Scalars `pull`, `push`, `regular` and `foreground`, weighted, and `loss`, their sum.
    """
    embeddings, logits = _embeddings_and_logits(outputs)
    check_keys("targets", targets, ("label_map",))
    label_maps = check_label_map("targets['label_map']", targets["label_map"], shape=logits.shape)
    check_number("regular_weight", regular_weight)
    check_number("foreground_weight", foreground_weight)
    images = zip(embeddings, label_maps, strict=True)
    terms = [torch.stack(pull_push(*image, pull_margin, push_margin)) for image in images]
    pull, push, regular = torch.stack(terms).mean(0)
    foreground = binary_cross_entropy(logits, label_maps > 0, ignore_index=None)
    parts = {
        "pull": pull,
        "push": push,
        "regular": regular_weight * regular,
        "foreground": foreground_weight * foreground,
    }
    return {**parts, "loss": sum(parts.values())}


def cluster_embeddings(
    embeddings: Tensor, foreground: Tensor, bandwidth: float = 2 * PULL_MARGIN, min_pixels: int = 1, steps: int = 50
) -> Tensor:
    """Extract objects one by one: mean shift from the first remaining pixel, then all remaining pixels near the mode.

    Mean shift uses a flat kernel over the remaining pixels only. If it used all pixels, then, where the loss is not
    quite 0, a start at the rim of an object could leave its far side behind. The starting pixel always joins.

    Args:
        embeddings: (D, H, W).
        foreground: (H, W) bool, pixels that belong to some object.
        bandwidth: radius of the ball, in mean shift and at its end. Twice the pull margin: where the loss is 0, the
            ball around any vector of an object contains all of it.
        min_pixels: smaller objects become background.
        steps: maximum number of mean-shift iterations, which stop when the mean moves by at most a thousandth of the
            bandwidth.

    Returns:
        (H, W) int32 label map, numbered in raster order of the starting pixels.

    >>> vectors = torch.tensor([[[0.0, 0.4, 5.0, 5.1, 0.2]]])
    >>> cluster_embeddings(vectors, torch.tensor([[True, True, True, True, False]]))
    tensor([[1, 1, 2, 2, 0]], dtype=torch.int32)
    """
    check_dtype("foreground", foreground, torch.bool, "H W", check_floats("embeddings", embeddings, "D H W"))
    check_number("bandwidth", bandwidth, exclusive=True)
    check_number("min_pixels", min_pixels, minimum=1)
    check_integer("steps", steps)
    points = embeddings.detach()[:, foreground].T.double().cpu().numpy()  # (P, D)
    if not np.isfinite(points).all():
        raise ValueError("embeddings contains NaN or infinity in the foreground, expected finite values")
    objects = np.zeros(len(points), dtype=np.int32)
    tree, unassigned, count = cKDTree(points) if len(points) else None, np.ones(len(points), dtype=bool), 0
    for start in range(len(points)):
        if not unassigned[start]:
            continue
        members = _mean_shift(points, tree, unassigned, start, bandwidth, steps)
        unassigned[members] = False
        if len(members) >= min_pixels:
            count += 1
            objects[members] = count
    label_map = torch.zeros(foreground.shape, dtype=torch.int32, device=foreground.device)
    label_map[foreground] = torch.from_numpy(objects).to(foreground.device)
    return label_map


def _mean_shift(
    points: np.ndarray, tree: cKDTree, unassigned: np.ndarray, start: int, bandwidth: float, steps: int
) -> np.ndarray:
    """Indices (N,) of the unassigned points around the mode that mean shift reaches from `start`, one of them."""
    mean = points[start]
    for _ in range(steps):
        ball = np.array(tree.query_ball_point(mean, bandwidth), dtype=np.int64)
        ball = ball[unassigned[ball]]
        if not len(ball):  # the last mean lies in a hole between points
            break
        previous, mean = mean, points[ball].mean(axis=0)
        if np.linalg.norm(mean - previous) <= 1e-3 * bandwidth:
            break
    ball = np.array(tree.query_ball_point(mean, bandwidth), dtype=np.int64)
    return np.union1d(ball[unassigned[ball]], [start])


def postprocess(outputs: Mapping[str, Tensor], foreground_threshold: float = 0.5, **options: Any) -> list[Tensor]:
    """Label maps of a batch.

    Args:
        outputs: `embeddings` and `foreground` of `DiscriminativeEmbedding`.
        foreground_threshold: pixels with a greater probability belong to objects.
        **options: of `cluster_embeddings`.

    Returns:
        B label maps (H, W) int32, on the device of the outputs.
    """
    embeddings, logits = _embeddings_and_logits(outputs)
    check_no_nan("outputs", outputs, ("foreground",))  # embeddings count only in the foreground
    check_number("foreground_threshold", foreground_threshold, maximum=1)
    return [
        cluster_embeddings(vectors, scores.sigmoid() > foreground_threshold, **options)
        for vectors, scores in zip(embeddings, logits, strict=True)
    ]


def _embeddings_and_logits(outputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Embeddings (B, D, H, W) and logits (B, H, W)."""
    check_tensor_dict("outputs", outputs, embeddings="B D H W", foreground="B 1 H W")
    return outputs["embeddings"], outputs["foreground"][:, 0]
