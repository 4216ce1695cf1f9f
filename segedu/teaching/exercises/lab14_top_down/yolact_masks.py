"""yolact_masks: masks as sums of prototypes, cut out by boxes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong


def yolact_masks(prototypes: Tensor, coefficients: Tensor, boxes: Tensor) -> Tensor:
    """Put the mask of each instance together from prototypes that all instances share, and cut it out by its box.

    A tanh brings the coefficients of an instance to between -1 and 1, so that it can take a prototype away, too. The
    mask is the sigmoid of the sum of prototypes times coefficients: sigmoid(P C^T), in the letters of the paper, with
    one row of P for each pixel and one row of C for each instance. Outside its box a mask is 0. A pixel is in the box
    if its centre is: that of row y and column x is the point (x + 0.5, y + 0.5), and

        x1 <= x + 0.5 < x2   and   y1 <= y + 0.5 < y2

    Args:
        prototypes: (H, W, k) floats.
        coefficients: (N, k) floats, as the network gives them, before tanh. Perhaps N = 0.
        boxes: (N, 4) floats, xyxy in pixels of the prototypes.

    Returns:
        (N, H, W) floats from 0 to 1, before any threshold.

    Example: one prototype and one instance; the box holds the second and the third pixel.

        >>> yolact_masks(torch.zeros(1, 4, 1), torch.ones(1, 1), torch.tensor([[1.0, 0.0, 3.0, 1.0]]))
        tensor([[[0.0000, 0.5000, 0.5000, 0.0000]]])
    """
    logits = torch.einsum("hwk,nk->nhw", prototypes, coefficients.tanh())
    return logits.sigmoid() * _inside(boxes, prototypes.shape, 0.5)


def _inside(boxes: Tensor, shape: tuple[int, ...], centre: float) -> Tensor:
    """(N, H, W) bool; `centre`: where in a pixel its point is."""
    y, x = (torch.arange(n) + centre for n in shape[:2])
    x1, y1, x2, y2 = boxes.T[..., None]
    rows, columns = (y1 <= y) & (y < y2), (x1 <= x) & (x < x2)
    return rows[:, :, None] & columns[:, None, :]


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Several instances, as many as prototypes too; boxes on centres, beyond the map, empty; no instance.

    Args:
        rng: of prototypes, coefficients and boxes.

    Returns:
        The cases by group.
    """

    def case(name: str, shape: tuple[int, int, int], boxes: list, off: bool = True) -> Case:
        prototypes = torch.from_numpy(rng.uniform(-1.5, 1.5, shape)).float()
        coefficients = torch.from_numpy(rng.uniform(0.4, 2.5, (len(boxes), shape[2]))).float()
        coefficients *= torch.from_numpy(rng.choice([-1, 1], coefficients.shape)).float()
        corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        if off:  # each corner in the second half of its pixel
            corners += torch.from_numpy(rng.integers(10, 15, corners.shape) / 16).float()
        return {"name": name, "args": [prototypes, coefficients, corners]}

    two = [[1, 1, 6, 4], [3, 0, 8, 5]]
    return {
        "core": (
            2,
            [
                case("two instances of three prototypes", (7, 10, 3), two),
                case("as many instances as prototypes", (8, 9, 4), [*two, [0, 2, 3, 6], [2, 3, 7, 6]]),
                case("one instance", (9, 6, 5), [[1, 2, 4, 6]]),
            ],
        ),
        "edge": (
            1,
            [
                case("boxes that begin and end at centres", (6, 8, 2), [[1.5, 0.5, 5.5, 4.5], [2, 1, 6, 5]], off=False),
                case("boxes that begin early in a pixel", (7, 7, 2), [[1.25, 2.125, 5.25, 6.375]], off=False),
                case(
                    "boxes beyond the map, and an empty one", (5, 7, 3), [[-4, -3, 3, 9], [2, 1, 20, 3], [3, 3, 3, 3]]
                ),
                case("no instance", (4, 5, 3), []),
            ],
        ),
    }


def _with_box(change: Callable[[Tensor], Tensor], centre: float = 0.5) -> Callable:
    """The right masks, cut out otherwise."""

    def answer(prototypes: Tensor, coefficients: Tensor, boxes: Tensor) -> Tensor:
        return _masks(prototypes, coefficients) * _inside(change(boxes), prototypes.shape, centre)

    return answer


def _masks(prototypes: Tensor, coefficients: Tensor) -> Tensor:
    """Without a box."""
    return torch.einsum("hwk,nk->nhw", prototypes, coefficients.tanh()).sigmoid()


def not_cropped(prototypes: Tensor, coefficients: Tensor, boxes: Tensor) -> Tensor:
    """Nobody asks for the box."""
    return _masks(prototypes, coefficients)


def cropped_too_early(prototypes: Tensor, coefficients: Tensor, boxes: Tensor) -> Tensor:
    """0 outside the box, and then the sigmoid: 1/2."""
    logits = torch.einsum("hwk,nk->nhw", prototypes, coefficients.tanh())
    return (logits * _inside(boxes, prototypes.shape, 0.5)).sigmoid()


def not_transposed(prototypes: Tensor, coefficients: Tensor, boxes: Tensor) -> Tensor:
    """P C: fails unless there are as many instances as prototypes."""
    logits = (prototypes @ coefficients.tanh()).movedim(-1, 0)
    return logits.sigmoid() * _inside(boxes, prototypes.shape, 0.5)


def instances_last(prototypes: Tensor, coefficients: Tensor, boxes: Tensor) -> Tensor:
    """(H, W, N), as the matrix product gives it."""
    return yolact_masks(prototypes, coefficients, boxes).movedim(0, -1)


def reshaped(prototypes: Tensor, coefficients: Tensor, boxes: Tensor) -> Tensor:
    """reshape in place of a change of axes: pixels of all instances are mixed."""
    mixed = (prototypes @ coefficients.tanh().T).reshape(len(boxes), *prototypes.shape[:2])
    return mixed.sigmoid() * _inside(boxes, prototypes.shape, 0.5)


def sigmoid_too_early(prototypes: Tensor, coefficients: Tensor, boxes: Tensor) -> Tensor:
    """Sigmoid of the prototypes, then the sum."""
    sums = torch.einsum("hwk,nk->nhw", prototypes.sigmoid(), coefficients.tanh())
    return sums * _inside(boxes, prototypes.shape, 0.5)


def sigmoid_of_both(prototypes: Tensor, coefficients: Tensor, boxes: Tensor) -> Tensor:
    """Sigmoid of the prototypes, and of the sum too."""
    return yolact_masks(prototypes.sigmoid(), coefficients, boxes)


def no_sigmoid(prototypes: Tensor, coefficients: Tensor, boxes: Tensor) -> Tensor:
    """The sum itself."""
    sums = torch.einsum("hwk,nk->nhw", prototypes, coefficients.tanh())
    return sums * _inside(boxes, prototypes.shape, 0.5)


def no_tanh(prototypes: Tensor, coefficients: Tensor, boxes: Tensor) -> Tensor:
    """The coefficients as they come."""
    logits = torch.einsum("hwk,nk->nhw", prototypes, coefficients)
    return logits.sigmoid() * _inside(boxes, prototypes.shape, 0.5)


def sigmoid_on_coefficients(prototypes: Tensor, coefficients: Tensor, boxes: Tensor) -> Tensor:
    """Coefficients from 0 to 1, which can only add."""
    logits = torch.einsum("hwk,nk->nhw", prototypes, coefficients.sigmoid())
    return logits.sigmoid() * _inside(boxes, prototypes.shape, 0.5)


def tanh_of_the_sum(prototypes: Tensor, coefficients: Tensor, boxes: Tensor) -> Tensor:
    """tanh after the sum."""
    logits = torch.einsum("hwk,nk->nhw", prototypes, coefficients)
    return logits.tanh().sigmoid() * _inside(boxes, prototypes.shape, 0.5)


def softmax_over_instances(prototypes: Tensor, coefficients: Tensor, boxes: Tensor) -> Tensor:
    """Instances compete for a pixel."""
    logits = torch.einsum("hwk,nk->nhw", prototypes, coefficients.tanh())
    return logits.softmax(0) * _inside(boxes, prototypes.shape, 0.5)


def thresholded(prototypes: Tensor, coefficients: Tensor, boxes: Tensor) -> Tensor:
    """True and False."""
    return yolact_masks(prototypes, coefficients, boxes) > 0.5


def last_centre_too(prototypes: Tensor, coefficients: Tensor, boxes: Tensor) -> Tensor:
    """x + 0.5 <= x2."""
    up = boxes.clone()
    up[:, 2:] = torch.nextafter(boxes[:, 2:], torch.tensor(torch.inf))
    return yolact_masks(prototypes, coefficients, up)


def first_centre_lost(prototypes: Tensor, coefficients: Tensor, boxes: Tensor) -> Tensor:
    """x1 < x + 0.5."""
    up = boxes.clone()
    up[:, :2] = torch.nextafter(boxes[:, :2], torch.tensor(torch.inf))
    return yolact_masks(prototypes, coefficients, up)


CENTRE = "Pixel 1 reaches from 1 to 2: its centre is at 1.5. A box from 1.6 leaves it out, one from 1.4 does not."
PRODUCT = "P.shape is (H, W, k), C.shape is (N, k): sum over k. Then bring N to the front."
ORDER = "tanh of the coefficients, the sum, its sigmoid, the box."

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
            not_cropped,
            "You never use the boxes: outside its box a mask is 0.",
            "Prototypes know no instances: they draw other objects, too.",
        ),
        Wrong(
            "crop before the sigmoid",
            cropped_too_early,
            "Outside the boxes your masks are 1/2, which is sigmoid(0): cut them out after the sigmoid.",
            ORDER,
        ),
        Wrong("P C", not_transposed, "You multiply P C: it is P C^T, a sum over the prototypes.", PRODUCT),
        Wrong("instances last", instances_last, "Your shape is (H, W, N): it is (N, H, W).", PRODUCT),
        Wrong(
            "reshaped",
            reshaped,
            "You reshape (H, W, N) to (N, H, W), which mixes the pixels of all instances: move the axis instead.",
            "permute(2, 0, 1) or movedim(-1, 0).",
        ),
        Wrong(
            "sigmoid before the product",
            sigmoid_too_early,
            "You take the sigmoid of the prototypes: take it of the sum.",
            ORDER,
        ),
        Wrong(
            "sigmoid before and after",
            sigmoid_of_both,
            "You take the sigmoid of the prototypes and of the sum: take it of the sum only.",
            ORDER,
        ),
        Wrong("no sigmoid", no_sigmoid, "You return the sums: their sigmoids are the masks.", ORDER),
        Wrong(
            "tanh lost",
            no_tanh,
            "You use the coefficients as they come: tanh comes first.",
            ORDER,
        ),
        Wrong(
            "sigmoid for tanh",
            sigmoid_on_coefficients,
            "Your coefficients are 0 to 1, from a sigmoid: tanh gives -1 to 1, so that a prototype can be taken away.",
            ORDER,
        ),
        Wrong(
            "tanh after the product",
            tanh_of_the_sum,
            "You take the tanh of the sum: take it of the coefficients.",
            ORDER,
        ),
        Wrong(
            "softmax over instances",
            softmax_over_instances,
            "Your instances compete for each pixel in a softmax: each has a sigmoid of its own.",
            ORDER,
        ),
        Wrong(
            "threshold",
            thresholded,
            "You return True and False: return the values from 0 to 1. The threshold comes later, at the image's size.",
            ORDER,
        ),
        Wrong(
            "corners for centres",
            _with_box(lambda boxes: boxes, centre=0.0),
            "You ask whether the corner of a pixel is in the box: ask for its centre, half a pixel further.",
            CENTRE,
        ),
        Wrong(
            "box cut to whole pixels",
            _with_box(torch.floor, centre=0.0),
            "You cut the box to whole pixels, as int() does: ask whether the centre of a pixel is inside.",
            CENTRE,
        ),
        Wrong(
            "last centre too",
            last_centre_too,
            "A centre at exactly x2 or y2 is in your box: the box ends just before.",
            "x + 0.5 < x2.",
        ),
        Wrong(
            "first centre lost",
            first_centre_lost,
            "A centre at exactly x1 or y1 is not in your box: the box begins there.",
            "x1 <= x + 0.5.",
        ),
        Wrong(
            "y before x",
            _with_box(lambda boxes: boxes[:, [1, 0, 3, 2]]),
            "You read boxes as (y1, x1, y2, x2): they are (x1, y1, x2, y2).",
            "x goes along columns, which is the last axis.",
        ),
    ],
)
