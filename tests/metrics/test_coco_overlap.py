"""Pairs of objects that overlap: against pycocotools' IoU and a literal boundary."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from segedu.metrics.coco_overlap import boundary_rle, box_pairs, mask_pairs, same_group_pairs
from segedu.ops.masks import compress_rle, rle_decode, rle_encode

GROUPS = st.lists(st.integers(0, 4), max_size=8).map(np.array).map(lambda a: a.astype(np.int64))


@given(GROUPS, GROUPS)
def test_same_group_pairs_are_all(first, second):
    rows, columns = same_group_pairs(first, second)
    expected = [(i, j) for i in range(len(first)) for j in range(len(second)) if first[i] == second[j]]
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == expected


@pytest.mark.parametrize("seed", range(5))
def test_box_iou_is_pycocotools_to_the_last_bit(seed):
    rng = np.random.default_rng(seed)
    preds, target = (rng.uniform(0, 40, (n, 4)) for n in (30, 20))
    target[0, 2:], preds[0] = 0, [50, 50, 0, 0]  # without area
    crowd = rng.random(20) < 0.3
    groups = np.zeros(30, np.int64), np.zeros(20, np.int64)
    pairs = box_pairs(preds, groups[0], target, groups[1], crowd, 1e-9)
    ours = np.zeros((30, 20))
    ours[pairs["detection"], pairs["target"]] = pairs["iou"]
    np.testing.assert_array_equal(ours, coco_mask.iou(preds, target, crowd.astype(int).tolist()))


def random_masks(rng, count, size=(23, 31)):
    masks = np.zeros((count, *size), bool)
    for mask in masks:
        y, x = rng.integers(0, size[0]), rng.integers(0, size[1])
        mask[y : y + rng.integers(0, 20), x : x + rng.integers(0, 20)] = True
        mask &= rng.random(size) < 0.98
    return masks


def rles(masks):
    return [compress_rle(rle_encode(torch.from_numpy(mask))) for mask in masks]


def literal_boundary(mask, distance):
    """Pixels of the mask with a pixel outside at most `distance` rows and columns away; beyond the image is outside."""
    padded = np.pad(mask, distance)
    result = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        result[y, x] = not padded[y : y + 2 * distance + 1, x : x + 2 * distance + 1].all()
    return result


@pytest.mark.parametrize(("ratio", "distance"), [(0.02, 1), (0.06, 2), (0.1, 4)])
def test_boundary_is_the_literal_one(ratio, distance):
    """The diagonal of 23 x 31 is 38.6: 0.77, 2.3 and 3.9 pixels."""
    for mask in random_masks(np.random.default_rng(0), 6):
        boundary = rle_decode(boundary_rle(rle_encode(torch.from_numpy(mask)), ratio)).numpy()
        np.testing.assert_array_equal(boundary, literal_boundary(mask, distance))


@pytest.mark.parametrize("boundary", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_mask_pairs_are_those_of_the_pixels(seed, boundary):
    rng = np.random.default_rng(seed)
    preds, target = random_masks(rng, 9), random_masks(rng, 7)
    preds[:4] = target[:4] & (rng.random(preds[:4].shape) < 0.9)
    groups, true_groups, crowd = rng.integers(0, 2, 9), rng.integers(0, 2, 7), rng.random(7) < 0.3
    found = mask_pairs(rles(preds), groups, rles(target), true_groups, crowd, 0.2, boundary)
    expected = []
    for i, p in enumerate(preds):
        for j, t in enumerate(target):
            iou = (p & t).sum() / max((p if crowd[j] else p | t).sum(), 1)
            if boundary and not crowd[j]:
                inner = literal_boundary(p, 1), literal_boundary(t, 1)
                iou = min(iou, (inner[0] & inner[1]).sum() / max((inner[0] | inner[1]).sum(), 1))
            if groups[i] == true_groups[j] and iou >= 0.2:
                expected.append((i, j, iou))
    assert expected and found.tolist() == expected
