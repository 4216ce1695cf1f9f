"""Bad input to `segedu.validation.targets`."""

import torch
from bad_input.rows import ALL_IGNORED, BOX, INF, LOGITS, NAN, TARGET, defined, logits_and_target, refused

from segedu.validation.targets import (
    check_categories,
    check_instance_targets,
    check_logits,
    check_logits_and_target,
    check_rows,
    check_segment_targets,
    check_soft_target,
    check_weights,
    valid_pixels,
)

ONES, SIZES = torch.ones(2), [(4, 6)]
OBJECT = {"boxes": BOX, "labels": torch.tensor([1]), "masks": torch.ones(1, 4, 6).bool()}


def instances(**changed):
    check_instance_targets([OBJECT | changed], SIZES, num_classes=2, masks=True)


def segments(**changed):
    check_segment_targets([OBJECT | changed], SIZES, num_classes=2)


ROWS = [
    refused(TypeError, "logits has type NoneType", check_logits, None),
    refused(TypeError, "logits has dtype torch.int64", check_logits, TARGET),
    refused(ValueError, "logits has shape (0,)", check_logits, torch.zeros(0)),
    *logits_and_target(check_logits_and_target, 255),
    defined(ALL_IGNORED.bool() & False, check_logits_and_target, LOGITS, ALL_IGNORED, 255),
    refused(TypeError, "target has type NoneType", check_soft_target, ONES, None, 255),
    refused(ValueError, "target has shape (1,)", check_soft_target, ONES, ONES[:1], 255),
    refused(ValueError, "target has the value 255", check_soft_target, ONES, 255 * ONES, None),
    defined([False, True], valid_pixels, torch.tensor([255, 0]), 255),
    defined([True, True], valid_pixels, torch.tensor([255, 0]), None),
    refused(TypeError, "class_weights has type float", check_weights, "class_weights", 1.0, (2,)),
    refused(ValueError, "class_weights has shape (2,)", check_weights, "class_weights", ONES, (3,)),
    refused(
        ValueError, "class_weights has a negative, infinite or NaN", check_weights, "class_weights", NAN * ONES, (2,)
    ),
    refused(
        ValueError, "class_weights has a negative, infinite or NaN", check_weights, "class_weights", INF * ONES, (2,)
    ),
    refused(TypeError, "targets has type dict, expected a list", check_instance_targets, OBJECT, SIZES, 2),
    refused(ValueError, "targets has 0 entries, expected 1", check_instance_targets, [], SIZES, 2),
    defined(None, check_segment_targets, [OBJECT], SIZES, 2),
    refused(ValueError, "targets[0] has the keys [], expected boxes, labels", check_instance_targets, [{}], SIZES, 2),
    refused(
        ValueError,
        "targets[0]['boxes'][0] is [0.0, 0.0, 0.0, 0.0], expected a box with an area",
        instances,
        boxes=torch.zeros(1, 4),
    ),
    refused(TypeError, "targets[0]['labels'] has dtype torch.int32", instances, labels=torch.zeros(1).int()),
    refused(
        ValueError,
        "targets[0]['labels'] has the values [0], expected 1 to 1",
        instances,
        labels=torch.zeros(1).long(),
    ),
    refused(
        ValueError,
        "targets[0]['labels'] has shape (2,), expected (1,), one for each box",
        instances,
        labels=torch.zeros(2).long(),
    ),
    refused(TypeError, "targets[0]['masks'] has dtype torch.float32", instances, masks=torch.zeros(1, 4, 6)),
    refused(
        ValueError,
        "targets[0]['masks'] has shape (1, 4, 4), expected (1, 4, 6)",
        instances,
        masks=torch.zeros(1, 4, 4).bool(),
    ),
    refused(
        ValueError,
        "targets[0]['labels'] has the values [2], expected 0 to 1",
        segments,
        labels=torch.tensor([2]),
    ),
    refused(
        ValueError,
        "targets[0]['masks'] has shape (2, 4, 6), expected (1, 4, 6), one mask for each segment",
        segments,
        masks=torch.zeros(2, 4, 6).bool(),
    ),
    refused(
        ValueError,
        "target['labels'] has the values [5], expected 0 to 1",
        check_rows,
        "target",
        {"labels": torch.tensor([5])},
        1,
        0,
        2,
        None,
        "box",
    ),
    refused(TypeError, "things has type int, expected a collection of categories", check_categories, "things", 3),
    refused(TypeError, "things has a category that is '1', expected an integer", check_categories, "things", ["1"]),
    refused(
        ValueError,
        "things has a category that is 3, expected an integer from 0 to 2",
        check_categories,
        "things",
        {3},
        3,
    ),
    defined(None, check_categories, "things", {0, 7}),
]
