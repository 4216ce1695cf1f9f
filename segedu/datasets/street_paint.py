"""Surfaces and figures of the street: houses, trees, people, cars, buses, boats.

Colours come from palettes that most classes share, so colour alone does not determine the class of a thing. Its
outline, its parts and its position do.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from segedu.datasets.canvas import Canvas, Paint
from segedu.datasets.texture import smooth_field

_TYPICAL = {  # hue, saturation, value of the usual colour
    "road": (0.6, 0.06, 0.4),
    "sidewalk": (0.1, 0.1, 0.68),
    "building": (0.06, 0.35, 0.6),
    "water": (0.54, 0.4, 0.5),
    "vegetation": (0.28, 0.6, 0.45),
}
_TILE = 128  # side of the table of random numbers, a power of 2


@dataclass(frozen=True)
class Spot:
    """Position of a vehicle: lowest corner, (width, height, length), axis of the length (0 or 2), class, instance."""

    low: np.ndarray
    size: tuple[float, float, float]
    along: int
    category: int
    number: int

    @property
    def high(self) -> np.ndarray:
        """The highest corner."""
        width, height, length = self.size
        return self.low + ([width, height, length] if self.along == 2 else [length, height, width])


class Paints:
    """Random colours and grain of one scene.

    Args:
        variety: 0 gives each class of surface its usual colour, 1 any colour.
    """

    def __init__(self, rng: np.random.Generator, variety: float):
        self.rng, self.variety = rng, variety
        rough = rng.uniform(-1, 1, (_TILE, _TILE))
        self.grain = (0.6 * rough + 0.6 * smooth_field(rng, (_TILE, _TILE), 4)).astype(np.float32)
        self.glass = self.tone((0.0, 0.4), (0.1, 0.75))

    def tone(
        self, saturation: tuple[float, float], value: tuple[float, float], hue: tuple[float, float] = (0.0, 1.0)
    ) -> np.ndarray:
        """A random colour.

        Args:
            saturation: lowest and highest.
            value: lowest and highest.
            hue: lowest and highest, as fractions of the colour circle.

        Returns:
            (3, 1, 1).
        """
        hsv = self.rng.uniform(*hue) % 1, self.rng.uniform(*saturation), self.rng.uniform(*value)
        return np.array(colorsys.hsv_to_rgb(*hsv), np.float32)[:, None, None]

    def surface_colour(self, surface: str) -> np.ndarray:
        """A random colour of a surface, between its usual colour and one from a palette that several classes share.

        Args:
            surface: road, sidewalk, building, water or vegetation.

        Returns:
            (3, 1, 1).
        """
        leaves = surface == "vegetation"
        hsv = (
            self.rng.uniform((0.04, 0.1, 0.2), (0.45, 0.75, 0.75))
            if leaves
            else self.rng.uniform((-0.05, 0.0, 0.25), (0.65, 0.45, 0.85))
        )
        mixed = (1 - self.variety) * np.array(_TYPICAL[surface]) + self.variety * hsv
        return np.array(colorsys.hsv_to_rgb(mixed[0] % 1, *mixed[1:]), np.float32)[:, None, None]

    def grain_at(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Grain at two coordinates, one value per unit square, repeated every 128.

        Args:
            u: one coordinate.
            v: the other, of the same shape.

        Returns:
            Numbers in [-1.2, 1.2] of that shape.
        """
        return self.grain.take((u.astype(np.int32) & (_TILE - 1)) * _TILE + (v.astype(np.int32) & (_TILE - 1)))

    def uniform(self, low: float, high: float) -> float:
        """A random number.

        Args:
            low: the smallest.
            high: the largest.

        Returns:
            The number.
        """
        return float(self.rng.uniform(low, high))


def _inside(value: np.ndarray, middle: float, half: float) -> np.ndarray:
    return np.abs(value - middle) < half


def house(paints: Paints, size: tuple[float, float, float]) -> Paint:
    """A facade with rows of windows under a flat roof.

    Args:
        size: width, height and length in metres.

    Returns:
        The paint function for `Canvas.box`.
    """
    wall, roof, frame = (paints.surface_colour("building") for _ in range(3))
    glass, lit = paints.tone((0.0, 0.5), (0.08, 0.8)), paints.tone((0.2, 0.6), (0.8, 1.0), hue=(0.1, 0.17))
    storey, bay = paints.uniform(2.6, 3.6), paints.uniform(1.6, 3.6)
    tall, wide = paints.uniform(0.22, 0.36), paints.uniform(0.2, 0.38)
    lamps, rough, scale = paints.uniform(-0.6, 1.0), paints.uniform(0.04, 0.2), paints.uniform(2, 12)
    start, bricks = paints.uniform(0, 100), paints.uniform(0, 1) < 0.4

    def paint(axis, across, up):
        u, v = across / bay, up / storey
        surface = wall * (1 + rough * paints.grain_at(across * scale + start, up * scale))
        if bricks:
            surface = surface * np.where((up * 4) % 1 < 0.25, 0.85, 1).astype(np.float32)
        in_u, in_v = np.abs(u % 1 - 0.5), np.abs(v % 1 - 0.5)
        whole = (up < size[1] - 0.3) & (v > 0.05)
        pane = whole & (in_u < wide) & (in_v < tall)
        rim = whole & (in_u < wide + 0.06) & (in_v < tall + 0.05) & ~pane
        shine = paints.grain_at(u + start, v)
        panes = np.where(shine > lamps, glass * (0.8 + 0.4 * shine), lit)
        surface = np.where(pane, panes, np.where(rim, frame, surface))
        surface = np.where(up > size[1] - 0.35, frame * 0.9, surface)
        return np.where(axis == 1, roof, surface * np.where(axis == 0, 0.78, 1.0)), np.ones(up.shape, bool)

    return paint


def tree(paints: Paints, width: float, height: float, bare: float = 0.25) -> Paint:
    """A trunk and a crown of leaves with a ragged outline.

    Args:
        width: width of the crown in metres.
        height: height of the tree in metres.
        bare: fraction of the height that is below the crown.

    Returns:
        The paint function for `Canvas.board`.
    """
    leaves = paints.surface_colour("vegetation")
    bark, start, fine = (
        paints.tone((0.1, 0.5), (0.15, 0.5), hue=(0.02, 0.12)),
        paints.uniform(0, 99),
        paints.uniform(4, 8),
    )
    lean = paints.uniform(-0.15, 0.15)

    def paint(u, v):
        top = (v / height - bare) / (1 - bare) * 2 - 1
        ragged = 0.28 * paints.grain_at((u + 50) * fine + start, (v + 50) * fine) + 0.2 * paints.grain_at(
            (u + 50) * 1.3, v * 1.3
        )
        crown = np.square(u / (width / 2) + lean * top) + np.square(top) < 0.8 + ragged
        trunk = _inside(u, 0, 0.05 * width) & (v < 0.6 * height)
        light = 0.85 + 0.25 * top + 0.3 * paints.grain_at((u + 50) * 5 + start, (v + 50) * 5)
        return np.where(crown, leaves * light, bark * (1 + 0.2 * paints.grain_at(u * 9, v * 3))), (crown | trunk) & (
            v >= 0
        )

    return paint


def person(paints: Paints, height: float) -> Paint:
    """Head, body, arms and two legs in stride.

    Args:
        height: height of the person in metres.

    Returns:
        The paint function for `Canvas.board`.
    """
    skin = paints.tone((0.25, 0.6), (0.25, 0.95), hue=(0.04, 0.1))
    hair, coat, trousers = (paints.tone((0.0, 0.9), (0.08, 0.95)) for _ in range(3))
    stride, broad, long = paints.uniform(0.02, 0.13), paints.uniform(0.115, 0.15), paints.uniform(0.3, 0.47)

    def paint(u, v):
        u, v = u / height, v / height
        head = np.square(u / 0.062) + np.square((v - 0.925) / 0.075) < 1
        taper = broad * np.clip(1.05 - 0.5 * np.abs(v - 0.72), 0, 1)
        body = (v > long) & (v < 0.85) & (np.abs(u) < np.where(v > 0.82, taper * 0.75, taper * 0.8))
        arms = (v > 0.45) & (v < 0.83) & _inside(np.abs(u), broad + 0.1 * (0.83 - v) - 0.02, 0.028)
        legs = (v >= 0) & (v <= long + 0.02) & _inside(np.abs(u), 0.045 + stride * (1 - v / 0.5), 0.036)
        colour = np.where(body | arms, coat * np.where(np.abs(u) > taper * 0.6, 0.8, 1.0), trousers)
        colour = np.where(arms & (v < 0.5), skin, colour)
        colour = np.where(head, np.where(v > 0.945, hair, skin), colour)
        colour = np.where(legs & (v < 0.03), 0.1, colour)
        return colour.astype(np.float32), head | body | arms | legs

    return paint


def _wheels(across: np.ndarray, up: np.ndarray, length: float, radius: float) -> np.ndarray:
    reach = np.minimum(np.abs(across - 0.2 * length), np.abs(across - 0.8 * length))
    return np.hypot(reach, up - radius) < radius


def put_car(canvas: Canvas, paints: Paints, spot: Spot) -> None:
    """Draw a car: a body on wheels with a cabin of glass.

    Args:
        spot: position, size, class and instance.
    """
    coat = paints.tone((0.0, 0.9), (0.12, 0.95))
    (width, height, length), along = spot.size, spot.along
    waist, front = 0.55 * height, paints.uniform(0, 1) < 0.5
    lamp = paints.tone((0.0, 0.2), (0.85, 1.0)) if front else paints.tone((0.8, 1.0), (0.6, 0.95), hue=(-0.02, 0.03))

    def body(axis, across, up):
        side, end = axis == 2 - along, axis == along
        wheel = side & _wheels(across, up, length, 0.22 * height)
        tyre = end & (up < 0.25 * height) & (np.abs(across - width / 2) > 0.32 * width)
        low_gap = (up < 0.2 * height) & ~(wheel | tyre)
        lights = end & _inside(up, 0.4 * height, 0.06 * height) & (np.abs(across - width / 2) > 0.3 * width)
        plate = end & _inside(up, 0.3 * height, 0.04 * height) & (np.abs(across - width / 2) < 0.14 * width)
        shade = np.where(axis == 1, 1.15, np.where(axis == 0, 0.8, 0.95)) * np.where(up < 0.28 * height, 0.6, 1.0)
        colour = np.where(wheel | tyre, 0.07, np.where(lights, lamp, np.where(plate, 0.85, coat * shade)))
        return colour.astype(np.float32), ~(low_gap & (axis != 1))

    inset = 0.22 * length

    def cabin(axis, across, up):
        side = axis == 2 - along
        span, tall = np.where(side, length - 1.6 * inset, 0.88 * width), height - waist
        edge = span / 2 - np.abs(across - span / 2)
        slope = np.where(side, 0.75, 0.25) * up
        pane = (up < 0.85 * tall) & (up > 0.05 * tall) & (edge > slope + 0.08)
        pane &= ~(side & _inside(across, 0.5 * (length - 1.6 * inset), 0.05))
        gloss = paints.glass * (0.75 + 0.4 * up / tall)
        colour = np.where(pane & (axis != 1), gloss, coat * np.where(axis == 1, 1.15, 0.9))
        return colour.astype(np.float32), (edge > slope) | (axis == 1)

    _two_boxes(canvas, (body, cabin), spot, waist, inset, 0.06 * width)


def _two_boxes(canvas: Canvas, paints: tuple[Paint, Paint], spot: Spot, waist: float, inset: float, rim: float) -> None:
    """Draw a lower box up to `waist`, and on it an upper box that is shorter and narrower."""
    high = spot.high
    canvas.box(spot.low, (high[0], spot.low[1] + waist, high[2]), paints[0], spot.category, spot.number)
    inner = np.array([rim, 0, 0.8 * inset] if spot.along == 2 else [0.8 * inset, 0, rim])
    canvas.box(spot.low + inner + [0, waist, 0], high - inner, paints[1], spot.category, spot.number)


def put_bus(canvas: Canvas, paints: Paints, spot: Spot) -> None:
    """Draw a bus: a long box with a row of windows.

    Args:
        spot: position, size, class and instance.
    """
    coat, band = paints.tone((0.0, 0.9), (0.25, 0.95)), paints.tone((0.0, 0.9), (0.2, 0.95))
    (width, height, length), along = spot.size, spot.along
    pitch = paints.uniform(1.1, 1.8)

    def paint(axis, across, up):
        side, end = axis == 2 - along, axis == along
        wheel = side & _wheels(across, up, length, 0.16 * height)
        tyre = end & (up < 0.2 * height) & (np.abs(across - width / 2) > 0.3 * width)
        gap = (up < 0.12 * height) & ~(wheel | tyre) & (axis != 1)
        row = _inside(up, 0.65 * height, 0.17 * height)
        pane = row & (
            (side & (np.abs((across / pitch) % 1 - 0.5) < 0.42)) | (end & (np.abs(across - width / 2) < 0.42 * width))
        )
        shade = np.where(axis == 1, 1.1, np.where(axis == 0, 0.82, 0.95))
        colour = np.where(_inside(up, 0.35 * height, 0.05 * height), band, coat) * shade
        colour = np.where(pane, paints.glass * (0.7 + 0.3 * up / height), colour)
        return np.where(wheel | tyre, 0.07, colour).astype(np.float32), ~gap

    canvas.box(spot.low, spot.high, paint, spot.category, spot.number)


def put_boat(canvas: Canvas, paints: Paints, spot: Spot) -> None:
    """Draw a boat: a hull with a cabin on it.

    Args:
        spot: position, size, class and instance.
    """
    coat, deck = paints.tone((0.0, 0.9), (0.12, 0.95)), paints.tone((0.0, 0.9), (0.3, 0.95))
    (width, height, length), along = spot.size, spot.along
    waist, inset = 0.5 * height, 0.26 * length

    def hull(axis, across, up):
        side = axis == 2 - along
        span = np.where(side, length, width)
        edge = span / 2 - np.abs(across - span / 2)
        visible = (edge > np.where(side, 0.9, 0.35) * (waist - up)) | (axis == 1)
        line = _inside(up, 0.8 * waist, 0.08 * waist) & (axis != 1)
        shade = np.where(axis == 1, 1.1, np.where(axis == 0, 0.8, 0.95))
        return (np.where(line, deck, coat) * shade).astype(np.float32), visible

    def cabin(axis, across, up):
        side = axis == 2 - along
        span, tall = np.where(side, length - 1.6 * inset, 0.7 * width), height - waist
        edge = span / 2 - np.abs(across - span / 2)
        pane = (up < 0.8 * tall) & (up > 0.25 * tall) & (edge > 0.12) & (axis != 1)
        pane &= ~(side & (np.abs((across / 0.8) % 1 - 0.5) > 0.4))
        colour = np.where(pane, paints.glass * (0.75 + 0.4 * up / tall), deck * np.where(axis == 1, 1.15, 0.9))
        return colour.astype(np.float32), np.ones(up.shape, bool)

    _two_boxes(canvas, (hull, cabin), spot, waist, inset, 0.15 * width)
