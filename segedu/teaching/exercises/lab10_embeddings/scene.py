"""Synthetic output of a spatial embedding network, painted cell by cell: the cases of `greedy_cluster`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case
from segedu.teaching.checks.variants import case

Span = tuple[int, int]  # first row or column, and one after the last


def pixel_positions(shape: tuple[int, ...]) -> Tensor:
    """Positions (2, H, W), float64, y before x, of the pixels of a map of shape (..., H, W)."""
    axes = [torch.arange(n, dtype=torch.float64) for n in shape[-2:]]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


class Scene:
    """Embeddings, sigmas and seeds. The background's embeddings lie near their own pixels, and its seeds are low.

    Args:
        rng: of all values.
        shape: (H, W).
    """

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int]) -> None:
        self.rng = rng
        self.embeddings = pixel_positions(shape) + self._uniform(-0.4, 0.4, 2, *shape)
        self.sigma = self._uniform(0.6, 1.6, 2, *shape)
        self.seed = self._uniform(0.02, 0.4, *shape)

    def _uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return torch.from_numpy(self.rng.uniform(low, high, shape))

    def cell(
        self,
        rows: Span,
        columns: Span,
        best: float,
        sigma: tuple[float, float],
        centre: Tensor | None = None,
        spread: float = 0.35,
    ) -> Tensor:
        """Paint a rectangle whose pixels point at one position; its best seed is in its first corner.

        Args:
            rows, columns: of the rectangle.
            best: the highest seed; the others lie between 0.55 and it.
            sigma: of the best seed, y before x; those of other pixels differ by up to 30 %.
            centre: the position (2,); by default the middle of the rectangle.
            spread: largest distance of an embedding from the centre along each axis.

        Returns:
            The centre.
        """
        here = (slice(*rows), slice(*columns))
        size = (rows[1] - rows[0], columns[1] - columns[0])
        centre = torch.tensor([sum(rows) - 1, sum(columns) - 1]) / 2.0 if centre is None else centre
        self.embeddings[:, *here] = centre.double()[:, None, None] + self._uniform(-spread, spread, 2, *size)
        width = torch.tensor(sigma, dtype=torch.float64)
        self.sigma[:, *here] = width[:, None, None] * self._uniform(0.7, 1.3, 2, *size)
        self.seed[here] = self._uniform(0.55, best - 0.02, *size)
        start = (rows[0], columns[0])
        self.embeddings[:, *start], self.sigma[:, *start], self.seed[start] = centre, width, best
        return centre

    def point(self, pixel: tuple[int, int], position: Tensor, seed: float = 0.6) -> None:
        """Let one pixel (row, column) point at a position (2,)."""
        self.embeddings[:, *pixel] = position
        self.seed[pixel] = seed

    def mislead(self) -> None:
        """Let some background pixels point into cells; their seeds remain low."""
        inside = self.embeddings[:, self.seed > 0.5]
        outside = (self.seed <= 0.4).nonzero()
        for y, x in self.rng.permutation(outside.numpy())[:12]:
            self.embeddings[:, y, x] = inside[:, self.rng.integers(inside.shape[1])]

    def lattice_cell(self, rows: Span, columns: Span, best: float, sigma: tuple[float, float]) -> None:
        """Paint a cell whose embeddings form a lattice around that of the best seed, up to 1.8 of its sigmas away.

        The lattice extends further down and to the right, so the mean of the embeddings inside the Gaussian of the best
        seed lies elsewhere. For the arguments see `cell`.
        """
        self.cell(rows, columns, best, sigma)
        first = (slice(None), rows[0], columns[0])
        steps = [torch.linspace(-0.3, 1.8, last - start, dtype=torch.float64) for start, last in (rows, columns)]
        offsets = torch.stack(torch.meshgrid(*steps, indexing="ij"))
        offsets += self._uniform(-0.1, 0.1, *offsets.shape)
        start = self.embeddings[first].clone()
        here = (slice(None), slice(*rows), slice(*columns))
        self.embeddings[here] = start[:, None, None] + offsets * self.sigma[first][:, None, None]
        self.embeddings[first] = start

    def case(self, name: str, seed_threshold: float, min_pixels: int) -> Case:
        """A case of `greedy_cluster`."""
        return case(name, self.embeddings, self.sigma, self.seed, seed_threshold, min_pixels)
