"""Bad and empty input to `segedu.ops.region_merging`."""

import numpy as np
from bad_input.rows import NAN, defined, refused

from segedu.ops.region_merging import merge_regions

WEIGHTS, ENDS = np.array([1.0, 2.0]), np.array([[0, 1], [1, 2]])

ROWS = [
    refused(ValueError, "weights and ends have shapes (2,) and (2,)", merge_regions, WEIGHTS, ENDS[0], 3, 1.0, 0),
    refused(ValueError, "weights and ends have shapes (1,) and (2, 2)", merge_regions, WEIGHTS[:1], ENDS, 3, 1.0, 0),
    refused(ValueError, "ends has nodes from 0 to 2", merge_regions, WEIGHTS, ENDS, 2, 1.0, 0),
    refused(ValueError, "ends has nodes from -1 to 1", merge_regions, WEIGHTS, ENDS - 1, 3, 1.0, 0),
    refused(ValueError, "weights is not in ascending order", merge_regions, WEIGHTS[::-1], ENDS, 3, 1.0, 0),
    refused(ValueError, "weights is not in ascending order", merge_regions, WEIGHTS * NAN, ENDS, 3, 1.0, 0),
    defined([0, 1, 2], merge_regions, WEIGHTS[:0], ENDS[:, :0], 3, 1.0, 0),
    defined(np.arange(0), merge_regions, WEIGHTS[:0], ENDS[:, :0], 0, 1.0, 0),
]
