"""Which detections overlap which true objects: the only step of COCO's evaluation that looks at boxes and masks.

Only objects of one group (an image and a class) are compared, and only pairs with enough IoU are kept. What stays
of a mask is a number for each such pair, so an evaluation needs no memory for masks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import minimum_filter

from segedu.ops.masks import compress_rle, rle_decode, rle_encode, rle_iou

PAIR = np.dtype([("detection", np.int64), ("target", np.int64), ("iou", np.float64)])


def box_pairs(
    preds: np.ndarray,
    pred_groups: np.ndarray,
    target: np.ndarray,
    target_groups: np.ndarray,
    iscrowd: np.ndarray,
    iou_threshold: float,
) -> np.ndarray:
    """The pairs of a detected and a true box of one group that have enough IoU.

    Args:
        preds: (P, 4) float64, x, y, width, height (COCO's form: the IoU is pycocotools' to the last bit).
        pred_groups: (P,) integers: the group of each detection.
        target: (N, 4) float64.
        target_groups: (N,) integers.
        iscrowd: (N,) bool: of a crowd the IoU is intersection / area of the detection.
        iou_threshold: what is enough.

    Returns:
        Records ``detection``, ``target`` (places in ``preds`` and ``target``) and ``iou``, sorted by detection.

    Raises:
        ValueError: the lengths of boxes, groups and ``iscrowd`` differ.

    Example:
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
    return _enough(rows, columns, iou, iou_threshold)


def mask_pairs(
    preds: Sequence[dict],
    pred_groups: np.ndarray,
    target: Sequence[dict],
    target_groups: np.ndarray,
    iscrowd: np.ndarray,
    iou_threshold: float,
    boundary: bool = False,
) -> np.ndarray:
    """The pairs of a detected and a true mask of one group that have enough IoU.

    Args:
        preds: P masks as run lengths.
        pred_groups: (P,) integers: the group of each detection.
        target: N masks as run lengths.
        target_groups: (N,) integers.
        iscrowd: (N,) bool: of a crowd the IoU is intersection / area of the detection.
        iou_threshold: what is enough.
        boundary: take the lesser of the IoU of the masks and that of their boundaries, but for crowds, as in
            Cheng et al. 2021 (arXiv 2103.16562).

    Returns:
        Records ``detection``, ``target`` (places in ``preds`` and ``target``) and ``iou``, sorted by detection.

    Raises:
        TypeError: a mask is not a dict with size and counts.
        ValueError: the lengths of masks, groups and ``iscrowd`` differ.

    Example:
        >>> square, bar = {"size": [2, 2], "counts": [0, 4]}, {"size": [2, 2], "counts": [0, 2, 2]}
        >>> mask_pairs([bar], np.array([0]), [square, bar], np.array([0, 1]), np.array([False, False]), 0.5)["iou"]
        array([0.5])
    """
    _check_lengths(preds, pred_groups, target, target_groups, iscrowd)
    found = [np.empty(0, PAIR)]
    for rows, columns in _common_groups(pred_groups, target_groups):
        iou = rle_iou([preds[i] for i in rows], [target[j] for j in columns], iscrowd[columns])
        if boundary:
            iou = np.minimum(iou, _boundary_iou(preds, rows, target, columns, iscrowd[columns], iou >= iou_threshold))
        places = np.repeat(rows, len(columns)), np.tile(columns, len(rows))
        found.append(_enough(*places, iou.ravel(), iou_threshold))
    pairs = np.concatenate(found)
    return pairs[np.argsort(pairs["detection"], kind="stable")]


def _boundary_iou(
    preds: Sequence[dict],
    rows: np.ndarray,
    target: Sequence[dict],
    columns: np.ndarray,
    crowd: np.ndarray,
    wanted: np.ndarray,
) -> np.ndarray:
    """(rows, columns) IoU of boundaries, at least where it is wanted; 1 for crowds."""
    iou, wanted = np.ones(wanted.shape), wanted & ~crowd
    which, where = np.flatnonzero(wanted.any(axis=1)), np.flatnonzero(wanted.any(axis=0))
    found, true = [boundary_rle(preds[i]) for i in rows[which]], [boundary_rle(target[j]) for j in columns[where]]
    iou[np.ix_(which, where)] = rle_iou(found, true, np.zeros(len(true), bool))
    return iou


def boundary_rle(rle: dict, dilation_ratio: float = 0.02) -> dict:
    """The part of a mask that is near its contour: what is left after the mask without it is taken away.

    Near means at most d pixels along a row, a column or both, where d is ``dilation_ratio`` times the diagonal of
    the image, rounded, at least 1. What lies beyond the image is outside. Cheng et al. 2021 (arXiv 2103.16562).

    Args:
        rle: run lengths of the mask.
        dilation_ratio: width of the boundary in diagonals of the image, at least 0.

    Returns:
        Compressed run lengths of the boundary.

    Raises:
        TypeError: ``rle`` is not a dict with size and counts.
        ValueError: the runs do not add up, or ``dilation_ratio`` is not at least 0.

    Example:
        A full image of 3x3: all but the centre.

        >>> rle_decode(boundary_rle({"size": [3, 3], "counts": [0, 9]})).int()
        tensor([[1, 1, 1],
                [1, 0, 1],
                [1, 1, 1]], dtype=torch.int32)
    """
    if not dilation_ratio >= 0:
        raise ValueError(f"dilation_ratio is {dilation_ratio}, expected at least 0")
    mask = rle_decode(rle).numpy()
    H, W = mask.shape
    distance = max(1, round(dilation_ratio * float(np.sqrt(H**2 + W**2))))
    # The least value of a square window, zeros beyond the image: the mask eroded `distance` times.
    inner = minimum_filter(mask, size=2 * distance + 1, mode="constant") if mask.size else mask
    return compress_rle(rle_encode(torch.from_numpy(mask & ~inner)))


def same_group_pairs(groups1: np.ndarray, groups2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of places of two lists that have the same group.

    Args:
        groups1: (P,) integers.
        groups2: (N,) integers.

    Returns:
        Places in ``groups1``, rising, and places in ``groups2``.

    Raises:
        ValueError: an argument has not one dimension.

    Example:
        >>> same_group_pairs(np.array([7, 8, 7]), np.array([9, 7, 7]))
        (array([0, 0, 2, 2]), array([1, 2, 1, 2]))
    """
    for name, groups in (("groups1", groups1), ("groups2", groups2)):
        if groups.ndim != 1:
            raise ValueError(f"{name} has shape {groups.shape}, expected one dimension")
    order = np.argsort(groups2, kind="stable")
    start, stop = (np.searchsorted(groups2[order], groups1, side=side) for side in ("left", "right"))
    count = stop - start  # partners of each place of groups1
    rows = np.repeat(np.arange(len(groups1)), count)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)  # 0, 1, ... for each row
    return rows, order[np.repeat(start, count) + within]


def _common_groups(groups1: np.ndarray, groups2: np.ndarray):
    """Places in both lists of each group that both have."""
    orders = [np.argsort(groups, kind="stable") for groups in (groups1, groups2)]
    common = np.intersect1d(groups1, groups2)
    bounds = [
        [np.searchsorted(groups[order], common, side=side).tolist() for side in ("left", "right")]
        for groups, order in zip((groups1, groups2), orders, strict=True)
    ]
    for start1, stop1, start2, stop2 in zip(*bounds[0], *bounds[1], strict=True):
        yield orders[0][start1:stop1], orders[1][start2:stop2]


def _enough(rows: np.ndarray, columns: np.ndarray, iou: np.ndarray, iou_threshold: float) -> np.ndarray:
    keep = iou >= iou_threshold
    pairs = np.empty(int(keep.sum()), PAIR)
    pairs["detection"], pairs["target"], pairs["iou"] = rows[keep], columns[keep], iou[keep]
    return pairs


def _check_lengths(preds: Sequence, pred_groups: np.ndarray, target: Sequence, *of_target: np.ndarray) -> None:
    if len(pred_groups) != len(preds):
        raise ValueError(f"pred_groups has length {len(pred_groups)}, expected {len(preds)}: one for each detection")
    for name, values in zip(("target_groups", "iscrowd"), of_target, strict=True):
        if len(values) != len(target):
            raise ValueError(f"{name} has length {len(values)}, expected {len(target)}: one for each true object")
