"""Bad and empty input to `segedu.ops.colour`."""

import numpy as np
import torch
from bad_input.rows import NAN, defined, refused

from segedu.ops.colour import rgb_to_hsv, rgb_to_lab

IMAGE = torch.zeros(3, 2, 2)

ROWS = [
    row
    for f in (rgb_to_lab, rgb_to_hsv)
    for row in (
        refused(TypeError, "image has type ndarray", f, np.zeros((3, 2, 2))),
        refused(TypeError, "image has dtype torch.uint8", f, IMAGE.byte()),
        refused(ValueError, "image has shape (2, 2, 3)", f, torch.zeros(2, 2, 3)),
        refused(ValueError, "image has shape (3, 2)", f, IMAGE[0, :1].expand(3, 2)),
        refused(ValueError, "image has values outside", f, IMAGE + 2),
        refused(ValueError, "image has values outside", f, IMAGE - 1),
        refused(ValueError, "image has values outside", f, IMAGE * NAN),
        defined(torch.zeros(3, 0, 4), f, torch.zeros(3, 0, 4)),
        defined(IMAGE, f, IMAGE),
    )
]
ROWS += []
