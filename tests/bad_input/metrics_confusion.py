"""Bad and empty input to `segedu.metrics.confusion`."""

from bad_input.rows import ALL_IGNORED, FLOATS, HIGH, MAP, classes, defined, pairs, refused, zeros

from segedu.metrics.confusion import (
    ConfusionMatrix,
    as_mask,
    confusion_matrix,
    label_overlaps,
    label_pair,
    mask_pair,
)

ROWS = [
    *classes(confusion_matrix),
    defined([[0, 0], [0, 0]], confusion_matrix, ALL_IGNORED, ALL_IGNORED, 2, 255),
    defined([[0]], confusion_matrix, zeros(0), zeros(0), 1),
    refused(TypeError, "num_classes is '2'", ConfusionMatrix, "2"),
    refused(ValueError, "num_classes is -1", ConfusionMatrix, -1),
    refused(TypeError, "other has type Tensor", ConfusionMatrix(2).merge, zeros(2, 2)),
    refused(
        ValueError, "other has (num_classes, ignore_index) (3, None)", ConfusionMatrix(2).merge, ConfusionMatrix(3)
    ),
    refused(
        ValueError, "other has (num_classes, ignore_index) (2, 0)", ConfusionMatrix(2).merge, ConfusionMatrix(2, 0)
    ),
    *pairs(ConfusionMatrix(2).update),
    *pairs(label_pair),
    *pairs(mask_pair),
    refused(ValueError, "target has the value 7", mask_pair, MAP, HIGH),
    refused(TypeError, "mask has dtype torch.float32", as_mask, FLOATS),
    refused(ValueError, "mask has the value 7", as_mask, HIGH),
]
ROWS += [
    *pairs(label_overlaps),
    refused(ValueError, "preds has the label -1", label_overlaps, zeros(2, 3) - 1, zeros(2, 3)),
    defined([[], [], []], label_overlaps, zeros(0, 3), zeros(0, 3)),
    defined([[0], [0], [6]], label_overlaps, zeros(2, 3), zeros(2, 3)),
]
