"""Bad input to `segedu.validation.images`."""

import torch
from bad_input.rows import NAN, defined, refused

from segedu.validation.images import check_image, check_images, check_padded_sizes, check_sizes, check_unit_range

BATCH = torch.zeros(2, 3, 4, 6)

ROWS = [
    refused(TypeError, "images has type NoneType, expected a floating-point tensor", check_images, None, 3),
    refused(TypeError, "images has dtype torch.uint8", check_images, BATCH.byte(), 3),
    refused(ValueError, "images has shape (2, 3, 4, 6), expected (B, 1, H, W), no axis empty", check_images, BATCH, 1),
    refused(ValueError, "images has shape (2, 3, 4, 6), expected (B, 3, D, H, W)", check_images, BATCH, 3, 1, 3),
    refused(ValueError, "images has shape (2, 3, 4, 6), expected H and W of at least 5", check_images, BATCH, 3, 5),
    refused(TypeError, "image has dtype torch.int64", check_image, torch.zeros(3, 4, 4).long()),
    refused(ValueError, "image has shape (2, 3, 4, 6), expected (3, H, W), no axis empty", check_image, BATCH),
    refused(
        ValueError,
        "image has shape (2, 4, 4), expected (1, H, W) or (3, H, W)",
        check_image,
        torch.zeros(2, 4, 4),
        (1, 3),
    ),
    refused(ValueError, "image has values outside [0, 1]", check_image, torch.zeros(3, 1, 1) * NAN),
    refused(ValueError, "images has values from 0 to 255", check_unit_range, torch.tensor([0.0, 255.0])),
    refused(ValueError, "images has values from -2 to 0", check_unit_range, torch.tensor([0.0, -2.0])),
    refused(ValueError, "sizes has 1 entries, expected 2, one for each image", check_sizes, [(1, 1)], BATCH),
    refused(ValueError, "sizes[1] is (5, 1), expected (h, w) from 1 to (4, 6)", check_sizes, [(1, 1), (5, 1)], BATCH),
    defined([(4, 6), (4, 6)], check_sizes, None, BATCH),
    refused(ValueError, "sizes has 1 entries, expected 2", check_padded_sizes, "sizes", [(1, 1)], (4, 4), 2),
    refused(ValueError, "sizes[0] is (5, 4), expected (h, w) from 1", check_padded_sizes, "sizes", [(5, 4)], (4, 4), 1),
]
