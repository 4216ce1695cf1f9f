"""Bad and empty input to `segedu.ops.anchors`."""

import torch
from bad_input.rows import BOX, INF, NAN, defined, refused, zeros

from segedu.ops.anchors import cell_anchors, decode_boxes, encode_boxes, grid_anchors, match_anchors, sample_matches

NONE, FLAT, IOU = torch.zeros(0, 4), torch.tensor([[0.0, 1.0, 2.0, 1.0]]), torch.tensor([[0.1, 0.8]])

ROWS = [
    *(refused(ValueError, "sizes is", cell_anchors, bad, [1]) for bad in ([], [0], [8, -1], [INF], [NAN])),
    *(refused(ValueError, "ratios is", cell_anchors, [8], bad) for bad in ([], [0], [1, -1], [INF], [NAN])),
    defined([[-2, -2, 2, 2]], cell_anchors, [3], [1], rounded=True),
    refused(TypeError, "base_anchors has type list", grid_anchors, [[0, 0, 1, 1]], (2, 2), 8),
    refused(ValueError, "base_anchors has shape (4,)", grid_anchors, BOX[0], (2, 2), 8),
    refused(ValueError, "base_anchors[0] is", grid_anchors, -BOX, (2, 2), 8),
    refused(ValueError, "size is (2,)", grid_anchors, BOX, (2,), 8),
    refused(ValueError, "size is (2, -1)", grid_anchors, BOX, (2, -1), 8),
    *(refused(ValueError, f"stride is {bad}", grid_anchors, BOX, (2, 2), bad) for bad in (0, -8, NAN, INF)),
    refused(ValueError, "stride is (8, 0)", grid_anchors, BOX, (2, 2), (8, 0)),
    defined(NONE, grid_anchors, BOX, (0, 2), 8),
    defined(NONE, grid_anchors, NONE, (3, 2), 8),
    *(
        row
        for name, arguments in (("boxes", lambda bad: (bad, BOX)), ("anchors", lambda bad: (BOX, bad)))
        for row in (
            refused(TypeError, f"{name} has type list", encode_boxes, *arguments([[0, 0, 2, 2]])),
            refused(TypeError, f"{name} has dtype torch.bool", encode_boxes, *arguments(zeros(1, 4).bool())),
            refused(ValueError, f"{name} has shape (4,)", encode_boxes, *arguments(BOX[0])),
            refused(ValueError, f"{name}[0] is [0.0, 1.0, 2.0, 1.0]", encode_boxes, *arguments(FLAT)),
            refused(ValueError, f"{name}[0] is [2.0, 2.0, 0.0, 0.0]", encode_boxes, *arguments(BOX.flip(1))),
            refused(ValueError, f"{name}[0] is [nan", encode_boxes, *arguments(NAN * BOX)),
        )
    ),
    refused(ValueError, "boxes has shape (2, 4)", encode_boxes, torch.cat([BOX, BOX]), BOX),
    defined(NONE, encode_boxes, NONE, NONE),
    *(
        refused(ValueError, f"weights is {bad}", f, BOX, BOX, bad)
        for f in (encode_boxes, decode_boxes)
        for bad in ((1, 1, 1), (1, 1, 1, 0), (1, -1, 1, 1), (1, 1, 1, INF))
    ),
    refused(TypeError, "deltas has type list", decode_boxes, [[0, 0, 0, 0]], BOX),
    refused(TypeError, "deltas has dtype torch.int64", decode_boxes, zeros(1, 4), BOX),
    refused(TypeError, "anchors has type list", decode_boxes, BOX, [[0, 0, 1, 1]]),
    refused(ValueError, "deltas has shape (1, 5)", decode_boxes, torch.zeros(1, 5), BOX),
    refused(ValueError, "deltas has shape ()", decode_boxes, torch.tensor(0.0), BOX),
    refused(ValueError, "anchors has shape (1, 5)", decode_boxes, BOX, torch.zeros(1, 5)),
    refused(ValueError, "deltas has shape (3, 4)", decode_boxes, torch.zeros(3, 4), torch.zeros(2, 4)),
    refused(ValueError, "deltas has shape (4,)", decode_boxes, BOX[0], torch.zeros(2, 4)),
    refused(ValueError, "anchors[0] is", decode_boxes, BOX, -BOX),
    defined(NONE, decode_boxes, NONE, NONE),
    defined(FLAT, decode_boxes, torch.zeros(1, 4), FLAT),
    refused(TypeError, "iou has type list", match_anchors, [[0.5]], 0.3, 0.7),
    refused(TypeError, "iou has dtype torch.int64", match_anchors, zeros(1, 2), 0.3, 0.7),
    refused(ValueError, "iou has shape (2,)", match_anchors, IOU[0], 0.3, 0.7),
    refused(ValueError, "iou contains NaN", match_anchors, IOU * NAN, 0.3, 0.7),
    *(
        refused(ValueError, f"negative_iou and positive_iou are {low} and {high}", match_anchors, IOU, low, high)
        for low, high in ((0.7, 0.3), (-0.1, 0.5), (0.5, 1.5), (NAN, 0.5))
    ),
    defined([-1, -1], match_anchors, IOU[:0], 0.3, 0.7, force_best=True),
    defined([], match_anchors, IOU[:, :0], 0.3, 0.7, force_best=True),
    refused(TypeError, "matches has type list", sample_matches, [0, -1], 2, 0.5),
    refused(TypeError, "matches has dtype torch.int32", sample_matches, zeros(2).int(), 2, 0.5),
    refused(ValueError, "matches has shape (2, 1)", sample_matches, zeros(2, 1), 2, 0.5),
    refused(ValueError, "count is -1", sample_matches, zeros(2), -1, 0.5),
    *(refused(ValueError, f"positive_fraction is {bad}", sample_matches, zeros(2), 2, bad) for bad in (-0.1, 1.5, NAN)),
    defined(zeros(2, 0), sample_matches, zeros(0), 2, 0.5),
    defined(zeros(2, 0), sample_matches, zeros(3), 0, 0.5),
]
