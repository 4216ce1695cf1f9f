"""Average precision against pycocotools, scikit-learn, and the definitions by hand."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from sklearn.metrics import precision_recall_curve as sklearn_curve

from segedu.metrics.average_precision import (
    average_precision_11_point,
    average_precision_101_point,
    average_precision_area,
    match_detections,
    precision_recall_curve,
)

ALL = (average_precision_11_point, average_precision_101_point, average_precision_area)


@st.composite
def rankings(draw, ties=True):
    """Scores, hits and the number of true objects, of which some may never be found."""
    count = draw(st.integers(1, 30))
    hits = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    score = st.integers(0, 9) if ties else st.integers(0, 10**6)
    scores = draw(st.lists(score, min_size=count, max_size=count, unique=not ties))
    missed = draw(st.integers(0, 5))
    return torch.tensor(scores, dtype=torch.float64) / 10, torch.tensor(hits), max(1, sum(hits) + missed)


def literal(precision, recall, thresholds):
    """max{p(r') : r' >= r}, averaged over r, in exact arithmetic."""
    best = [max((p for p, s in zip(precision, recall, strict=True) if s >= r), default=0) for r in thresholds]
    return sum(best) / Fraction(len(best))


def exact_curve(scores, hits, num_target):
    found, precision, recall = 0, [], []
    for k, i in enumerate(sorted(range(len(scores)), key=lambda i: -scores[i]), start=1):
        found += bool(hits[i])
        precision.append(Fraction(found, k))
        recall.append(Fraction(found, num_target))
    return precision, recall


@given(rankings())
@settings(deadline=None)
def test_eleven_points_are_those_of_the_definition(ranking):
    exact = exact_curve(*[list(map(float, ranking[0])), ranking[1], ranking[2]])
    expected = literal(*exact, [Fraction(i, 10) for i in range(11)])
    assert average_precision_11_point(*precision_recall_curve(*ranking)) == pytest.approx(float(expected), abs=1e-12)


@given(rankings())
@settings(deadline=None)
def test_area_is_that_of_the_definition(ranking):
    precision, recall = exact_curve(list(map(float, ranking[0])), ranking[1], ranking[2])
    area = sum(max(precision[i:]) * (recall[i] - (recall[i - 1] if i else 0)) for i in range(len(recall)))
    assert average_precision_area(*precision_recall_curve(*ranking)) == pytest.approx(float(area), abs=1e-12)


@given(rankings(ties=False))
@settings(deadline=None)
def test_curve_is_that_of_scikit_learn_where_no_scores_are_equal(ranking):
    scores, hits, _ = ranking
    if not hits.any():  # scikit-learn then defines recall as 1
        return
    ours = precision_recall_curve(scores, hits, int(hits.sum()))
    theirs = sklearn_curve(hits.numpy(), scores.numpy())  # ends with (1, 0), a point of no detection
    for mine, other in zip(ours, theirs[:2], strict=True):
        np.testing.assert_allclose(mine.flip(0), other[:-1], atol=1e-12)


@given(rankings(ties=False))
@settings(deadline=None)
def test_area_is_at_least_the_average_precision_of_scikit_learn(ranking):
    """scikit-learn takes no envelope. Where precision never rises, the two are one number."""
    scores, hits, _ = ranking
    if not hits.any():
        return
    precision, recall = precision_recall_curve(scores, hits, int(hits.sum()))
    area, theirs = average_precision_area(precision, recall), average_precision_score(hits.numpy(), scores.numpy())
    assert area >= theirs - 1e-12
    if (torch.diff(precision) <= 0).all():
        assert area == pytest.approx(theirs, abs=1e-12)


@given(rankings(), st.randoms())
@settings(deadline=None)
def test_bounds_order_and_monotony(ranking, random):
    scores, hits, count = ranking
    curve = precision_recall_curve(scores, hits, count)
    for average in ALL:
        value = average(*curve)
        assert 0 <= value <= 1
        # only the order of the scores matters
        assert average(*precision_recall_curve(scores**3 - 7, hits, count)) == pytest.approx(value, abs=1e-12)
        # false positives below all others change nothing
        more = torch.cat([scores, torch.full((3,), -1.0)]), torch.cat([hits, torch.zeros(3, dtype=torch.bool)])
        assert average(*precision_recall_curve(*more, count)) == pytest.approx(value, abs=1e-12)
        # one more object that nobody found cannot help
        assert average(*precision_recall_curve(scores, hits, count + 1)) <= value + 1e-12
    if hits.all() and count == len(hits):
        assert [average(*curve) for average in ALL] == pytest.approx([1, 1, 1])


@given(rankings())
@settings(deadline=None)
def test_an_ignored_detection_is_as_if_it_were_not_there(ranking):
    scores, hits, count = ranking
    ignored = torch.arange(len(scores)) % 3 == 0
    left_out = precision_recall_curve(scores[~ignored], hits[~ignored], count)
    for a, b in zip(precision_recall_curve(scores, hits, count, ignored), left_out, strict=True):
        assert torch.equal(a, b)


def test_three_conventions_on_one_curve():
    """Worked by hand: hit, miss, hit; three true objects."""
    curve = precision_recall_curve(torch.tensor([0.9, 0.8, 0.3]), torch.tensor([True, False, True]), 3)
    expected = [(4 + 3 * 2 / 3) / 11, (34 + 33 * 2 / 3) / 101, 1 / 3 + 1 / 3 * 2 / 3]
    assert [average(*curve) for average in ALL] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("found", range(11))
def test_eleven_points_at_recalls_that_floats_miss(found):
    """0.1 * 3 is above 3 / 10: thresholds made that way lose a point that was reached."""
    hits = torch.ones(found, dtype=torch.bool)
    curve = precision_recall_curve(torch.arange(found, 0, -1.0), hits, 10)
    assert average_precision_11_point(*curve) == pytest.approx(min(found + 1, 11) / 11 if found else 0)


def test_equal_scores_keep_their_order():
    precision, _ = precision_recall_curve(torch.full((3,), 0.5), torch.tensor([True, False, False]), 1)
    assert precision.tolist() == pytest.approx([1, 1 / 2, 1 / 3])
    precision, _ = precision_recall_curve(torch.full((3,), 0.5), torch.tensor([False, False, True]), 1)
    assert precision.tolist() == pytest.approx([0, 0, 1 / 3])


def test_no_detection_and_no_object():
    empty = torch.zeros(0), torch.zeros(0, dtype=torch.bool)
    assert [average(*precision_recall_curve(*empty, 5)) for average in ALL] == [0, 0, 0]
    curve = precision_recall_curve(torch.tensor([0.5]), torch.tensor([False]), 0)
    assert curve[0].tolist() == [0.0] and all(math.isnan(average(*curve)) for average in ALL)


def test_each_object_is_taken_once_and_the_confident_choose_first():
    matched, ignored = match_detections(torch.tensor([[0.6, 0.7], [0.6, 0.9], [0.4, 0.8]]))
    assert matched.tolist() == [1, 0, -1] and not ignored.any()


def test_a_real_object_comes_before_a_crowd_with_a_larger_iou():
    iou = torch.tensor([[0.6, 0.9], [0.6, 0.9], [0.0, 0.5]])
    matched, ignored = match_detections(iou, torch.tensor([False, True]))
    assert matched.tolist() == [0, 1, 1] and ignored.tolist() == [False, True, True]
    matched, ignored = match_detections(iou, ignore=torch.tensor([False, True]))  # an ignored object is taken once
    assert matched.tolist() == [0, 1, -1] and ignored.tolist() == [False, True, False]


@given(st.integers(0, 6), st.integers(0, 5), st.integers(0, 2**31), st.sampled_from([0.3, 0.5, 0.75, 1.0]))
@settings(deadline=None)
def test_matching_keeps_its_promises(P, N, seed, threshold):
    rng = np.random.default_rng(seed)
    iou, crowd = rng.integers(0, 5, (P, N)) / 4, rng.random(N) < 0.3
    matched, ignored = (x.numpy() for x in match_detections(iou, crowd, threshold))
    for p, n in enumerate(matched):
        assert n < 0 or iou[p, n] >= threshold
        assert ignored[p] == (n >= 0 and crowd[n])
        if n < 0:  # nothing was left for it
            left = [m for m in range(N) if crowd[m] or m not in matched[:p]]
            assert not (iou[p, left] >= threshold).any()
    real = [n for n in matched if n >= 0 and not crowd[n]]
    assert len(real) == len(set(real))


def pycocotools_evaluation(truth, crowd, boxes, scores):
    """One class; a list of images."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def record(i, box, n):
        x1, y1, x2, y2 = map(float, box)
        size = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
        return {"image_id": i + 1, "category_id": 1, "id": n + 1, "iscrowd": 0, **size}

    gts = [(i, box, c) for i, group in enumerate(truth) for box, c in zip(group, crowd[i], strict=True)]
    data = COCO()
    data.dataset = {
        "info": {},
        "images": [{"id": i + 1} for i in range(len(truth))],
        "categories": [{"id": 1}],
        "annotations": [record(i, box, n) | {"iscrowd": int(c)} for n, (i, box, c) in enumerate(gts)],
    }
    data.createIndex()
    dts = [(i, box, s) for i, group in enumerate(boxes) for box, s in zip(group, scores[i], strict=True)]
    found = data.loadRes([record(i, box, n) | {"score": float(s)} for n, (i, box, s) in enumerate(dts)])
    run = COCOeval(data, found, "bbox")
    run.evaluate()
    run.accumulate()
    return run


def iou_with_crowds(boxes, truth, crowd):
    side = np.minimum(boxes[:, None, 2:], truth[None, :, 2:]) - np.maximum(boxes[:, None, :2], truth[None, :, :2])
    inter = side.clip(0).prod(2)
    area = [(b[:, 2:] - b[:, :2]).prod(1) for b in (boxes, truth)]
    return inter / np.where(crowd[None], area[0][:, None], area[0][:, None] + area[1][None] - inter)


@pytest.mark.parametrize("seed", range(12))
def test_pycocotools_finds_the_same_matches_and_the_same_average(seed, capsys):
    rng = np.random.default_rng(seed)

    def some_boxes(count):
        corner = rng.integers(0, 12, (count, 2))
        return np.concatenate([corner, corner + rng.integers(3, 9, (count, 2))], axis=1).astype(float)

    truth = [some_boxes(rng.integers(0, 5)) for _ in range(8)]
    crowd = [rng.random(len(t)) < 0.25 for t in truth]
    boxes = [np.concatenate([some_boxes(rng.integers(1, 4)), t + rng.integers(-1, 2, t.shape)]) for t in truth]
    scores = [rng.integers(1, 6, len(b)) / 8 for b in boxes]  # many equal scores
    run = pycocotools_evaluation(truth, crowd, boxes, scores)
    capsys.readouterr()
    for t, threshold in enumerate(run.params.iouThrs):
        all_scores, hits, left_out = [], [], []
        for image, (gt, c, dt, s) in enumerate(zip(truth, crowd, boxes, scores, strict=True)):
            order = np.argsort(-s, kind="stable")
            matched, ignored = match_detections(iou_with_crowds(dt[order], gt, c), c, float(threshold))
            theirs = run.evalImgs[image]
            assert (theirs["dtMatches"][t] > 0).tolist() == (matched >= 0).tolist()
            assert theirs["dtIgnore"][t].astype(bool).tolist() == ignored.tolist()
            all_scores.append(s[order])
            hits.append(matched >= 0)
            left_out.append(ignored)
        count = int(sum((~c).sum() for c in crowd))
        curve = precision_recall_curve(np.concatenate(all_scores), torch.cat(hits), count, torch.cat(left_out))
        expected = run.eval["precision"][t, :, 0, 0, 2].mean()
        assert average_precision_101_point(*curve) == pytest.approx(expected, abs=1e-12)


def test_precision_of_a_wrong_order_differs():
    """The comparisons above can fail: the ranking matters."""
    hits = torch.tensor([True, False])
    one = [average(*precision_recall_curve(torch.tensor([0.2, 0.9]), hits, 1)) for average in ALL]
    two = [average(*precision_recall_curve(torch.tensor([0.9, 0.2]), hits, 1)) for average in ALL]
    assert one == [0.5] * 3 and two == [1.0] * 3
