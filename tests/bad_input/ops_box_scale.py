"""Bad and empty input to `segedu.ops.box_scale`."""

import torch
from bad_input.rows import defined, refused

from segedu.ops.box_scale import without_overflow

EMPTY = torch.zeros(0, 4)

ROWS = [
    refused(TypeError, "boxes has type list", without_overflow, [[0, 0, 2, 2]]),
    refused(TypeError, "boxes has dtype torch.int64", without_overflow, EMPTY.long()),
    refused(TypeError, "boxes has dtype torch.float16", without_overflow, EMPTY.half()),
    defined(EMPTY[None], without_overflow, EMPTY),
]
