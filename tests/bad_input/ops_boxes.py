"""Bad and empty input to `segedu.ops.boxes`."""

import numpy as np
import torch
from bad_input.rows import BOX, INF, NAN, defined, refused, zeros

from segedu.ops import boxes as ops
from segedu.ops.boxes import box_area, box_iou, generalized_box_iou

PAIRWISE = (box_iou, generalized_box_iou, ops.distance_box_iou, ops.complete_box_iou)

ROWS = [
    row
    for function, arguments, name in (
        *((f, lambda bad: (bad,), "boxes") for f in (box_area, ops.xyxy_to_xywh, ops.xyxy_to_cxcywh)),
        (ops.clip_boxes, lambda bad: (bad, (4, 5)), "boxes"),
        *((f, lambda bad: (bad, BOX), "boxes1") for f in PAIRWISE),
        *((f, lambda bad: (BOX, bad), "boxes2") for f in PAIRWISE),
    )
    for row in (
        refused(TypeError, f"{name} has type list", function, *arguments([[0, 0, 2, 2]])),
        refused(TypeError, f"{name} has type ndarray", function, *arguments(np.zeros((1, 4)))),
        refused(TypeError, f"{name} has dtype torch.bool", function, *arguments(zeros(1, 4).bool())),
        refused(TypeError, f"{name} has dtype torch.complex64", function, *arguments(BOX.to(torch.complex64))),
        refused(ValueError, f"{name} has shape (4,)", function, *arguments(BOX[0])),
        refused(ValueError, f"{name} has shape (1, 5)", function, *arguments(torch.zeros(1, 5))),
        refused(ValueError, f"{name} has shape (1, 1, 4)", function, *arguments(BOX[None])),
        refused(ValueError, f"{name} has shape (0,)", function, *arguments(torch.zeros(0))),
        refused(ValueError, f"{name}[0] is [2.0, 0.0, 1.0, 2.0]", function, *arguments(torch.tensor([[2.0, 0, 1, 2]]))),
        refused(ValueError, f"{name}[0] is [0.0, 3.0, 1.0, 2.0]", function, *arguments(torch.tensor([[0.0, 3, 1, 2]]))),
        refused(ValueError, f"{name}[0] is [0.0, 0.0, nan, 2.0]", function, *arguments(torch.tensor([[0, 0, NAN, 2]]))),
        refused(ValueError, f"{name}[0] is [0.0, 0.0, inf, 2.0]", function, *arguments(torch.tensor([[0, 0, INF, 2]]))),
    )
] + [
    defined(torch.zeros(0), box_area, torch.zeros(0, 4)),
    defined(torch.zeros(0, 1), box_iou, torch.zeros(0, 4), BOX),
    defined(torch.zeros(1, 0), generalized_box_iou, BOX, torch.zeros(0, 4)),
    defined(torch.tensor([[0.0]]), box_iou, BOX[:, [0, 0, 0, 0]], BOX[:, [0, 0, 0, 0]]),
    defined(torch.tensor([[0.0]]), generalized_box_iou, BOX[:, [0, 0, 0, 0]], BOX[:, [0, 0, 0, 0]]),
    defined(torch.tensor([4.0]), box_area, BOX.long()),
]
for function in (ops.xywh_to_xyxy, ops.cxcywh_to_xyxy):
    ROWS += [
        refused(TypeError, "boxes has type list", function, [[0, 0, 2, 2]]),
        refused(TypeError, "boxes has dtype torch.bool", function, zeros(1, 4).bool()),
        refused(ValueError, "boxes has shape (4,)", function, BOX[0]),
        refused(
            ValueError, "boxes[1] is [0.0, 0.0, -1.0, 2.0]", function, torch.tensor([[0.0, 0, 1, 1], [0, 0, -1, 2]])
        ),
        refused(ValueError, "boxes[0] is [nan", function, NAN * BOX),
        defined(torch.zeros(0, 4), function, torch.zeros(0, 4)),
    ]
ROWS += [
    defined(torch.zeros(0, 4), ops.xyxy_to_xywh, torch.zeros(0, 4)),
    defined([[0, 0, 0, 0]], ops.clip_boxes, BOX - 9, (4, 5)),
    refused(ValueError, "size is (4,)", ops.clip_boxes, BOX, (4,)),
    refused(ValueError, "size is (-1, 5)", ops.clip_boxes, BOX, (-1, 5)),
]
