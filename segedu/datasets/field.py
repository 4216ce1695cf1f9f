"""Synthetic soccer field as a robot sees it: green carpet with lines, its boundary, robots, a ball, and the background.

A scene depends only on its seed and its arguments. The camera stands on the field at the height of a robot's
head. Beyond the boundary there may be more green carpet, white posts and people, so that neither green nor white
alone determines what belongs to the field. The boundary target is that of the empty carpet, without the objects on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from segedu.datasets.canvas import FINE, Camera, Canvas
from segedu.datasets.sample import compact, make_sample
from segedu.datasets.street_paint import Paints, house, person
from segedu.datasets.texture import scene_rng, smooth_field
from segedu.validation.numbers import check_number, check_size

FIELD_VERSION = 1  # Increase it when a scene changes: every measured result must then be measured again.
CLASSES = ("background", "field", "line", "goal", "robot", "ball")
THINGS = (4, 5)
_BACKGROUND, _FIELD, _LINE, _GOAL, _ROBOT, _BALL = range(len(CLASSES))
_MIN_SIZE = 32
_SPECK = 4  # objects with fewer visible pixels have no ground truth
_HALF = (4.5, 3.0)  # metres from the centre to the goal line and to the side line
_LINE_WIDTH = 0.06


@dataclass(frozen=True)
class _Pose:
    """Position and direction of the camera on the field; x points to a goal, y to the left."""

    x: float
    y: float
    turn: float
    border: float  # metres of carpet beyond the lines

    def to_field(self, right: np.ndarray, ahead: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Convert metres to the right and ahead of the camera to field coordinates."""
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        return self.x + ahead * cos + right * sin, self.y + ahead * sin - right * cos

    def to_camera(self, x: float, y: float) -> tuple[float, float]:
        """Convert field coordinates to metres to the right and ahead of the camera."""
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        u, v = x - self.x, y - self.y
        return u * sin - v * cos, u * cos + v * sin

    def on_carpet(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Whether points on the ground belong to the field."""
        return (np.abs(x) < _HALF[0] + self.border) & (np.abs(y) < _HALF[1] + self.border)


def _lines(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance to the nearest line: touch lines, halfway line, centre circle, penalty areas, marks."""
    x, y = np.abs(x), np.abs(y)
    long, wide = _HALF

    def along(u, v, at, start, end):  # a line u = at from v = start to end
        return np.hypot(u - at, np.maximum(np.maximum(start - v, v - end), 0))

    distances = [along(y, x, wide, 0, long), along(x, y, long, 0, wide), along(x, y, 0, 0, wide)]
    distances += [np.abs(np.hypot(x, y) - 0.75), np.hypot(x - (long - 1.3), y)]
    for deep, half in ((0.6, 1.1), (1.65, 2.0)):
        distances += [along(x, y, long - deep, 0, half), along(y, x, half, long - deep, long)]
    return np.min(distances, axis=0)


def _robot(paints: Paints, tall: float):
    """A pale body with a jersey and dark joints, two legs, a round head with eyes."""
    shell, jersey = paints.tone((0.0, 0.12), (0.6, 0.98)), paints.tone((0.5, 1.0), (0.25, 0.9))
    joint, stride, lean = paints.tone((0.0, 0.2), (0.08, 0.3)), paints.uniform(0.0, 0.05), paints.uniform(-0.04, 0.04)

    def paint(u, v):
        u, v = u / tall - lean * v / tall, v / tall
        head = np.square(u / 0.085) + np.square((v - 0.91) / 0.08) < 1
        chest = (v > 0.52) & (v < 0.83) & (np.abs(u) < 0.1 + 0.06 * (v - 0.52) / 0.3)
        arm = (v > 0.42) & (v < 0.81) & (np.abs(np.abs(u) - 0.19) < 0.035)
        hip = (v > 0.44) & (v <= 0.52) & (np.abs(u) < 0.1)
        leg = (v >= 0) & (v < 0.46) & (np.abs(np.abs(u) - 0.07 - stride * (1 - v / 0.46)) < 0.045)
        foot = (v >= 0) & (v < 0.05) & (np.abs(np.abs(u) - 0.08 - stride) < 0.075)
        bend = (np.abs(v - 0.24) < 0.02) | (np.abs(v - 0.62) < 0.02) & arm | hip
        eyes = head & (np.abs(np.abs(u) - 0.035) < 0.015) & (np.abs(v - 0.92) < 0.02)
        shade = np.clip(1.0 - 1.6 * np.clip(u, -0.1, 0.2), 0.6, 1.1)
        colour = np.where(chest, jersey, np.where(bend | eyes, joint, shell)) * shade
        return colour.astype(np.float32), head | chest | arm | hip | leg | foot

    return paint


def _ball(paints: Paints, radius: float):
    """White with dark patches, darker below."""
    spots = [(0.0, 0.0), *[(0.72 * np.cos(a), 0.72 * np.sin(a)) for a in paints.uniform(0, 1) + np.arange(5) * 1.257]]

    def paint(u, v):
        u, v = u / radius, v / radius - 1
        dark = np.min([np.hypot(u - a, v - b) for a, b in spots], axis=0) < 0.3
        return (np.where(dark, 0.12, 0.95) * (0.85 + 0.2 * v)[None] * np.ones((3, 1, 1))).astype(np.float32), (
            np.hypot(u, v) < 1
        )

    return paint


def _draw_ground(canvas: Canvas, paints: Paints, pose: _Pose) -> np.ndarray:
    """Draw the carpet with lines and the floor of the hall with other fields; return the mask of the whole carpet."""
    rng, eye = paints.rng, canvas.camera.eye
    below = canvas.down > eye / 40
    ahead = np.where(below, eye / np.where(below, canvas.down, 1), 0)
    x, y = pose.to_field(canvas.right * ahead, ahead)
    carpet = below & pose.on_carpet(x, y)
    hue, floor = rng.uniform(0.24, 0.45), paints.tone((0.0, 0.4), (0.2, 0.8))
    green = paints.tone((0.4, 0.85), (0.25, 0.65), hue=(hue, hue))
    mown = 1 + rng.uniform(0, 0.12) * np.sign(np.sin(x * 2 * np.pi / 1.5))
    grass = green * (mown + 0.18 * paints.grain_at(x * 40 + 4000, y * 40 + 4000))
    planks = floor * (1 + 0.1 * paints.grain_at(x * 3 + 900, y * 0.7 + 900))
    gap, beyond = rng.uniform(0.3, 2.5), rng.uniform() < 0.6  # a neighbouring field with a similar carpet
    turf = paints.tone((0.4, 0.85), (0.25, 0.65), hue=(hue - 0.04, hue + 0.04)) * (
        1 + 0.15 * paints.grain_at(x * 40, y * 40)
    )
    other = below & ~carpet & beyond & (np.abs(y) > _HALF[1] + pose.border + gap)
    colour = np.where(carpet, grass, np.where(other, turf, planks))
    line = carpet & (_lines(x, y) < _LINE_WIDTH / 2)
    painted = line | (other & (np.abs(np.abs(y) - (_HALF[1] + pose.border + gap + 0.5)) < _LINE_WIDTH))
    colour = np.where(painted, rng.uniform(0.75, 0.98), colour)
    ground = below & (ahead < canvas.depth)
    canvas.depth[ground] = ahead[ground]
    canvas.category[ground] = np.where(line, _LINE, np.where(carpet, _FIELD, _BACKGROUND))[ground]
    canvas.instance[ground] = 0
    canvas.colour[:, ground] = colour[:, ground]
    return carpet


def _draw_hall(canvas: Canvas, paints: Paints, pose: _Pose) -> None:
    """Draw a wall with posters and windows, and people and boxes around the field."""
    rng = paints.rng
    wall, top = paints.tone((0.0, 0.35), (0.35, 0.95)), paints.tone((0.0, 0.2), (0.5, 1.0))
    height = np.clip(-canvas.down * 3, 0, 1)
    canvas.colour[:] = wall * (1 - height) + top * height
    canvas.colour *= 1 + 0.06 * smooth_field(rng, canvas.shape, canvas.shape[1] / 4)
    for _ in range(int(rng.integers(2, 8))):
        x, z, wide, tall = rng.uniform(-14, 14), rng.uniform(13, 18), rng.uniform(1, 5), rng.uniform(1, 6)
        canvas.box((x, 0, z), (x + wide, tall, z + 1), house(paints, (wide, tall, 1)), _BACKGROUND)
    for _ in range(int(rng.integers(2, 10))):
        ahead, right = rng.uniform(2.5, 12), rng.uniform(-7, 7)
        x, y = pose.to_field(np.array(right), np.array(ahead))
        if not (np.abs(x) < _HALF[0] + pose.border + 0.3 and np.abs(y) < _HALF[1] + pose.border + 0.3):
            tall = rng.uniform(1.5, 1.9)
            canvas.board((right, 0, ahead), (0.7 * tall, 1.02 * tall), person(paints, tall), _BACKGROUND)


def _draw_goals(canvas: Canvas, pose: _Pose) -> None:
    """Two white frames: posts as narrow boards, the bar as short pieces."""

    def white(u, v):
        return np.full((3, *u.shape), 0.93, np.float32) * (1 - 0.15 * (u > 0)), np.ones(u.shape, bool)

    for end in (-1, 1):
        for side in np.linspace(-0.8, 0.8, 33):
            right, ahead = pose.to_camera(end * _HALF[0], side)
            if ahead > 0.4 and abs(side) == 0.8:
                canvas.board((right, 0, ahead), (0.1, 0.85), white, _GOAL)
            elif ahead > 0.4:
                canvas.board((right, 0.76, ahead), (0.1, 0.09), white, _GOAL)


def _draw_things(canvas: Canvas, paints: Paints, pose: _Pose) -> list[int]:
    """Draw robots and at most one ball in view of the camera; return the class of each."""
    rng, labels, taken = paints.rng, [], []
    for label in [_BALL] * (rng.uniform() < 0.85) + [_ROBOT] * int(rng.integers(1, 9)):
        ahead = 0.9 + (2.5 if label == _BALL else 6.0) * rng.uniform() ** 1.3
        right = rng.uniform(-0.55, 0.55) * ahead
        x, y = pose.to_field(np.array(right), np.array(ahead))
        if not pose.on_carpet(x, y) or any(np.hypot(right - a, ahead - b) < 0.4 for a, b in taken):
            continue
        taken.append((right, ahead))
        labels.append(label)
        tall = 0.2 if label == _BALL else rng.uniform(0.5, 0.65)
        paint = _ball(paints, tall / 2) if label == _BALL else _robot(paints, tall)
        canvas.board((right, 0, ahead), (tall, tall), paint, label, len(labels))
    return labels


def draw_field(
    seed: int | tuple[int, ...], size: tuple[int, int] = (96, 128), *, noise: float = 0.03
) -> dict[str, Tensor | list]:
    """Draw the camera image of one robot.

    Args:
        seed: an integer, or a tuple such as (seed, index); the same seed gives the same scene.
        size: height and width, at least 32 each.
        noise: standard deviation of the pixel noise, 0 to 1.

    Returns:
        `image` float32 (3, H, W) in [0, 1]; `semantic` int64 (H, W), indices into `CLASSES`; `label_map` int32
        (H, W), 1..N for robots and the ball, 0 elsewhere; `boxes` float32 (N, 4) xyxy; `labels` int64 (N,);
        `masks` bool (N, H, W); `field_mask` bool (H, W), the carpet, including the parts that objects hide;
        `boundary` int64 (W,), the first row of the carpet in each column, H where there is none;
        `panoptic_seg` and `segments_info`. N may be 0.
    """
    size = check_size("size", size, _MIN_SIZE)
    noise = check_number("noise", noise, 0, 1)
    rng = scene_rng(seed)
    paints = Paints(rng, 1.0)
    x, y = rng.uniform(-4.2, 4.2), rng.uniform(-2.8, 2.8)
    # The camera faces the centre of the field, within 1.6 radians.
    pose = _Pose(x, y, np.arctan2(-y, -x) + rng.uniform(-1.6, 1.6), rng.uniform(0.4, 0.9))
    tall, wide = FINE * size[0], FINE * size[1]
    row, column = tall * rng.uniform(0.08, 0.42), wide * rng.uniform(0.3, 0.7)
    camera = Camera(rng.uniform(0.45, 0.75), wide * rng.uniform(0.7, 1.0), row, column, np.radians(rng.uniform(-6, 6)))
    canvas = Canvas(size, camera)
    _draw_hall(canvas, paints, pose)
    labels = _draw_things(canvas, paints, pose)
    _draw_goals(canvas, pose)
    carpet = _draw_ground(canvas, paints, pose)
    image = canvas.colour.reshape(3, size[0], FINE, size[1], FINE).mean(axis=(2, 4))
    image = ndimage.gaussian_filter(image, (0, *[rng.uniform(0, 0.7)] * 2), truncate=2)
    light = (1 + 0.35 * smooth_field(rng, size, size[1] / 1.5)) * rng.uniform(0.55, 1.15)
    image = np.clip(image * light * (1 + rng.uniform(-0.1, 0.1, (3, 1, 1))), 0, 1)
    image = np.clip(image + noise * rng.standard_normal(image.shape), 0, 1)
    at = (slice(FINE // 2, None, FINE),) * 2
    visible, category, mask = canvas.instance[at].copy(), canvas.category[at].astype(np.int64), carpet[at]
    speck = (visible > 0) & (np.bincount(visible.ravel())[visible] < _SPECK)
    category[speck] = np.where(mask, _FIELD, _BACKGROUND)[speck]
    label_map, old = compact(torch.from_numpy(np.where(speck, 0, visible)))
    sample = make_sample(image, label_map.numpy(), np.array(labels, np.int64)[old.numpy() - 1], stuff=category)
    boundary = np.where(mask.any(axis=0), mask.argmax(axis=0), size[0])
    return sample | {"field_mask": torch.from_numpy(mask.copy()), "boundary": torch.from_numpy(boundary)}
