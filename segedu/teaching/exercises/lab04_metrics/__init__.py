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
    "torchvision.ops._utils._loss_inter_union",
    "pycocotools.mask.iou",
    "scipy.spatial.distance.jaccard",
    "scipy.spatial.distance.dice",
    "sklearn.metrics.confusion_matrix",
    "sklearn.metrics.jaccard_score",
    "sklearn.metrics.f1_score",
    "sklearn.metrics.fbeta_score",
    "sklearn.metrics.precision_recall_fscore_support",
    "sklearn.metrics.multilabel_confusion_matrix",
)
check, use = lab_tools("04_metrics", exercises, FORBIDDEN)
