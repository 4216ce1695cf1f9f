"""Bad and empty input to `segedu.ops.max_flow`."""

import numpy as np
from bad_input.rows import defined, refused

from segedu.ops.max_flow import Grid, empty_grid, pair_slices, source_side

TERMINALS, WEIGHTS = np.zeros((2, 3), np.int64), np.zeros((4, 2, 3), np.int64)
NOTHING = empty_grid(np.zeros((0, 3), np.int64), np.zeros((4, 0, 3), np.int64))

ROWS = [
    refused(ValueError, "height, width and dy are (-1, 3, 0)", pair_slices, -1, 3, 0, 1),
    refused(ValueError, "height, width and dy are (2, 3, -1)", pair_slices, 2, 3, -1, 1),
    refused(TypeError, "terminals has dtype float64", empty_grid, TERMINALS + 0.5, WEIGHTS),
    refused(TypeError, "weights has dtype bool", empty_grid, TERMINALS, WEIGHTS > 0),
    refused(ValueError, "terminals and weights have shapes (3,) and (4, 2, 3)", empty_grid, TERMINALS[0], WEIGHTS),
    refused(
        ValueError, "terminals and weights have shapes (2, 3) and (4, 2, 2)", empty_grid, TERMINALS, WEIGHTS[..., 1:]
    ),
    refused(ValueError, "terminals and weights have shapes (2, 3) and (0, 2, 3)", empty_grid, TERMINALS, WEIGHTS[:0]),
    refused(ValueError, "weights has the value -1", empty_grid, TERMINALS, WEIGHTS - 1),
    refused(ValueError, "grid has arrays of shapes (4, 2, 3) and (2, 3)", source_side, Grid(WEIGHTS, TERMINALS)),
    refused(ValueError, "grid has arrays of shapes (2, 3) and (2, 3)", source_side, Grid(TERMINALS, TERMINALS)),
    defined(np.zeros((0, 3), bool), source_side, NOTHING),
    defined(np.zeros((2, 3), bool), source_side, empty_grid(TERMINALS, WEIGHTS)),
]
ROWS += [defined((WEIGHTS, WEIGHTS), Grid, WEIGHTS, WEIGHTS)]
