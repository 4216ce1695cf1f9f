"""Bad and empty input to `segedu.ops.warp_boxes`."""

import torch
from bad_input.rows import BOX, NAN, defined, refused

from segedu.ops.warp_boxes import warp_boxes

IMAGE = torch.zeros(1, 4, 4)

ROWS = [
    refused(TypeError, "image has type list", warp_boxes, [[0]], BOX, 4, 1, [0]),
    refused(TypeError, "image has dtype torch.uint8", warp_boxes, IMAGE.byte(), BOX, 4, 1, [0]),
    refused(ValueError, "image has shape (4, 4)", warp_boxes, IMAGE[0], BOX, 4, 1, [0]),
    refused(ValueError, "image has shape (1, 0, 4)", warp_boxes, IMAGE[:, :0], BOX, 4, 1, [0]),
    refused(TypeError, "boxes has type list", warp_boxes, IMAGE, [[0, 0, 1, 1]], 4, 1, [0]),
    refused(ValueError, "boxes has shape (4,)", warp_boxes, IMAGE, BOX[0], 4, 1, [0]),
    refused(ValueError, "boxes[0] is", warp_boxes, IMAGE, NAN * BOX, 4, 1, [0]),
    refused(ValueError, "crop_size is 4 and context 2", warp_boxes, IMAGE, BOX, 4, 2, [0]),
    refused(ValueError, "crop_size is 4 and context -1", warp_boxes, IMAGE, BOX, 4, -1, [0]),
    refused(ValueError, "fill has 2 entries", warp_boxes, IMAGE, BOX, 4, 1, [0, 0]),
    defined(torch.zeros(0, 1, 4, 4), warp_boxes, IMAGE, BOX[:0], 4, 1, [0]),
]
