"""Bad input to `segedu.ops.compiled`."""

import numpy as np
import torch
from bad_input.rows import defined, refused

from segedu.ops.compiled import compiled, float64_array

ROWS = [
    refused(TypeError, "kernel has type int", compiled, 3),
    refused(TypeError, "kernel has type type", compiled, int),
    defined(np.zeros((0, 2)), float64_array, torch.zeros(0, 2)),
    defined(np.array([np.nan]), float64_array, torch.tensor([np.nan])),
]
