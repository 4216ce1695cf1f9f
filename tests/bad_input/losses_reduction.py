"""Bad and empty input to `segedu.losses.reduction`."""

import torch
from bad_input.rows import ALL_IGNORED, LOGITS, TARGET, defined, refused

from segedu.losses.reduction import full_precision, reduce_loss, true_class_weight

ONES = torch.ones(2)

ROWS = [
    defined([0.0, 0.0], full_precision, torch.zeros(2, dtype=torch.bfloat16)),
    refused(ValueError, "reduction is 'avg', expected 'none', 'mean' or 'sum'", reduce_loss, ONES, ONES, "avg"),
    defined(0.0, reduce_loss, ONES, 0 * ONES, "mean"),
    refused(ValueError, "class_weights has shape (3,)", true_class_weight, TARGET, TARGET == 0, torch.ones(3), LOGITS),
    defined(torch.zeros(1, 4, 5), true_class_weight, ALL_IGNORED, ALL_IGNORED != 255, ONES, LOGITS),
]
