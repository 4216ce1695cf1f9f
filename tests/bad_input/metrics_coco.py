"""Bad and empty input to `segedu.metrics.coco`."""

import torch
from bad_input.rows import NAN, defined, refused

from segedu.metrics.coco import CocoEvaluation

LABELS, NO_LABELS = torch.tensor([1]), torch.zeros(0, dtype=torch.int64)
BOX, MASK, RUNS = torch.tensor([[0.0, 0.0, 2.0, 3.0]]), torch.ones(1, 2, 3).bool(), {"size": [2, 3], "counts": [0, 6]}
FOUND = {"boxes": BOX, "masks": MASK, "labels": LABELS, "scores": torch.tensor([0.5])}
TRUE = {"boxes": BOX, "masks": MASK, "labels": LABELS}
NOTHING = {"boxes": torch.zeros(0, 4), "masks": [], "labels": NO_LABELS, "scores": torch.zeros(0)}
BOXES, MASKS = CocoEvaluation().update, CocoEvaluation("segm").update


def without(objects, key):
    return {name: value for name, value in objects.items() if name != key}


WRONG_PREDICTIONS = [
    (TypeError, "predictions has type list", []),
    (ValueError, "predictions has the keys ['masks', 'labels', 'scores']", without(FOUND, "boxes")),
    (ValueError, "predictions has the keys ['boxes', 'masks', 'scores']", without(FOUND, "labels")),
    (ValueError, "predictions has the keys ['boxes', 'masks', 'labels']", without(FOUND, "scores")),
    (TypeError, "predictions['boxes'] has type list", FOUND | {"boxes": [[0, 0, 1, 1]]}),
    (ValueError, "predictions['boxes'] has shape (4,)", FOUND | {"boxes": BOX[0]}),
    (ValueError, "predictions['boxes'][0] is", FOUND | {"boxes": -BOX}),
    (TypeError, "predictions['labels'] has type list", FOUND | {"labels": [1]}),
    (TypeError, "predictions['labels'] has dtype torch.float32", FOUND | {"labels": torch.ones(1)}),
    (ValueError, "predictions['labels'] has shape (0,)", FOUND | {"labels": NO_LABELS}),
    (TypeError, "predictions['scores'] has dtype torch.bool", FOUND | {"scores": torch.ones(1).bool()}),
    (ValueError, "predictions['scores'] has shape (2,)", FOUND | {"scores": torch.ones(2)}),
    (ValueError, "predictions['scores'] has shape (1, 1)", FOUND | {"scores": torch.ones(1, 1)}),
    (ValueError, "predictions['scores'] has the value nan", FOUND | {"scores": torch.tensor([NAN])}),
]
WRONG_TARGET = [
    (TypeError, "target has type NoneType", None),
    (ValueError, "target has the keys ['masks', 'labels']", without(TRUE, "boxes")),
    (ValueError, "target['labels'] has shape (2,)", TRUE | {"labels": torch.ones(2).long()}),
    (TypeError, "target['area'] has type list", TRUE | {"area": [6.0]}),
    (ValueError, "target['area'] has the value inf", TRUE | {"area": torch.tensor([float("inf")])}),
    (ValueError, "target['area'] has the value -1.0", TRUE | {"area": torch.tensor([-1.0])}),
    (TypeError, "target['iscrowd'] has dtype torch.float32", TRUE | {"iscrowd": torch.ones(1)}),
    (ValueError, "target['iscrowd'] has the values [2]", TRUE | {"iscrowd": torch.tensor([2])}),
]
WRONG_MASKS = [
    (TypeError, "predictions['masks'] has dtype torch.float32", MASK.float()),
    (TypeError, "predictions['masks'] has type ndarray", MASK.numpy()),
    (ValueError, "predictions['masks'] has shape (2, 3)", MASK[0]),
    (TypeError, "predictions['masks'][0] has type Tensor", [MASK[0]]),
    (TypeError, "rle is {'size': [2, 3]}", [{"size": [2, 3]}]),
    (ValueError, "rle has runs of 5 pixels", [{"size": [2, 3], "counts": [0, 5]}]),
    (ValueError, "masks have the sizes (2, 3) and (3, 2)", [{"size": [3, 2], "counts": [0, 6]}]),
    (ValueError, "predictions['labels'] has shape (1,)", MASK.repeat(2, 1, 1)),
]
ROWS = [refused(error, words, BOXES, wrong, TRUE) for error, words, wrong in WRONG_PREDICTIONS]
ROWS += [refused(error, words, BOXES, FOUND, wrong) for error, words, wrong in WRONG_TARGET]
ROWS += [refused(error, words, MASKS, FOUND | {"masks": wrong}, TRUE) for error, words, wrong in WRONG_MASKS]
ROWS += [
    refused(ValueError, "iou_type is 'mask'", CocoEvaluation, "mask"),
    refused(TypeError, "other has type dict", CocoEvaluation().merge, {}),
    refused(
        ValueError,
        "other has (iou_type, class_agnostic) ('segm', False)",
        CocoEvaluation().merge,
        CocoEvaluation("segm"),
    ),
    refused(
        ValueError,
        "other has (iou_type, class_agnostic) ('bbox', True)",
        CocoEvaluation().merge,
        CocoEvaluation("bbox", True),
    ),
    defined(None, BOXES, NOTHING, NOTHING),
    defined(None, BOXES, FOUND, NOTHING),
    defined(None, MASKS, NOTHING, TRUE),
    defined(None, MASKS, FOUND | {"masks": [RUNS]}, TRUE),
    defined(None, MASKS, FOUND | {"masks": torch.zeros(1, 2, 3).bool()}, TRUE),
    defined(None, CocoEvaluation("boundary").update, FOUND, TRUE),
]
