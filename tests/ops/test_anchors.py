"""Anchors against torchvision's generator, coder, matcher and sampler."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection import _utils as oracle
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from segedu.ops.anchors import cell_anchors, decode_boxes, encode_boxes, grid_anchors, match_anchors, sample_matches

RETINANET = [(x, int(x * 2 ** (1 / 3)), int(x * 2 ** (2 / 3))) for x in (32, 64, 128, 256, 512)]
FASTER_RCNN = [(x,) for x in (32, 64, 128, 256, 512)]
RATIOS = (0.5, 1.0, 2.0)
WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def random_boxes(count, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator, dtype=dtype) * 40 - 5
    return torch.cat([corner, corner + 0.5 + 30 * torch.rand(count, 2, generator=generator, dtype=dtype)], dim=1)


def test_the_area_is_that_of_the_size_and_the_ratio_is_height_over_width():
    cells = cell_anchors([8, 20], [0.3, 1, 5])
    width, height = cells[:, 2] - cells[:, 0], cells[:, 3] - cells[:, 1]
    torch.testing.assert_close(width * height, torch.tensor([64.0, 400, 64, 400, 64, 400]))
    torch.testing.assert_close(height / width, torch.tensor([0.3, 0.3, 1, 1, 5, 5]))
    torch.testing.assert_close(cells[:, :2], -cells[:, 2:])


@pytest.mark.parametrize("sizes", [RETINANET, FASTER_RCNN, [(15, 31), (7.5, 33)]])
@pytest.mark.parametrize(("H", "W"), [(64, 64), (50, 77), (800, 1088)])
def test_equals_torchvision_on_all_levels(sizes, H, W):
    theirs = AnchorGenerator(tuple(sizes), (RATIOS,) * len(sizes))
    shapes = [(math.ceil(H / s), math.ceil(W / s)) for s in (8, 16, 32, 64, 128)[: len(sizes)]]
    images = ImageList(torch.zeros(1, 3, H, W), [(H, W)])
    (expected,) = theirs(images, [torch.zeros(1, 1, h, w) for h, w in shapes])
    # torchvision divides the sizes, so that its stride is 7 where a net has 8: the pair is what makes it equal
    got = [
        grid_anchors(cell_anchors(size, RATIOS, rounded=True), (h, w), (H // h, W // w))
        for size, (h, w) in zip(sizes, shapes, strict=True)
    ]
    assert torch.equal(torch.cat(got), expected)


def test_places_go_row_by_row_and_keep_the_type():
    cells = cell_anchors([2, 4], [1.0]).double()
    grid = grid_anchors(cells, (2, 3), 8)
    assert grid.dtype == torch.float64 and grid.shape == (12, 4)
    centres = (grid[::2, :2] + grid[::2, 2:]) / 2
    assert centres.tolist() == [[0, 0], [8, 0], [16, 0], [0, 8], [8, 8], [16, 8]]
    assert torch.equal(grid_anchors(cells + 4, (2, 3), 8), grid + 4)  # the middle of the pixels
    assert grid_anchors(cells, (0, 3), 8).shape == (0, 4)


def results(encode, decode, scale=1.0):
    """Values and gradients of both directions, the deltas so large that some are cut."""
    out = []
    for count in (1, 7, 13):
        boxes, anchors = random_boxes(count, 1).requires_grad_(), random_boxes(count, 2).requires_grad_()
        deltas = torch.linspace(-30, 30, 4 * count, dtype=torch.float64).reshape(count, 4).requires_grad_()
        weights = torch.linspace(0.5, 2, 4 * count, dtype=torch.float64).reshape(count, 4)
        for value, inputs in (
            (encode(boxes, anchors) * scale, (boxes, anchors)),
            (decode(deltas, anchors) * scale, (deltas, anchors)),
        ):
            out += [value, *torch.autograd.grad((weights * value).sum(), inputs)]
    return out


def theirs(weights):
    coder = oracle.BoxCoder(weights)
    return coder.encode_single, lambda deltas, anchors: coder.decode_single(deltas, anchors)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), WEIGHTS, (2.0, 3.0, 4.0, 5.0)])
def test_coding_equals_torchvision(weights):
    def ours(scale=1.0):
        return results(lambda b, a: encode_boxes(b, a, weights), lambda d, a: decode_boxes(d, a, weights), scale)

    expected = results(*theirs(weights))
    torch.testing.assert_close(ours(), expected, rtol=1e-12, atol=1e-12)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(ours(1 + 1e-9), expected, rtol=1e-12, atol=1e-12)


def test_decoding_in_float32_equals_torchvision():
    deltas, anchors = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)), random_boxes(50, 3).float()
    expected = oracle.BoxCoder(WEIGHTS).decode(deltas, [anchors])  # (N, K, 4)
    torch.testing.assert_close(decode_boxes(deltas.reshape(50, 2, 4), anchors[:, None], WEIGHTS), expected)


def test_half_precision_is_decoded_in_float32():
    far = torch.tensor([[2001.0, 3001.0, 2101.0, 3101.0]])
    assert torch.equal(decode_boxes(torch.zeros(1, 4).half(), far), far)


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), WEIGHTS])
def test_decoding_is_the_inverse(weights):
    boxes, anchors = random_boxes(30, 4), random_boxes(30, 5)
    deltas = encode_boxes(boxes, anchors, weights)
    torch.testing.assert_close(decode_boxes(deltas, anchors, weights), boxes, rtol=0, atol=1e-12)
    assert torch.equal(decode_boxes(deltas[None], anchors, weights)[0], decode_boxes(deltas, anchors, weights))


def test_deltas_are_alike_for_small_and_large():
    boxes, anchors = random_boxes(9, 6), random_boxes(9, 7)
    torch.testing.assert_close(encode_boxes(100 * boxes, 100 * anchors), encode_boxes(boxes, anchors))


def test_sides_grow_at_most_so_much():
    wild = decode_boxes(torch.tensor([[0.0, 0, 99, 99]]), torch.tensor([[0.0, 0, 2, 4]]))
    torch.testing.assert_close(wild[:, 2:] - wild[:, :2], torch.tensor([[125.0, 250.0]]))
    little = decode_boxes(torch.tensor([[0.0, 0, 99, 0]]), torch.tensor([[0.0, 0, 2, 4]]), max_log_scale=0.0)
    assert little.tolist() == [[0, 0, 2, 4]]


def test_coding_nothing():
    none = torch.zeros(0, 4)
    assert encode_boxes(none, none).shape == decode_boxes(none, none).shape == (0, 4)
    assert decode_boxes(torch.zeros(0, 3, 4), torch.zeros(0, 1, 4)).shape == (0, 3, 4)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(("low", "high"), [(0.3, 0.7), (0.5, 0.5), (0.4, 0.5), (0.0, 1.0)])
@pytest.mark.parametrize("seed", range(3))
def test_matching_equals_torchvision(low, high, force, seed):
    truth, anchors = random_boxes(4, seed), random_boxes(300, 10 + seed)
    anchors[7], anchors[9] = anchors[8], truth[1]  # a tie, and a perfect one
    iou = box_iou(truth, anchors)
    expected = oracle.Matcher(high, low, allow_low_quality_matches=force)(iou)
    got = match_anchors(iou, low, high, force)
    assert got.dtype == torch.int64 and torch.equal(got, expected)
    assert (got >= 0).any()


def test_force_best_gives_every_object_an_anchor_and_breaks_no_better_match():
    iou = torch.tensor([[0.2, 0.2, 0.0, 0.9], [0.1, 0.3, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert match_anchors(iou, 0.3, 0.7).tolist() == [-1, -2, -1, 0]
    # of the third, which no anchor overlaps, torchvision makes an object out of all four anchors
    assert match_anchors(iou, 0.3, 0.7, force_best=True).tolist() == [-1, 1, -1, 0]
    assert oracle.Matcher(0.7, 0.3, True)(iou).tolist() == [0, 1, 0, 0]


def test_ties_of_the_best_are_all_forced():
    iou = torch.tensor([[0.25, 0.1, 0.25]])
    assert match_anchors(iou, 0.3, 0.7, force_best=True).tolist() == [0, -1, 0]


def test_thresholds_are_reached_not_passed():
    assert match_anchors(torch.tensor([[0.25, 0.5, 0.75]]), 0.5, 0.75).tolist() == [-1, -2, 0]


def test_no_object_and_no_anchor():
    assert match_anchors(torch.zeros(0, 3), 0.3, 0.7, True).tolist() == [-1, -1, -1]
    assert match_anchors(torch.zeros(2, 0), 0.3, 0.7, True).shape == (0,)


@given(st.integers(0, 40), st.integers(0, 30), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.integers(0, 999))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_sampling_equals_torchvision(length, count, share, seed):
    matches = torch.randint(-2, 3, (length,), generator=torch.Generator().manual_seed(seed))
    positives, negatives = sample_matches(matches, count, share, torch.Generator().manual_seed(seed))
    torch.manual_seed(seed)
    # theirs: 0 is background, -1 neither
    state = torch.where(matches >= 0, 1, torch.where(matches == -1, 0, -1))
    theirs = oracle.BalancedPositiveNegativeSampler(count, share)([state])
    for got, (mask,) in zip((positives, negatives), theirs, strict=True):
        assert torch.equal(got, torch.nonzero(mask).flatten())
    assert (matches[positives] >= 0).all() and (matches[negatives] == -1).all()
    assert len(positives) <= share * count and len(positives) + len(negatives) <= count


def test_a_sample_is_drawn_and_the_generator_decides():
    matches = torch.full((1000,), -1)
    draws = [sample_matches(matches, 10, 0.5, torch.Generator().manual_seed(seed))[1].tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    hits = torch.zeros(1000)
    for seed in range(500):
        hits[sample_matches(matches, 100, 0.5, torch.Generator().manual_seed(seed))[1]] += 1
    assert 20 < hits.min() and hits.max() < 90  # 50 expected, deviation 6.7
