"""A made-up output of a spatial embedding network, painted cell by cell: what `greedy_cluster` is tried on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def pixels_of(shape: tuple[int, ...]) -> Tensor:
    """Where the pixels of a map are.

    Args:
        shape: (..., H, W).

    Returns:
        (2, H, W) float64, y before x.
    """
    axes = [torch.arange(n, dtype=torch.float64) for n in shape[-2:]]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


class Scene:
    """Background first: embeddings near their own pixels, low seeds; cells are painted on it.

    Args:
        rng: of all values.
        shape: (H, W).
    """

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int]) -> None:
        self.rng = rng
        self.embeddings = pixels_of(shape) + self._uniform(-0.4, 0.4, 2, *shape)
        self.sigma = self._uniform(0.6, 1.6, 2, *shape)
        self.seed = self._uniform(0.02, 0.4, *shape)

    def _uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return torch.from_numpy(self.rng.uniform(low, high, shape))

    def cell(
        self,
        rows: tuple[int, int],
        columns: tuple[int, int],
        best: float,
        sigma: tuple[float, float],
        at: Tensor | None = None,
        spread: float = 0.35,
    ) -> Tensor:
        """Paint a rectangle whose pixels point at one place; its best seed is in its first corner.

        Args:
            rows: first, and one after the last.
            columns: the same.
            best: the highest seed; the others lie between it and 1/2.
            sigma: of the best seed, y before x; those of other pixels differ by up to 30 %.
            at: the place (2,), or the middle of the rectangle.
            spread: how far embeddings lie from the place at most, along each axis.

        Returns:
            The place.
        """
        here = (slice(*rows), slice(*columns))
        size = (rows[1] - rows[0], columns[1] - columns[0])
        centre = torch.tensor([sum(rows) - 1, sum(columns) - 1]) / 2.0 if at is None else at
        self.embeddings[:, *here] = centre.double()[:, None, None] + self._uniform(-spread, spread, 2, *size)
        width = torch.tensor(sigma, dtype=torch.float64)
        self.sigma[:, *here] = width[:, None, None] * self._uniform(0.7, 1.3, 2, *size)
        self.seed[here] = self._uniform(0.55, best - 0.02, *size)
        start = (rows[0], columns[0])
        self.embeddings[:, *start], self.sigma[:, *start], self.seed[start] = centre, width, best
        return centre

    def point(self, pixel: tuple[int, int], place: Tensor, seed: float = 0.6) -> None:
        """Let one pixel point at a place.

        Args:
            pixel: row and column.
            place: (2,).
            seed: of the pixel.
        """
        self.embeddings[:, *pixel] = place
        self.seed[pixel] = seed

    def astray(self) -> None:
        """Let some background pixels point into cells: their seeds say that they are background."""
        inside = self.embeddings[:, self.seed > 0.5]
        outside = (self.seed <= 0.4).nonzero()
        for y, x in self.rng.permutation(outside.numpy())[:12]:
            self.embeddings[:, y, x] = inside[:, self.rng.integers(inside.shape[1])]

    def cell_that_misses(
        self, rows: tuple[int, int], columns: tuple[int, int], best: float, sigma: tuple[float, float]
    ) -> None:
        """Paint a rectangle whose pixels land on a lattice around the place of the best, up to 1.8 of its sigmas away.

        The lattice reaches further below and to the right: the mean of what the best seed takes lies elsewhere.

        Args:
            rows: first, and one after the last.
            columns: the same.
            best: see `cell`.
            sigma: see `cell`.
        """
        self.cell(rows, columns, best, sigma)
        first = (slice(None), rows[0], columns[0])
        steps = [torch.linspace(-0.3, 1.8, last - start, dtype=torch.float64) for start, last in (rows, columns)]
        ways = torch.stack(torch.meshgrid(*steps, indexing="ij"))
        ways += self._uniform(-0.1, 0.1, *ways.shape)
        start = self.embeddings[first].clone()
        here = (slice(None), slice(*rows), slice(*columns))
        self.embeddings[here] = start[:, None, None] + ways * self.sigma[first][:, None, None]
        self.embeddings[first] = start

    def arguments(self, seed_threshold: float, min_pixels: int) -> list:
        """What `greedy_cluster` takes.

        Args:
            seed_threshold: of the case.
            min_pixels: of the case.

        Returns:
            Its five arguments.
        """
        return [self.embeddings, self.sigma, self.seed, seed_threshold, min_pixels]
