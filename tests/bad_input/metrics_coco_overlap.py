"""Bad and empty input to `segedu.metrics.coco_overlap`."""

import numpy as np
from bad_input.rows import NAN, defined, refused

from segedu.metrics.coco_overlap import PAIR, boundary_rle, box_pairs, mask_pairs, same_group_pairs

RUNS = {"size": [2, 3], "counts": [0, 6]}
GROUP, NO_GROUP, CROWD = np.array([4]), np.zeros(0, np.int64), np.array([False])
NONE = np.zeros(0, PAIR)
ROWS = []
for function, objects, empty in ((box_pairs, np.array([[0.0, 0, 1, 1]]), np.zeros((0, 4))), (mask_pairs, [RUNS], [])):
    words = ("pred_groups has 0 entries", "target_groups has 0 entries", "iscrowd has 0 entries")
    for place, text in zip((1, 3, 4), words, strict=True):
        arguments = [objects, GROUP, objects, GROUP, CROWD, 0.5]
        arguments[place] = arguments[place][:0]
        ROWS.append(refused(ValueError, text, function, *arguments))
    ROWS += [
        defined(NONE, function, empty, NO_GROUP, objects, GROUP, CROWD, 0.5),
        defined(NONE, function, objects, GROUP, empty, NO_GROUP, CROWD[:0], 0.5),
        defined(NONE, function, objects, GROUP, objects, GROUP + 1, CROWD, 0.5),
        defined(np.array([(0, 0, 1.0)], PAIR), function, objects, GROUP, objects, GROUP, CROWD, 1.0),
    ]
ROWS += [
    refused(ValueError, "groups1 has shape (1, 1)", same_group_pairs, GROUP[None], GROUP),
    refused(ValueError, "groups2 has shape ()", same_group_pairs, GROUP, GROUP[0]),
    defined(np.zeros((2, 0)), same_group_pairs, NO_GROUP, GROUP),
    refused(TypeError, "rle is []", boundary_rle, []),
    refused(ValueError, "rle has runs of 5 pixels", boundary_rle, {"size": [2, 3], "counts": [5]}),
    refused(ValueError, "dilation_ratio is -1", boundary_rle, RUNS, -1),
    refused(ValueError, "dilation_ratio is nan", boundary_rle, RUNS, NAN),
    defined({"size": [0, 3], "counts": b"0"}, boundary_rle, {"size": [0, 3], "counts": [0]}),
    refused(TypeError, "rle is 3", mask_pairs, [3], GROUP, [RUNS], GROUP, CROWD, 0.5),
]
