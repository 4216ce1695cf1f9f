"""Bad and empty input to `segedu.losses.focal`."""

import torch
from bad_input.rows import ALL_IGNORED, LOGITS, NAN, TARGET, defined, logits_and_target, refused

from segedu.losses.focal import focal_loss, sigmoid_focal_loss

SCORES = torch.zeros(1, 4, 5)

ROWS = [
    *logits_and_target(focal_loss),
    refused(ValueError, "gamma is -1", focal_loss, LOGITS, TARGET, gamma=-1),
    refused(ValueError, "class_weights has shape (3,)", focal_loss, LOGITS, TARGET, class_weights=torch.ones(3)),
    refused(ValueError, "reduction is 'avg'", focal_loss, LOGITS, TARGET, reduction="avg"),
    defined(0.0, focal_loss, LOGITS, ALL_IGNORED),
    defined(0.0, focal_loss, LOGITS, ALL_IGNORED, reduction="sum"),
    refused(TypeError, "logits has type list", sigmoid_focal_loss, [0.0], TARGET),
    refused(TypeError, "target has type list", sigmoid_focal_loss, SCORES, [0.0]),
    refused(ValueError, "logits has shape (0, 4, 5)", sigmoid_focal_loss, SCORES[:0], TARGET[:0]),
    refused(ValueError, "target has shape (1, 5, 4)", sigmoid_focal_loss, SCORES, TARGET.mT),
    refused(ValueError, "target has the value 2", sigmoid_focal_loss, SCORES, TARGET + 2),
    refused(TypeError, "gamma is ", sigmoid_focal_loss, SCORES, TARGET, gamma="2"),
    refused(ValueError, "gamma is nan", sigmoid_focal_loss, SCORES, TARGET, gamma=NAN),
    refused(ValueError, "alpha is 1.5", sigmoid_focal_loss, SCORES, TARGET, alpha=1.5),
    refused(TypeError, "alpha is ", sigmoid_focal_loss, SCORES, TARGET, alpha=True),
    refused(ValueError, "reduction is None", sigmoid_focal_loss, SCORES, TARGET, reduction=None),
    defined(0.0, sigmoid_focal_loss, SCORES, ALL_IGNORED),
]
