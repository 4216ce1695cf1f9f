"""Bad and empty input to `segedu.losses.set_prediction`."""

import torch
from bad_input.rows import NAN, defined, refused

from segedu.losses.set_prediction import matched_cross_entropy


def loss_alone(*arguments):
    """Without the pairs, which no table can compare."""
    return matched_cross_entropy(*arguments)[0]


LOGITS, LABELS, COSTS = torch.zeros(1, 2, 2), [torch.tensor([0])], [torch.tensor([[1.0], [2.0]])]
NO_LABELS, NO_COSTS = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(2, 0)]

ROWS = [
    refused(ValueError, "labels has 0 entries, expected 1", matched_cross_entropy, LOGITS, [], COSTS),
    refused(ValueError, "costs has 2 entries, expected 1", matched_cross_entropy, LOGITS, LABELS, COSTS * 2),
    refused(TypeError, "no_object_weight is ", matched_cross_entropy, LOGITS, LABELS, COSTS, "1"),
    refused(ValueError, "no_object_weight is -1", matched_cross_entropy, LOGITS, LABELS, COSTS, -1),
    refused(ValueError, "no_object_weight is nan", matched_cross_entropy, LOGITS, LABELS, COSTS, NAN),
    defined(torch.tensor(2.0).log(), loss_alone, LOGITS, NO_LABELS, NO_COSTS),
    defined(torch.tensor(2.0).log(), loss_alone, LOGITS[:, :1], LABELS, [torch.zeros(1, 1)]),
]
