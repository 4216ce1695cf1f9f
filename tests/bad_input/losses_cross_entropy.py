"""Bad and empty input to `segedu.losses.cross_entropy`."""

import torch
from bad_input.rows import ALL_IGNORED, LOGITS, NAN, TARGET, defined, logits_and_target, refused

from segedu.losses.cross_entropy import binary_cross_entropy, cross_entropy

WEIGHTS = torch.ones(1, 4, 5)

ROWS = [
    *logits_and_target(cross_entropy),
    refused(ValueError, "target has the value 255", cross_entropy, LOGITS, ALL_IGNORED, ignore_index=None),
    refused(ValueError, "reduction is 'avg'", cross_entropy, LOGITS, TARGET, reduction="avg"),
    refused(TypeError, "class_weights has type list", cross_entropy, LOGITS, TARGET, class_weights=[1.0, 2.0]),
    refused(ValueError, "class_weights has shape (3,)", cross_entropy, LOGITS, TARGET, class_weights=torch.ones(3)),
    refused(ValueError, "class_weights has a negative", cross_entropy, LOGITS, TARGET, class_weights=-torch.ones(2)),
    refused(ValueError, "pixel_weights has shape (4, 5)", cross_entropy, LOGITS, TARGET, pixel_weights=WEIGHTS[0]),
    refused(
        ValueError,
        "pixel_weights has a negative, infinite or NaN",
        cross_entropy,
        LOGITS,
        TARGET,
        pixel_weights=NAN * WEIGHTS,
    ),
    defined(0.0, cross_entropy, LOGITS, ALL_IGNORED),
    defined(0.0, cross_entropy, LOGITS, ALL_IGNORED, reduction="sum"),
    defined(0 * WEIGHTS, cross_entropy, LOGITS, ALL_IGNORED, reduction="none"),
    defined(0.0, cross_entropy, LOGITS, TARGET, pixel_weights=0 * WEIGHTS),
    refused(TypeError, "logits has type list", binary_cross_entropy, [0.0], TARGET),
    refused(TypeError, "logits has dtype torch.bool", binary_cross_entropy, TARGET.bool(), TARGET),
    refused(ValueError, "logits has shape (0, 4, 5)", binary_cross_entropy, WEIGHTS[:0], TARGET[:0]),
    refused(TypeError, "target has type ndarray", binary_cross_entropy, WEIGHTS, TARGET.numpy()),
    refused(ValueError, "target has shape (1, 1, 4, 5)", binary_cross_entropy, WEIGHTS, TARGET[None]),
    refused(ValueError, "target has the value 2", binary_cross_entropy, WEIGHTS, TARGET + 2),
    refused(ValueError, "target has the value -0.5", binary_cross_entropy, WEIGHTS, WEIGHTS - 1.5),
    refused(ValueError, "target has the value nan", binary_cross_entropy, WEIGHTS, NAN * WEIGHTS),
    refused(ValueError, "reduction is None", binary_cross_entropy, WEIGHTS, TARGET, reduction=None),
    refused(
        ValueError,
        "pixel_weights has shape (1,)",
        binary_cross_entropy,
        WEIGHTS,
        TARGET,
        pixel_weights=WEIGHTS[0, 0, :1],
    ),
    defined(0.0, binary_cross_entropy, WEIGHTS, ALL_IGNORED),
]
