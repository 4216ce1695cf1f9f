"""Suppression against torchvision and literal loops."""

import math

import pytest
import torch
import torchvision.ops as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from segedu.detection import ssd
from segedu.ops import nms as nms_module
from segedu.ops.boxes import box_iou
from segedu.ops.nms import batched_nms, matrix_nms, nms, nms_mask, soft_nms

quick = settings(max_examples=50, deadline=None, derandomize=True)


def detections(count, seed):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 6
    boxes = torch.cat([corner, corner + 1 + 5 * torch.rand(count, 2, generator=generator)], dim=1)
    scores = torch.rand(count, generator=generator)
    return boxes, scores, torch.randint(0, 3, (count,), generator=generator)


@given(st.integers(0, 40), st.integers(0, 999), st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]))
@quick
def test_equals_torchvision(count, seed, threshold):
    boxes, scores, labels = detections(count, seed)
    assert torch.equal(nms(boxes, scores, threshold), oracle.nms(boxes, scores, threshold))
    assert torch.equal(
        batched_nms(boxes, scores, labels, threshold), oracle.batched_nms(boxes, scores, labels, threshold)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.int64])
def test_compiled_and_readable_suppression_keep_the_same(dtype, monkeypatch):
    """Ties of scores among them, and boxes without an area."""
    boxes, scores, labels = detections(200, seed=5)
    boxes[::9, 2] = boxes[::9, 0]
    boxes, scores = (4 * boxes).to(dtype), (scores * 8).round().to(dtype)
    kept = {}
    for compiled in (True, False):
        monkeypatch.setattr(nms_module, "COMPILED", compiled)
        kept[compiled] = batched_nms(boxes, scores, labels, 0.5)
    assert torch.equal(kept[True], kept[False]) and 3 < len(kept[True]) < 200


@pytest.mark.parametrize("compiled", [True, False])
def test_scores_finer_than_the_boxes_decide(compiled, monkeypatch):
    """In float32 both scores would be 1/2, and the first box would stay."""
    monkeypatch.setattr(nms_module, "COMPILED", compiled)
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 11.0]])
    scores = torch.tensor([0.5, 0.5 + 1e-12], dtype=torch.float64)
    assert batched_nms(boxes, scores, torch.ones(2).long(), 0.5).tolist() == nms(boxes, scores, 0.5).tolist() == [1]


def test_the_switch_reaches_the_detectors(monkeypatch):
    asked = []
    monkeypatch.setattr(nms_module, "COMPILED", False)
    monkeypatch.setattr(nms_module, "nms", lambda *given: asked.append(given) or nms(*given))
    raw = {"logits": torch.zeros(1, 2, 3), "deltas": torch.zeros(1, 2, 4), "sizes": [(9, 9)]}
    ssd.postprocess(raw | {"anchors": torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 5.0]])})
    assert len(asked) == 2  # a call for each class


@given(st.integers(1, 30), st.integers(0, 999))
@quick
def test_what_greedy_suppression_promises(count, seed):
    boxes, scores, _ = detections(count, seed)
    kept = nms(boxes, scores, 0.4)
    among = box_iou(boxes[kept], boxes[kept]) - torch.eye(len(kept))
    assert (among <= 0.4).all()
    for lost in set(range(count)) - set(kept.tolist()):
        better = kept[scores[kept] >= scores[lost]]
        assert (box_iou(boxes[lost][None], boxes[better]) > 0.4).any()
    assert torch.equal(nms(boxes[kept], scores[kept], 0.4), torch.arange(len(kept)))
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(shuffled[nms(boxes[shuffled], scores[shuffled], 0.4)], kept)


def test_threshold_is_strict_and_ties_go_to_the_first():
    boxes = torch.tensor([[0.0, 0.0, 2.0, 1.0], [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 2.0, 1.0]])  # IoU 1/2, 1
    scores = torch.tensor([0.5, 0.5, 0.5])
    assert nms(boxes, scores, 0.5).tolist() == [0, 1]
    assert nms(boxes, scores, 0.49).tolist() == [0]


def soft_by_hand(boxes, scores, sigma, threshold):
    """Figure 2 of the paper, box by box."""
    left = [(float(s), i) for i, s in enumerate(scores)]
    out = []
    while left:
        best = max(left, key=lambda pair: pair[0])
        left.remove(best)
        if best[0] < threshold:
            break
        out.append(best)
        iou = box_iou(boxes[best[1]][None], boxes)[0].tolist()
        left = [(s * math.exp(-(iou[i] ** 2) / sigma), i) for s, i in left]
    return [i for _, i in out], [s for s, _ in out]


@pytest.mark.parametrize("seed", range(4))
def test_soft_equals_the_loop(seed):
    boxes, scores, _ = detections(17, seed)
    boxes, scores = boxes.double(), scores.double()
    expected, expected_scores = soft_by_hand(boxes, scores, 0.5, 0.05)
    kept, lowered = soft_nms(boxes, scores, 0.5, 0.05)
    assert kept.tolist() == expected
    assert lowered.tolist() == pytest.approx(expected_scores, abs=1e-12)
    assert scores.equal(detections(17, seed)[1].double())  # the argument is left alone


def matrix_by_hand(masks, labels, scores, sigma):
    """Equation 4 of SOLOv2, pair by pair."""
    order = sorted(range(len(masks)), key=lambda i: -float(scores[i]))

    def iou(a, b):
        union = (masks[a] | masks[b]).sum().item()
        same = labels[a] == labels[b]
        return (masks[a] & masks[b]).sum().item() / union if union and same else 0.0

    out = torch.zeros(len(masks), dtype=torch.float64)
    for place, j in enumerate(order):
        decay = 1.0
        for position, i in enumerate(order[:place]):
            worst = max((iou(k, i) for k in order[:position]), default=0.0)
            decay = min(decay, math.exp(-sigma * iou(i, j) ** 2) / math.exp(-sigma * worst**2))
        out[j] = scores[j] * decay
    return out


@pytest.mark.parametrize("seed", range(4))
def test_matrix_equals_the_loop(seed):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(9, 5, 6, generator=generator) < 0.6
    labels = torch.randint(0, 2, (9,), generator=generator)
    scores = torch.rand(9, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(
        matrix_nms(masks, labels, scores), matrix_by_hand(masks, labels, scores, 2.0), rtol=0, atol=1e-12
    )


def test_boxes_of_no_area_survive():
    points = torch.zeros(2, 4)
    assert nms(points, torch.tensor([0.1, 0.2]), 0.0).tolist() == [1, 0]


def test_scores_of_half_precision_do_not_count_pixels():
    masks, scores = torch.ones(2, 300, 300).bool(), torch.tensor([0.9, 0.8])  # 90,000 pixels; float16 ends at 65,504
    lowered = matrix_nms(masks, torch.tensor([1, 1]), scores.half())
    assert lowered.dtype == torch.float16
    torch.testing.assert_close(lowered.float(), matrix_nms(masks, torch.tensor([1, 1]), scores), rtol=2e-3, atol=0)


def test_soft_scores_have_no_gradient():
    boxes, scores, _ = detections(5, seed=0)
    assert not soft_nms(boxes.requires_grad_(), scores.requires_grad_())[1].requires_grad


def test_masks_without_pixels_lower_nothing():
    scores = torch.tensor([0.9, 0.8])
    assert torch.equal(matrix_nms(torch.zeros(2, 0, 3).bool(), torch.tensor([1, 1]), scores), scores)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 2e19, 1e37])
def test_a_scale_changes_nothing(scale):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(40, 2, generator=generator) * 2
    boxes = torch.cat([corners, corners + 0.5 + torch.rand(40, 2, generator=generator)], dim=1)
    scores, labels = torch.rand(40, generator=generator), torch.arange(40) % 2
    expected = batched_nms(boxes, scores, labels, 0.3)
    assert len(expected) < 30
    assert torch.equal(batched_nms(boxes * scale, scores, labels, 0.3), expected)
    assert torch.equal(nms(boxes * scale, scores, 0.3), nms(boxes, scores, 0.3))


def test_mask_of_kept_boxes_equals_the_loop():
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(60, 2, generator=generator).double() * 4
    boxes = torch.cat([corners, corners + 1], dim=1)
    scores, valid = torch.rand(60, generator=generator), torch.rand(60, generator=generator) < 0.7
    rows = torch.nonzero(valid).flatten()
    expected = torch.zeros(60).bool().index_fill(0, rows[nms(boxes[rows], scores[rows], 0.3)], True)
    assert torch.equal(nms_mask(boxes, scores, valid, 0.3), expected) and 0 < expected.sum() < valid.sum()
