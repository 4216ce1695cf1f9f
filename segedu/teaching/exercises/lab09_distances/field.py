"""Flows as a network would give them, painted cell by cell: what `follow_flows` is tried on."""

from __future__ import annotations

import numpy as np
import torch

from segedu.teaching.checks.exercise import Case


class Field:
    """Background first: its flows are not 0, so that whoever reads them is led astray.

    Args:
        rng: of the flows of the background.
        shape: (H, W).
    """

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int]) -> None:
        self.flows = torch.from_numpy(rng.uniform(-0.9, 0.9, (2, *shape)))
        self.foreground = torch.zeros(shape, dtype=torch.bool)

    def towards(self, rows: tuple[int, int], columns: tuple[int, int], goal: tuple[float, float]) -> None:
        """Paint a rectangle whose pixels go to one place: one pixel a step, and slower from 2 pixels on.

        Args:
            rows: first, and one after the last.
            columns: the same.
            goal: y and x.
        """
        y, x = torch.meshgrid(torch.arange(*rows), torch.arange(*columns), indexing="ij")
        way = torch.stack([goal[0] - y, goal[1] - x]).double()
        self._paint(rows, columns, way / way.norm(dim=0).clamp(min=2))

    def straight(self, rows: tuple[int, int], columns: tuple[int, int], flow: tuple[float, float]) -> None:
        """Paint a rectangle whose pixels all have the same flow.

        Args:
            rows: first, and one after the last.
            columns: the same.
            flow: dy and dx.
        """
        self._paint(rows, columns, torch.tensor(flow, dtype=torch.float64)[:, None, None])

    def _paint(self, rows: tuple[int, int], columns: tuple[int, int], flows: torch.Tensor) -> None:
        here = (slice(*rows), slice(*columns))
        self.flows[:, *here] = flows
        self.foreground[here] = True

    def arguments(self, steps: int) -> list:
        """What `follow_flows` takes.

        Args:
            steps: of the case.

        Returns:
            Its three arguments.
        """
        return [self.flows, self.foreground, steps]


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Cells that touch, neighbours that meet 2 pixels apart; no step, one step, borders, a bridge, nothing.

    Args:
        rng: of places and of the flow in the background.

    Returns:
        The cases by group.
    """
    a, b, c = (float(n) for n in rng.uniform(-0.4, 0.4, 3))
    touching = Field(rng, (10, 13))
    touching.towards((1, 6), (1, 6), (3 + a, 3 + b))
    touching.towards((1, 5), (6, 12), (2 + b, 9 + c))  # shares an edge with the first
    touching.towards((7, 10), (0, 7), (8 + c / 2, 2.5 + a))
    touching.straight((8, 9), (9, 13), (0.0, -0.5))  # into the background, where it has to stop
    near = Field(rng, (8, 14))
    near.towards((1, 7), (1, 5), (3.6 + a, 3.8))
    near.towards((1, 7), (5, 9), (3.6 + a, 5.25 + b / 4))  # 1.3 to 1.6 away: more than 1
    near.towards((2, 6), (11, 14), (3.5 + c, 12 + b))
    return {
        "core": (
            2,
            [
                {"name": "cells that touch", "args": touching.arguments(30)},
                {"name": "two meeting places near each other", "args": near.arguments(40)},
                {"name": "a few steps", "args": touching.arguments(3)},
            ],
        ),
        "edge": (1, _edge_cases(rng)),
    }


def _edge_cases(rng: np.random.Generator) -> list[Case]:
    where = int(rng.integers(1, 4))
    still = Field(rng, (6, 9))
    still.straight((1, 3), (1, 4), (0.25, 0.5))
    still.straight((3, 5), (4, 6), (0.25, 0.5))  # touches the first at a corner only
    still.straight((0, 1), (6, 9), (0.25, -0.5))
    border = Field(rng, (7, 10))
    border.straight((4, 7), (1, 4), (0.75, 0.0))
    border.straight((0, 3), (where + 4, 10), (0.0, 1.0))
    border.straight((0, 2), (0, 3), (-0.5, -0.5))
    bridge = Field(rng, (5, 13))
    bridge.straight((2, 3), (1, 12), (0.0, 0.0))  # ends 1 apart in a row: each is a link of the chain
    bridge.towards((0, 2), (2, 5), (0.5, 3 + where / 8))
    gap = Field(rng, (7, 11))
    gap.straight((1, 3), (1, 4), (0.0, 0.0))
    gap.straight((1, 3), (6, 8), (0.0, -2.0))  # 1 from the first in the end
    gap.straight((4, 6), (1, 3), (-0.75, 0.0))  # 1.25 from it
    gap.straight((4, 6), (5, 7), (-1.375, 0.625))  # 0.88 from the second, along a diagonal
    row = Field(rng, (1, 12))
    row.towards((0, 1), (0, 5), (0, 2.2))
    row.towards((0, 1), (5, 11), (0, 7.7))
    nothing = Field(rng, (4, 4 + where))
    return [
        {"name": "no step", "args": still.arguments(0)},
        {"name": "one step", "args": still.arguments(1)},
        {"name": "over the border", "args": border.arguments(12)},
        {"name": "a chain of ends", "args": bridge.arguments(20)},
        {"name": "ends just 1 apart", "args": gap.arguments(1)},
        {"name": "one row", "args": row.arguments(25)},
        {"name": "no foreground", "args": nothing.arguments(5)},
    ]
