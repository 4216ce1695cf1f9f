"""Bad and empty input to `segedu.metrics.instance`."""

import torch
from bad_input.rows import HIGH, MAP, NAN, NEGATIVE, defined, pairs, refused, zeros

from segedu.metrics.instance import InstanceMetrics, instance_accuracy, instance_metrics, label_map_iou, match_instances


def counts_of_update(preds, target):
    total = InstanceMetrics([0.5])
    total.update(preds, target)
    return total.compute()["false_negative"]


ROWS = []
for function, two_empty in ((instance_accuracy, 1.0), (match_instances, (0, 0, 0))):
    ROWS += [
        *pairs(function),
        refused(ValueError, "preds has the label -1", function, NEGATIVE, MAP),
        refused(ValueError, "iou_threshold is 0", function, MAP, MAP, 0),
        refused(ValueError, "iou_threshold is 1.5", function, MAP, MAP, 1.5),
        refused(ValueError, "iou_threshold is nan", function, MAP, MAP, NAN),
        refused(TypeError, "iou_threshold is '0.5'", function, MAP, MAP, "0.5"),
        defined(two_empty, function, MAP, MAP),
        defined(two_empty, function, zeros(0, 4), zeros(0, 4)),
    ]
ROWS += [
    *pairs(label_map_iou),
    refused(ValueError, "target has the label -1", label_map_iou, MAP, NEGATIVE),
    defined(torch.zeros(0, 1).double(), label_map_iou, MAP, HIGH),
    *pairs(instance_metrics),
    refused(ValueError, "target has the label -1", instance_metrics, MAP, NEGATIVE),
    refused(ValueError, "iou_thresholds[1] is 1.5", instance_metrics, MAP, MAP, [0.5, 1.5]),
    *pairs(InstanceMetrics([0.5]).update),
    refused(TypeError, "iou_thresholds has type float", InstanceMetrics, 0.5),
    refused(TypeError, "iou_thresholds has type str", InstanceMetrics, "0.5"),
    refused(ValueError, "iou_thresholds is empty", InstanceMetrics, []),
    refused(ValueError, "iou_thresholds[0] is 0", InstanceMetrics, [0]),
    refused(ValueError, "iou_thresholds[1] is nan", InstanceMetrics, [0.5, NAN]),
    refused(TypeError, "iou_thresholds[0] is True", InstanceMetrics, [True]),
    refused(TypeError, "iou_thresholds[0] is '0.5'", InstanceMetrics, ["0.5"]),
    refused(TypeError, "other has type dict", InstanceMetrics().merge, {}),
    refused(ValueError, "other has iou_thresholds (0.5,)", InstanceMetrics().merge, InstanceMetrics([0.5])),
    defined([0], counts_of_update, MAP, MAP),
    defined([1], counts_of_update, MAP, HIGH),
]
