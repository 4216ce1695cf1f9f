"""Bad and empty input to `segedu.metrics.boundary`."""

import torch
from bad_input.rows import FLOATS, HIGH, MAP, NAN, defined, pairs, refused, zeros

from segedu.metrics.boundary import boundary_f1, mask_boundary

ROWS = [
    *pairs(boundary_f1, 1),
    refused(ValueError, "target has shape (1, 2, 3)", boundary_f1, MAP[None], MAP[None], 1),
    refused(ValueError, "preds has the value 7", boundary_f1, HIGH, MAP, 1),
    refused(ValueError, "tolerance is -1", boundary_f1, MAP, MAP, -1),
    refused(ValueError, "tolerance is nan", boundary_f1, MAP, MAP, NAN),
    refused(TypeError, "tolerance is a str", boundary_f1, MAP, MAP, "1"),
    refused(TypeError, "tolerance is a bool", boundary_f1, MAP, MAP, True),
    defined(1.0, boundary_f1, MAP, MAP, 1),
    defined(0.0, boundary_f1, MAP, torch.eye(2, 3).long(), 1),
    defined(1.0, boundary_f1, MAP, torch.ones(2, 3).long(), 1),
    refused(ValueError, "mask has shape (3,)", mask_boundary, zeros(3)),
    refused(TypeError, "mask has dtype torch.float32", mask_boundary, FLOATS),
    refused(ValueError, "mask has the value 7", mask_boundary, HIGH),
    defined([[False] * 3] * 2, mask_boundary, torch.ones(2, 3).bool()),
]
