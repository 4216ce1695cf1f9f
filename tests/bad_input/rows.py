"""What a row of the tables of bad input is, and the arguments that many of them share.

A row says what is called, and either `raises` (the class, and words of the first line, which must name the
argument and what was expected) or `gives` (the value that the docstring defines).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass
class Row:
    function: Any
    arguments: tuple
    options: dict
    raises: tuple | None = None
    gives: Any = None

    def __str__(self):
        outcome = self.raises[1] if self.raises else f"gives {self.gives}"
        return f"{self.function.__name__}: {outcome}"


def refused(error, words, function, *arguments, **options):
    return Row(function, arguments, options, raises=(error, words))


def defined(value, function, *arguments, **options):
    return Row(function, arguments, options, gives=value)


def zeros(*shape, dtype=torch.int64):
    return torch.zeros(*shape, dtype=dtype)


NAN, INF = math.nan, math.inf
BOX = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
MAP, FLOATS, LOGITS = zeros(2, 3), torch.zeros(2, 3), torch.zeros(1, 2, 4, 5)
TARGET, ALL_IGNORED = zeros(1, 4, 5), torch.full((1, 4, 5), 255)
NEGATIVE, HIGH = torch.full((2, 3), -1), torch.full((2, 3), 7)


def pairs(function, *more):
    """What every function of two maps refuses."""
    return [
        refused(TypeError, "preds has dtype torch.float32", function, FLOATS, MAP, *more),
        refused(TypeError, "target has dtype torch.float32", function, MAP, FLOATS, *more),
        refused(TypeError, "preds has dtype float64", function, np.zeros((2, 3)), MAP, *more),
        refused(TypeError, "preds has type list", function, [[0, 0, 0]], MAP, *more),
        refused(TypeError, "target has type NoneType", function, MAP, None, *more),
        refused(ValueError, "preds has shape (1, 4, 2, 3)", function, zeros(1, 4, 2, 3), zeros(1, 2, 3), *more),
        refused(ValueError, "preds has shape (2, 3)", function, MAP, zeros(3, 2), *more),
    ]


def classes(function):
    """What every function of (preds, target, num_classes, ignore_index) refuses besides."""
    return pairs(function, 2) + [
        refused(TypeError, "num_classes is 2.0", function, MAP, MAP, 2.0),
        refused(TypeError, "num_classes is True", function, MAP, MAP, True),
        refused(ValueError, "num_classes is 0", function, MAP, MAP, 0),
        refused(ValueError, "target has the value 7", function, MAP, HIGH, 2),
        refused(ValueError, "target has the value -1", function, MAP, NEGATIVE, 2),
        refused(ValueError, "target has the value 7", function, MAP, HIGH, 2, 255),
        refused(ValueError, "preds has the value 7", function, HIGH, MAP, 2),
        refused(ValueError, "preds has the value -1", function, NEGATIVE, MAP, 2, 255),
    ]


def logits_and_target(function, *more):
    """What every loss on logits (B, K, H, W) and target (B, H, W) refuses."""
    return [
        refused(TypeError, "logits has type list", function, [0.0], TARGET, *more),
        refused(TypeError, "logits has dtype torch.int64", function, LOGITS.long(), TARGET, *more),
        refused(ValueError, "logits has shape (2, 2)", function, torch.zeros(2, 2), zeros(2), *more),
        refused(ValueError, "logits has shape (1, 1, 4, 5)", function, LOGITS[:, :1], TARGET, *more),
        refused(ValueError, "logits has shape (0, 2, 4, 5)", function, LOGITS[:0], TARGET[:0], *more),
        refused(ValueError, "logits has shape (1, 2, 0, 5)", function, LOGITS[:, :, :0], TARGET[:, :0], *more),
        refused(TypeError, "target has type ndarray", function, LOGITS, TARGET.numpy(), *more),
        refused(TypeError, "target has dtype torch.float32", function, LOGITS, TARGET.float(), *more),
        refused(TypeError, "target has dtype torch.int32", function, LOGITS, TARGET.int(), *more),
        refused(ValueError, "target has shape (1, 5, 4)", function, LOGITS, zeros(1, 5, 4), *more),
        refused(ValueError, "target has shape (1, 2, 4, 5)", function, LOGITS, zeros(1, 2, 4, 5), *more),
        refused(ValueError, "target has the value 2", function, LOGITS, TARGET + 2, *more),
        refused(ValueError, "target has the value -1", function, LOGITS, TARGET - 1, *more),
    ]


def scores_of(function, arguments):
    """What every function of two detections refuses as scores; `arguments` puts them in their place."""
    return [
        refused(TypeError, "scores has type list", function, *arguments([0.5, 0.5])),
        refused(TypeError, "scores has dtype torch.bool", function, *arguments(zeros(2).bool())),
        refused(ValueError, "scores has shape (3,)", function, *arguments(torch.zeros(3))),
        refused(ValueError, "scores has shape (2, 1)", function, *arguments(torch.zeros(2, 1))),
        refused(ValueError, "scores contains NaN", function, *arguments(torch.tensor([0.0, NAN]))),
    ]
