"""offset_target: the vector from each pixel to the centre of its object."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case
from segedu.teaching.exercises.lab10_embeddings.scene import pixel_positions


def offset_target(label_map: Tensor, unit: float) -> Tensor:
    """Point from each pixel to the centre of its object: the mean position of the object's pixels.

    All pixels with one label are one object, even if they are not connected; the labels may have gaps.

    Args:
        label_map: (H, W) integers: 0 is background, every other label is one object.
        unit: number of pixels per unit of length; offsets in pixels are divided by it.

    Returns:
        (2, H, W) floats, dy before dx: centre minus pixel, in units; 0 in the background.

    Example: the centre of object 5 lies at x = 1, so its left pixel points 1 to the right, its right one 1 to the left.

        >>> offset_target(torch.tensor([[5, 5, 5, 0]]), 1.0)[1]
        tensor([[ 1.,  0., -1.,  0.]], dtype=torch.float64)
    """
    return _towards(label_map, _mean) / unit


def _mean(positions: Tensor) -> Tensor:
    return positions.mean(dim=0)


def _towards(label_map: Tensor, centre: Callable[[Tensor], Tensor]) -> Tensor:
    """In pixels; `centre` (N, 2) -> (2,)."""
    offsets = torch.zeros(2, *label_map.shape, dtype=torch.float64)
    for label in label_map[label_map > 0].unique():
        inside = label_map == label
        positions = inside.nonzero().double()  # (N, 2), y before x
        offsets[:, inside] = (centre(positions) - positions).T
    return offsets


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Label maps with objects that touch, an object in two pieces, and few or no objects."""
    low, high = (int(n) for n in rng.permutation([3, 7, 12, 40])[:2])
    height, width = (int(n) for n in rng.integers((5, 4), (7, 6)))
    cells = torch.zeros(10, 13, dtype=torch.int64)
    cells[1 : height + 1, 2:4] = low  # an L: its mean is not the centre of its bounding box
    cells[height - 1 : height + 1, 2 : width + 3] = low
    cells[1 : height - 1, 4 : width + 5] = high
    pieces = torch.zeros(9, 11, dtype=torch.int64)
    pieces[1:3, 0:3] = 2
    pieces[6 : 6 + int(rng.integers(1, 3)), 3 + int(rng.integers(3)) : 9] = 2
    pieces[3:6, 9:] = 9
    single = torch.zeros(4, 5, dtype=torch.int64)
    row, column = (int(n) for n in rng.integers((1, 1), (3, 4)))
    single[row, column] = 6
    line = torch.tensor([[0, 0, *[high] * (height + 3), *[high + 1] * 4, 0]])
    core = [case("two cells that touch", cells, 4.0), case("an object in two pieces", pieces, 8.0)]
    edge = [
        case("pixels as unit", cells.T.contiguous(), 1.0),
        case("an object of one pixel", single, 4.0),
        case("one row", line, 2.0),
        case("one object everywhere", torch.ones(4, width + 3, dtype=torch.int64), 0.5),
        case("no object", torch.zeros(4, 5, dtype=torch.int64), 4.0),
    ]
    return {"core": (2, core), "edge": (1, edge)}


right = Variants(offset_target)


def _to(centre: Callable[[Tensor], Tensor]) -> Callable:
    """`offset_target` with another centre."""
    return right.instead(lambda a: _towards(a.label_map, centre) / a.unit)


def one_centre_per_component(label_map: Tensor, unit: float) -> Tensor:
    components = torch.zeros_like(label_map)
    for label in label_map[label_map > 0].unique():
        numbers = torch.from_numpy(ndimage.label((label_map == label).numpy())[0]).long()
        components = torch.where(numbers > 0, numbers + components.max(), components)
    return offset_target(components, unit)


def labels_without_gaps(label_map: Tensor, unit: float) -> Tensor:
    count = len(label_map[label_map > 0].unique())
    return offset_target(torch.where(label_map <= count, label_map, 0), unit)


def _positions_where(mask: Tensor, unit: float) -> Tensor:
    return pixel_positions(mask.shape) * mask / unit


def _nearest_of_its_pixels(positions: Tensor) -> Tensor:
    return positions[(positions - positions.mean(0)).norm(dim=1).argmin()]


def _without_largest(label_map: Tensor) -> Tensor:
    return torch.where(label_map == label_map.max(), 0, label_map)


UNIT = "With unit=4, an offset of 2 pixels is 0.5."

exercise = Exercise(
    name="offset_target",
    points=3,
    cases=cases,
    reference=offset_target,
    kind="map",
    hides=["segedu.instance.spatial_embedding"],
    wrong=[
        Wrong(
            "from the centre",
            right.then(lambda out, a: -out),
            "Your vectors point from the centre to the pixel. They should point from the pixel to the centre.",
            "Pixel + offset should be the centre: which of the two is subtracted?",
        ),
        Wrong(
            "in pixels", right.given(unit=lambda a: 1.0), "Your offsets are in pixels. Divide them by the unit.", UNIT
        ),
        Wrong(
            "times the unit",
            right.given(unit=lambda a: 1 / a.unit),
            "You multiply the offsets by the unit. Divide them by it.",
            UNIT,
        ),
        Wrong(
            "background points too",
            right.given(label_map=lambda a: a.label_map + 1),
            "Your background points at a centre of its own. Background is not an object; its offsets are 0.",
            "Which label must the loop skip?",
        ),
        Wrong(
            "background points to the corner",
            right.then(lambda out, a: out - _positions_where(a.label_map == 0, a.unit)),
            "Your background points at pixel (0, 0). Background is not an object; its offsets are 0.",
            "If your map of centres is 0 in the background, subtracting the pixel positions changes that.",
        ),
        Wrong(
            "x first",
            right.then(lambda out, a: out.flip(0)),
            "You return dx before dy. The first plane should be dy, the vertical component.",
            "The first axis of an image is y.",
        ),
        Wrong(
            "middle of the box",
            _to(lambda positions: (positions.amin(0) + positions.amax(0)) / 2),
            "Your centre is that of the bounding box. Use the mean position of the object's pixels.",
            "Draw an L: the mean of its pixels lies nearer to its corner.",
        ),
        Wrong(
            "centre rounded",
            _to(lambda positions: positions.mean(0).round()),
            "You round the centre to a pixel. Do not round it: it may lie between pixels.",
            "The mean of the positions 0 and 1 is 0.5.",
        ),
        Wrong(
            "lengths lost",
            right.then(lambda out, a: out / out.norm(dim=0).clamp(min=1e-12)),
            "You normalize the offsets to length 1. Divide them only by the unit.",
            "Pixel + offset should be the centre, so a distant pixel needs a longer vector than a near one.",
        ),
        Wrong(
            "one centre for all",
            right.given(label_map=lambda a: (a.label_map > 0).long()),
            "All your objects point at one common centre. Each object has its own centre.",
            "Do for each label what you do for the whole foreground.",
        ),
        Wrong(
            "pieces apart",
            one_centre_per_component,
            "You give each connected component its own centre. All pixels with one label share one centre.",
            "An object can be split by another one in front of it. Select pixels by label, not by connectivity.",
        ),
        Wrong(
            "numbers without gaps",
            labels_without_gaps,
            "You assume that the labels are 1, 2, 3, ... without gaps. Use the labels that occur.",
            "torch.unique returns the labels that occur.",
        ),
        Wrong(
            "the centre itself",
            right.then(lambda out, a: out + _positions_where(a.label_map > 0, a.unit)),
            "You return the position of the centre. Return the offset from the pixel to the centre.",
            "Subtract the position of the pixel.",
        ),
        Wrong(
            "median",
            _to(lambda positions: torch.quantile(positions, 0.5, dim=0)),
            "Your centre is the median position. Use the mean position of the object's pixels.",
            "Draw an L: mean and median of its pixels differ.",
        ),
        Wrong(
            "centre rounded down",
            _to(lambda positions: positions.mean(0).floor()),
            "You round the centre down to a pixel. Do not round it: it may lie between pixels.",
            "The mean of the positions 0 and 1 is 0.5.",
        ),
        Wrong(
            "nearest pixel of the object",
            _to(_nearest_of_its_pixels),
            "Your centre is the pixel of the object that is nearest to the mean. Use the mean itself.",
            "It may lie between pixels, or outside the object.",
        ),
        Wrong(
            "largest label left out",
            right.given(label_map=lambda a: _without_largest(a.label_map)),
            "You leave out the object with the largest label. This looks like a range that ends before it.",
            "range(1, n) ends at n - 1.",
        ),
        Wrong(
            "values last",
            right.then(lambda out, a: out.movedim(0, -1)),
            "Your two values are the last axis, (H, W, 2). The result is (2, H, W).",
            "The first plane is dy, the second dx.",
        ),
        Wrong(
            "length 1, then the unit",
            right.then(lambda out, a: out / out.norm(dim=0).clamp(min=1e-12) / a.unit),
            "You normalize the offsets to length 1 before you divide by the unit. Divide them only by the unit.",
            "Pixel + offset should be the centre, so a distant pixel needs a longer vector than a near one.",
        ),
        Wrong(
            "integers",
            right.then(lambda out, a: out.to(a.label_map.dtype)),
            "Your offsets are integers, so their fractions are lost. They have to be floats.",
            "The result must not have the dtype of the label map.",
        ),
        Wrong(
            "half a pixel",
            right.then(lambda out, a: out - 0.5 * (a.label_map > 0) / a.unit),
            "You add 0.5 to the positions of the pixels, but not to the mean. Use the same positions for both.",
            "An object of one pixel has the offset 0.",
        ),
        Wrong(
            "only the centre divided",
            right.then(
                lambda out, a: out + _positions_where(a.label_map > 0, a.unit) - _positions_where(a.label_map > 0, 1.0)
            ),
            "You divide only the centre by the unit. Divide the whole difference.",
            "Mind the brackets: (centre - pixel) / unit.",
        ),
    ],
)
