"""Bad and empty input to `segedu.metrics.tracking`."""

import math

import numpy as np
import torch
from bad_input.rows import defined, refused

from segedu.metrics.tracking import (
    CellTrackingMetrics,
    detection_accuracy,
    graph_operations,
    segmentation_accuracy,
    tracking_accuracy,
)

CELL = torch.tensor([[1, 1, 0]])
MAPS, TRACKS = [CELL, CELL], torch.tensor([[1, 0, 1, 0]])
NOTHING, NO_TRACKS = [0 * CELL, 0 * CELL], TRACKS[:0]


def maps(function, *more):
    return [
        refused(TypeError, "preds has type NoneType", function, None, MAPS, *more),
        refused(TypeError, "target has type str", function, MAPS, "ab", *more),
        refused(TypeError, "preds has dtype torch.float32", function, [CELL.float()] * 2, MAPS, *more),
        refused(TypeError, "preds has type list", function, [[[1, 1, 0]]] * 2, MAPS, *more),
        refused(ValueError, "preds has 1 entries", function, MAPS[:1], MAPS, *more),
        refused(ValueError, "preds has shape (3, 1)", function, [CELL.T] * 2, MAPS, *more),
        refused(ValueError, "target[0] has shape (3,)", function, CELL.repeat(2, 1), CELL.repeat(2, 1), *more),
        refused(ValueError, "target has the label -1", function, MAPS, [-CELL, -CELL], *more),
    ]


def tables(function):
    return [
        refused(TypeError, "pred_tracks has type list", function, MAPS, MAPS, [[1, 0, 1, 0]], TRACKS),
        refused(TypeError, "target_tracks has type NoneType", function, MAPS, MAPS, TRACKS, None),
        refused(TypeError, "pred_tracks has dtype torch.float32", function, MAPS, MAPS, TRACKS.float(), TRACKS),
        refused(TypeError, "pred_tracks has dtype torch.float64", function, MAPS, MAPS, np.zeros((1, 4)), TRACKS),
        refused(ValueError, "pred_tracks has shape (4,)", function, MAPS, MAPS, TRACKS[0], TRACKS),
        refused(ValueError, "pred_tracks has shape (1, 3)", function, MAPS, MAPS, TRACKS[:, :3], TRACKS),
        refused(ValueError, "pred_tracks has 2 tracks", function, MAPS, MAPS, TRACKS.repeat(2, 1), TRACKS),
        *(
            refused(ValueError, f"pred_tracks has the row {row}", function, MAPS, MAPS, torch.tensor([row]), TRACKS)
            for row in ([1, 1, 0, 0], [1, 0, 2, 0], [1, -1, 1, 0], [0, 0, 1, 0])
        ),
        refused(ValueError, "pred_tracks has the parent 9", function, MAPS, MAPS, torch.tensor([[1, 0, 1, 9]]), TRACKS),
        refused(ValueError, "pred_tracks has the parent 1", function, MAPS, MAPS, torch.tensor([[1, 0, 1, 1]]), TRACKS),
        refused(
            ValueError, "pred_tracks: frame 1, label 1", function, MAPS, MAPS, torch.tensor([[1, 0, 0, 0]]), TRACKS
        ),
        refused(ValueError, "target_tracks: frame 0, label 1", function, NOTHING, NOTHING, NO_TRACKS, TRACKS),
    ]


ROWS = []
for function in (tracking_accuracy, graph_operations, CellTrackingMetrics().update):
    ROWS += maps(function, TRACKS, TRACKS) + tables(function)
ROWS += [
    *maps(segmentation_accuracy),
    *maps(detection_accuracy),
    defined(math.nan, segmentation_accuracy, MAPS, NOTHING),
    defined(math.nan, segmentation_accuracy, [], []),
    defined(0, segmentation_accuracy, NOTHING, MAPS),
    defined(1, detection_accuracy, NOTHING, NOTHING),
    defined(0, detection_accuracy, MAPS, NOTHING),
    defined(1, tracking_accuracy, NOTHING, NOTHING, NO_TRACKS, NO_TRACKS),
    defined(0, tracking_accuracy, NOTHING, MAPS, NO_TRACKS, TRACKS),
    refused(ValueError, "segmentations has", CellTrackingMetrics().update, MAPS, MAPS, TRACKS, TRACKS, {5: CELL}),
    refused(TypeError, "other has type dict", CellTrackingMetrics().merge, {}),
]
