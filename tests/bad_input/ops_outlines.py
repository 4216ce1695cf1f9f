"""Bad and empty input to `segedu.ops.outlines`."""

import torch
from bad_input.rows import defined, refused

from segedu.ops import outlines as ops

MASK = torch.ones(2, 3).bool()

ROWS = [
    refused(TypeError, "mask has type list", ops.mask_outlines, [[True]]),
    refused(TypeError, "mask has dtype torch.int64", ops.mask_outlines, MASK.long()),
    refused(ValueError, "mask has shape (1, 2, 3)", ops.mask_outlines, MASK[None]),
    defined([], ops.mask_outlines, ~MASK),
    defined([], ops.mask_outlines, MASK[:0]),
]
