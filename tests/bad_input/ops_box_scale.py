"""Bad and empty input to `segedu.ops.box_scale`."""

import torch
from bad_input.rows import defined, refused

from segedu.ops.box_scale import extent, without_overflow

EMPTY = torch.zeros(0, 4)

ROWS = [
    refused(TypeError, "boxes is a list", without_overflow, [[0, 0, 2, 2]]),
    refused(TypeError, "boxes is a tensor of torch.int64", without_overflow, EMPTY.long()),
    refused(TypeError, "boxes is a tensor of torch.float16", without_overflow, EMPTY.half()),
    defined(EMPTY[None], without_overflow, EMPTY),
    defined([0, 0, 0], extent, EMPTY),
]
