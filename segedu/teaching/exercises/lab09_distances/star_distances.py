"""star_distances: how far does the cell extend from each of its pixels, along rays?"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case
from segedu.teaching.exercises.lab09_distances.cells import crescent, crowd, split_cell


def star_distances(label_map: Tensor, n_rays: int) -> Tensor:
    """Walk from each pixel of a cell along rays until the cell ends.

    Ray k has the angle 2 pi k / n_rays and the direction (dy, dx) = (sin, cos) of it. Ray 0 points to the right. As y
    grows downwards, the next rays turn towards the bottom of the image.

    From pixel (y, x) take steps of length 1: after t steps you are on the pixel (round(y + t dy), round(x + t dx)).
    Stop at the first t = 1, 2, 3, ... whose pixel does not belong to this cell: it is background, part of another cell,
    or outside the image. The cell ends half a pixel after step t - 1, along the axis that changes faster. The distance
    is

        t - 1 + 0.5 / max(|dy|, |dx|)

    Args:
        label_map: (H, W) integers: 0 is background, every other label is one cell.
        n_rays: R, at least 3. (With the values that the check uses, no step ends halfway between two pixels.)

    Returns:
        (R, H, W) floats, in pixels, one plane per ray; 0 in the background.

    Example: from the left pixel of cell 7, the right edge is 2.5 away and all others 0.5.

        >>> star_distances(torch.tensor([[0, 7, 7, 7, 0]]), 4)[:, 0, 1]
        tensor([2.5000, 0.5000, 0.5000, 0.5000], dtype=torch.float64)
    """
    steps = _walk(label_map, _rays(n_rays))
    to_the_edge = 0.5 / _rays(n_rays).abs().amax(dim=1)
    return torch.where(label_map > 0, steps - 1 + to_the_edge[:, None, None], 0.0)


def _rays(n_rays: int) -> Tensor:
    return _directions(torch.arange(n_rays, dtype=torch.float64) * (2 * math.pi / n_rays))


def _directions(angles: Tensor) -> Tensor:
    """(R, 2), dy and dx."""
    return torch.stack([angles.sin(), angles.cos()], dim=1)


def _walk(label_map: Tensor, rays: Tensor, to_integer: Callable[[Tensor], Tensor] = torch.round) -> Tensor:
    """(R, H, W): the number of the first step that leaves the cell of each pixel, along each ray."""
    return _in_cell(label_map, rays, to_integer).cumprod(dim=0).sum(dim=0) + 1.0


def _in_cell(label_map: Tensor, rays: Tensor, to_integer: Callable[[Tensor], Tensor]) -> Tensor:
    """(T, R, H, W) bool: whether step 1, 2, ... ends on a pixel of the cell; T steps lead out of any image."""
    H, W = label_map.shape
    reach = H + W
    padded = torch.nn.functional.pad(label_map, [reach] * 4)
    times = torch.arange(1, reach).reshape(-1, 1, 1, 1)
    dy, dx = rays.T[:, :, None, None]
    y, x = torch.arange(H)[:, None] + times * dy, torch.arange(W) + times * dx
    return padded[to_integer(y).long() + reach, to_integer(x).long() + reach] == label_map


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Label maps with cells that touch, bent and split cells, and hardly any cell; 4 to 16 rays."""
    one, two = (int(n) for n in rng.permutation([1, int(rng.choice([4, 6, 20]))]))
    width = int(rng.integers(4, 7))
    single = torch.zeros(5, 6, dtype=torch.int64)
    single[int(rng.integers(1, 4)), int(rng.integers(1, 5))] = one
    row = torch.tensor([[two] * width + [one] * 3 + [0] * 2 + [one] * 2])
    core = [
        case("cells that touch", crowd(rng), 8),
        case("a cell like a C", crescent(rng), 16),
        case("a cell in two pieces", split_cell(rng), 10),
    ]
    edge = [
        case("four rays", crowd(rng), 4),
        case("five rays", crescent(rng), 5),
        case("a cell of one pixel", single, 8),
        case("one row", row, 4),
        case("one cell everywhere", torch.full((5, width), one), 8),
        case("no cell", torch.zeros(3, width, dtype=torch.int64), 8),
    ]
    return {"core": (3, core), "edge": (1, edge)}


right = Variants(star_distances)


def _with_rays(rays: Callable[[int], Tensor]) -> Callable:
    """`star_distances` along other rays (R, 2)."""
    return right.instead(lambda a: _stars(a.label_map, rays(a.n_rays)))


def _with_walk(walk: Callable[[Tensor, Tensor], Tensor]) -> Callable:
    """`star_distances` with another number of steps (R, H, W)."""
    return right.instead(lambda a: _stars(a.label_map, _rays(a.n_rays), walk))


def _with_edge(to_the_edge: Callable[[Tensor], Tensor]) -> Callable:
    """`star_distances` with another distance (R,) from the last pixel to the edge, made from max(|dy|, |dx|)."""

    def stars(label_map: Tensor, n_rays: int) -> Tensor:
        rays = _rays(n_rays)
        return _stars(label_map, rays, to_the_edge=to_the_edge(rays.abs().amax(dim=1)))

    return stars


def _stars(label_map: Tensor, rays: Tensor, walk: Callable = _walk, to_the_edge: Tensor | None = None) -> Tensor:
    if to_the_edge is None:
        to_the_edge = 0.5 / rays.abs().amax(dim=1)
    return torch.where(label_map > 0, walk(label_map, rays) - 1 + to_the_edge[:, None, None], 0.0)


def last_pixel_on_the_ray(label_map: Tensor, rays: Tensor) -> Tensor:
    inside = _in_cell(label_map, rays, torch.round)  # (T, R, H, W)
    return (inside * torch.arange(1, len(inside) + 1).reshape(-1, 1, 1, 1)).amax(dim=0) + 1.0


def steps_of_one_pixel(label_map: Tensor, n_rays: int) -> Tensor:
    rays = _rays(n_rays)
    return _stars(label_map, rays / rays.abs().amax(dim=1, keepdim=True), to_the_edge=torch.full([n_rays], 0.5))


def border_is_no_edge(label_map: Tensor, n_rays: int) -> Tensor:
    steps = _walk(label_map, _rays(n_rays))
    y, x = torch.meshgrid(*map(torch.arange, label_map.shape), indexing="ij")
    ends = (torch.stack([y, x]) + steps[:, None] * _rays(n_rays)[:, :, None, None]).round()
    last = torch.tensor(label_map.shape)[:, None, None] - 1
    outside = ((ends < 0) | (ends > last)).any(dim=1)
    return torch.where(outside & (label_map > 0), steps - 1, star_distances(label_map, n_rays))


def negative_indices(label_map: Tensor, rays: Tensor) -> Tensor:
    H, W = label_map.shape
    times = torch.arange(1, H + W).reshape(-1, 1, 1, 1)
    dy, dx = rays.T[:, :, None, None]
    y = (torch.arange(H)[:, None] + times * dy).round().long()
    x = (torch.arange(W) + times * dx).round().long()
    valid = (y >= -H) & (y < H) & (x >= -W) & (x < W)
    return (valid & (label_map[y % H, x % W] == label_map)).cumprod(dim=0).sum(dim=0) + 1.0


def _walk_from_rounded(label_map: Tensor, rays: Tensor) -> Tensor:
    """Go on from the rounded pixel after each step."""
    H, W = label_map.shape
    steps = torch.zeros(len(rays), H, W)
    y, x = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    for k, (dy, dx) in enumerate(rays.tolist()):
        v, u, inside = y, x, torch.ones(H, W, dtype=torch.bool)
        for _ in range(H + W):
            v, u = (v + dy).round().long(), (u + dx).round().long()
            valid = (v >= 0) & (v < H) & (u >= 0) & (u < W)
            inside = inside & valid & (label_map[v.clamp(0, H - 1), u.clamp(0, W - 1)] == label_map)
            steps[k] += inside
    return steps + 1.0


def _in_background_too(label_map: Tensor, n_rays: int) -> Tensor:
    rays = _rays(n_rays)
    return star_distances(label_map, n_rays) + (label_map == 0) * (0.5 / rays.abs().amax(dim=1))[:, None, None]


def _truncated(label_map: Tensor, rays: Tensor) -> Tensor:
    """Cut positions to integers; what is between -1 and 0 becomes row 0."""
    H, W = label_map.shape
    times = torch.arange(1, H + W + 1).reshape(-1, 1, 1, 1)
    dy, dx = rays.T[:, :, None, None]
    y, x = (torch.arange(H)[:, None] + times * dy).trunc().long(), (torch.arange(W) + times * dx).trunc().long()
    valid = (y >= 0) & (y < H) & (x >= 0) & (x < W)
    return (valid & (label_map[y.clamp(0, H - 1), x.clamp(0, W - 1)] == label_map)).cumprod(0).sum(0) + 1.0


def _clipped(label_map: Tensor, rays: Tensor) -> Tensor:
    """Positions outside the image move to its border."""
    H, W = label_map.shape
    times = torch.arange(1, H + W).reshape(-1, 1, 1, 1)
    dy, dx = rays.T[:, :, None, None]
    y = (torch.arange(H)[:, None] + times * dy).round().long().clamp(0, H - 1)
    x = (torch.arange(W) + times * dx).round().long().clamp(0, W - 1)
    return (label_map[y, x] == label_map).cumprod(0).sum(0) + 1.0


RAYS = "Along ray 0 only x changes, and it grows. Along ray R/4 only y changes, and it grows: downwards in the figure."
END = "Try one row, [7, 7, 7, 0], from the first 7: step t = 3 is outside, and the edge is 2.5 away."
DIAGONAL = "On a diagonal, neighbouring pixel centres are 1.41 apart, and half of that is 0.71."
OPENING = "A ray can leave a C-shaped cell and enter it again beyond the opening."

exercise = Exercise(
    name="star_distances",
    points=4,
    cases=cases,
    reference=star_distances,
    kind="stars",
    hides=["segedu.instance.stardist", "segedu.ops.rays"],
    wrong=[
        Wrong(
            "ray 0 points down",
            _with_rays(lambda n_rays: _rays(n_rays).flip(1)),
            "Your ray 0 points downwards. dy is the sine of the angle and dx the cosine.",
            RAYS,
        ),
        Wrong(
            "turns to the top",
            _with_rays(lambda n_rays: _rays(n_rays) * torch.tensor([-1, 1])),
            "Your rays turn upwards after ray 0. They should turn downwards: dy is the sine, without a minus sign.",
            RAYS,
        ),
        Wrong(
            "half a turn",
            _with_rays(lambda n_rays: _rays(2 * n_rays)[:n_rays]),
            "Your rays cover half a turn. The angle of ray k is 2 pi k / n_rays.",
            RAYS,
        ),
        Wrong(
            "first ray again",
            _with_rays(lambda n_rays: _directions(torch.linspace(0, 2 * math.pi, n_rays, dtype=torch.float64))),
            "Your last ray has the same direction as the first. Neighbouring rays are 2 pi / n_rays apart.",
            "linspace(0, 2 pi, R) contains both ends; 2 pi k / R for k = 0 ... R - 1 does not.",
        ),
        Wrong(
            "degrees",
            _with_rays(lambda n_rays: _directions(torch.arange(n_rays, dtype=torch.float64) * (360 / n_rays))),
            "Your angles are in degrees. sin and cos expect radians: a whole turn is 2 pi.",
            RAYS,
        ),
        Wrong(
            "background too",
            right.given(label_map=lambda a: a.label_map + 1),
            "You also compute distances for the background. It is not a cell, and its distances are 0.",
            "What does torch.where(label_map > 0, ..., 0) do?",
        ),
        Wrong(
            "neighbours crossed",
            right.given(label_map=lambda a: (a.label_map > 0).long()),
            "Your rays continue into neighbouring cells. A cell ends where another one begins.",
            "Compare with the label of the pixel where the ray starts, not with 0.",
        ),
        Wrong(
            "last pixel inside",
            _with_edge(lambda largest: torch.zeros(len(largest))),
            "You measure to the last pixel inside. The edge lies 0.5 / max(|dy|, |dx|) beyond it.",
            END,
        ),
        Wrong(
            "first pixel outside",
            _with_edge(lambda largest: torch.ones(len(largest))),
            "You return t itself. The edge lies before the first pixel outside.",
            END,
        ),
        Wrong(
            "half a pixel on every ray",
            _with_edge(lambda largest: torch.full([len(largest)], 0.5)),
            "You add 0.5 on every ray. Add half a pixel along the faster axis, 0.5 / max(|dy|, |dx|).",
            DIAGONAL,
        ),
        Wrong(
            "half a pixel times",
            _with_edge(lambda largest: 0.5 * largest),
            "You multiply 0.5 by max(|dy|, |dx|). Divide 0.5 by it.",
            DIAGONAL,
        ),
        Wrong(
            "one pixel early",
            right.then(lambda out, a: torch.where(a.label_map > 0, out - 1, 0.0)),
            "Your distances are 1 too short. The first step has t = 1, not 0.",
            END,
        ),
        Wrong(
            "cut off, not rounded",
            _with_walk(lambda label_map, rays: _walk(label_map, rays, torch.floor)),
            "You truncate the positions to integers. Round them to the nearest pixel.",
            "1.9 is nearest to pixel 2; floor and int() return 1.",
        ),
        Wrong(
            "over the gap",
            _with_walk(last_pixel_on_the_ray),
            "Your rays jump over gaps. They should stop at the first pixel that does not belong to the cell.",
            OPENING,
        ),
        Wrong(
            "steps inside counted",
            _with_walk(lambda label_map, rays: _in_cell(label_map, rays, torch.round).sum(dim=0) + 1.0),
            "You count all steps that end in the cell. Stop at the first one that does not.",
            OPENING,
        ),
        Wrong(
            "pixels counted",
            steps_of_one_pixel,
            "You step from pixel to pixel and count the steps. Each step has length 1, even along a diagonal.",
            "(dy, dx) = (sin, cos) already has length 1.",
        ),
        Wrong(
            "no edge at the border",
            border_is_no_edge,
            "At the border of the image you stop on the last pixel. The cell ends half a pixel beyond it.",
            "Positions outside the image do not belong to the cell, just like background.",
        ),
        Wrong(
            "in again on the other side",
            _with_walk(negative_indices),
            "Your rays leave the image and enter it again on the opposite side. Stop where a ray leaves the image.",
            "An index of -1 is the last row. Check 0 <= y < H and 0 <= x < W before you read label_map[y, x].",
        ),
        Wrong(
            "rays last",
            right.then(lambda out, a: out.movedim(0, -1)),
            "The rays are the last axis of your result. Its shape should be (R, H, W).",
            "movedim or stack(..., dim=0) puts the rays first.",
        ),
        Wrong(
            "step outside counted",
            right.then(lambda out, a: torch.where(a.label_map > 0, out + 1, out)),
            "You count the step that leaves the cell. The cell ends half a pixel after the step before it.",
            END,
        ),
        Wrong(
            "goes on from the rounded pixel",
            _with_walk(_walk_from_rounded),
            "You round the position after each step and go on from there, so rounding errors add up. Round y + t dy.",
            "Compute each position from the start pixel.",
        ),
        Wrong(
            "positions cut to integers",
            _with_walk(_truncated),
            "You cut positions to integers. Round them to the nearest pixel.",
            "int(2.9) is 2, and round(2.9) is 3.",
        ),
        Wrong(
            "positions moved to the border",
            _with_walk(_clipped),
            "You move positions outside the image to its border, so rays do not stop there. Outside is not the cell.",
            "A ray ends where it leaves the image.",
        ),
        Wrong(
            "half a pixel in the background",
            _in_background_too,
            "You add the half pixel in the background, too. The distance is 0 there.",
            "Background is not a cell.",
        ),
    ],
)
