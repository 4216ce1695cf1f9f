"""Bad and empty input to `segedu.ops.label_maps`."""

from bad_input.rows import FLOATS, MAP, NEGATIVE, defined, refused, zeros

from segedu.ops.label_maps import drop_small_objects, relabel_by_occurrence, relabel_sequential

NO_MAPS = (
    (TypeError, "label_map has type list", [[0, 1]]),
    (TypeError, "label_map has dtype torch.float32", FLOATS),
    (TypeError, "label_map has dtype torch.bool", MAP.bool()),
    (TypeError, "label_map has dtype torch.complex64", MAP + 0j),
    (ValueError, "label_map has shape (3,)", zeros(3)),
    (ValueError, "label_map has shape (0, 3)", zeros(0, 3)),
    (ValueError, "label_map has the label -1", NEGATIVE),
)

ROWS = [
    *(
        refused(error, words, f, bad, *more)
        for f, more in ((relabel_sequential, ()), (drop_small_objects, (2,)))
        for error, words, bad in NO_MAPS
    ),
    refused(ValueError, "label_map has shape (2, 3)", relabel_sequential, MAP, (3,)),
    defined([[0, 0, 0], [0, 0, 0]], relabel_sequential, MAP),
    defined([[1]], relabel_sequential, zeros(1, 1) + 2**31 - 1),
    refused(TypeError, "labels has type list", relabel_by_occurrence, [1]),
    refused(TypeError, "labels has dtype torch.float32", relabel_by_occurrence, FLOATS),
    refused(ValueError, "labels has the label -1", relabel_by_occurrence, NEGATIVE),
    defined([], relabel_by_occurrence, zeros(0)),
    defined([1, 1], relabel_by_occurrence, zeros(2) + 2**31 - 1),
    defined([[0, 0, 0], [0, 0, 0]], drop_small_objects, MAP, 100),
    defined([[1, 1, 1], [1, 1, 1]], drop_small_objects, MAP + 8, 0),
    defined([[0, 0, 0], [0, 0, 0]], drop_small_objects, MAP + 8, 7),
]
