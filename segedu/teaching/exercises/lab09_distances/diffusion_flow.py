"""diffusion_flow: heat diffuses from the centre of a cell, and the flow points to where it is warmer."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case
from segedu.teaching.exercises.lab09_distances.cells import cell_masks, crescent, crowd, random_orientation, split_cell

LEAST = 3e-7  # in float32, gradients that should be 0 are at most 1e-7 long in the cases; all others are above 6e-6


def diffusion_flow(label_map: Tensor, steps: int) -> Tensor:
    """Diffuse heat from the centre of each cell; return the direction in which the heat increases.

    For each cell separately:

    1. The source is the pixel of the cell that is nearest to the mean position of all its pixels; of equally near
       pixels, the first in reading order. So the source lies in the cell, even where the mean does not.
    2. The heat is 0 at first. Each of the `steps` adds 1 at the source, then replaces each pixel of the cell by the
       mean of its 3x3 neighbourhood (always a sum divided by 9). Outside the cell and beyond the image, heat stays 0.
    3. The gradient at (y, x) is (heat[y + 1, x] - heat[y - 1, x], heat[y, x + 1] - heat[y, x - 1]), with the heat of
       this cell only. The flow is the gradient divided by its length. It is 0 where the length is below 3e-7, because
       rounding would decide the direction there.

    Args:
        label_map: (H, W) integers: 0 is background, every other label is one cell. The labels may have gaps.
        steps: number of diffusion steps.

    Returns:
        (2, H, W) floats, dy before dx: vectors of length 1 or 0 in cells, 0 in the background.

    Example: the source of cell 4 is its second pixel. A cell of one pixel has no gradient.

        >>> diffusion_flow(torch.tensor([[4, 4, 4, 4, 0, 2]]), 10)[1]
        tensor([[ 1.,  1., -1., -1.,  0.,  0.]], dtype=torch.float64)
    """
    flows = torch.zeros(2, *label_map.shape)
    for inside in cell_masks(label_map):
        flows = flows + _normalize(_gradient(_heat(inside, _source(inside), steps))) * inside
    return flows


def _source(inside: Tensor) -> tuple[int, int]:
    pixels = inside.nonzero().double()
    nearest = ((pixels - pixels.mean(dim=0)) ** 2).sum(dim=1).argmin()
    return tuple(inside.nonzero()[nearest].tolist())


def _heat(inside: Tensor, source: tuple[int, int], steps: int) -> Tensor:
    heat = torch.zeros_like(inside, dtype=torch.float64)
    for _ in range(steps):
        heat[source] += 1
        heat = F.avg_pool2d(heat[None], 3, stride=1, padding=1)[0] * inside
    return heat


def _gradient(heat: Tensor) -> Tensor:
    padded = F.pad(heat, (1, 1, 1, 1))
    return torch.stack([padded[2:, 1:-1] - padded[:-2, 1:-1], padded[1:-1, 2:] - padded[1:-1, :-2]])


def _normalize(gradient: Tensor) -> Tensor:
    length = gradient.norm(dim=0)
    return torch.where(length < LEAST, 0.0, gradient / length)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Label maps with cells that touch, bent and split cells, and hardly any cell."""
    one, two = (int(n) for n in rng.permutation([1, int(rng.choice([4, 6, 20]))]))
    width = int(rng.integers(4, 7))
    single = torch.zeros(5, 6, dtype=torch.int64)
    single[int(rng.integers(5)), int(rng.integers(1, 5))] = one
    row = torch.tensor([[two] * width + [one] * 4 + [0] * 2 + [one]])
    hook = torch.zeros(6, 8, dtype=torch.int64)  # rounding the mean, or city-block distance, gives another pixel
    hook[1:5, 1:6] = one
    hook[2:, 2:4] = 0
    hook[2, 4] = 0
    core = [case("cells that touch", crowd(rng), 30), case("a cell like a C", crescent(rng), 60)]
    edge = [
        case("few steps", crescent(rng), 4),
        case("a cell in two pieces", split_cell(rng), 25),
        case("a cell like a hook", random_orientation(hook, rng), 30),
        case("a cell of one pixel", single, 5),
        case("one row", row, 20),
        case("one cell everywhere", torch.full((5, width), one), 8),
        case("no cell", torch.zeros(3, width, dtype=torch.int64), 10),
    ]
    return {"core": (2, core), "edge": (1, edge)}


right = Variants(diffusion_flow)


def _flow(
    a: SimpleNamespace,
    source: Callable = _source,
    heat: Callable = _heat,
    gradient: Callable = _gradient,
    normalize: Callable = _normalize,
) -> Tensor:
    """`diffusion_flow` of the arguments `a` with one part replaced."""
    flows = torch.zeros(2, *a.label_map.shape, dtype=torch.float64)
    for inside in cell_masks(a.label_map):
        flows += normalize(gradient(heat(inside, source(inside), a.steps))) * inside
    return flows


def _rounded_mean(inside: Tensor) -> tuple[int, int]:
    return tuple(inside.nonzero().double().mean(dim=0).round().long().tolist())


def _heat_if_inside(inside: Tensor, source: tuple[int, int], steps: int) -> Tensor:
    """No heat at all if the source is outside, as heat is 0 there."""
    return _heat(inside, source, steps) * inside[source]


def _last_nearest(inside: Tensor) -> tuple[int, int]:
    pixels = inside.nonzero().flip(0)
    return tuple(pixels[((pixels - pixels.double().mean(dim=0)) ** 2).sum(dim=1).argmin()].tolist())


def straight_to_the_source(label_map: Tensor, steps: int) -> Tensor:
    flows = torch.zeros(2, *label_map.shape, dtype=torch.float64)
    for inside in cell_masks(label_map):
        flows[:, inside] = _normalize((torch.tensor(_source(inside)) - inside.nonzero()).T.double())
    return flows


def one_heat_map(label_map: Tensor, steps: int) -> Tensor:
    heat = torch.zeros(label_map.shape, dtype=torch.float64)
    for inside in cell_masks(label_map):
        heat += _heat(inside, _source(inside), steps)
    return _normalize(_gradient(heat)) * (label_map > 0)


def background_flows(label_map: Tensor, steps: int) -> Tensor:
    flows = diffusion_flow(label_map, steps)
    for inside in cell_masks(label_map):
        flows += _normalize(_gradient(_heat(inside, _source(inside), steps))) * (label_map == 0)
    return flows


def _heat_added_once(inside: Tensor, source: tuple[int, int], steps: int) -> Tensor:
    return _heat(inside, source, steps) - _heat(inside, source, steps - 1)


def _normalize_small(gradient: Tensor) -> Tensor:
    """Scale the gradients first: most heat of a single impulse is lost, and they would fall below LEAST."""
    return _normalize(gradient / gradient.norm(dim=0).max().clamp(min=1e-300))


def _heat_added_after(inside: Tensor, source: tuple[int, int], steps: int) -> Tensor:
    heat = _heat(inside, source, steps - 1)
    heat[source] += 1
    return heat


def _mean_over_the_cell(inside: Tensor, source: tuple[int, int], steps: int) -> Tensor:
    counts = F.avg_pool2d(inside.double()[None], 3, stride=1, padding=1)
    heat = torch.zeros(1, *inside.shape, dtype=torch.float64)
    for _ in range(steps):
        heat[0, *source] += 1
        heat = torch.where(inside, F.avg_pool2d(heat, 3, stride=1, padding=1) / counts, 0.0)
    return heat[0]


def _gradient_by_roll(heat: Tensor) -> Tensor:
    return torch.stack([heat.roll(-1, axis) - heat.roll(1, axis) for axis in (0, 1)])


def _nearest_to(point: Callable[[Tensor], Tensor]) -> Callable:
    """The source as the pixel nearest to another point of the cell's pixels (N, 2)."""

    def source(inside: Tensor) -> tuple[int, int]:
        pixels = inside.nonzero().double()
        nearest = ((pixels - point(pixels)) ** 2).sum(dim=1).argmin()
        return tuple(inside.nonzero()[nearest].tolist())

    return source


def _heat_at_rounded_mean(inside: Tensor, source: tuple[int, int], steps: int) -> Tensor:
    """The source may lie outside: its heat reaches the cell from there in each step."""
    heat = torch.zeros_like(inside, dtype=torch.float64)
    for _ in range(steps):
        heat[source] += 1
        heat = F.avg_pool2d(heat[None], 3, stride=1, padding=1)[0] * inside
    return heat


def _convolved(kernel: list[list[float]]) -> Callable:
    """The heat with another mean, by a 3x3 kernel."""

    def heat_of(inside: Tensor, source: tuple[int, int], steps: int) -> Tensor:
        weights = torch.tensor(kernel, dtype=torch.float64)[None, None]
        heat = torch.zeros_like(inside, dtype=torch.float64)
        for _ in range(steps):
            heat[source] += 1
            heat = F.conv2d(heat[None, None], weights / weights.sum(), padding=1)[0, 0] * inside
        return heat

    return heat_of


def _reflected(inside: Tensor, source: tuple[int, int], steps: int) -> Tensor:
    """The heat continues beyond the image."""
    heat = torch.zeros_like(inside, dtype=torch.float64)
    for _ in range(steps):
        heat[source] += 1
        padded = F.pad(heat[None, None], (1, 1, 1, 1), mode="replicate")
        heat = F.avg_pool2d(padded, 3, stride=1)[0, 0] * inside
    return heat


def _one_sided_at_the_border(heat: Tensor) -> Tensor:
    parts = [2 * np.gradient(heat.numpy(), axis=i) if n > 1 else 0 * heat.numpy() for i, n in enumerate(heat.shape)]
    return torch.from_numpy(np.stack(parts))


def _labels_counted(label_map: Tensor) -> Tensor:
    return torch.where(label_map <= len(cell_masks(label_map)), label_map, 0)


OUTSIDE = "After each step, multiply: heat * inside, with inside = (label_map == label)."
LENGTH = "Divide dy and dx of a pixel by sqrt(dy^2 + dx^2) of this pixel where that is at least 3e-7."
STEP_2 = "Read step 2 of the exercise again: heat[source] += 1, then the mean over 3x3, then 0 outside."

exercise = Exercise(
    name="diffusion_flow",
    points=3,
    cases=cases,
    reference=diffusion_flow,
    tolerance=5e-6,
    kind="arrows",
    hides=["segedu.instance.cellpose.flows", "segedu.ops.flows"],
    wrong=[
        Wrong(
            "mean outside of the cell",
            right.instead(lambda a: _flow(a, source=_rounded_mean, heat=_heat_if_inside)),
            "Your source may lie outside its cell. Take the pixel of the cell that is nearest to the mean.",
            "Draw a C: the mean of its pixels lies in its opening. Which of its pixels is nearest?",
        ),
        Wrong(
            "last of equally near ones",
            right.instead(lambda a: _flow(a, source=_last_nearest)),
            "If several pixels are equally near to the mean, you take the last. Take the first in reading order.",
            "argmin returns the first of equal values.",
        ),
        Wrong(
            "straight to the source",
            straight_to_the_source,
            "Your vectors point straight at the source, even across the background. Follow the increase of the heat.",
            "In a C-shaped cell the way to the source follows the bend, and so does the heat.",
        ),
        Wrong(
            "leaks into neighbours",
            right.instead(lambda a: _flow(a, heat=lambda _, source, steps: _heat(a.label_map > 0, source, steps))),
            "Your heat leaks into neighbouring cells. Heat each cell separately, with 0 in all others.",
            OUTSIDE,
        ),
        Wrong(
            "slope of all heat",
            one_heat_map,
            "Your gradients include the heat of neighbouring cells. Use only the heat of the cell itself.",
            "Compute the flow of a cell before you heat the next cell.",
        ),
        Wrong(
            "heat in the background",
            right.instead(lambda a: _flow(a, heat=lambda inside, *rest: _heat(torch.ones_like(inside), *rest))),
            "Your heat spreads into the background. Outside the cell it should stay 0.",
            OUTSIDE,
        ),
        Wrong(
            "all one cell",
            right.given(label_map=lambda a: (a.label_map > 0).long()),
            "You heat all cells as if they were one. Each cell has its own source.",
            OUTSIDE,
        ),
        Wrong(
            "background flows",
            background_flows,
            "Your flow is not 0 in the background. Set it to 0 there.",
            "Next to a cell the gradient is not 0, because the heat inside the cell is not.",
        ),
        Wrong(
            "not of length 1",
            right.instead(lambda a: _flow(a, normalize=lambda gradient: gradient)),
            "Your vectors are not normalized. Divide each by its own length.",
            LENGTH,
        ),
        Wrong(
            "dy and dx by themselves",
            right.instead(lambda a: _flow(a, normalize=lambda g: torch.where(g.abs() < LEAST, 0.0, g.sign()))),
            "You divide dy by |dy| and dx by |dx|. Divide both by the length of the vector (dy, dx).",
            LENGTH,
        ),
        Wrong(
            "0 / 0",
            right.instead(lambda a: torch.where((a.label_map > 0) & (_flow(a) == 0).all(dim=0), torch.nan, _flow(a))),
            "You divide by 0 where the gradient is 0. The flow is 0 there.",
            LENGTH,
        ),
        Wrong(
            "x first",
            right.then(lambda out, a: out.flip(0)),
            "You return dx before dy. The first plane should be dy, the vertical component.",
            "The first axis of an image is y.",
        ),
        Wrong(
            "away from the middle",
            right.then(lambda out, a: -out),
            "Your vectors point away from the source. They should point to where the heat increases.",
            "heat[y + 1, x] - heat[y - 1, x] is positive where heat increases downwards.",
        ),
        Wrong(
            "heated once",
            right.instead(lambda a: _flow(a, heat=_heat_added_once, normalize=_normalize_small)),
            "You add heat at the source only once. Each step should add 1 there.",
            STEP_2,
        ),
        Wrong(
            "heated after the mean",
            right.instead(lambda a: _flow(a, heat=_heat_added_after)),
            "You add 1 at the source after taking the mean. Add it before.",
            STEP_2,
        ),
        Wrong(
            "mean of the cell's pixels only",
            right.instead(lambda a: _flow(a, heat=_mean_over_the_cell)),
            "You divide by the number of neighbourhood pixels that lie in the cell. Always divide by 9.",
            STEP_2,
        ),
        Wrong(
            "wraps around",
            right.instead(lambda a: _flow(a, gradient=_gradient_by_roll)),
            "Your gradients wrap around to the opposite side of the image. Beyond the border, the heat is 0.",
            "torch.roll and np.roll wrap around. Pad with zeros instead.",
        ),
        Wrong(
            "nearest to the median",
            right.instead(lambda a: _flow(a, source=_nearest_to(lambda p: torch.quantile(p, 0.5, dim=0)))),
            "Your source is the pixel nearest to the median, as in the paper. This exercise uses the mean.",
            "Read step 1 of the exercise again.",
        ),
        Wrong(
            "middle of the box",
            right.instead(lambda a: _flow(a, source=_nearest_to(lambda p: (p.amin(0) + p.amax(0)) / 2))),
            "Your source is the pixel nearest to the centre of the bounding box. Use the mean of the pixels.",
            "Read step 1 of the exercise again.",
        ),
        Wrong(
            "heat from the rounded mean",
            right.instead(lambda a: _flow(a, source=_rounded_mean, heat=_heat_at_rounded_mean)),
            "Your source is the rounded mean, which may lie outside the cell. Take the pixel of the cell nearest to "
            "the mean.",
            "Draw a C: the mean of its pixels lies in its opening. Which of its pixels is nearest?",
        ),
        Wrong(
            "heated once, before the loop",
            right.instead(lambda a: _flow(a, heat=_heat_added_once)),
            "You add heat at the source once, before the first step. Each step adds 1 there.",
            STEP_2,
        ),
        Wrong(
            "mean of five pixels",
            right.instead(lambda a: _flow(a, heat=_convolved([[0, 1, 0], [1, 1, 1], [0, 1, 0]]))),
            "You average a pixel and its four direct neighbours. Average the 3x3 neighbourhood.",
            STEP_2,
        ),
        Wrong(
            "heat continues beyond the image",
            right.instead(lambda a: _flow(a, heat=_reflected)),
            "Beyond the image, you continue the heat of the border. It is 0 there.",
            "The default mode of scipy's filters reflects the image.",
        ),
        Wrong(
            "one-sided at the border",
            right.instead(lambda a: _flow(a, gradient=_one_sided_at_the_border)),
            "At the border of the image, your differences are one-sided. Beyond the border, the heat is 0.",
            "np.gradient knows nothing beyond the border. Pad with zeros instead.",
        ),
        Wrong(
            "labels counted",
            right.given(label_map=lambda a: _labels_counted(a.label_map)),
            "You visit the labels 1, 2, 3, ..., as many as there are cells. Use the labels that occur.",
            "torch.unique returns the labels that occur.",
        ),
    ],
)
