"""Bad and empty input to `segedu.ops.matching`."""

import torch
from bad_input.rows import FLOATS, INF, NAN, defined, refused

from segedu.ops.matching import hungarian_matching

ROWS = [
    refused(TypeError, "cost has type list", hungarian_matching, [[1.0]]),
    refused(TypeError, "cost has dtype torch.bool", hungarian_matching, FLOATS.bool()),
    refused(ValueError, "cost has shape (3,)", hungarian_matching, FLOATS[0]),
    refused(ValueError, "cost contains NaN or infinity", hungarian_matching, NAN + FLOATS),
    refused(ValueError, "cost contains NaN or infinity", hungarian_matching, INF + FLOATS),
    defined(([], []), hungarian_matching, FLOATS[:0]),
    defined(([], []), hungarian_matching, torch.zeros(3, 0)),
]
