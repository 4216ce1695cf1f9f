"""Bad and empty input to `segedu.losses.checks`."""

import math

import torch
from bad_input.rows import ALL_IGNORED, INF, LOGITS, NAN, TARGET, defined, logits_and_target, refused

from segedu.losses.checks import (
    check_logits,
    check_logits_and_target,
    check_number,
    check_soft_target,
    check_weights,
    counted_pixels,
    full_precision,
    reduce_loss,
    true_class_weight,
)

ONES = torch.ones(2)

ROWS = [
    refused(TypeError, "logits are a NoneType", check_logits, None),
    refused(TypeError, "logits have dtype torch.int64", check_logits, TARGET),
    refused(ValueError, "logits have shape (0,)", check_logits, torch.zeros(0)),
    *logits_and_target(check_logits_and_target, 255),
    defined(ALL_IGNORED.bool() & False, check_logits_and_target, LOGITS, ALL_IGNORED, 255),
    refused(TypeError, "target is a NoneType", check_soft_target, ONES, None, 255),
    refused(ValueError, "target has shape (1,)", check_soft_target, ONES, ONES[:1], 255),
    refused(ValueError, "target has the value 255", check_soft_target, ONES, 255 * ONES, None),
    defined([False, True], counted_pixels, torch.tensor([255, 0]), 255),
    defined([True, True], counted_pixels, torch.tensor([255, 0]), None),
    defined([0.0, 0.0], full_precision, torch.zeros(2, dtype=torch.bfloat16)),
    refused(ValueError, "reduction is 'avg'", reduce_loss, ONES, ONES, "avg"),
    defined(0.0, reduce_loss, ONES, 0 * ONES, "mean"),
    refused(TypeError, "class_weights is a float", check_weights, 1.0, (2,), "class_weights"),
    refused(ValueError, "class_weights has shape (2,)", check_weights, ONES, (3,), "class_weights"),
    refused(ValueError, "class_weights has a negative or NaN", check_weights, NAN * ONES, (2,), "class_weights"),
    refused(ValueError, "class_weights has a negative or NaN or inf", check_weights, INF * ONES, (2,), "class_weights"),
    refused(ValueError, "class_weights has shape (3,)", true_class_weight, TARGET, TARGET == 0, torch.ones(3), LOGITS),
    defined(torch.zeros(1, 4, 5), true_class_weight, ALL_IGNORED, ALL_IGNORED != 255, ONES, LOGITS),
    refused(TypeError, "smooth is a str", check_number, "1", "smooth"),
    refused(TypeError, "smooth is a bool", check_number, True, "smooth"),
    refused(ValueError, "smooth is nan", check_number, NAN, "smooth"),
    refused(ValueError, "smooth is inf", check_number, math.inf, "smooth"),
    refused(ValueError, "alpha is 1.5", check_number, 1.5, "alpha", 0, 1),
    refused(ValueError, "temperature is 0", check_number, 0, "temperature", 0, 1, True),
]
