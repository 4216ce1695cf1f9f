"""signed_distance: how far is each pixel from the edge of its cell?"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case
from segedu.teaching.exercises.lab09_distances.cells import cell_masks, crescent, crowd


def signed_distance(label_map: Tensor) -> Tensor:
    """Compute the distance from each pixel centre to the edge of its cell: positive inside cells, negative outside.

    The edge lies halfway between two pixels. Inside a cell the distance is therefore the Euclidean distance to the
    nearest pixel that does not belong to this cell, minus 1/2; that pixel may be background or part of another cell.
    In the background it is minus the distance to the nearest pixel of any cell, plus 1/2. The border of the image is
    not an edge.

    Args:
        label_map: (H, W) integers: 0 is background, every other label is one cell. The labels may have gaps.

    Returns:
        (H, W) floats, in pixels. An image with a single label has no edge: without any cell the distance is minus the
        diagonal of the image, sqrt(H^2 + W^2); if one cell fills the image, it is the diagonal.

    Example: cells 7 and 4 touch, so the pixels on both sides of their common edge have the distance 1/2.

        >>> signed_distance(torch.tensor([[0, 0, 7, 7, 7, 4, 4]]))
        tensor([[-1.5000, -0.5000,  0.5000,  1.5000,  0.5000,  0.5000,  1.5000]],
               dtype=torch.float64)
    """
    return _signed(label_map, _distance_to)


def _signed(label_map: Tensor, distance_to: Callable[[Tensor], Tensor]) -> Tensor:
    distance = 0.5 - distance_to(label_map > 0)
    for inside in cell_masks(label_map):
        distance[inside] = distance_to(~inside)[inside] - 0.5
    return distance


def _distance_to(targets: Tensor) -> Tensor:
    """From each pixel to the nearest target pixel; without any target, half a pixel more than the diagonal."""
    if not targets.any():
        return torch.full(targets.shape, math.hypot(*targets.shape) + 0.5, dtype=torch.float64)
    return _edt(targets)


def _edt(targets: Tensor) -> Tensor:
    """The same as scipy computes it; meaningless without any target."""
    return torch.from_numpy(ndimage.distance_transform_edt(~targets.numpy()))


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Label maps of at most 100 pixels, so that the figures show the values."""
    one, two = (int(n) for n in rng.permutation([1, int(rng.choice([4, 6, 20]))]))
    width = int(rng.integers(2, 5))
    single = torch.zeros(5, 7, dtype=torch.int64)
    single[int(rng.integers(5)), int(rng.integers(2, 5))] = one
    row = torch.tensor([[two] * width + [one] * 3 + [0] * 4 + [one] * 2])
    full = torch.full((6, 9), one)
    full[2:, width:] = two
    core = [case("cells that touch", crowd(rng)), case("a cell like a C", crescent(rng))]
    edge = [
        case("a cell of one pixel", single),
        case("one row", row),
        case("two cells and no background", full),
        case("no cell", torch.zeros(3, 3 + width, dtype=torch.int64)),
        case("one cell everywhere", torch.full((4, 2 + width), one)),
    ]
    return {"core": (2, core), "edge": (1, edge)}


right = Variants(signed_distance)
to_pixel_centres = right.then(lambda out, a: out + out.sign() / 2)


def border_is_an_edge(label_map: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(label_map, (1, 1, 1, 1))
    distance = signed_distance(padded)[1:-1, 1:-1]
    return torch.where(label_map > 0, distance, signed_distance(label_map))


def edge_on_outermost_pixels(label_map: Tensor) -> Tensor:
    distance = signed_distance(label_map)
    on_the_edge = (distance > 0) & (distance < 1)
    depth = torch.zeros_like(distance)
    for inside in cell_masks(label_map):
        depth[inside] = _distance_to(on_the_edge & inside)[inside]
    return torch.where(distance > 0, depth, distance - 0.5)


def with_metric(metric: str) -> Callable:
    def distance_to(targets: Tensor) -> Tensor:
        if not targets.any():
            return _distance_to(targets)
        return torch.from_numpy(ndimage.distance_transform_cdt(~targets.numpy(), metric)).double()

    return right.instead(lambda a: _signed(a.label_map, distance_to))


def relative_to_the_peak(label_map: Tensor) -> Tensor:
    distance = signed_distance(label_map)
    for inside in cell_masks(label_map):
        distance[inside] /= distance[inside].max()
    return distance


def smallest_label_skipped(label_map: Tensor) -> Tensor:
    distance, labels = signed_distance(label_map), label_map.unique()
    if labels[0] == 0 or len(labels) == 1:
        return distance
    return torch.where(label_map == labels[0], 0.5 - _edt(label_map > 0), distance)


def without_an_edge(change: Callable[[Tensor], Tensor]) -> Callable:
    """Another result where the whole image has one label."""
    return right.then(lambda out, a: out if len(a.label_map.unique()) > 1 else change(out))


def has_an_edge(label_map: Tensor) -> bool:
    return len(label_map.unique()) > 1


def labels_up_to_their_number(label_map: Tensor) -> Tensor:
    """Visit the labels 1 to the number of cells; the pixels of others keep 1/2."""
    count = len(cell_masks(label_map))
    return torch.where(label_map <= count, signed_distance(label_map), 0.5)


def diagonal_without_background(label_map: Tensor) -> Tensor:
    distance = signed_distance(label_map)
    return torch.full_like(distance, math.hypot(*label_map.shape)) if (label_map > 0).all() else distance


def chessboard_inside(label_map: Tensor) -> Tensor:
    distance = signed_distance(label_map)
    for inside in cell_masks(label_map) if has_an_edge(label_map) else []:
        depth = torch.from_numpy(ndimage.distance_transform_cdt(inside.numpy(), "chessboard")) - 0.5
        distance[inside] = depth[inside].double()
    return distance


def to_the_last_cell(label_map: Tensor) -> Tensor:
    """In the background, the distance to the cell with the largest label."""
    distance, masks = signed_distance(label_map), cell_masks(label_map)
    return torch.where(label_map == 0, 0.5 - _edt(masks[-1]), distance) if masks else distance


HALF = "Try one row, [0, 7]: the edge lies midway between the two pixel centres, half a pixel from each."
EUCLIDEAN = "scipy.ndimage.distance_transform_edt computes Euclidean distances; the e in edt stands for Euclidean."
NO_EDGE = "Read in the exercise what to return for an image without a cell, and for one that a single cell fills."

exercise = Exercise(
    name="signed_distance",
    points=3,
    cases=cases,
    reference=signed_distance,
    kind="matrix",
    hides=["segedu.instance.signed_distance"],
    wrong=[
        Wrong(
            "unsigned",
            right.then(lambda out, a: out.abs()),
            "Your distances have no sign. Outside cells they should be negative.",
            "Compute one map for the inside of cells and one for the outside, then combine them with a minus sign.",
        ),
        Wrong(
            "sign turned round",
            right.then(lambda out, a: -out),
            "Your signs are reversed. The distance is positive inside cells and negative outside.",
            "The peaks of the map should lie inside the cells.",
        ),
        Wrong(
            "cells that touch merged",
            right.given(label_map=lambda a: (a.label_map > 0).long()),
            "You treat the foreground as one cell. There is also an edge between two cells that touch.",
            "Process one label at a time: every pixel with another label is outside this cell.",
        ),
        Wrong(
            "no half",
            to_pixel_centres,
            "You measure to the nearest pixel on the other side. The edge lies half a pixel before it.",
            HALF,
        ),
        Wrong(
            "half the wrong way",
            right.then(lambda out, a: out + out.sign()),
            "Your distances are one pixel too long. The half pixel has to shorten them, inside and outside of cells.",
            HALF,
        ),
        Wrong(
            "half only inside",
            right.then(lambda out, a: torch.where(out > 0, out, out - 0.5)),
            "Outside cells your distances are half a pixel too long. The edge is half a pixel nearer there, too.",
            HALF,
        ),
        Wrong(
            "edge on the last pixels",
            edge_on_outermost_pixels,
            "Your edge runs through the outermost pixels of a cell. It lies between them and the pixels outside.",
            HALF,
        ),
        Wrong(
            "border of the image",
            border_is_an_edge,
            "You treat the border of the image as an edge. Only pixels of the image can lie outside a cell.",
            "Do not pad with zeros: a cell that the border cuts off continues beyond it.",
        ),
        Wrong(
            "city blocks",
            with_metric("taxicab"),
            "You add the vertical and the horizontal distance. Use the Euclidean distance, sqrt(dy^2 + dx^2).",
            EUCLIDEAN,
        ),
        Wrong(
            "chessboard",
            with_metric("chessboard"),
            "You take the larger of |dy| and |dx| as distance. Use the Euclidean distance, sqrt(dy^2 + dx^2).",
            EUCLIDEAN,
        ),
        Wrong(
            "squared",
            Variants(to_pixel_centres).then(lambda out, a: out * out.abs() - out.sign() / 2),
            "Your distances are squared. Take the square root before you subtract half a pixel.",
            HALF,
        ),
        Wrong(
            "zero outside",
            right.then(lambda out, a: out.clamp(min=0)),
            "Your distance is 0 in the background. There it is minus the distance to the nearest cell, plus 1/2.",
            "A signed distance continues outside the cells.",
        ),
        Wrong(
            "share of the depth",
            relative_to_the_peak,
            "You divide by the largest distance of each cell. The distances should be in pixels.",
            "A large cell has a higher peak than a small one.",
        ),
        Wrong(
            "numbers without gaps",
            right.then(lambda out, a: torch.where(a.label_map <= len(cell_masks(a.label_map)), out, 0.0)),
            "You assume that the labels are 1, 2, 3, ... without gaps. Use the labels that occur.",
            "torch.unique returns the labels that occur.",
        ),
        Wrong(
            "first number left out",
            smallest_label_skipped,
            "You skip the smallest label that occurs. Skip only label 0, which does not occur in every image.",
            "label_map[label_map > 0].unique() holds the labels of cells and no other.",
        ),
        Wrong(
            "foreground as one, to the pixel",
            right.instead(lambda a: _edt(a.label_map == 0) - _edt(a.label_map > 0)),
            "You treat the foreground as one cell and measure to pixel centres. Measure to the edge of each cell.",
            "Process one label at a time, and subtract 1/2.",
        ),
        Wrong(
            "no edge not seen",
            right.instead(lambda a: _signed(a.label_map, _edt)),
            "If the image has no edge, scipy's distances mean nothing. Return the diagonal, negative if there is no "
            "cell.",
            NO_EDGE,
        ),
        Wrong(
            "0 without an edge",
            without_an_edge(lambda out: 0 * out),
            "You return 0 for an image without an edge. Return the diagonal, negative if there is no cell.",
            NO_EDGE,
        ),
        Wrong(
            "infinite without an edge",
            without_an_edge(lambda out: math.inf * out),
            "You return infinity for an image without an edge. Return the diagonal, negative if there is no cell.",
            NO_EDGE,
        ),
        Wrong(
            "half only outside",
            right.then(lambda out, a: torch.where(out > 0, out + 0.5, out) if has_an_edge(a.label_map) else out),
            "Inside cells your distances are half a pixel too long. The edge lies half a pixel before the pixel "
            "outside.",
            HALF,
        ),
        Wrong(
            "half the wrong way outside",
            right.then(lambda out, a: torch.where(out < 0, out - 1, out) if has_an_edge(a.label_map) else out),
            "In the background you subtract 1/2 from the negative distance. Add it: the edge is half a pixel nearer.",
            HALF,
        ),
        Wrong(
            "labels up to their number",
            right.instead(lambda a: labels_up_to_their_number(a.label_map)),
            "You visit the labels 1, 2, 3, ..., as many as there are cells. Use the labels that occur.",
            "torch.unique returns the labels that occur.",
        ),
        Wrong(
            "integers",
            right.then(lambda out, a: out.to(a.label_map.dtype)),
            "Your distances are integers, so their fractions are lost. They have to be floats.",
            "np.zeros_like(label_map) has the dtype of the label map.",
        ),
        Wrong(
            "chessboard inside",
            chessboard_inside,
            "Inside cells you take the larger of |dy| and |dx| as distance. Use the Euclidean distance.",
            EUCLIDEAN,
        ),
        Wrong(
            "to the last cell",
            to_the_last_cell,
            "In the background you measure to the cell visited last. Measure to the nearest of all cells.",
            "Your loop overwrites the background with each cell.",
        ),
        Wrong(
            "no cell not treated",
            right.instead(lambda a: _signed(a.label_map, _distance_to if (a.label_map > 0).any() else _edt)),
            "You do not treat an image without cells as a special case, where scipy's distances mean nothing. Return "
            "minus the diagonal.",
            NO_EDGE,
        ),
        Wrong(
            "full image not treated",
            right.instead(lambda a: _signed(a.label_map, _edt if (a.label_map > 0).any() else _distance_to)),
            "You do not treat a cell that fills the image as a special case, where scipy's distances mean nothing. "
            "Return the diagonal.",
            NO_EDGE,
        ),
        Wrong(
            "diagonal without background",
            diagonal_without_background,
            "You return the diagonal for every image without background. Several cells may share it, with edges "
            "between them.",
            NO_EDGE,
        ),
        Wrong(
            "positive without a cell",
            without_an_edge(lambda out: out.abs()),
            "You return the positive diagonal for an image without cells. There it is negative.",
            NO_EDGE,
        ),
        Wrong(
            "diagonal between pixel centres",
            without_an_edge(lambda out: out.sign() * math.hypot(*(n - 1 for n in out.shape))),
            "Your diagonal is the distance between the centres of the corner pixels. It is sqrt(H^2 + W^2).",
            NO_EDGE,
        ),
    ],
)
