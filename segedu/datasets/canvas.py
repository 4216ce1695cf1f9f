"""Camera and canvas of scenes in perspective: a ray per pixel and a depth buffer.

Coordinates are metres: x to the right, y up from the ground, z forward. The camera is at (0, eye, 0) and looks along z,
rotated about z by `roll`. Depth is z. The canvas has twice the rows and columns of the image: four rays per pixel
antialias the edges.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from segedu.datasets.rays import MISSED, box_hit

FINE = 2  # rays per pixel along each axis
_NEAREST = 0.3  # metres; nearer boxes are not projected, their window is the whole canvas

Paint = Callable[..., tuple[np.ndarray, np.ndarray]]  # -> colour (3, ...) and visible (...)
Window = tuple[slice, slice]


@dataclass(frozen=True)
class Camera:
    """A camera: eye height in metres, focal length and vanishing point in pixels of the canvas, roll in radians."""

    eye: float
    focal: float
    row: float
    column: float
    roll: float

    def slopes(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the metres to the right and the metres down per metre forward.

        Args:
            rows: positions on the canvas in pixels.
            columns: positions of the same shape.

        Returns:
            Two arrays of that shape; no entry is 0.
        """
        x, y = (columns - self.column) / self.focal, (rows - self.row) / self.focal
        right, down = x * np.cos(self.roll) + y * np.sin(self.roll), y * np.cos(self.roll) - x * np.sin(self.roll)
        return np.where(right == 0, 1e-6, right), np.where(down == 0, 1e-6, down)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Project points to rows and columns of the canvas.

        Args:
            points: (N, 3) in metres, z above 0.

        Returns:
            (N, 2) in pixels.
        """
        right, down = points[:, 0] / points[:, 2], (self.eye - points[:, 1]) / points[:, 2]
        x, y = (
            right * np.cos(self.roll) - down * np.sin(self.roll),
            right * np.sin(self.roll) + down * np.cos(self.roll),
        )
        return np.stack([self.row + self.focal * y, self.column + self.focal * x], axis=1)


class Canvas:
    """Depth, category, instance and colour of each ray; the nearest object wins, whatever the order of drawing.

    Args:
        size: height and width of the image.
        camera: its lengths are in pixels of the canvas.
    """

    def __init__(self, size: tuple[int, int], camera: Camera):
        self.shape, self.camera = (FINE * size[0], FINE * size[1]), camera
        rows, columns = np.mgrid[: self.shape[0], : self.shape[1]] + 0.5
        self.right, self.down = (slope.astype(np.float32) for slope in camera.slopes(rows, columns))
        self.depth = np.full(self.shape, np.inf, np.float32)
        self.category, self.instance = np.zeros(self.shape, np.uint8), np.zeros(self.shape, np.int32)
        self.colour = np.zeros((3, *self.shape), np.float32)

    def window(self, low: np.ndarray, high: np.ndarray) -> Window:
        """Return the part of the canvas in which a box is visible; all of it if the box reaches the camera.

        Args:
            low: (3,) its lowest corner.
            high: (3,) its highest corner.

        Returns:
            Slices of rows and columns; they may be empty.
        """
        if low[2] < _NEAREST:
            return slice(0, self.shape[0]), slice(0, self.shape[1])
        corners = np.array(np.meshgrid(*np.stack([low, high], axis=1), indexing="ij")).reshape(3, 8).T
        projected = self.camera.project(corners)
        first = np.clip(np.floor(projected.min(axis=0)), 0, self.shape).astype(int)
        last = np.clip(np.ceil(projected.max(axis=0)), 0, self.shape).astype(int)
        return slice(first[0], last[0]), slice(first[1], last[1])

    def put(self, window: Window, depth: np.ndarray, colour: np.ndarray, category: int, instance: int = 0) -> None:
        """Draw the pixels that are nearer than everything drawn before.

        Args:
            depth: (h, w), infinite where nothing is drawn.
            colour: (3, h, w).
            category: semantic class.
            instance: instance number of a thing, 0 for stuff.
        """
        nearer = depth < self.depth[window]
        self.depth[window][nearer] = depth[nearer]
        self.category[window][nearer] = category
        self.instance[window][nearer] = instance
        self.colour[(slice(None), *window)][:, nearer] = colour[:, nearer]

    def box(self, low: tuple, high: tuple, paint: Paint, category: int, instance: int = 0) -> None:
        """Draw an axis-aligned box with the corners `low` and `high`.

        Args:
            paint: (axis of the face, metres across it, metres up, size) -> colour and visible.
            category: semantic class.
            instance: instance number of a thing, 0 for stuff.
        """
        low, high = np.asarray(low, np.float32), np.asarray(high, np.float32)
        window = self.window(low, high)
        right, down = self.right[window], self.down[window]
        if not right.size:
            return
        origin = np.array([0, self.camera.eye, 0], np.float32)
        depth, axis = box_hit(origin, np.stack([right, -down, np.ones_like(right)]), low, high)
        hit = depth < MISSED
        if not hit.any():
            return
        safe = np.where(hit, depth, 1)
        x, y = right * safe - low[0], self.camera.eye - down * safe - low[1]
        colour, visible = paint(axis, np.where(axis == 0, safe - low[2], x), np.where(axis == 1, safe - low[2], y))
        self.put(window, np.where(visible, depth, MISSED), colour, category, instance)

    def board(self, position: tuple, size: tuple[float, float], paint: Paint, category: int, instance: int = 0) -> None:
        """Draw a flat upright figure that faces the camera.

        Args:
            position: (x, y, z) of the middle of its lower edge.
            size: metres across and up.
            paint: (metres from the middle, metres up) -> colour and visible.
            category: semantic class.
            instance: instance number of a thing, 0 for stuff.
        """
        x, y, z = position
        window = self.window(np.array([x - size[0] / 2, y, z]), np.array([x + size[0] / 2, y + size[1], z]))
        right, down = self.right[window], self.down[window]
        if right.size:
            colour, visible = paint(right * z - x, self.camera.eye - down * z - y)
            self.put(window, np.where(visible, np.float32(z), MISSED), colour, category, instance)
