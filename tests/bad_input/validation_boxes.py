"""Bad input to `segedu.validation.boxes`."""

import torch
from bad_input.rows import BOX, INF, NAN, defined, refused

from segedu.validation.boxes import (
    check_boxes,
    check_iou_threshold,
    check_labels,
    check_proposals,
    check_scores,
    extent,
    float_boxes,
)

IMAGES = torch.zeros(2, 3, 4, 4)

ROWS = [
    refused(TypeError, "boxes has type list, expected a tensor of shape (N, 4)", check_boxes, "boxes", [[0, 0, 1, 1]]),
    refused(TypeError, "boxes has dtype torch.bool", check_boxes, "boxes", BOX.bool()),
    refused(ValueError, "boxes has shape (4,), expected (N, 4)", check_boxes, "boxes", BOX[0]),
    refused(
        ValueError,
        "boxes[0] is [nan, nan, nan, nan], expected (x1, y1, x2, y2) with finite",
        check_boxes,
        "boxes",
        BOX * NAN,
    ),
    refused(
        ValueError, "boxes[0] is [0.0, 0.0, inf, 1.0], expected", check_boxes, "boxes", torch.tensor([[0.0, 0, INF, 1]])
    ),
    refused(
        ValueError,
        "boxes[0] is [3.0, 0.0, 2.0, 1.0], expected (x1, y1, x2, y2) with x1 <= x2",
        check_boxes,
        "boxes",
        torch.tensor([[3.0, 0, 2, 1]]),
    ),
    defined(torch.zeros(0, 4), check_boxes, "boxes", torch.zeros(0, 4)),
    defined(torch.tensor([[3.0, 0, 2, 1]]), float_boxes, "boxes", torch.tensor([[3, 0, 2, 1]])),
    defined((0.0, 0.0, 0.0), extent, torch.zeros(0, 4)),
    refused(TypeError, "scores has type float, expected a tensor of shape (1,)", check_scores, "scores", 0.5, 1),
    refused(TypeError, "scores has dtype torch.bool", check_scores, "scores", torch.zeros(1).bool(), 1),
    refused(ValueError, "scores has shape (2,), expected (1,)", check_scores, "scores", torch.zeros(2), 1),
    refused(ValueError, "scores contains NaN", check_scores, "scores", torch.zeros(1) * NAN, 1),
    refused(TypeError, "labels has dtype torch.float32, expected integers", check_labels, "labels", torch.zeros(1), 1),
    refused(ValueError, "labels has shape (1,), expected (2,)", check_labels, "labels", torch.zeros(1).long(), 2),
    refused(ValueError, "iou_threshold is 1.5", check_iou_threshold, "iou_threshold", 1.5),
    refused(ValueError, "proposals has 1 entries, expected 2", check_proposals, [BOX], IMAGES),
    refused(TypeError, "proposals[1] has type NoneType", check_proposals, [BOX, None], IMAGES),
]
