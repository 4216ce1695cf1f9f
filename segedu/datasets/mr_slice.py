"""A canvas for slices of magnetic resonance: tissues in millimetres, then the scanner's blur, bias field and noise."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from segedu.datasets.texture import smooth_field

FINE = 3  # points per pixel along each side, which are averaged; the middle one determines the class


class MRSlice:
    """Points of a slice in mm from its middle, rows downwards, gently bent; their signal and their class.

    Args:
        size: height and width in pixels.
        view: mm across the shorter side.
        bend: mm that a point moves at most along each axis.
    """

    def __init__(self, size: tuple[int, int], view: float, rng: np.random.Generator, bend: float = 4.0):
        self.size, self.pixel = size, view / min(size)
        shape = (size[0] * FINE, size[1] * FINE)
        step, cell = self.pixel / FINE, 45 * FINE / self.pixel
        rows, columns = np.meshgrid(*((np.arange(n) - (n - 1) / 2) * step for n in shape), indexing="ij")
        self.y = rows + bend * smooth_field(rng, shape, cell)
        self.x = columns + bend * smooth_field(rng, shape, cell)
        self.signal, self.label = np.zeros(shape), np.zeros(shape, np.uint8)

    def grain(self, rng: np.random.Generator, length: float) -> np.ndarray:
        """Smooth noise in [-1, 1] with knots `length` mm apart.

        Args:
            length: distance between knots in mm.

        Returns:
            An array of the shape of the canvas.
        """
        return smooth_field(rng, self.signal.shape, length * FINE / self.pixel)

    def depth(
        self, centre: tuple[float, float], half: tuple[float, float], tilt: float = 0.0, waves: np.ndarray | None = None
    ) -> np.ndarray:
        """Distance from the centre of an ellipse in half axes: below 1 is inside.

        Args:
            centre: (y, x) in mm.
            half: the half axes along y and x, before the rotation.
            tilt: rotation in radians, clockwise as displayed.
            waves: (2, n): amplitudes and phases of waves 2, 3, ... around the outline; None: no waves.

        Returns:
            An array of the shape of the canvas.
        """
        y, x = self.y - centre[0], self.x - centre[1]
        if tilt:
            y, x = y * np.cos(tilt) - x * np.sin(tilt), x * np.cos(tilt) + y * np.sin(tilt)
        depth = np.hypot(y / half[0], x / half[1])
        if waves is None:
            return depth
        theta = np.arctan2(y, x)
        outline = sum(a * np.cos(k * theta + p) for k, (a, p) in enumerate(waves.T, start=2))
        return depth / (1 + outline)

    def fill(self, inside: np.ndarray, tone: float | np.ndarray, label: int = 0) -> None:
        """Set signal and class of points, overwriting earlier ones.

        Args:
            inside: bool, of the shape of the canvas.
            tone: signal, one value or one per point of the canvas.
            label: their class.
        """
        self.signal[inside] = np.broadcast_to(tone, inside.shape)[inside]
        self.label[inside] = label

    def draw_ellipse(
        self, centre: tuple[float, float], half: tuple[float, float], tone: float, label: int = 0, tilt: float = 0.0
    ) -> None:
        """Draw an ellipse."""
        self.fill(self.depth(centre, half, tilt) < 1, tone, label)

    def classes(self) -> np.ndarray:
        """Classes at the pixel centres.

        Returns:
            int64 (H, W).
        """
        return self.label[FINE // 2 :: FINE, FINE // 2 :: FINE].astype(np.int64)

    def photograph(self, rng: np.random.Generator, noise: float, bias: float) -> np.ndarray:
        """The image: partial volume, blur, the coils' bias field, Rician noise.

        Args:
            noise: standard deviation of the noise in the real and in the imaginary part of the signal.
            bias: strength of the field, 0 for none; at 1 its ends differ by a factor of about two.

        Returns:
            (3, H, W) in [0, 1], three equal channels.
        """
        height, width = self.size
        image = self.signal.reshape(height, FINE, width, FINE).mean(axis=(1, 3))
        image = ndimage.gaussian_filter(image, rng.uniform(0.3, 0.7))
        rows, columns = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
        slope = rng.uniform(-0.2, 0.2, 2)
        field = slope[0] * rows + slope[1] * columns + 0.25 * smooth_field(rng, self.size, max(self.size) / 2)
        image = image * np.exp(bias * field) * rng.uniform(0.8, 1.1)
        real, imaginary = noise * rng.standard_normal((2, height, width))
        return np.repeat(np.clip(np.hypot(image + real, imaginary), 0, 1)[None], 3, axis=0)
