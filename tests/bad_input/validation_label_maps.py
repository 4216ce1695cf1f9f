"""Bad input to `segedu.validation.label_maps`."""

import torch
from bad_input.rows import refused

from segedu.validation.label_maps import check_label_map

MAP = torch.zeros(2, 3).int()

ROWS = [
    refused(
        TypeError, "label_map has type NoneType, expected a tensor of integers", check_label_map, "label_map", None
    ),
    refused(TypeError, "label_map has dtype torch.bool, expected integers", check_label_map, "label_map", MAP.bool()),
    refused(
        ValueError,
        "label_map has shape (3,), expected (H, W) or (D, H, W), no axis empty",
        check_label_map,
        "label_map",
        MAP[0],
    ),
    refused(ValueError, "x has shape (2, 3), expected (D, H, W)", check_label_map, "x", MAP, (3,)),
    refused(ValueError, "x has shape (2, 3), expected (3, 2)", check_label_map, "x", MAP, (2,), (3, 2)),
    refused(ValueError, "x has the label -1, expected 0 for background", check_label_map, "x", MAP - 1),
]
