"""Bad and empty input to `segedu.ops.crowds`."""

import torch
from bad_input.rows import defined, refused

from segedu.ops.crowds import without_crowds

LABELS = torch.tensor([3, 1])

ROWS = [
    refused(TypeError, "target['iscrowd'] has type list", without_crowds, {"labels": LABELS, "iscrowd": [0, 1]}),
    refused(
        TypeError,
        "target['iscrowd'] has dtype torch.float32",
        without_crowds,
        {"labels": LABELS, "iscrowd": torch.zeros(2)},
    ),
    refused(
        ValueError,
        "target['iscrowd'] has shape (3,), expected (2,)",
        without_crowds,
        {"labels": LABELS, "iscrowd": torch.zeros(3).long()},
    ),
    refused(
        ValueError,
        "target['iscrowd'] has the values [0, 2]",
        without_crowds,
        {"labels": LABELS, "iscrowd": torch.tensor([0, 2])},
    ),
    defined({}, without_crowds, {}),
]
