"""Flows as a network would give them, painted cell by cell: what `follow_flows` is tried on."""

from __future__ import annotations

import numpy as np
import torch


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
