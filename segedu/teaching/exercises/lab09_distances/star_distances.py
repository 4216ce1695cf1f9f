"""star_distances: how far does the cell reach from each of its pixels, along rays?"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.exercises.lab09_distances.cells import crescent, crowd, pieces


def star_distances(label_map: Tensor, n_rays: int) -> Tensor:
    """Walk from each pixel of a cell along rays until the cell ends.

    Ray k has the angle 2 pi k / n_rays and the direction (dy, dx) = (sin, cos) of it: ray 0 points to the right, and
    as y grows downwards, the next ones turn towards the bottom.

    From pixel (y, x) go 1, 2, 3, ... steps of length 1: after t steps you are on the pixel
    (round(y + t dy), round(x + t dx)). Stop at the first t whose pixel is not of this cell: background, another cell,
    or outside of the image. The cell ended half a pixel before it, along the faster axis. So the distance is

        t - 1 + 0.5 / max(|dy|, |dx|)

    Args:
        label_map: (H, W) integers: 0 is background, every other number is one cell.
        n_rays: R, at least 3. (None of those that are asked for lets a step end half-way between two pixels.)

    Returns:
        (R, H, W) floats, in pixels, one plane a ray; 0 in the background.

    Example: from the left pixel of cell 7, the right edge is 2.5 away and all others 0.5.

        >>> star_distances(torch.tensor([[0, 7, 7, 7, 0]]), 4)[:, 0, 1]
        tensor([2.5000, 0.5000, 0.5000, 0.5000], dtype=torch.float64)
    """
    steps = _walk(label_map, _rays(n_rays))
    to_the_edge = 0.5 / _rays(n_rays).abs().amax(dim=1)
    return torch.where(label_map > 0, steps - 1 + to_the_edge[:, None, None], 0.0)


def _rays(n_rays: int) -> Tensor:
    """(R, 2), dy and dx."""
    angles = torch.arange(n_rays, dtype=torch.float64) * (2 * math.pi / n_rays)
    return torch.stack([angles.sin(), angles.cos()], dim=1)


def _walk(label_map: Tensor, rays: Tensor, whole: Callable[[Tensor], Tensor] = torch.round) -> Tensor:
    """(R, H, W): with which step each pixel leaves its cell along each ray."""
    return _on_the_way(label_map, rays, whole).cumprod(dim=0).sum(dim=0) + 1.0


def _on_the_way(label_map: Tensor, rays: Tensor, whole: Callable[[Tensor], Tensor]) -> Tensor:
    """(T, R, H, W) bool: whether step 1, 2, ... ends on a pixel of the cell; T steps lead out of any image."""
    H, W = label_map.shape
    reach = H + W
    padded = torch.nn.functional.pad(label_map, [reach] * 4)
    times = torch.arange(1, reach).reshape(-1, 1, 1, 1)
    dy, dx = rays.T[:, :, None, None]
    y, x = torch.arange(H)[:, None] + times * dy, torch.arange(W) + times * dx
    return padded[whole(y).long() + reach, whole(x).long() + reach] == label_map


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Cells that touch, a C, a cell in two pieces; one pixel, one row, one cell everywhere, no cell.

    Args:
        rng: of sizes, numbers and the side that is up.

    Returns:
        The cases by group.
    """
    one, two = (int(n) for n in rng.permutation([1, int(rng.choice([4, 6, 20]))]))
    width = int(rng.integers(4, 7))
    single = torch.zeros(5, 6, dtype=torch.int64)
    single[int(rng.integers(1, 4)), int(rng.integers(1, 5))] = one
    row = torch.tensor([[two] * width + [one] * 3 + [0] * 2 + [one] * 2])
    return {
        "core": (
            3,
            [
                {"name": "cells that touch", "args": [crowd(rng), 8]},
                {"name": "a cell like a C", "args": [crescent(rng), 16]},
                {"name": "a cell in two pieces", "args": [pieces(rng), 10]},
            ],
        ),
        "edge": (
            1,
            [
                {"name": "four rays", "args": [crowd(rng), 4]},
                {"name": "five rays", "args": [crescent(rng), 5]},
                {"name": "a cell of one pixel", "args": [single, 8]},
                {"name": "one row", "args": [row, 4]},
                {"name": "one cell everywhere", "args": [torch.full((5, width), one), 8]},
                {"name": "no cell", "args": [torch.zeros(3, width, dtype=torch.int64), 8]},
            ],
        ),
    }


def _starred(label_map: Tensor, rays: Tensor, walk: Callable | None = None, edge: Tensor | None = None) -> Tensor:
    """`star_distances` with other rays, another way to walk, another last part of the way (R,)."""
    steps = (walk or _walk)(label_map, rays)
    edge = 0.5 / rays.abs().amax(dim=1) if edge is None else edge
    return torch.where(label_map > 0, steps - 1 + edge[:, None, None], 0.0)


def from_the_top(label_map: Tensor, n_rays: int) -> Tensor:
    """dy is the cosine."""
    return _starred(label_map, _rays(n_rays).flip(1))


def upwards(label_map: Tensor, n_rays: int) -> Tensor:
    """y grows upwards, as in mathematics."""
    return _starred(label_map, _rays(n_rays) * torch.tensor([-1, 1]))


def half_a_turn(label_map: Tensor, n_rays: int) -> Tensor:
    """pi k / R."""
    return _starred(label_map, _rays(2 * n_rays)[:n_rays])


def last_ray_twice(label_map: Tensor, n_rays: int) -> Tensor:
    """linspace with both of its ends."""
    angles = torch.linspace(0, 2 * math.pi, n_rays, dtype=torch.float64)
    return _starred(label_map, torch.stack([angles.sin(), angles.cos()], dim=1))


def degrees(label_map: Tensor, n_rays: int) -> Tensor:
    """sin and cos of 45."""
    angles = torch.arange(n_rays, dtype=torch.float64) * (360 / n_rays)
    return _starred(label_map, torch.stack([angles.sin(), angles.cos()], dim=1))


def background_too(label_map: Tensor, n_rays: int) -> Tensor:
    """0 is a cell like the others."""
    return star_distances(label_map + 1, n_rays)


def across_neighbours(label_map: Tensor, n_rays: int) -> Tensor:
    """Any foreground is the cell."""
    return star_distances((label_map > 0).long(), n_rays)


def last_pixel_inside(label_map: Tensor, n_rays: int) -> Tensor:
    """One step back and no further."""
    return _starred(label_map, _rays(n_rays), edge=torch.zeros(n_rays))


def first_pixel_outside(label_map: Tensor, n_rays: int) -> Tensor:
    """No step back."""
    return _starred(label_map, _rays(n_rays), edge=torch.ones(n_rays))


def always_half(label_map: Tensor, n_rays: int) -> Tensor:
    """Half a pixel along the ray, slanting or not."""
    return _starred(label_map, _rays(n_rays), edge=torch.full([n_rays], 0.5))


def slower_axis(label_map: Tensor, n_rays: int) -> Tensor:
    """Half a pixel times the larger side of the direction, where it should be divided by it."""
    return _starred(label_map, _rays(n_rays), edge=_rays(n_rays).abs().amax(dim=1) / 2)


def one_pixel_early(label_map: Tensor, n_rays: int) -> Tensor:
    """t counts from 0 at the first step."""
    return torch.where(label_map > 0, star_distances(label_map, n_rays) - 1, 0.0)


def cut_off(label_map: Tensor, n_rays: int) -> Tensor:
    """Places cut down to whole numbers, not rounded."""

    def walk(label_map: Tensor, rays: Tensor) -> Tensor:
        return _walk(label_map, rays, torch.floor)

    return _starred(label_map, _rays(n_rays), walk)


def over_the_gap(label_map: Tensor, n_rays: int) -> Tensor:
    """The last pixel of the cell on the ray, whatever lies between."""

    def walk(label_map: Tensor, rays: Tensor) -> Tensor:
        on = _on_the_way(label_map, rays, torch.round)  # (T, R, H, W)
        times = torch.arange(1, len(on) + 1).reshape(-1, 1, 1, 1)
        return (on * times).amax(dim=0) + 1.0

    return _starred(label_map, _rays(n_rays), walk)


def all_steps(label_map: Tensor, n_rays: int) -> Tensor:
    """How many steps end in the cell, whatever lies between."""

    def walk(label_map: Tensor, rays: Tensor) -> Tensor:
        return _on_the_way(label_map, rays, torch.round).sum(dim=0) + 1.0

    return _starred(label_map, _rays(n_rays), walk)


def whole_pixels(label_map: Tensor, n_rays: int) -> Tensor:
    """Steps to the next pixel along the faster axis, each counted as 1."""
    rays = _rays(n_rays)
    return _starred(label_map, rays / rays.abs().amax(dim=1, keepdim=True), edge=torch.full([n_rays], 0.5))


def border_is_no_edge(label_map: Tensor, n_rays: int) -> Tensor:
    """At the border of the image a ray stops on the last pixel."""
    steps = _walk(label_map, _rays(n_rays))
    y, x = torch.meshgrid(*map(torch.arange, label_map.shape), indexing="ij")
    ends = torch.stack([y, x]) + steps[:, None] * _rays(n_rays)[:, :, None, None]
    ends = ends.round()
    last = torch.tensor(label_map.shape)[:, None, None] - 1
    outside = ((ends < 0) | (ends > last)).any(dim=1)
    return torch.where(outside & (label_map > 0), steps - 1, star_distances(label_map, n_rays))


def comes_in_again(label_map: Tensor, n_rays: int) -> Tensor:
    """An index of -1 is the last row: only the far sides of the image end a ray."""
    H, W = label_map.shape

    def walk(label_map: Tensor, rays: Tensor) -> Tensor:
        times = torch.arange(1, H + W).reshape(-1, 1, 1, 1)
        dy, dx = rays.T[:, :, None, None]
        y = (torch.arange(H)[:, None] + times * dy).round().long()
        x = (torch.arange(W) + times * dx).round().long()
        there = (y >= -H) & (y < H) & (x >= -W) & (x < W)
        return (there & (label_map[y % H, x % W] == label_map)).cumprod(dim=0).sum(dim=0) + 1.0

    return _starred(label_map, _rays(n_rays), walk)


def rays_last(label_map: Tensor, n_rays: int) -> Tensor:
    """(H, W, R)."""
    return star_distances(label_map, n_rays).movedim(0, -1)


RAYS = "Along ray 0 only x changes, and it grows. Along ray R/4 only y changes, and it grows: downwards on the picture."
END = "Try one row, [7, 7, 7, 0], from the first 7: with t = 3 you are outside, and the edge is 2.5 away."

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
            from_the_top,
            "Your ray 0 points downwards: dy is the sine of the angle and dx the cosine.",
            RAYS,
        ),
        Wrong(
            "turns to the top",
            upwards,
            "Your rays turn the other way: y grows downwards, so do not put a minus before the sine.",
            RAYS,
        ),
        Wrong(
            "half a turn",
            half_a_turn,
            "Your rays cover half a turn: the angle of ray k is 2 pi k / n_rays.",
            RAYS,
        ),
        Wrong(
            "first ray again",
            last_ray_twice,
            "Your last ray is the first one again: R rays are a turn's R-th part apart.",
            "linspace(0, 2 pi, R) holds both ends; k * 2 pi / R for k = 0 ... R - 1 does not.",
        ),
        Wrong(
            "degrees",
            degrees,
            "Your angles are in degrees: sin and cos take radians, 2 pi for a whole turn.",
            RAYS,
        ),
        Wrong(
            "background too",
            background_too,
            "Your background has distances: 0 is no cell, and its distances are 0.",
            "What does torch.where(label_map > 0, ..., 0) do?",
        ),
        Wrong(
            "neighbours crossed",
            across_neighbours,
            "Your rays cross into neighbours: a cell ends where another one begins.",
            "Compare with the number of the pixel where the ray starts, not with 0.",
        ),
        Wrong(
            "last pixel inside",
            last_pixel_inside,
            "You stop on the last pixel inside: the edge lies 0.5 / max(|dy|, |dx|) behind it.",
            END,
        ),
        Wrong(
            "first pixel outside",
            first_pixel_outside,
            "You give t itself: the edge lies before the first pixel outside.",
            END,
        ),
        Wrong(
            "half a pixel on every ray",
            always_half,
            "You add 0.5 on every ray: it is half a pixel along the faster axis, 0.5 / max(|dy|, |dx|) along the ray.",
            "On a diagonal from pixel to pixel one goes 1.41, so half of it is 0.71.",
        ),
        Wrong(
            "half a pixel times",
            slower_axis,
            "You multiply the half by max(|dy|, |dx|): divide by it.",
            "On a diagonal from pixel to pixel one goes 1.41, so half of it is 0.71.",
        ),
        Wrong(
            "one pixel early",
            one_pixel_early,
            "Your distances are 1 too short: the first step has t = 1, not 0.",
            END,
        ),
        Wrong(
            "cut off, not rounded",
            cut_off,
            "You cut places down to whole numbers: round them to the nearest pixel.",
            "1.9 lies on pixel 2; floor and int() say 1.",
        ),
        Wrong(
            "over the gap",
            over_the_gap,
            "Your rays jump over gaps: they stop at the first pixel that is not of the cell.",
            "A cell like a C comes again behind its mouth.",
        ),
        Wrong(
            "steps inside counted",
            all_steps,
            "You count all steps that end in the cell: stop at the first that does not.",
            "A cell like a C comes again behind its mouth.",
        ),
        Wrong(
            "pixels counted",
            whole_pixels,
            "You go from pixel to pixel and count: a step has length 1, also along a diagonal.",
            "(dy, dx) = (sin, cos) has length 1 already.",
        ),
        Wrong(
            "no edge at the border",
            border_is_no_edge,
            "At the border of the image you stop on the last pixel: the cell ends half a pixel behind it.",
            "Outside of the image is not of the cell, as background is.",
        ),
        Wrong(
            "in again on the other side",
            comes_in_again,
            "Your rays come in again on the other side: an index of -1 is the last row.",
            "Ask 0 <= y < H and 0 <= x < W before you look at label_map[y, x].",
        ),
        Wrong(
            "rays last",
            rays_last,
            "Your rays are the last axis: the result has the shape (R, H, W).",
            "movedim or stack(..., dim=0) puts them first.",
        ),
    ],
)
