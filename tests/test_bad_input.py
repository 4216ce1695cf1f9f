"""Bad and empty input to every public function of ops, losses and metrics: what is raised, or what is defined.

A row says what is called, and either `raises` (the class, and words of the first line, which must name the
argument and what was expected) or `gives` (the value that the docstring defines). The last test holds that no
public function is missing. Other parts of the library keep tables of the same kind in their own tests.
"""

import importlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segedu.losses.cross_entropy import (
    binary_cross_entropy,
    check_logits_and_target,
    cross_entropy,
    full_precision,
)
from segedu.losses.dice import dice_loss
from segedu.metrics import semantic
from segedu.metrics.boundary import boundary_f1, mask_boundary
from segedu.metrics.confusion import (
    ConfusionMatrix,
    as_mask,
    check_num_classes,
    confusion_matrix,
    label_pair,
    mask_pair,
)
from segedu.metrics.instance import instance_accuracy, label_map_iou, match_instances
from segedu.ops.boxes import box_area, box_iou, generalized_box_iou

ROOT = Path(__file__).resolve().parents[1]


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

ENTROPY, BINARY = cross_entropy, binary_cross_entropy
BOXES = [
    row
    for function, arguments, name in (
        (box_area, lambda bad: (bad,), "boxes"),
        (box_iou, lambda bad: (bad, BOX), "boxes1"),
        (box_iou, lambda bad: (BOX, bad), "boxes2"),
        (generalized_box_iou, lambda bad: (bad, BOX), "boxes1"),
        (generalized_box_iou, lambda bad: (BOX, bad), "boxes2"),
    )
    for row in (
        refused(TypeError, f"{name} is a list", function, *arguments([[0, 0, 2, 2]])),
        refused(TypeError, f"{name} is a ndarray", function, *arguments(np.zeros((1, 4)))),
        refused(TypeError, f"{name} has dtype torch.bool", function, *arguments(zeros(1, 4).bool())),
        refused(TypeError, f"{name} has dtype torch.complex64", function, *arguments(BOX.to(torch.complex64))),
        refused(ValueError, f"{name} has shape (4,)", function, *arguments(BOX[0])),
        refused(ValueError, f"{name} has shape (1, 5)", function, *arguments(torch.zeros(1, 5))),
        refused(ValueError, f"{name} has shape (1, 1, 4)", function, *arguments(BOX[None])),
        refused(ValueError, f"{name} has shape (0,)", function, *arguments(torch.zeros(0))),
        refused(ValueError, f"{name}[0] is [2.0, 0.0, 1.0, 2.0]", function, *arguments(torch.tensor([[2.0, 0, 1, 2]]))),
        refused(ValueError, f"{name}[0] is [0.0, 3.0, 1.0, 2.0]", function, *arguments(torch.tensor([[0.0, 3, 1, 2]]))),
        refused(ValueError, f"{name}[0] is [0.0, 0.0, nan, 2.0]", function, *arguments(torch.tensor([[0, 0, NAN, 2]]))),
        refused(ValueError, f"{name}[0] is [0.0, 0.0, inf, 2.0]", function, *arguments(torch.tensor([[0, 0, INF, 2]]))),
    )
] + [
    defined(torch.zeros(0), box_area, torch.zeros(0, 4)),
    defined(torch.zeros(0, 1), box_iou, torch.zeros(0, 4), BOX),
    defined(torch.zeros(1, 0), generalized_box_iou, BOX, torch.zeros(0, 4)),
    defined(torch.tensor([[0.0]]), box_iou, BOX[:, [0, 0, 0, 0]], BOX[:, [0, 0, 0, 0]]),
    defined(torch.tensor([[0.0]]), generalized_box_iou, BOX[:, [0, 0, 0, 0]], BOX[:, [0, 0, 0, 0]]),
    defined(torch.tensor([4.0]), box_area, BOX.long()),
]


def pairs(function, *more):
    """What every function of two maps refuses."""
    return [
        refused(TypeError, "preds has dtype torch.float32", function, FLOATS, MAP, *more),
        refused(TypeError, "target has dtype torch.float32", function, MAP, FLOATS, *more),
        refused(TypeError, "preds has dtype float64", function, np.zeros((2, 3)), MAP, *more),
        refused(TypeError, "preds is a list", function, [[0, 0, 0]], MAP, *more),
        refused(TypeError, "target is a NoneType", function, MAP, None, *more),
        refused(ValueError, "preds has shape (1, 4, 2, 3)", function, zeros(1, 4, 2, 3), zeros(1, 2, 3), *more),
        refused(ValueError, "preds has shape (2, 3)", function, MAP, zeros(3, 2), *more),
    ]


def classes(function):
    """What every function of (preds, target, num_classes, ignore_index) refuses besides."""
    return pairs(function, 2) + [
        refused(TypeError, "num_classes is a float", function, MAP, MAP, 2.0),
        refused(TypeError, "num_classes is a bool", function, MAP, MAP, True),
        refused(ValueError, "num_classes is 0", function, MAP, MAP, 0),
        refused(ValueError, "target has the value 7", function, MAP, HIGH, 2),
        refused(ValueError, "target has the value -1", function, MAP, NEGATIVE, 2),
        refused(ValueError, "target has the value 7", function, MAP, HIGH, 2, 255),
        refused(ValueError, "preds has the value 7", function, HIGH, MAP, 2),
        refused(ValueError, "preds has the value -1", function, NEGATIVE, MAP, 2, 255),
    ]


FROM_MAPS = {  # value where every pixel is ignored, with two classes
    semantic.pixel_accuracy: NAN,
    semantic.class_accuracy: [NAN, NAN],
    semantic.iou_per_class: [NAN, NAN],
    semantic.dice_per_class: [NAN, NAN],
    semantic.mean_iou: NAN,
    semantic.frequency_weighted_iou: NAN,
    semantic.present_classes: [False, False],
}
METRICS = [row for f in (*FROM_MAPS, semantic.mean_iou_per_image, confusion_matrix) for row in classes(f)]
for function, value in FROM_MAPS.items():
    twin = getattr(semantic, f"{function.__name__}_from_confusion")
    METRICS += [
        defined(value, function, ALL_IGNORED, ALL_IGNORED, 2, 255),
        defined(value, function, zeros(0, 3), zeros(0, 3), 2),
        defined(value, twin, zeros(2, 2)),
        refused(TypeError, "matrix is a list", twin, [[1, 0], [0, 1]]),
        refused(ValueError, "matrix has shape (2, 3)", twin, zeros(2, 3)),
        refused(ValueError, "matrix has shape (0, 0)", twin, zeros(0, 0)),
        refused(ValueError, "matrix has the value -1", twin, -torch.eye(2).long()),
    ]
METRICS += [
    defined([[0, 0], [0, 0]], confusion_matrix, ALL_IGNORED, ALL_IGNORED, 2, 255),
    defined([[0]], confusion_matrix, zeros(0), zeros(0), 1),
    defined(NAN, semantic.mean_iou_per_image, ALL_IGNORED, ALL_IGNORED, 2, 255),
    refused(ValueError, "target has shape (5,)", semantic.mean_iou_per_image, zeros(5), zeros(5), 2),
    refused(ValueError, "target has shape (0, 3)", semantic.mean_iou_per_image, zeros(0, 3), zeros(0, 3), 2),
    refused(TypeError, "num_classes is a str", ConfusionMatrix, "2"),
    refused(ValueError, "num_classes is -1", ConfusionMatrix, -1),
    refused(TypeError, "other is a Tensor", ConfusionMatrix(2).merge, zeros(2, 2)),
    refused(
        ValueError, "other has (num_classes, ignore_index) (3, None)", ConfusionMatrix(2).merge, ConfusionMatrix(3)
    ),
    refused(
        ValueError, "other has (num_classes, ignore_index) (2, 0)", ConfusionMatrix(2).merge, ConfusionMatrix(2, 0)
    ),
    refused(TypeError, "num_classes is a float", check_num_classes, 1.5),
    refused(ValueError, "num_classes is 0", check_num_classes, 0),
    *pairs(ConfusionMatrix(2).update),
    *pairs(label_pair),
    *(row for f in (mask_pair, semantic.binary_iou, semantic.binary_dice) for row in pairs(f)),
    *(refused(ValueError, "target has the value 7", f, MAP, HIGH) for f in (mask_pair, semantic.binary_iou)),
    refused(ValueError, "preds has the value -1", semantic.binary_dice, NEGATIVE, MAP),
    defined(1.0, semantic.binary_iou, MAP, MAP),
    defined(1.0, semantic.binary_dice, zeros(0), zeros(0)),
    *pairs(boundary_f1, 1),
    refused(ValueError, "target has shape (1, 2, 3)", boundary_f1, MAP[None], MAP[None], 1),
    refused(ValueError, "preds has the value 7", boundary_f1, HIGH, MAP, 1),
    refused(ValueError, "tolerance is -1", boundary_f1, MAP, MAP, -1),
    refused(ValueError, "tolerance is nan", boundary_f1, MAP, MAP, NAN),
    refused(TypeError, "tolerance is a str", boundary_f1, MAP, MAP, "1"),
    refused(TypeError, "tolerance is a bool", boundary_f1, MAP, MAP, True),
    defined(1.0, boundary_f1, MAP, MAP, 1),
    defined(0.0, boundary_f1, MAP, torch.eye(2, 3).long(), 1),
    defined(1.0, boundary_f1, MAP, torch.ones(2, 3).long(), 1),
    refused(ValueError, "mask has shape (3,)", mask_boundary, zeros(3)),
    *(refused(TypeError, "mask has dtype torch.float32", f, FLOATS) for f in (mask_boundary, as_mask)),
    *(refused(ValueError, "mask has the value 7", f, HIGH) for f in (mask_boundary, as_mask)),
    defined([[False] * 3] * 2, mask_boundary, torch.ones(2, 3).bool()),
]
for function, two_empty in ((instance_accuracy, 1.0), (match_instances, (0, 0, 0))):
    METRICS += [
        *pairs(function),
        refused(ValueError, "preds has the label -1", function, NEGATIVE, MAP),
        refused(ValueError, "iou_threshold is 0", function, MAP, MAP, 0),
        refused(ValueError, "iou_threshold is 1.5", function, MAP, MAP, 1.5),
        refused(ValueError, "iou_threshold is nan", function, MAP, MAP, NAN),
        refused(TypeError, "iou_threshold is a str", function, MAP, MAP, "0.5"),
        defined(two_empty, function, MAP, MAP),
        defined(two_empty, function, zeros(0, 4), zeros(0, 4)),
    ]
METRICS += [
    *pairs(label_map_iou),
    refused(ValueError, "target has the label -1", label_map_iou, MAP, NEGATIVE),
    defined(torch.zeros(0, 1).double(), label_map_iou, MAP, HIGH),
]

LOSSES = [
    row
    for function, more in ((cross_entropy, ()), (dice_loss, ()), (check_logits_and_target, (255,)))
    for row in (
        refused(TypeError, "logits are a list", function, [0.0], TARGET, *more),
        refused(TypeError, "logits have dtype torch.int64", function, LOGITS.long(), TARGET, *more),
        refused(ValueError, "logits have shape (2, 2)", function, torch.zeros(2, 2), zeros(2), *more),
        refused(ValueError, "logits have shape (1, 1, 4, 5)", function, LOGITS[:, :1], TARGET, *more),
        refused(ValueError, "logits have shape (0, 2, 4, 5)", function, LOGITS[:0], TARGET[:0], *more),
        refused(ValueError, "logits have shape (1, 2, 0, 5)", function, LOGITS[:, :, :0], TARGET[:, :0], *more),
        refused(TypeError, "target is a ndarray", function, LOGITS, TARGET.numpy(), *more),
        refused(TypeError, "target has dtype torch.float32", function, LOGITS, TARGET.float(), *more),
        refused(TypeError, "target has dtype torch.int32", function, LOGITS, TARGET.int(), *more),
        refused(ValueError, "target has shape (1, 5, 4)", function, LOGITS, zeros(1, 5, 4), *more),
        refused(ValueError, "target has shape (1, 2, 4, 5)", function, LOGITS, zeros(1, 2, 4, 5), *more),
        refused(ValueError, "target has the value 2", function, LOGITS, TARGET + 2, *more),
        refused(ValueError, "target has the value -1", function, LOGITS, TARGET - 1, *more),
    )
]
WEIGHTS = torch.ones(1, 4, 5)
LOSSES += [
    refused(ValueError, "target has the value 255", ENTROPY, LOGITS, ALL_IGNORED, ignore_index=None),
    refused(ValueError, "reduction is 'avg'", ENTROPY, LOGITS, TARGET, reduction="avg"),
    refused(TypeError, "class_weights is a list", ENTROPY, LOGITS, TARGET, class_weights=[1.0, 2.0]),
    refused(ValueError, "class_weights has shape (3,)", ENTROPY, LOGITS, TARGET, class_weights=torch.ones(3)),
    refused(ValueError, "class_weights has a negative", ENTROPY, LOGITS, TARGET, class_weights=-torch.ones(2)),
    refused(ValueError, "pixel_weights has shape (4, 5)", ENTROPY, LOGITS, TARGET, pixel_weights=WEIGHTS[0]),
    refused(ValueError, "pixel_weights has a negative or NaN", ENTROPY, LOGITS, TARGET, pixel_weights=NAN * WEIGHTS),
    defined(0.0, ENTROPY, LOGITS, ALL_IGNORED),
    defined(0.0, ENTROPY, LOGITS, ALL_IGNORED, reduction="sum"),
    defined(0 * WEIGHTS, ENTROPY, LOGITS, ALL_IGNORED, reduction="none"),
    defined(0.0, ENTROPY, LOGITS, TARGET, pixel_weights=0 * WEIGHTS),
    refused(TypeError, "logits are a list", BINARY, [0.0], TARGET),
    refused(TypeError, "logits have dtype torch.bool", BINARY, TARGET.bool(), TARGET),
    refused(ValueError, "logits have shape (0, 4, 5)", BINARY, WEIGHTS[:0], TARGET[:0]),
    refused(TypeError, "target is a ndarray", BINARY, WEIGHTS, TARGET.numpy()),
    refused(ValueError, "target has shape (1, 1, 4, 5)", BINARY, WEIGHTS, TARGET[None]),
    refused(ValueError, "target has the value 2", BINARY, WEIGHTS, TARGET + 2),
    refused(ValueError, "target has the value -0.5", BINARY, WEIGHTS, WEIGHTS - 1.5),
    refused(ValueError, "target has the value nan", BINARY, WEIGHTS, NAN * WEIGHTS),
    refused(ValueError, "reduction is None", BINARY, WEIGHTS, TARGET, reduction=None),
    refused(ValueError, "pixel_weights has shape (1,)", BINARY, WEIGHTS, TARGET, pixel_weights=WEIGHTS[0, 0, :1]),
    defined(0.0, BINARY, WEIGHTS, ALL_IGNORED),
    defined([0.0, 0.0], full_precision, torch.zeros(2, dtype=torch.bfloat16)),
    refused(TypeError, "smooth is a str", dice_loss, LOGITS, TARGET, smooth="1"),
    refused(ValueError, "smooth is -1", dice_loss, LOGITS, TARGET, smooth=-1),
    refused(ValueError, "smooth is nan", dice_loss, LOGITS, TARGET, smooth=NAN),
    defined(0.0, dice_loss, LOGITS, ALL_IGNORED),
    defined(0.0, dice_loss, LOGITS, ALL_IGNORED, smooth=0, per_image=False),
    defined(ALL_IGNORED.bool() & False, check_logits_and_target, LOGITS, ALL_IGNORED, 255),
]

TABLE = BOXES + METRICS + LOSSES


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_row(row):
    if row.raises is None:
        np.testing.assert_array_equal(row.function(*row.arguments, **row.options), np.asarray(row.gives))
        return
    error, words = row.raises
    with pytest.raises((TypeError, ValueError)) as caught:
        row.function(*row.arguments, **row.options)
    first_line = str(caught.value).splitlines()[0]
    assert caught.type is error
    assert first_line.startswith(words) and "expected" in first_line


def test_no_public_function_is_missing():
    named = {getattr(row.function, "__self__", row.function) for row in TABLE}
    named |= {type(value) for value in named}
    for package in ("ops", "losses", "metrics"):
        for path in sorted((ROOT / "segedu" / package).glob("[!_]*.py")):
            module = importlib.import_module(
                f"segedu.{package}.{path.stem}" if path.stem != "__init__" else f"segedu.{package}"
            )
            for name, value in vars(module).items():
                if callable(value) and getattr(value, "__module__", "") == module.__name__ and name[0] != "_":
                    assert value in named, f"{module.__name__}.{name} has no row"
