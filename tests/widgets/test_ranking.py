"""The widgets of chapter 13: their numbers and their pictures, without a slider."""

from __future__ import annotations

import pytest

from segedu.metrics.average_precision import precision_recall_curve
from segedu.metrics.panoptic import panoptic_quality
from segedu.teaching.widgets import ranking


@pytest.fixture
def shown(monkeypatch):
    monkeypatch.setenv("SEGEDU_WIDGETS", "static")
    found = []
    monkeypatch.setattr(ranking, "show", lambda fig, alt: found.append((fig, alt)))
    return found


def test_every_threshold_is_a_point_of_the_curve():
    precision, recall = (x.tolist() for x in precision_recall_curve(ranking.SCORES, ranking.HITS, ranking.NUM_TARGET))
    for k, score in enumerate(ranking.SCORES):
        found = ranking.counts(float(score))
        assert (found["precision"], found["recall"]) == pytest.approx((precision[k], recall[k]))
        assert found["true_positive"] + found["false_positive"] == k + 1
        assert found["true_positive"] + found["false_negative"] == ranking.NUM_TARGET


def cars(**changes):
    scene = ranking.panoptic_scene(**changes)
    table = panoptic_quality(scene["preds"], scene["target"], num_classes=2)["per_class"]
    counts = [int(table[name][1]) for name in ("true_positive", "false_positive", "false_negative")]
    return float(table["pq"][1]), float(table["sq"][1]), counts


def test_a_car_broken_off_centre_is_found_with_a_false_part():
    assert cars(split_column=2) == (pytest.approx((2 + 6 / 8) / 3.5), pytest.approx((2 + 6 / 8) / 3), [3, 1, 0])


def test_a_car_broken_in_the_middle_is_missed_and_both_halves_are_false():
    assert cars(split_column=4) == (pytest.approx(2 / 3.5), 1.0, [2, 2, 1])


def test_two_cars_merged_are_both_missed():
    assert cars(merge=True) == (pytest.approx(1 / 2.5), 1.0, [1, 1, 2])


@pytest.mark.parametrize(("shift", "matched"), [(0, 3), (1, 3), (2, 3), (3, 2), (6, 2)])
def test_a_moved_car_is_lost_when_its_iou_falls_to_one_half(shift, matched):
    iou = (8 - shift) / (8 + shift)
    pq, sq, counts = cars(shift=shift)
    assert counts == [matched, 3 - matched, 3 - matched] and (iou > 0.5) == (matched == 3)
    assert sq == pytest.approx((2 + iou) / 3 if matched == 3 else 1.0)


def test_pictures_say_their_numbers(shown):
    ranking.draw_ranking(threshold=0.5)
    ranking.draw_ranking(threshold=1.0)
    ranking.draw_panoptic(split_column=4)
    alts = [alt for _, alt in shown]
    assert "TP 5, FP 3, FN 5" in alts[0] and "nothing is kept" in alts[1]
    assert "TP 2, FP 2, FN 1" in alts[2] and "car PQ 0.57 = SQ 1.00 x RQ 0.57" in alts[2]


def test_static_frames_differ(shown):
    ranking.explorer()
    ranking.panoptic_explorer()
    assert len(shown) == 7 and len({alt for _, alt in shown}) == 7
