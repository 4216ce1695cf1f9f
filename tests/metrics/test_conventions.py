"""Where libraries disagree with ours, as the page course/13-metrics/choosing.md says: each line with its numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, jaccard_score
from torchmetrics.detection import MeanAveragePrecision
from torchmetrics.detection import PanopticQuality as TorchmetricsPanopticQuality
from torchmetrics.functional.classification import multiclass_jaccard_index
from torchmetrics.segmentation import MeanIoU

from segedu.metrics.average_precision import average_precision_area, match_detections, precision_recall_curve
from segedu.metrics.coco import CocoEvaluation
from segedu.metrics.panoptic import panoptic_quality
from segedu.metrics.semantic import mean_iou, mean_iou_per_image


def area(hits, num_target, scores=None):
    scores = np.arange(len(hits), 0, -1.0) if scores is None else np.array(scores)
    return average_precision_area(*precision_recall_curve(scores, np.array(hits, dtype=bool), num_target))


def test_scikit_learn_takes_no_envelope():
    assert area([0, 1, 1], 2) == pytest.approx(2 / 3)
    assert average_precision_score([0, 1, 1], [3, 2, 1]) == pytest.approx(7 / 12) == pytest.approx(0.583, abs=5e-4)


def test_scikit_learn_knows_only_objects_in_the_list():
    assert area([1, 0, 1], 3) == pytest.approx(5 / 9) == pytest.approx(0.556, abs=5e-4)
    assert average_precision_score([1, 0, 1], [3, 2, 1]) == pytest.approx(5 / 6) == pytest.approx(0.833, abs=5e-4)


def test_scikit_learn_gives_equal_scores_one_point():
    """Ours depends on their order, theirs does not."""
    scores = [0.5] * 4
    assert area([1, 0, 0, 1], 2, scores) == pytest.approx(0.75)
    assert area([0, 0, 1, 1], 2, scores) == pytest.approx(0.5)
    assert average_precision_score([1, 0, 0, 1], scores) == average_precision_score([0, 0, 1, 1], scores) == 0.5


PREDICTED = {"boxes": torch.tensor([[0.0, 0, 8, 10]]), "scores": torch.tensor([0.9]), "labels": torch.tensor([3])}
TRUE = {"boxes": torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]]), "labels": torch.tensor([3, 3])}


def test_torchmetrics_misses_an_iou_of_exactly_its_threshold():
    """An IoU of 0.8 passes 7 thresholds; in float32 the seventh is a little larger than 0.8. Absent sizes are -1."""
    ours, theirs = CocoEvaluation(), MeanAveragePrecision()
    ours.update(PREDICTED, TRUE)
    theirs.update([PREDICTED], [TRUE])
    mine, other = ours.compute(), theirs.compute()
    assert mine["AP"] == pytest.approx(0.7 * 51 / 101)
    assert float(other["map"]) == pytest.approx(0.6 * 51 / 101)
    assert theirs.iou_thresholds[6] > 0.8 and f"{theirs.iou_thresholds[6]:.8f}" == "0.80000001"
    assert float(other["map_large"]) == -1 and np.isnan(mine["APl"])


def voc_matching(iou, threshold):
    """As VOC's program: only the object of largest IoU is looked at."""
    taken, hits = set(), []
    for row in iou:
        best = int(np.argmax(row))
        hits.append(row[best] >= threshold and best not in taken)
        taken |= {best} if hits[-1] else set()
    return hits


def test_voc_looks_at_the_largest_iou_only():
    iou = np.array([[0.9, 0.0], [0.8, 0.6]])
    assert (match_detections(iou)[0] >= 0).tolist() == [True, True]
    assert voc_matching(iou, 0.5) == [True, False]


def test_torchmetrics_takes_unanswered_pixels_out_of_the_union():
    """A road of 8 pixels, of which the prediction answers 6."""
    info = [{"id": 1, "category_id": 0, "isthing": False}]
    preds, target = torch.tensor([[1] * 6 + [0] * 2]), torch.tensor([[1] * 8])
    ours = panoptic_quality(
        {"panoptic_seg": preds, "segments_info": info}, {"panoptic_seg": target, "segments_info": info}, num_classes=1
    )
    unknown = torch.where(preds > 0, 0, 99)
    theirs = TorchmetricsPanopticQuality(things={1}, stuffs={0}, allow_unknown_preds_category=True)
    value = theirs(torch.stack([unknown, preds], -1)[None], torch.stack([0 * target, target], -1)[None])
    assert ours["pq"] == 0.75 and float(value) == 1


def test_absent_classes_in_a_mean_iou():
    maps = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 0, 1])
    assert mean_iou(*maps, 3) == 1
    assert float(multiclass_jaccard_index(*maps, 3)) == 1
    theirs = jaccard_score(maps[1], maps[0], labels=[0, 1, 2], average="macro", zero_division=0)
    assert theirs == pytest.approx(2 / 3)


def test_torchmetrics_averages_pairs_of_image_and_class():
    preds, target = torch.tensor([[[0, 0, 0, 0]], [[0, 0, 1, 1]]]), torch.tensor([[[0, 0, 0, 0]], [[0, 1, 0, 1]]])
    theirs = MeanIoU(num_classes=2, input_format="index")
    theirs.update(preds, target)
    assert float(theirs.compute()) == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)  # image 1 has one class, image 2 two
    assert mean_iou_per_image(preds, target, 2) == pytest.approx((1 + 1 / 3) / 2)
    assert mean_iou(preds, target, 2) == pytest.approx((5 / 7 + 1 / 3) / 2)
