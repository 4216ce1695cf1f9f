"""Bad and empty input to `segedu.ops.masks`."""

import numpy as np
import torch
from bad_input.rows import BOX, FLOATS, MAP, NAN, NEGATIVE, defined, refused, scores_of, zeros

from segedu.ops import masks as ops

TWO, NONE = torch.ones(2, 3, 4).bool(), torch.zeros(0, 3, 4).bool()
RLE = {"size": [2, 2], "counts": [1, 2, 1]}
SHORT, BACK = {"size": [2, 2], "counts": [1, 2]}, {"size": [2, 2], "counts": [-1, 5]}

ROWS = [
    refused(TypeError, "label_map has type list", ops.masks_from_label_map, [[0]]),
    refused(TypeError, "label_map has dtype torch.float32", ops.masks_from_label_map, FLOATS),
    refused(TypeError, "label_map has dtype torch.bool", ops.masks_from_label_map, FLOATS.bool()),
    refused(ValueError, "label_map has shape (3,)", ops.masks_from_label_map, MAP[0]),
    refused(ValueError, "label_map has the label -1", ops.masks_from_label_map, NEGATIVE),
    defined(torch.zeros(0, 2, 3).bool(), ops.masks_from_label_map, MAP),
    defined(torch.zeros(0, 0, 3).bool(), ops.masks_from_label_map, MAP[:0]),
    defined(zeros(3, 4), ops.label_map_from_masks, NONE),
    defined(zeros(3, 4) + 1, ops.label_map_from_masks, TWO),
    *scores_of(ops.label_map_from_masks, lambda bad: (TWO, bad)),
    defined(torch.zeros(0, 4), ops.boxes_from_masks, NONE),
    defined([[0, 0, 0, 0]] * 2, ops.boxes_from_masks, ~TWO),
    defined([[0, 0, 0, 0]] * 2, ops.boxes_from_masks, TWO[:, :0]),
    refused(ValueError, "connectivity is 6", ops.connected_components, TWO[0], 6),
    refused(ValueError, "mask has shape (2, 3, 4)", ops.connected_components, TWO),
    refused(ValueError, "mask has shape (4,)", ops.rle_encode, TWO[0, 0]),
    refused(TypeError, "masks has dtype torch.bool", ops.paste_masks, TWO, BOX, (3, 4)),
    refused(TypeError, "masks has type list", ops.paste_masks, [[1.0]], BOX, (3, 4)),
    refused(ValueError, "masks has shape (2, 3, 4), expected (1, M, M)", ops.paste_masks, TWO.float(), BOX, (3, 4)),
    refused(ValueError, "masks has shape (1, 0, 4)", ops.paste_masks, TWO[:1, :0].float(), BOX, (3, 4)),
    refused(TypeError, "size is (3,)", ops.paste_masks, TWO[:1].float(), BOX, (3,)),
    refused(ValueError, "size is (3, -4)", ops.paste_masks, TWO[:1].float(), BOX, (3, -4)),
    defined(torch.zeros(0, 3, 4), ops.paste_masks, torch.zeros(0, 5, 5), torch.zeros(0, 4), (3, 4)),
    defined(torch.zeros(1, 3, 4), ops.paste_masks, TWO[:1].float(), BOX[:, [0, 0, 0, 0]], (3, 4)),
    defined(0, ops.rle_area, {"size": [0, 3], "counts": []}),
    defined({"size": [2, 2], "counts": b"4"}, ops.polygons_to_rle, [], (2, 2)),
    refused(ValueError, "polygons[0] is [0, 0, 1, 1]", ops.polygons_to_rle, [[0, 0, 1, 1]], (2, 2)),
    refused(ValueError, "polygons[0] is [0, 0, 1, 1, 2, 0, 3]", ops.polygons_to_rle, [[0, 0, 1, 1, 2, 0, 3]], (2, 2)),
    refused(ValueError, "polygons[0] is [0, 0, 1, 1, 2, nan]", ops.polygons_to_rle, [[0, 0, 1, 1, 2, NAN]], (2, 2)),
    refused(TypeError, "size is (2, 2, 2)", ops.polygons_to_rle, [], (2, 2, 2)),
    refused(ValueError, "iscrowd has 0 entries", ops.rle_iou, [RLE], [RLE], []),
    refused(TypeError, "rle is 7", ops.rle_iou, [7], [RLE], [False]),
    refused(
        ValueError,
        "preds and target have masks of the sizes",
        ops.rle_iou,
        [RLE],
        [{"size": [9, 1], "counts": [9]}],
        [0],
    ),
    defined(np.zeros((0, 1)), ops.rle_iou, [], [RLE], [False]),
    defined(np.zeros((1, 0)), ops.rle_iou, [RLE], [], []),
]
for function in (ops.rle_decode, ops.rle_area, ops.compress_rle, ops.decompress_rle):
    ROWS += [
        refused(TypeError, "rle is [1, 2, 1]", function, [1, 2, 1]),
        refused(TypeError, "rle is {'size': [2, 2]}", function, {"size": [2, 2]}),
        refused(ValueError, "rle has runs of 3 pixels", function, SHORT),
        refused(TypeError, "rle has the counts [1.5, 2, 0.5]", function, {"size": [2, 2], "counts": [1.5, 2, 0.5]}),
        refused(ValueError, "rle has runs of 4 pixels", function, BACK),
        refused(TypeError, "rle['size'] is [2]", function, {"size": [2], "counts": [2]}),
    ]
for function, name in (
    (ops.label_map_from_masks, "masks"),
    (ops.boxes_from_masks, "masks"),
    (ops.connected_components, "mask"),
    (ops.rle_encode, "mask"),
):
    ROWS += [
        refused(TypeError, f"{name} has type list", function, [[True]]),
        refused(TypeError, f"{name} has dtype torch.int64", function, MAP),
        refused(ValueError, f"{name} has shape (2,)", function, TWO[:, 0, 0]),
    ]
