"""Bad and empty input to `segedu.metrics.boundary`."""

import torch
from bad_input.rows import FLOATS, HIGH, INF, MAP, NAN, defined, pairs, refused, zeros

from segedu.metrics.boundary import (
    average_surface_distance,
    boundary_f1,
    boundary_iou,
    hausdorff_distance_95,
    mask_boundary,
)

ROWS = [
    *pairs(boundary_f1, 1),
    refused(ValueError, "target has shape (1, 2, 3)", boundary_f1, MAP[None], MAP[None], 1),
    refused(ValueError, "preds has the value 7", boundary_f1, HIGH, MAP, 1),
    refused(ValueError, "tolerance is -1", boundary_f1, MAP, MAP, -1),
    refused(ValueError, "tolerance is nan", boundary_f1, MAP, MAP, NAN),
    refused(TypeError, "tolerance is '1'", boundary_f1, MAP, MAP, "1"),
    refused(TypeError, "tolerance is True", boundary_f1, MAP, MAP, True),
    defined(1.0, boundary_f1, MAP, MAP, 1),
    defined(0.0, boundary_f1, MAP, torch.eye(2, 3).long(), 1),
    defined(1.0, boundary_f1, MAP, torch.ones(2, 3).long(), 1),
    refused(ValueError, "mask has shape (3,)", mask_boundary, zeros(3)),
    refused(TypeError, "mask has dtype torch.float32", mask_boundary, FLOATS),
    refused(ValueError, "mask has the value 7", mask_boundary, HIGH),
    defined([[False] * 3] * 2, mask_boundary, torch.ones(2, 3).bool()),
]
ROWS += [
    *pairs(boundary_iou),
    refused(ValueError, "target has shape (3,)", boundary_iou, MAP[0], MAP[0]),
    refused(ValueError, "target has shape (1, 2, 3)", boundary_iou, MAP[None], MAP[None]),
    refused(ValueError, "target has the value 7", boundary_iou, MAP, HIGH),
    refused(TypeError, "dilation_ratio is '0.02'", boundary_iou, MAP, MAP, "0.02"),
    *(refused(ValueError, f"dilation_ratio is {ratio}", boundary_iou, MAP, MAP, ratio) for ratio in (0, NAN, INF)),
    defined(1.0, boundary_iou, MAP, MAP),
    defined(0.0, boundary_iou, MAP, MAP + 1),
]
for function in (hausdorff_distance_95, average_surface_distance):
    ROWS += [
        *pairs(function),
        refused(ValueError, "target has shape (3,)", function, MAP[0], MAP[0]),
        refused(ValueError, "target has shape (1, 1, 2, 3)", function, MAP[None, None], MAP[None, None]),
        refused(ValueError, "target has the value 7", function, MAP, HIGH),
        refused(TypeError, "spacing is '1'", function, MAP, MAP, "1"),
        refused(TypeError, "spacing is None", function, MAP, MAP, (1.0, None)),
        *(refused(ValueError, "spacing is", function, MAP, MAP, value) for value in (0, NAN, INF, (1, 1, 1), [])),
        defined(0.0, function, MAP, MAP),
        defined(INF, function, MAP, MAP + 1),
        defined(0.0, function, MAP + 1, MAP + 1),
    ]
