"""Bad and empty input to `segedu.ops.roi_align`."""

import torch
from bad_input.ops_roi_pool import regions
from bad_input.rows import BOX, defined, refused

from segedu.ops.roi_align import roi_align

FEATURES = torch.ones(1, 2, 3, 4)

ROWS = [
    *regions(roi_align),
    *regions(roi_align, 2, True),
    refused(TypeError, "sampling_ratio is 2.0", roi_align, FEATURES, [BOX], 7, 1.0, 2.0),
    refused(TypeError, "sampling_ratio is None", roi_align, FEATURES, [BOX], 7, 1.0, None),
    defined(torch.zeros(0, 2, 7, 7), roi_align, FEATURES, [BOX[:0]], 7),
    defined(torch.zeros(1, 2, 2, 2), roi_align, FEATURES, [BOX + 9], 2),
    defined(torch.zeros(1, 2, 2, 2), roi_align, FEATURES, [BOX[:, [0, 0, 0, 0]]], 2, 1.0, -1, True),
]
