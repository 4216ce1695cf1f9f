"""Bad and empty input to `segedu.ops.roi_pool`."""

import numpy as np
import torch
from bad_input.rows import BOX, INF, NAN, defined, refused, zeros

from segedu.ops.roi_pool import check_regions, roi_pool

FEATURES, NONE = torch.ones(1, 2, 3, 4), torch.zeros(0, 4)


def regions(function, *more):
    """What every function of (features, boxes, output_size, spatial_scale) refuses."""
    arguments = (FEATURES, [BOX], 2, 1.0)

    def bad(index, value):
        return (*arguments[:index], value, *arguments[index + 1 :], *more)

    return [
        refused(TypeError, "features has type ndarray", function, *bad(0, np.ones((1, 2, 3, 4)))),
        refused(TypeError, "features has dtype torch.int64", function, *bad(0, FEATURES.long())),
        refused(ValueError, "features has shape (2, 3, 4)", function, *bad(0, FEATURES[0])),
        refused(ValueError, "features has shape (1, 2, 0, 4)", function, *bad(0, FEATURES[:, :, :0])),
        refused(ValueError, "features has shape (0, 2, 3, 4)", function, *bad(0, FEATURES[:0])),
        refused(TypeError, "boxes has type Tensor", function, *bad(1, BOX)),
        refused(ValueError, "boxes has 2 entries", function, *bad(1, [BOX, BOX])),
        refused(ValueError, "boxes has 0 entries", function, *bad(1, [])),
        refused(TypeError, "boxes[0] has type list", function, *bad(1, [[0, 0, 1, 1]])),
        refused(TypeError, "boxes[0] has dtype torch.bool", function, *bad(1, [zeros(1, 4).bool()])),
        refused(ValueError, "boxes[0] has shape (1, 5)", function, *bad(1, [torch.zeros(1, 5)])),
        refused(ValueError, "boxes[0][0] is [2.0, 2.0, 0.0, 0.0]", function, *bad(1, [BOX.flip(1)])),
        refused(ValueError, "boxes[0][0] is [nan", function, *bad(1, [NAN * BOX])),
        *(refused(ValueError, f"output_size is ({value}, {value})", function, *bad(2, value)) for value in (0, -1)),
        *(refused(TypeError, f"output_size is {value}", function, *bad(2, value)) for value in ((2,), (2, 2, 2))),
        refused(TypeError, "output_size is (2.0, 2.0)", function, *bad(2, 2.0)),
        refused(ValueError, "output_size is (2, 0)", function, *bad(2, (2, 0))),
        *(refused(ValueError, f"spatial_scale is {value}", function, *bad(3, value)) for value in (0, -1, NAN, INF)),
    ]


ROWS = [
    *regions(roi_pool),
    *regions(check_regions),
    defined(torch.zeros(0, 2, 7, 7), roi_pool, FEATURES, [NONE], 7),
    defined(torch.zeros(1, 2, 1, 1), roi_pool, FEATURES, [BOX + 9], 1),
]
