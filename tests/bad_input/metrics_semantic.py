"""Bad and empty input to `segedu.metrics.semantic`."""

import torch
from bad_input.rows import ALL_IGNORED, HIGH, MAP, NAN, NEGATIVE, classes, defined, pairs, refused, zeros

from segedu.metrics import semantic

FROM_MAPS = {  # value where every pixel is ignored, with two classes
    semantic.pixel_accuracy: NAN,
    semantic.class_accuracy: [NAN, NAN],
    semantic.iou_per_class: [NAN, NAN],
    semantic.dice_per_class: [NAN, NAN],
    semantic.mean_iou: NAN,
    semantic.frequency_weighted_iou: NAN,
    semantic.present_classes: [False, False],
}
ROWS = [row for f in (*FROM_MAPS, semantic.mean_iou_per_image) for row in classes(f)]
for function, value in FROM_MAPS.items():
    twin = getattr(semantic, f"{function.__name__}_from_confusion")
    ROWS += [
        defined(value, function, ALL_IGNORED, ALL_IGNORED, 2, 255),
        defined(value, function, zeros(0, 3), zeros(0, 3), 2),
        defined(value, twin, zeros(2, 2)),
        refused(TypeError, "matrix has type list", twin, [[1, 0], [0, 1]]),
        refused(ValueError, "matrix has shape (2, 3)", twin, zeros(2, 3)),
        refused(ValueError, "matrix has shape (0, 0)", twin, zeros(0, 0)),
        refused(ValueError, "matrix has the value -1", twin, -torch.eye(2).long()),
    ]
ROWS += [
    defined(NAN, semantic.mean_iou_per_image, ALL_IGNORED, ALL_IGNORED, 2, 255),
    refused(ValueError, "target has shape (5,)", semantic.mean_iou_per_image, zeros(5), zeros(5), 2),
    refused(ValueError, "target has shape (0, 3)", semantic.mean_iou_per_image, zeros(0, 3), zeros(0, 3), 2),
    *(row for f in (semantic.binary_iou, semantic.binary_dice) for row in pairs(f)),
    refused(ValueError, "target has the value 7", semantic.binary_iou, MAP, HIGH),
    refused(ValueError, "preds has the value -1", semantic.binary_dice, NEGATIVE, MAP),
    defined(1.0, semantic.binary_iou, MAP, MAP),
    defined(1.0, semantic.binary_dice, zeros(0), zeros(0)),
]
