"""Where peers follow another convention: the numbers that course/13-metrics/conventions.md quotes, measured."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion, distance_transform_edt
from sklearn.metrics import jaccard_score
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_jaccard_index
from torchmetrics.segmentation import DiceScore, MeanIoU

from segedu.metrics.boundary import hausdorff_distance_95
from segedu.metrics.instance import instance_accuracy
from segedu.metrics.panoptic import panoptic_quality
from segedu.metrics.semantic import (
    class_accuracy,
    dice_per_class,
    iou_per_class,
    mean_iou,
    mean_iou_per_image,
    pixel_accuracy,
)
from segedu.metrics.tracking import detection_accuracy, segmentation_accuracy

PREDS, TARGET = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1])  # a third class occurs nowhere
TWO_PREDS = torch.tensor([[[0, 0], [0, 0]], [[0, 0], [0, 1]]])
TWO_TARGETS = torch.tensor([[[0, 0], [0, 0]], [[0, 0], [1, 1]]])  # the first image has only class 0


def test_absent_class():
    """Ours and torchmetrics skip it, scikit-learn counts 0; per class torchmetrics shows 0 where ours is NaN."""
    assert mean_iou(PREDS, TARGET, 3) == pytest.approx(7 / 12)
    assert float(multiclass_jaccard_index(PREDS, TARGET, 3)) == pytest.approx(7 / 12)
    with warnings.catch_warnings(action="ignore"):
        assert jaccard_score(TARGET, PREDS, labels=range(3), average="macro") == pytest.approx(7 / 18)
    assert multiclass_jaccard_index(PREDS, TARGET, 3, average="none")[2] == 0
    assert math.isnan(iou_per_class(PREDS, TARGET, 3)[2])


def test_mean_over_what():
    """Data set, image, or every (image, class) that occurs: three means of the same two images."""
    assert mean_iou(TWO_PREDS, TWO_TARGETS, 2) == pytest.approx(0.6786, abs=5e-5)
    assert mean_iou_per_image(TWO_PREDS, TWO_TARGETS, 2) == pytest.approx(0.7917, abs=5e-5)
    theirs = MeanIoU(num_classes=2, input_format="index")
    theirs.update(TWO_PREDS, TWO_TARGETS)
    assert float(theirs.compute()) == pytest.approx(0.7222, abs=5e-5)


def test_dice():
    """Data set by class here; MONAI and torchmetrics take means of images; micro is the pixel accuracy."""
    from monai.metrics import DiceMetric

    assert float(dice_per_class(TWO_PREDS, TWO_TARGETS, 2).mean()) == pytest.approx(0.7949, abs=5e-5)
    hot = [torch.nn.functional.one_hot(m, 2).movedim(-1, 1) for m in (TWO_PREDS, TWO_TARGETS)]
    monai = DiceMetric(reduction="mean")
    monai(*hot)
    assert float(monai.aggregate()) == pytest.approx(0.8667, abs=5e-5)
    for average, expected in (("macro", 0.8667), ("micro", 0.8750)):
        theirs = DiceScore(num_classes=2, average=average, input_format="index")
        theirs.update(TWO_PREDS, TWO_TARGETS)
        assert float(theirs.compute()) == pytest.approx(expected, abs=5e-5)
    assert pixel_accuracy(TWO_PREDS, TWO_TARGETS, 2) == 0.875


def test_accuracy():
    """torchmetrics' accuracy is the mean of classes by default, not the share of right pixels."""
    preds, target = torch.tensor([0] * 9 + [0]), torch.tensor([0] * 9 + [1])
    assert pixel_accuracy(preds, target, 2) == 0.9
    assert float(multiclass_accuracy(preds, target, 2)) == 0.5
    assert class_accuracy(preds, target, 2).mean() == 0.5
    assert float(multiclass_accuracy(preds, target, 2, average="micro")) == pytest.approx(0.9)


def test_no_object():
    """Nothing predicted where nothing is: full marks here, 0 in StarDist."""
    stardist = pytest.importorskip("stardist.matching")
    nothing = np.zeros((2, 3), dtype=int)
    assert instance_accuracy(nothing, nothing) == 1
    assert stardist.matching(nothing, nothing).accuracy == 0


def test_iou_of_one_half():
    """At least 1/2 for cells, more than 1/2 for panoptic quality."""
    preds, target = np.array([[1, 1, 0, 0]]), np.array([[1, 1, 1, 1]])
    infos = [{"id": 1, "category_id": 0, "isthing": True}]
    sides = [{"panoptic_seg": m, "segments_info": infos} for m in (preds, target)]
    assert instance_accuracy(preds, target, 0.5) == 1
    assert panoptic_quality(*sides, 1)["pq"] == 0


def test_found_by_coverage():
    """SEG and DET ask what is covered of the cell, not the IoU: one prediction finds two cells."""
    cells, one = np.array([[1, 1, 1, 2, 2]]), np.array([[9, 9, 9, 9, 9]])
    assert segmentation_accuracy([one], [cells]) == pytest.approx(0.5)
    assert detection_accuracy([one], [cells]) == 0.75
    assert instance_accuracy(one, cells, 0.5) == 0.5


def test_hausdorff_pooled():
    """The 95th percentile of each direction and the larger, or of both together (MedPy's hd95)."""
    truth, preds = np.zeros((9, 60), dtype=bool), np.zeros((9, 60), dtype=bool)
    truth[4, 5:45], preds[4, 5:45], preds[4, 50] = True, True, True
    preds[4, 52:54] = True
    surfaces = [m & ~binary_erosion(m) for m in (preds, truth)]
    both = [distance_transform_edt(~there)[here] for here, there in (surfaces, surfaces[::-1])]
    # 43 distances from the prediction: forty 0, then 6, 8 and 9; place 39.9 of 0 to 42 is 0.9 of the way to the 6
    assert hausdorff_distance_95(preds, truth) == pytest.approx(5.4)
    assert np.percentile(np.concatenate(both), 95) == 0


def test_panoptic_of_torchmetrics():
    """Equal on plain things; it shows 0 for an absent class in the table, where ours is NaN."""
    from torchmetrics.detection import PanopticQuality

    maps = [torch.tensor([[[1, i] for i in row]])[None] for row in ([1, 1, 1, 2, 2], [1, 1, 1, 1, 2])]
    theirs = PanopticQuality(things={1}, stuffs={0}, return_per_class=True)
    theirs.update(*maps)
    infos = [{"id": i, "category_id": 1, "isthing": True} for i in (1, 2)]
    sides = [{"panoptic_seg": m[0, :, :, 1], "segments_info": infos} for m in maps]
    ours = panoptic_quality(*sides, 2)["per_class"]["pq"]
    table = theirs.compute().flatten().tolist()
    assert sorted(table) == [0, pytest.approx(float(ours[1]))]
    assert math.isnan(ours[0])
    mean = PanopticQuality(things={1}, stuffs={0})
    mean.update(*maps)
    assert float(mean.compute()) == pytest.approx(panoptic_quality(*sides, 2)["pq"])
