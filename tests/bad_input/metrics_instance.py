"""Bad and empty input to `segedu.metrics.instance`."""

import torch
from bad_input.rows import HIGH, MAP, NAN, NEGATIVE, defined, pairs, refused, zeros

from segedu.metrics.instance import instance_accuracy, label_map_iou, match_instances

ROWS = []
for function, two_empty in ((instance_accuracy, 1.0), (match_instances, (0, 0, 0))):
    ROWS += [
        *pairs(function),
        refused(ValueError, "preds has the label -1", function, NEGATIVE, MAP),
        refused(ValueError, "iou_threshold is 0", function, MAP, MAP, 0),
        refused(ValueError, "iou_threshold is 1.5", function, MAP, MAP, 1.5),
        refused(ValueError, "iou_threshold is nan", function, MAP, MAP, NAN),
        refused(TypeError, "iou_threshold is a str", function, MAP, MAP, "0.5"),
        defined(two_empty, function, MAP, MAP),
        defined(two_empty, function, zeros(0, 4), zeros(0, 4)),
    ]
ROWS += [
    *pairs(label_map_iou),
    refused(ValueError, "target has the label -1", label_map_iou, MAP, NEGATIVE),
    defined(torch.zeros(0, 1).double(), label_map_iou, MAP, HIGH),
]
