"""yolact_masks: instance masks as linear combinations of prototypes, cropped to boxes."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case


def yolact_masks(prototypes: Tensor, coefficients: Tensor, boxes: Tensor) -> Tensor:
    """Combine prototypes, which all instances share, into the mask of each instance, and crop it to its box.

    A tanh maps the coefficients of an instance to between -1 and 1, so that an instance can also subtract a prototype.
    The mask is the sigmoid of the sum of prototypes times coefficients. In the paper this is sigmoid(P C^T), with one
    row of P per pixel and one row of C per instance. Outside its box a mask is 0. A pixel is in the box if its centre
    is: the centre of the pixel in row y and column x is the point (x + 0.5, y + 0.5), and it is in the box if

        x1 <= x + 0.5 < x2   and   y1 <= y + 0.5 < y2

    Args:
        prototypes: (H, W, k) floats.
        coefficients: (N, k) floats, the output of the network before tanh. N may be 0.
        boxes: (N, 4) floats, xyxy in pixels of the prototypes.

    Returns:
        (N, H, W) floats from 0 to 1, before any threshold.

    Example: one prototype and one instance. The box contains the second and the third pixel.

        >>> yolact_masks(torch.zeros(1, 4, 1), torch.ones(1, 1), torch.tensor([[1.0, 0.0, 3.0, 1.0]]))
        tensor([[[0.0000, 0.5000, 0.5000, 0.0000]]])
    """
    return _cropped(_logits(prototypes, coefficients.tanh()).sigmoid(), boxes)


def _logits(prototypes: Tensor, coefficients: Tensor) -> Tensor:
    """(N, H, W)."""
    return torch.einsum("hwk,nk->nhw", prototypes, coefficients)


def _cropped(masks: Tensor, boxes: Tensor) -> Tensor:
    y, x = (torch.arange(n) + 0.5 for n in masks.shape[1:])
    x1, y1, x2, y2 = boxes.T[..., None]
    rows, columns = (y1 <= y) & (y < y2), (x1 <= x) & (x < x2)
    return masks * (rows[:, :, None] & columns[:, None, :])


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Several instances, also as many as prototypes; boxes that end at pixel centres, beyond the map, empty; none."""

    def instances(name: str, shape: tuple[int, int, int], boxes: list, shifted: bool = True) -> Case:
        prototypes = torch.from_numpy(rng.uniform(-1.5, 1.5, shape)).float()
        coefficients = torch.from_numpy(rng.uniform(0.4, 2.5, (len(boxes), shape[2]))).float()
        coefficients *= torch.from_numpy(rng.choice([-1, 1], coefficients.shape)).float()
        corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        if shifted:  # each corner into the second half of its pixel
            corners += torch.from_numpy(rng.integers(10, 15, corners.shape) / 16).float()
        return case(name, prototypes, coefficients, corners)

    two = [[1, 1, 6, 4], [3, 0, 8, 5]]
    core = [
        instances("two instances of three prototypes", (7, 10, 3), two),
        instances("as many instances as prototypes", (8, 9, 4), [*two, [0, 2, 3, 6], [2, 3, 7, 6]]),
        instances("one instance", (9, 6, 5), [[1, 2, 4, 6]]),
    ]
    at_centres, beyond = [[1.5, 0.5, 5.5, 4.5], [2, 1, 6, 5]], [[-4, -3, 3, 9], [2, 1, 20, 3], [3, 3, 3, 3]]
    edge = [
        instances("boxes that begin and end at pixel centres", (6, 8, 2), at_centres, shifted=False),
        instances(
            "a box whose edges come before pixel centres", (7, 7, 2), [[1.25, 2.125, 5.25, 6.375]], shifted=False
        ),
        instances("boxes beyond the map, and an empty box", (5, 7, 3), beyond),
        instances("no instance", (4, 5, 3), []),
    ]
    return {"core": (2, core), "edge": (1, edge)}


right = Variants(yolact_masks)


def _before_crop(masks: Callable[[SimpleNamespace], Tensor]) -> Callable[..., Tensor]:
    """Other masks (N, H, W), cropped correctly."""
    return right.instead(lambda a: _cropped(masks(a), a.boxes))


def _right_logits(a: SimpleNamespace) -> Tensor:
    return _logits(a.prototypes, a.coefficients.tanh())


def _reshaped(a: SimpleNamespace) -> Tensor:
    return (a.prototypes @ a.coefficients.tanh().T).reshape(len(a.boxes), *a.prototypes.shape[:2]).sigmoid()


def _next_float(edges: Tensor) -> Tensor:
    return torch.nextafter(edges, torch.tensor(torch.inf))


CENTRE = (
    "Pixel 1 extends from 1 to 2, so its centre is 1.5. A box that begins at 1.6 excludes it, one from 1.4 does not."
)
PRODUCT = "P.shape is (H, W, k), and C.shape is (N, k). Sum over k, then move the axis of N to the front."
ORDER = "The order is: tanh of the coefficients, sum, sigmoid, crop."

exercise = Exercise(
    name="yolact_masks",
    points=3,
    cases=cases,
    reference=yolact_masks,
    tolerance=1e-5,
    kind="map",
    hides=["segedu.instance.yolact", "segedu.instance.yolo11_seg"],
    wrong=[
        Wrong(
            "no crop",
            right.instead(lambda a: _right_logits(a).sigmoid()),
            "You do not crop the masks. They should be 0 outside their boxes.",
            "Prototypes do not separate instances: the mask of one object also contains parts of others.",
        ),
        Wrong(
            "crop before the sigmoid",
            right.instead(lambda a: _cropped(_right_logits(a), a.boxes).sigmoid()),
            "Outside the boxes your masks are 1/2, which is sigmoid(0). Crop them after the sigmoid.",
            ORDER,
        ),
        Wrong(
            "P C",
            _before_crop(lambda a: (a.prototypes @ a.coefficients.tanh()).movedim(-1, 0).sigmoid()),
            "You multiply P C. The product is P C^T, a sum over the prototypes.",
            PRODUCT,
        ),
        Wrong(
            "instances last",
            right.then(lambda out, a: out.movedim(0, -1)),
            "Your result has shape (H, W, N). It should have shape (N, H, W).",
            PRODUCT,
        ),
        Wrong(
            "reshaped",
            _before_crop(_reshaped),
            "You reshape (H, W, N) to (N, H, W), which mixes the pixels of all instances. Move the axis instead.",
            "permute(2, 0, 1) or movedim(-1, 0)",
        ),
        Wrong(
            "sigmoid before the product",
            _before_crop(lambda a: _logits(a.prototypes.sigmoid(), a.coefficients.tanh())),
            "You apply the sigmoid to the prototypes. Apply it to the sum of prototypes times coefficients.",
            ORDER,
        ),
        Wrong(
            "sigmoid before and after",
            right.given(prototypes=lambda a: a.prototypes.sigmoid()),
            "You apply the sigmoid to the prototypes and to the sum. Apply it to the sum only.",
            ORDER,
        ),
        Wrong(
            "no sigmoid",
            _before_crop(_right_logits),
            "You return the sums of prototypes times coefficients. Return the sigmoids of these sums.",
            ORDER,
        ),
        Wrong(
            "tanh lost",
            _before_crop(lambda a: _logits(a.prototypes, a.coefficients).sigmoid()),
            "You use the coefficients as the network outputs them. Apply tanh to them first.",
            ORDER,
        ),
        Wrong(
            "sigmoid for tanh",
            _before_crop(lambda a: _logits(a.prototypes, a.coefficients.sigmoid()).sigmoid()),
            "You apply a sigmoid to the coefficients. Apply tanh: with a negative coefficient, an instance can "
            "subtract a prototype.",
            ORDER,
        ),
        Wrong(
            "tanh after the product",
            _before_crop(lambda a: _logits(a.prototypes, a.coefficients).tanh().sigmoid()),
            "You apply tanh to the sum. Apply it to the coefficients.",
            ORDER,
        ),
        Wrong(
            "softmax over instances",
            _before_crop(lambda a: _right_logits(a).softmax(0)),
            "You apply a softmax over the instances, so they compete for each pixel. Apply a sigmoid to each instance.",
            ORDER,
        ),
        Wrong(
            "threshold",
            right.then(lambda out, a: out > 0.5),
            "You return True and False. Return values from 0 to 1, without a threshold.",
            "The threshold is applied later, at the size of the image.",
        ),
        Wrong(
            "corners for centres",
            right.given(boxes=lambda a: a.boxes + 0.5),
            "You test whether the corner of a pixel is in the box. Test its centre, half a pixel further.",
            CENTRE,
        ),
        Wrong(
            "box cut to whole pixels",
            right.given(boxes=lambda a: a.boxes.floor() + 0.5),
            "You round the box down to integers, as int() does. Test whether the centre of each pixel is in the box.",
            CENTRE,
        ),
        Wrong(
            "last centre too",
            right.given(boxes=lambda a: torch.cat([a.boxes[:, :2], _next_float(a.boxes[:, 2:])], dim=1)),
            "Your box includes a centre at exactly x2 or y2. Such a centre is outside.",
            "x + 0.5 < x2",
        ),
        Wrong(
            "first centre lost",
            right.given(boxes=lambda a: torch.cat([_next_float(a.boxes[:, :2]), a.boxes[:, 2:]], dim=1)),
            "Your box excludes a centre at exactly x1 or y1. Such a centre is inside.",
            "x1 <= x + 0.5",
        ),
        Wrong(
            "y before x",
            right.given(boxes=lambda a: a.boxes[:, [1, 0, 3, 2]]),
            "You read boxes as (y1, x1, y2, x2). They are (x1, y1, x2, y2).",
            "x counts columns, and columns are the last axis.",
        ),
    ],
)
