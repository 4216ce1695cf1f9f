"""Flow fields such as a network would predict, painted cell by cell: the cases of `follow_flows`."""

from __future__ import annotations

import numpy as np
import torch

from segedu.teaching.checks.exercise import Case
from segedu.teaching.checks.variants import case

Span = tuple[int, int]  # first row or column, and one after the last


class Field:
    """A flow field whose background is not 0, so that reading it leads particles astray.

    Args:
        rng: of the flow in the background.
        shape: (H, W).
    """

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int]) -> None:
        self.flows = torch.from_numpy(rng.uniform(-0.9, 0.9, (2, *shape)))
        self.foreground = torch.zeros(shape, dtype=torch.bool)

    def towards(self, rows: Span, columns: Span, goal: tuple[float, float]) -> None:
        """Paint a rectangle whose flow points at `goal` (y, x): of length 1, and shorter within 2 pixels of it."""
        y, x = torch.meshgrid(torch.arange(*rows), torch.arange(*columns), indexing="ij")
        offsets = torch.stack([goal[0] - y, goal[1] - x]).double()
        self._paint(rows, columns, offsets / offsets.norm(dim=0).clamp(min=2))

    def constant(self, rows: Span, columns: Span, flow: tuple[float, float]) -> None:
        """Paint a rectangle whose pixels all have the same flow (dy, dx)."""
        self._paint(rows, columns, torch.tensor(flow, dtype=torch.float64)[:, None, None])

    def _paint(self, rows: Span, columns: Span, flows: torch.Tensor) -> None:
        here = (slice(*rows), slice(*columns))
        self.flows[:, *here] = flows
        self.foreground[here] = True

    def case(self, name: str, steps: int) -> Case:
        """A case of `follow_flows`."""
        return case(name, self.flows, self.foreground, steps)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Cells that touch, and cells whose pixels meet within 2 pixels of each other; see `_edge_cases`."""
    a, b, c = (float(n) for n in rng.uniform(-0.4, 0.4, 3))
    touching = Field(rng, (10, 13))
    touching.towards((1, 6), (1, 6), (3 + a, 3 + b))
    touching.towards((1, 5), (6, 12), (2 + b, 9 + c))  # shares an edge with the first
    touching.towards((7, 10), (0, 7), (8 + c / 2, 2.5 + a))
    touching.constant((8, 9), (9, 13), (0.0, -0.5))  # into the background, where it has to stop
    near = Field(rng, (8, 14))
    near.towards((1, 7), (1, 5), (3.6 + a, 3.8))
    near.towards((1, 7), (5, 9), (3.6 + a, 5.25 + b / 4))  # 1.3 to 1.6 away: more than 1
    near.towards((2, 6), (11, 14), (3.5 + c, 12 + b))
    core = [
        touching.case("cells that touch", 30),
        near.case("two meeting points near each other", 40),
        touching.case("a few steps", 3),
    ]
    return {"core": (2, core), "edge": (1, _edge_cases(rng))}


def _edge_cases(rng: np.random.Generator) -> list[Case]:
    shift = int(rng.integers(1, 4))
    still = Field(rng, (6, 9))
    still.constant((1, 3), (1, 4), (0.25, 0.5))
    still.constant((3, 5), (4, 6), (0.25, 0.5))  # touches the first at a corner only
    still.constant((0, 1), (6, 9), (0.25, -0.5))
    border = Field(rng, (7, 10))
    border.constant((4, 7), (1, 4), (0.75, 0.0))
    border.constant((0, 3), (shift + 4, 10), (0.0, 1.0))
    border.constant((0, 2), (0, 3), (-0.5, -0.5))
    bridge = Field(rng, (5, 13))
    bridge.constant((2, 3), (1, 12), (0.0, 0.0))  # endpoints 1 apart in a row: each is a link of the chain
    bridge.towards((0, 2), (2, 5), (0.5, 3 + shift / 8))
    gap = Field(rng, (7, 11))
    gap.constant((1, 3), (1, 4), (0.0, 0.0))
    gap.constant((1, 3), (6, 8), (0.0, -2.0))  # ends 1 from the first
    gap.constant((4, 6), (1, 3), (-0.75, 0.0))  # 1.25 from it
    gap.constant((4, 6), (5, 7), (-1.375, 0.625))  # 0.88 from the second, along a diagonal
    row = Field(rng, (1, 12))
    row.towards((0, 1), (0, 5), (0, 2.2))
    row.towards((0, 1), (5, 11), (0, 7.7))
    return [
        still.case("no step", 0),
        still.case("one step", 1),
        border.case("over the border", 12),
        bridge.case("a chain of ends", 20),
        gap.case("ends just 1 apart", 1),
        row.case("one row", 25),
        Field(rng, (4, 4 + shift)).case("no foreground", 5),
    ]
