"""Bad and empty input to `segedu.ops.nms`."""

import torch
from bad_input.rows import INF, NAN, defined, refused, scores_of, zeros

from segedu.ops.nms import batched_nms, matrix_nms, nms, nms_mask, soft_nms

BOXES, SCORES, LABELS = torch.tensor([[0.0, 0.0, 2.0, 2.0]] * 2), torch.tensor([0.5, 0.7]), zeros(2)
MASKS, NONE, NO_BOXES = torch.ones(2, 3, 4).bool(), torch.zeros(0), torch.zeros(0, 4)

ROWS = [
    *scores_of(nms, lambda bad: (BOXES, bad, 0.5)),
    *scores_of(batched_nms, lambda bad: (BOXES, bad, LABELS, 0.5)),
    *scores_of(nms_mask, lambda bad: (BOXES, bad, ~zeros(2).bool(), 0.5)),
    *scores_of(soft_nms, lambda bad: (BOXES, bad)),
    *scores_of(matrix_nms, lambda bad: (MASKS, LABELS, bad)),
    *(
        refused(TypeError, "boxes has type list", f, [[0, 0, 2, 2]], *more)
        for f, more in ((nms, (SCORES, 0.5)), (batched_nms, (SCORES, LABELS, 0.5)), (soft_nms, (SCORES,)))
    ),
    *(refused(ValueError, f"iou_threshold is {bad}", nms, BOXES, SCORES, bad) for bad in (-0.1, 1.5, NAN)),
    *(refused(ValueError, f"iou_threshold is {bad}", batched_nms, BOXES, SCORES, LABELS, bad) for bad in (-0.1, NAN)),
    *(refused(ValueError, f"sigma is {bad}", soft_nms, BOXES, SCORES, bad) for bad in (0, -1, NAN)),
    *(refused(ValueError, f"sigma is {bad}", matrix_nms, MASKS, LABELS, SCORES, bad) for bad in (0, NAN)),
    refused(ValueError, "iou_threshold is 2", nms_mask, BOXES, SCORES, ~zeros(2).bool(), 2),
    refused(TypeError, "valid has dtype torch.float32", nms_mask, BOXES, SCORES, SCORES, 0.5),
    refused(TypeError, "valid has type list", nms_mask, BOXES, SCORES, [True, True], 0.5),
    refused(ValueError, "valid has shape (1,)", nms_mask, BOXES, SCORES, zeros(1).bool(), 0.5),
    refused(TypeError, "labels has dtype torch.float32", batched_nms, BOXES, SCORES, SCORES, 0.5),
    refused(TypeError, "labels has type list", matrix_nms, MASKS, [1, 1], SCORES),
    refused(ValueError, "labels has shape (1,)", batched_nms, BOXES, SCORES, LABELS[:1], 0.5),
    refused(TypeError, "masks has dtype torch.float32", matrix_nms, MASKS.float(), LABELS, SCORES),
    refused(ValueError, "masks has shape (2, 3)", matrix_nms, MASKS[..., 0], LABELS, SCORES),
    refused(ValueError, "scores has the value -1", soft_nms, BOXES, SCORES * 0 - 1),
    refused(ValueError, "scores has the value -inf", soft_nms, BOXES, -INF * SCORES),
    defined([], nms, NO_BOXES, NONE, 0.5),
    defined([], batched_nms, NO_BOXES, NONE, zeros(0), 0.5),
    defined([], matrix_nms, MASKS[:0], zeros(0), NONE),
    defined([], nms_mask, NO_BOXES, NONE, NONE.bool(), 0.5),
    defined([False, False], nms_mask, BOXES, SCORES, zeros(2).bool(), 0.5),
    defined([1, 0], nms, BOXES, SCORES, 1.0),
    defined(SCORES, matrix_nms, ~MASKS, LABELS, SCORES),
]
