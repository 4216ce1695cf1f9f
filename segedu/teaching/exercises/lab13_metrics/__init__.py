"""Lab 13, metrics: matching detections, precision-recall curves, average precision, COCO's mAP, panoptic quality."""

from __future__ import annotations

from segedu.teaching.checks.cell import lab_tools
from segedu.teaching.exercises.lab13_metrics.ap_interp import exercise as ap_interp
from segedu.teaching.exercises.lab13_metrics.map_coco import exercise as map_coco
from segedu.teaching.exercises.lab13_metrics.match_detections import exercise as match_detections
from segedu.teaching.exercises.lab13_metrics.pq import exercise as pq
from segedu.teaching.exercises.lab13_metrics.pq_unique import exercise as pq_unique
from segedu.teaching.exercises.lab13_metrics.pr_curve import exercise as pr_curve

exercises = [match_detections, pr_curve, ap_interp, map_coco, pq, pq_unique]
# implementations in other libraries, hidden in grading and while a check runs
FORBIDDEN = (
    "pycocotools.cocoeval.COCOeval",
    "sklearn.metrics.average_precision_score",
    "sklearn.metrics.precision_recall_curve",
)
check, use = lab_tools("13_metrics", exercises, FORBIDDEN)
