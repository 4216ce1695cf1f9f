"""Bad and empty input to `segedu.losses.boxes`."""

import numpy as np
import torch
from bad_input.rows import BOX, INF, NAN, defined, refused, zeros

from segedu.losses.boxes import (
    complete_iou_loss,
    distance_iou_loss,
    generalized_iou_loss,
    iou_box_loss,
    lp_iou_loss,
)

LOSSES = (iou_box_loss, generalized_iou_loss, distance_iou_loss, complete_iou_loss, lp_iou_loss)

ROWS = [
    row
    for function in LOSSES
    for arguments, name in ((lambda bad: (bad, BOX), "boxes"), (lambda bad: (BOX, bad), "target"))
    for row in (
        refused(TypeError, f"{name} has type list", function, *arguments([[0, 0, 2, 2]])),
        refused(TypeError, f"{name} has type ndarray", function, *arguments(np.zeros((1, 4)))),
        refused(TypeError, f"{name} has dtype torch.bool", function, *arguments(zeros(1, 4).bool())),
        refused(TypeError, f"{name} has dtype torch.complex64", function, *arguments(BOX.to(torch.complex64))),
        refused(ValueError, f"{name} has shape (4,)", function, *arguments(BOX[0])),
        refused(ValueError, f"{name} has shape (1, 5)", function, *arguments(torch.zeros(1, 5))),
        refused(ValueError, f"{name} has shape (0,)", function, *arguments(torch.zeros(0))),
        refused(ValueError, f"{name}[0] is [2.0, 0.0, 1.0, 2.0]", function, *arguments(torch.tensor([[2.0, 0, 1, 2]]))),
        refused(ValueError, f"{name}[0] is [0.0, 3.0, 1.0, 2.0]", function, *arguments(torch.tensor([[0.0, 3, 1, 2]]))),
        refused(ValueError, f"{name}[0] is [0.0, 0.0, nan, 2.0]", function, *arguments(torch.tensor([[0, 0, NAN, 2]]))),
        refused(ValueError, f"{name}[0] is [0.0, 0.0, inf, 2.0]", function, *arguments(torch.tensor([[0, 0, INF, 2]]))),
    )
]
ROWS += [
    row
    for function in LOSSES
    for row in (
        refused(TypeError, "boxes has dtype torch.int64", function, BOX.long(), BOX),
        refused(
            ValueError, "target has shape (2, 4), expected (N, 4) with N = 1", function, BOX, torch.cat([BOX, BOX])
        ),
        refused(ValueError, "reduction is 'average'", function, BOX, BOX, reduction="average"),
        defined(torch.tensor(0.0), function, BOX, BOX.long()),
        defined(torch.tensor(0.0), function, torch.zeros(0, 4), torch.zeros(0, 4)),
        defined(torch.zeros(0), function, torch.zeros(0, 4), torch.zeros(0, 4), reduction="none"),
        defined(torch.tensor(1.0), function, BOX[:, [0, 0, 0, 0]], BOX[:, [0, 0, 0, 0]]),
    )
]
ROWS += [
    refused(TypeError, "p is ", lp_iou_loss, BOX, BOX, p="1"),
    refused(ValueError, "p is 0.5", lp_iou_loss, BOX, BOX, p=0.5),
    refused(ValueError, "p is nan", lp_iou_loss, BOX, BOX, p=NAN),
    refused(TypeError, "weight is ", lp_iou_loss, BOX, BOX, weight=True),
    refused(ValueError, "weight is -1", lp_iou_loss, BOX, BOX, weight=-1),
]
