"""Bad and empty input to `segedu.ops.flows`."""

import torch
from bad_input.rows import INF, NAN, defined, refused, zeros

from segedu.ops.flows import drift, spread_heat

INSIDE, FLOWS, STARTS = torch.ones(2, 3).bool(), torch.zeros(2, 2, 3), zeros(2, 1)

ROWS = [
    refused(TypeError, "inside has dtype torch.float32", spread_heat, torch.zeros(2, 3), (0, 0), 1),
    refused(TypeError, "inside has type list", spread_heat, [[True]], (0, 0), 1),
    refused(ValueError, "inside has shape (3,)", spread_heat, INSIDE[0], (0, 0), 1),
    *(refused(ValueError, f"source is {bad}", spread_heat, INSIDE, bad, 1) for bad in ((2, 0), (0, -1), (0, 3))),
    refused(ValueError, "source is (0, 0)", spread_heat, ~INSIDE, (0, 0), 1),
    refused(ValueError, "inside has shape (0, 3)", spread_heat, INSIDE[:0], (0, 0), 1),
    refused(ValueError, "steps is -1", spread_heat, INSIDE, (0, 0), -1),
    defined([[0, 0, 0], [0, 0, 0]], spread_heat, INSIDE, (0, 0), 0),
    refused(TypeError, "flows has dtype torch.float64", drift, FLOWS.double(), STARTS, 1),
    refused(TypeError, "flows has type list", drift, [[0.0]], STARTS, 1),
    refused(TypeError, "starts has type list", drift, FLOWS, [[0], [0]], 1),
    refused(TypeError, "starts has dtype torch.bool", drift, FLOWS, STARTS.bool(), 1),
    refused(ValueError, "flows has shape (1, 2, 3)", drift, FLOWS[:1], STARTS, 1),
    refused(ValueError, "flows has shape (2, 0, 3)", drift, FLOWS[:, :0], STARTS, 1),
    *(refused(ValueError, f"flows has the value {bad}", drift, FLOWS + bad, STARTS, 1) for bad in (NAN, INF)),
    refused(ValueError, "starts has shape (1, 1)", drift, FLOWS, STARTS[:1], 1),
    *(refused(ValueError, "starts has a point outside", drift, FLOWS, STARTS + bad, 1) for bad in (-1, 2, NAN, INF)),
    refused(ValueError, "steps is -1", drift, FLOWS, STARTS, -1),
    defined([[0], [0]], drift, FLOWS + 1, STARTS, 0),
    defined(torch.zeros(2, 0), drift, FLOWS, STARTS[:, :0], 3),
    defined([[0], [0]], drift, FLOWS[:, :1, :1] + 1, STARTS, 3),
]
