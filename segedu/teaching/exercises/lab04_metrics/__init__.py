"""Lab 4: confusion matrix, IoU and Dice, mean IoU, boxes, generalised IoU, boundary F1."""

from __future__ import annotations

from segedu.teaching.checks.cell import lab_tools
from segedu.teaching.exercises.lab04_metrics.boundary_f1 import exercise as boundary_f1
from segedu.teaching.exercises.lab04_metrics.box_iou import exercise as box_iou
from segedu.teaching.exercises.lab04_metrics.confusion_matrix import exercise as confusion_matrix
from segedu.teaching.exercises.lab04_metrics.giou import exercise as giou
from segedu.teaching.exercises.lab04_metrics.iou_dice import exercise as iou_dice
from segedu.teaching.exercises.lab04_metrics.miou import exercise as miou

exercises = [confusion_matrix, iou_dice, miou, box_iou, giou, boundary_f1]
# answers of other libraries, hidden in grading and while a check runs
FORBIDDEN = (
    "torchvision.ops.box_iou",
    "torchvision.ops.generalized_box_iou",
    "torchvision.ops.boxes._box_inter_union",
    "torchvision.ops.generalized_box_iou_loss",
    "sklearn.metrics.confusion_matrix",
    "sklearn.metrics.jaccard_score",
    "sklearn.metrics.f1_score",
)
check, use = lab_tools("04_metrics", exercises, FORBIDDEN)
