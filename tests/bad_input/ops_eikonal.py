"""Bad and empty input to `segedu.ops.eikonal`."""

import numpy as np
from bad_input.rows import INF, NAN, defined, refused

from segedu.ops.eikonal import solve_eikonal

CELLS = np.array([[0, 2, 2, 2, 7, 7]])

ROWS = [
    refused(TypeError, "label_map has type list", solve_eikonal, [[0, 1]]),
    refused(TypeError, "label_map has dtype float64", solve_eikonal, CELLS * 1.0),
    refused(TypeError, "label_map has dtype bool", solve_eikonal, CELLS > 0),
    refused(ValueError, "label_map has shape (6,)", solve_eikonal, CELLS[0]),
    refused(ValueError, "label_map has shape (0, 6)", solve_eikonal, CELLS[:0]),
    refused(ValueError, "label_map has the label -1", solve_eikonal, CELLS - 1),
    *(refused(ValueError, f"tolerance is {bad}", solve_eikonal, CELLS, bad) for bad in (0, -1, NAN, INF)),
    refused(ValueError, "sweeps is 3", solve_eikonal, CELLS, sweeps=3),
    defined([[0, 0]], solve_eikonal, CELLS[:, :1].repeat(2, 1)),
    defined([[INF, INF]], solve_eikonal, CELLS[:, 1:3]),
    defined([[0, 1, 0]], solve_eikonal, np.array([[0, 9, 0]])),
]
