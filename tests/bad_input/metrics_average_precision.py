"""Bad and empty input to `segedu.metrics.average_precision`."""

import numpy as np
import torch
from bad_input.rows import NAN, defined, refused, zeros

from segedu.metrics.average_precision import (
    average_precision_11_point,
    average_precision_101_point,
    average_precision_area,
    match_detections,
    precision_recall_curve,
)

IOU, SCORES, NONE = torch.tensor([[0.9, 0.0]]), torch.tensor([0.9, 0.5]), torch.zeros(0)
HITS, NO_HITS, CURVE = torch.tensor([True, False]), torch.zeros(0).bool(), torch.tensor([1.0, 0.5])

ROWS = [
    refused(TypeError, "iou has type list", match_detections, [[0.9]]),
    refused(TypeError, "iou has dtype torch.bool", match_detections, IOU.bool()),
    refused(TypeError, "iou has dtype object", match_detections, np.array([["a"]], dtype=object)),
    refused(ValueError, "iou has shape (2,)", match_detections, SCORES),
    refused(ValueError, "iou has the value 1.8", match_detections, 2 * IOU),
    refused(ValueError, "iou has the value -0.9", match_detections, -IOU),
    refused(ValueError, "iou has the value nan", match_detections, NAN * IOU),
    refused(TypeError, "iscrowd has type list", match_detections, IOU, [False, True]),
    refused(TypeError, "iscrowd has dtype torch.float32", match_detections, IOU, IOU[0]),
    refused(ValueError, "iscrowd has shape (1,)", match_detections, IOU, HITS[:1]),
    refused(ValueError, "iscrowd has other values than 0 and 1", match_detections, IOU, zeros(2) + 2),
    refused(ValueError, "ignore has shape (1, 2)", match_detections, IOU, ignore=HITS[None]),
    refused(TypeError, "iou_threshold is '0.5'", match_detections, IOU, iou_threshold="0.5"),
    refused(TypeError, "iou_threshold is True", match_detections, IOU, iou_threshold=True),
    refused(ValueError, "iou_threshold is 0", match_detections, IOU, iou_threshold=0),
    refused(ValueError, "iou_threshold is 1.5", match_detections, IOU, iou_threshold=1.5),
    refused(ValueError, "iou_threshold is nan", match_detections, IOU, iou_threshold=NAN),
    defined(([-1, -1], [False, False]), match_detections, torch.zeros(2, 0)),
    defined(([], []), match_detections, torch.zeros(0, 3)),
    defined(([0], [True]), match_detections, np.array([[0.9, 0.0]]), np.array([1, 0])),
    refused(TypeError, "scores has type list", precision_recall_curve, [0.9, 0.5], HITS, 1),
    refused(ValueError, "scores has shape (1, 2)", precision_recall_curve, SCORES[None], HITS, 1),
    refused(ValueError, "scores contains NaN", precision_recall_curve, NAN * SCORES, HITS, 1),
    refused(TypeError, "matched has type list", precision_recall_curve, SCORES, [True, False], 1),
    refused(TypeError, "matched has dtype torch.float32", precision_recall_curve, SCORES, SCORES, 1),
    refused(ValueError, "matched has shape (0,)", precision_recall_curve, SCORES, NO_HITS, 1),
    refused(ValueError, "ignored has shape (0,)", precision_recall_curve, SCORES, HITS, 1, NO_HITS),
    refused(TypeError, "num_target is 1.0", precision_recall_curve, SCORES, HITS, 1.0),
    refused(TypeError, "num_target is True", precision_recall_curve, SCORES, HITS, True),
    refused(ValueError, "num_target is 0", precision_recall_curve, SCORES, HITS, 0),
    refused(ValueError, "num_target is -1", precision_recall_curve, NONE, NO_HITS, -1),
    defined(([], []), precision_recall_curve, NONE, NO_HITS, 3),
    defined(([0.0], [NAN]), precision_recall_curve, SCORES[:1], HITS[1:], 0),
    defined(([0.0], [0.0]), precision_recall_curve, SCORES, HITS, 1, HITS),
]
for function in (average_precision_11_point, average_precision_101_point, average_precision_area):
    ROWS += [
        refused(TypeError, "precision has type list", function, [1.0], CURVE),
        refused(TypeError, "recall has type list", function, CURVE, [0.5, 1.0]),
        refused(TypeError, "recall has dtype torch.bool", function, CURVE, HITS),
        refused(ValueError, "precision has shape (1, 2)", function, CURVE[None], CURVE),
        refused(ValueError, "recall has shape (1,)", function, CURVE, CURVE[:1]),
        refused(ValueError, "precision has the value 2", function, 2 * CURVE, CURVE),
        refused(ValueError, "precision has the value nan", function, NAN * CURVE, CURVE),
        refused(ValueError, "recall has the value -0.5", function, CURVE, CURVE - 1),
        refused(ValueError, "recall has the value nan", function, CURVE, torch.tensor([0.5, NAN])),
        refused(ValueError, "recall decreases", function, CURVE, CURVE),
        defined(0.0, function, NONE, NONE),
        defined(NAN, function, CURVE, NAN * CURVE),
        defined(1.0, function, np.ones(1), np.ones(1)),
    ]
