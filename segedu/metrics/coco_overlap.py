"""Overlaps of detections with ground-truth objects: the only step of COCO's evaluation that reads boxes and masks.

Only objects of one group (an image and a class) are compared, and only pairs with a sufficient IoU are stored. A mask
is reduced to one number per pair, so an evaluation needs no memory for masks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import minimum_filter

from segedu.ops.masks import compress_rle, rle_decode, rle_encode, rle_iou
from segedu.validation.numbers import check_length, check_number

PAIR = np.dtype([("detection", np.int64), ("target", np.int64), ("iou", np.float64)])


def box_pairs(
    preds: np.ndarray,
    pred_groups: np.ndarray,
    target: np.ndarray,
    target_groups: np.ndarray,
    iscrowd: np.ndarray,
    iou_threshold: float,
) -> np.ndarray:
    """The pairs of a predicted and a ground-truth box of the same group with a sufficient IoU.

    Args:
        preds: (P, 4) float64, x, y, width, height (COCO's format: the IoU equals that of pycocotools to the last bit).
        pred_groups: (P,) integers, the group of each detection.
        target: (N, 4) float64.
        target_groups: (N,) integers.
        iscrowd: (N,) bool. The IoU with a crowd is intersection / area of the detection.
        iou_threshold: smallest IoU of a pair.

    Returns:
        Records ``detection``, ``target`` (indices into `preds` and `target`) and ``iou``, sorted by detection.

    >>> preds, target = np.array([[0.0, 0, 2, 2]]), np.array([[0.0, 0, 2, 3], [0, 0, 9, 9]])
    >>> box_pairs(preds, np.array([5]), target, np.array([5, 5]), np.array([False, True]), 0.5)["iou"]
    array([0.66666667, 1.        ])
    """
    _check_lengths(preds, pred_groups, target, target_groups, iscrowd)
    rows, columns = same_group_pairs(pred_groups, target_groups)
    first, second = preds[rows], target[columns]  # (pairs, 4)
    end = np.minimum(first[:, :2] + first[:, 2:], second[:, :2] + second[:, 2:])
    sides = np.maximum(end - np.maximum(first[:, :2], second[:, :2]), 0)
    intersection = sides[:, 0] * sides[:, 1]
    area = first[:, 2] * first[:, 3]
    union = np.where(iscrowd[columns], area, area + second[:, 2] * second[:, 3] - intersection)
    iou = np.divide(intersection, union, out=np.zeros(len(rows)), where=intersection > 0)
    return _pairs_above_threshold(rows, columns, iou, iou_threshold)


def mask_pairs(
    preds: Sequence[dict],
    pred_groups: np.ndarray,
    target: Sequence[dict],
    target_groups: np.ndarray,
    iscrowd: np.ndarray,
    iou_threshold: float,
    boundary: bool = False,
) -> np.ndarray:
    """The pairs of a predicted and a ground-truth mask of the same group with a sufficient IoU.

    Args:
        preds: P masks as run lengths.
        pred_groups: (P,) integers, the group of each detection.
        target: N masks as run lengths.
        target_groups: (N,) integers.
        iscrowd: (N,) bool. The IoU with a crowd is intersection / area of the detection.
        iou_threshold: smallest IoU of a pair.
        boundary: take the minimum of the IoU of the masks and that of their boundaries, except for crowds, as in
            Cheng et al. 2021 (arXiv 2103.16562).

    Returns:
        Records ``detection``, ``target`` (indices into `preds` and `target`) and ``iou``, sorted by detection.

    >>> square, bar = {"size": [2, 2], "counts": [0, 4]}, {"size": [2, 2], "counts": [0, 2, 2]}
    >>> mask_pairs([bar], np.array([0]), [square, bar], np.array([0, 1]), np.array([False, False]), 0.5)["iou"]
    array([0.5])
    """
    _check_lengths(preds, pred_groups, target, target_groups, iscrowd)
    parts = [np.empty(0, PAIR)]
    for rows, columns in _common_groups(pred_groups, target_groups):
        iou = rle_iou([preds[i] for i in rows], [target[j] for j in columns], iscrowd[columns])
        if boundary:
            iou = np.minimum(iou, _boundary_iou(preds, rows, target, columns, iscrowd[columns], iou >= iou_threshold))
        indices = np.repeat(rows, len(columns)), np.tile(columns, len(rows))
        parts.append(_pairs_above_threshold(*indices, iou.ravel(), iou_threshold))
    pairs = np.concatenate(parts)
    return pairs[np.argsort(pairs["detection"], kind="stable")]


def _boundary_iou(
    preds: Sequence[dict],
    rows: np.ndarray,
    target: Sequence[dict],
    columns: np.ndarray,
    crowd: np.ndarray,
    required: np.ndarray,
) -> np.ndarray:
    """(rows, columns) IoU of boundaries, computed at least where it is required; 1 for crowds."""
    iou, required = np.ones(required.shape), required & ~crowd
    i, j = np.flatnonzero(required.any(axis=1)), np.flatnonzero(required.any(axis=0))
    pred_boundaries = [boundary_rle(preds[row]) for row in rows[i]]
    gt_boundaries = [boundary_rle(target[column]) for column in columns[j]]
    iou[np.ix_(i, j)] = rle_iou(pred_boundaries, gt_boundaries, np.zeros(len(gt_boundaries), bool))
    return iou


def boundary_rle(rle: dict, dilation_ratio: float = 0.02) -> dict:
    """The part of a mask near its contour: the mask minus its erosion.

    Pixels are near the contour if they are at most d pixels away along a row, a column or both, where d is
    `dilation_ratio` times the diagonal of the image, rounded, at least 1. Positions beyond the image count as
    outside the mask. Cheng et al. 2021 (arXiv 2103.16562).

    Args:
        rle: run lengths of the mask.
        dilation_ratio: width of the boundary relative to the diagonal of the image, at least 0.

    Returns:
        Compressed run lengths of the boundary.

    The boundary of a full image of 3x3 is all but the centre.

    >>> rle_decode(boundary_rle({"size": [3, 3], "counts": [0, 9]})).int()
    tensor([[1, 1, 1],
            [1, 0, 1],
            [1, 1, 1]], dtype=torch.int32)
    """
    check_number("dilation_ratio", dilation_ratio)
    mask = rle_decode(rle).numpy()
    H, W = mask.shape
    distance = max(1, round(dilation_ratio * float(np.sqrt(H**2 + W**2))))
    # The minimum in a square window, with zeros beyond the image, erodes the mask by `distance` steps.
    inner = minimum_filter(mask, size=2 * distance + 1, mode="constant") if mask.size else mask
    return compress_rle(rle_encode(torch.from_numpy(mask & ~inner)))


def same_group_pairs(groups1: np.ndarray, groups2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of entries of two lists that have the same group.

    Args:
        groups1: (P,) integers.
        groups2: (N,) integers.

    Returns:
        Indices into `groups1`, ascending, and indices into `groups2`.

    >>> same_group_pairs(np.array([7, 8, 7]), np.array([9, 7, 7]))
    (array([0, 0, 2, 2]), array([1, 2, 1, 2]))
    """
    for name, groups in (("groups1", groups1), ("groups2", groups2)):
        if groups.ndim != 1:
            raise ValueError(f"{name} has shape {groups.shape}, expected one axis")
    order = np.argsort(groups2, kind="stable")
    start, stop = (np.searchsorted(groups2[order], groups1, side=side) for side in ("left", "right"))
    count = stop - start  # partners of each entry of groups1
    rows = np.repeat(np.arange(len(groups1)), count)
    index_in_group = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)  # 0, 1, ... for each row
    return rows, order[np.repeat(start, count) + index_in_group]


def _common_groups(groups1: np.ndarray, groups2: np.ndarray):
    """Yield, for each group that occurs in both lists, its indices in both."""
    orders = [np.argsort(groups, kind="stable") for groups in (groups1, groups2)]
    common = np.intersect1d(groups1, groups2)
    bounds = [
        [np.searchsorted(groups[order], common, side=side).tolist() for side in ("left", "right")]
        for groups, order in zip((groups1, groups2), orders, strict=True)
    ]
    for start1, stop1, start2, stop2 in zip(*bounds[0], *bounds[1], strict=True):
        yield orders[0][start1:stop1], orders[1][start2:stop2]


def _pairs_above_threshold(rows: np.ndarray, columns: np.ndarray, iou: np.ndarray, iou_threshold: float) -> np.ndarray:
    keep = iou >= iou_threshold
    pairs = np.empty(int(keep.sum()), PAIR)
    pairs["detection"], pairs["target"], pairs["iou"] = rows[keep], columns[keep], iou[keep]
    return pairs


def _check_lengths(preds: Sequence, pred_groups: np.ndarray, target: Sequence, *of_target: np.ndarray) -> None:
    check_length("pred_groups", pred_groups, len(preds), of="detection")
    for name, values in zip(("target_groups", "iscrowd"), of_target, strict=True):
        check_length(name, values, len(target), of="ground-truth object")
