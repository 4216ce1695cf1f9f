"""Masks, label maps and run lengths against pycocotools, torchvision, grid_sample and each other."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision.ops as oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from skimage.measure import label as skimage_label

from segedu.ops.masks import (
    boxes_from_masks,
    compress_rle,
    connected_components,
    decompress_rle,
    label_map_from_masks,
    masks_from_label_map,
    paste_masks,
    polygons_to_rle,
    rle_area,
    rle_decode,
    rle_encode,
    rle_iou,
)

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))
quick = settings(max_examples=60, deadline=None, derandomize=True)


@st.composite
def masks(draw, count=1):
    height, width = draw(SIZES)
    seed, density = draw(st.integers(0, 999)), draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
    return torch.from_numpy(np.random.default_rng(seed).random((count, height, width)) < density)


@given(masks())
@quick
def test_run_lengths_equal_pycocotools_and_come_back(mask):
    mask = mask[0]
    rle = rle_encode(mask)
    theirs = coco_mask.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
    assert compress_rle(rle) == theirs
    assert decompress_rle(theirs) == rle
    for form in (rle, theirs, {**theirs, "counts": theirs["counts"].decode()}):
        assert torch.equal(rle_decode(form), mask)
        assert rle_area(form) == int(mask.sum())
    assert sum(rle["counts"]) == mask.numel() and all(run > 0 for run in rle["counts"][1:])


def test_column_by_column_and_zeros_first():
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]]).bool()
    assert rle_encode(mask) == {"size": [2, 3], "counts": [0, 3, 3]}
    assert rle_encode(~mask) == {"size": [2, 3], "counts": [3, 3]}


@given(masks(count=4), st.lists(st.booleans(), min_size=2, max_size=2))
@quick
def test_iou_of_run_lengths(four, iscrowd):
    preds, target = four[:2], four[2:]
    shared = (preds[:, None] & target[None]).flatten(2).sum(2).double()
    sizes = [m.flatten(1).sum(1).double() for m in (preds, target)]
    union = sizes[0][:, None] + sizes[1][None] - shared
    whole = torch.where(torch.tensor(iscrowd)[None], sizes[0][:, None].expand(2, 2), union)
    expected = torch.where(whole > 0, shared / whole.clamp(min=1), 0.0)
    got = rle_iou([rle_encode(m) for m in preds], [compress_rle(rle_encode(m)) for m in target], iscrowd)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-15)


def test_all_real_masks_come_back(shared_data):
    """COCO's 839 annotations: polygons and crowds to masks, through our run lengths, and back."""
    truth = json.loads((shared_data / "coco_eval" / "instances_val2014_100.json").read_text())
    expected = json.loads((shared_data / "coco_eval" / "expected_pycocotools.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    reference = next(v for v in expected.values() if isinstance(v, list) and len(v) == 839)
    theirs = {row[0]: row[1:] for row in reference}
    for annotation in truth["annotations"]:
        size, shape = sizes[annotation["image_id"]], annotation["segmentation"]
        rle = polygons_to_rle(shape, size) if isinstance(shape, list) else compress_rle(shape)
        area, box, counts = theirs[annotation["id"]]
        counts = counts if isinstance(counts, str) else counts["counts"]
        mask = rle_decode(rle)
        assert rle_area(rle) == int(mask.sum()) == area
        assert rle["counts"].decode() == counts == compress_rle(rle_encode(mask))["counts"].decode()
        x, y, width, height = box
        assert boxes_from_masks(mask[None])[0].tolist() == [x, y, x + width, y + height]


@given(masks(count=3))
@quick
def test_label_maps_and_masks_are_inverse(three):
    label_map = label_map_from_masks(three)
    split = masks_from_label_map(label_map)
    assert torch.equal(split.any(dim=0), three.any(dim=0)) and int(split.sum()) == int((label_map > 0).sum())
    again = label_map_from_masks(split)
    assert torch.equal(masks_from_label_map(again), split)
    scores = torch.tensor([0.1, 0.9, 0.9])
    winner = torch.where(three[1], 2, torch.where(three[2], 3, torch.where(three[0], 1, 0)))
    assert torch.equal(label_map_from_masks(three, scores), winner.int())


@given(masks(count=2))
@quick
def test_boxes_equal_torchvision_plus_one(two):
    two = two[two.flatten(1).any(1)]
    theirs = oracle.masks_to_boxes(two) + torch.tensor([0, 0, 1, 1])
    assert torch.equal(boxes_from_masks(two), theirs.float())


@given(masks(), st.sampled_from([4, 8]))
@quick
def test_components_equal_scikit_image(mask, connectivity):
    pieces, count = connected_components(mask[0], connectivity)
    theirs, number = skimage_label(mask[0].numpy(), connectivity=connectivity // 4, return_num=True)
    assert count == number and pieces.dtype == torch.int32
    joint = set(zip(pieces.flatten().tolist(), theirs.ravel().tolist(), strict=True))
    assert len(joint) == len(set(theirs.ravel().tolist())) == len(set(pieces.flatten().tolist()))


@pytest.mark.parametrize("seed", range(3))
def test_paste_equals_grid_sample(seed):
    generator = torch.Generator().manual_seed(seed)
    N, M, H, W = 4, 7, 23, 31
    small = torch.rand(N, M, M, generator=generator, dtype=torch.float64)
    corners = torch.rand(N, 2, generator=generator, dtype=torch.float64) * 20 - 4
    boxes = torch.cat([corners, corners + 0.3 + 18 * torch.rand(N, 2, generator=generator, dtype=torch.float64)], 1)
    x = (torch.arange(W, dtype=torch.float64) + 0.5 - boxes[:, :1]) / (boxes[:, 2:3] - boxes[:, :1]) * 2 - 1
    y = (torch.arange(H, dtype=torch.float64) + 0.5 - boxes[:, 1:2]) / (boxes[:, 3:] - boxes[:, 1:2]) * 2 - 1
    grid = torch.stack([x[:, None, :].expand(N, H, W), y[:, :, None].expand(N, H, W)], dim=3)
    expected = F.grid_sample(small[:, None], grid, align_corners=False)[:, 0]
    torch.testing.assert_close(paste_masks(small, boxes, (H, W)), expected, rtol=0, atol=1e-12)


def test_pasting_a_full_mask_fills_its_box():
    full = paste_masks(torch.ones(1, 28, 28), torch.tensor([[3.0, 2.0, 9.0, 7.0]]), (10, 12))[0] >= 0.5
    assert torch.equal(boxes_from_masks(full[None]), torch.tensor([[3.0, 2.0, 9.0, 7.0]])) and int(full.sum()) == 30


def test_touching_and_single_pixels():
    assert connected_components(torch.zeros(3, 3).bool())[1] == 0
    pieces, count = connected_components(torch.tensor([[1, 0, 1], [0, 1, 0], [1, 0, 1]]).bool())
    assert count == 5 and pieces.flatten().tolist() == [1, 0, 2, 0, 3, 0, 4, 0, 5]
    assert boxes_from_masks(torch.ones(1, 1, 1).bool()).tolist() == [[0, 0, 1, 1]]


def test_a_label_map_of_16_bits():
    label_map = torch.tensor([[40000, 0, 7]])
    assert torch.equal(masks_from_label_map(label_map.to(torch.uint16)), masks_from_label_map(label_map))


def test_half_precision_masks_are_pasted_to_the_pixel():
    """float16 has no number between 2048 and 2050: the places of pixels must not be computed in it."""
    masks = torch.rand(1, 28, 28, generator=torch.Generator().manual_seed(0)).half()
    boxes = torch.tensor([[10.0, 0, 2990, 20]])
    pasted = paste_masks(masks, boxes, (20, 3000))
    assert pasted.dtype == torch.float16
    torch.testing.assert_close(pasted.float(), paste_masks(masks.float(), boxes, (20, 3000)), rtol=0, atol=2e-3)


def test_compressed_runs_that_end_early_are_refused_or_zero():
    """pycocotools decodes them into memory as it happened to be."""
    whole = compress_rle(rle_encode(torch.ones(40, 50).bool()))
    short = {"size": [80, 50], "counts": whole["counts"]}
    for _ in range(20):
        np.full((50, 80), 1, np.uint8)  # leaves ones behind, where memory is used again
        try:
            assert int(rle_decode(short).sum()) == 2000
        except ValueError as error:
            assert "rle has runs that end early" in str(error)
