"""Synthetic street scenes in perspective: things and stuff, with semantic, instance and panoptic targets.

A scene depends only on its seed and its arguments. A camera stands in a street between houses, trees and,
often, a canal; cars, buses, boats and people occlude each other. Light, colour and texture vary, so colour alone
seldom determines the class, and some pairs of classes differ only in context: the cabin of a boat looks like that of
a car, a bus has the windows of a house, and road and pavement are both grey. A higher `variety` makes scenes harder.
Pixels around things are void (255), as in PASCAL VOC.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage
from torch import Tensor

from segedu.datasets.canvas import FINE, Camera, Canvas
from segedu.datasets.sample import make_sample
from segedu.datasets.street_paint import Paints, Spot, house, person, put_boat, put_bus, put_car, tree
from segedu.datasets.texture import scene_rng, smooth_field
from segedu.validation.numbers import check_number, check_size

STREET_VERSION = 2  # Increase it when a scene changes: every measured result must then be measured again.
CLASSES = ("road", "sidewalk", "water", "building", "vegetation", "sky", "person", "car", "bus", "boat")
THINGS = (6, 7, 8, 9)
VOID = 255
_ROAD, _SIDEWALK, _WATER, _BUILDING, _VEGETATION, _SKY, _PERSON, _CAR, _BUS, _BOAT = range(len(CLASSES))
_MIN_SIZE = 32
_SPECK = 16  # things with fewer visible pixels cannot be recognised and become void


@dataclass
class _Street:
    """Layout of the ground along x and of the objects on it, in metres."""

    edges: np.ndarray  # (S - 1,) borders between the strips, from left to right
    strips: tuple[int, ...]  # class of each strip
    walls: tuple[float, float]  # x of the fronts of the houses
    crossing: tuple[float, float]  # z between which a side street crosses; empty if first >= second
    shadows: list[tuple[float, float, float, float]] = field(default_factory=list)  # x, z, half width, half length
    labels: list[int] = field(default_factory=list)

    def spans(self, category: int) -> list[tuple[float, float]]:
        """Intervals of x between the houses that belong to strips of one class."""
        pairs = zip(self.edges[:-1], self.edges[1:], self.strips[1:-1], strict=True)
        return [(low, high) for low, high, strip_class in pairs if strip_class == category]

    def claim(self, x: float, z: float, half_width: float, half_length: float) -> bool:
        """Reserve a rectangle of the ground; False if it overlaps a reserved one."""
        for other in self.shadows:
            if abs(x - other[0]) < half_width + other[2] and abs(z - other[1]) < half_length + other[3]:
                return False
        self.shadows.append((x, z, half_width, half_length))
        return True

    def add_instance(self, category: int) -> int:
        """Add a thing and return its instance number."""
        self.labels.append(category)
        return len(self.labels)


def _plan(rng: np.random.Generator) -> _Street:
    """Random strips of ground from left to right; the camera stands at x = 0, on the road or beside it."""
    middle, half = rng.uniform(-5, 5), rng.uniform(2.8, 6.5)
    edges, strips = [middle - half, middle + half], [_ROAD]
    canal = int(rng.integers(0, 2)) if rng.uniform() < 0.9 else -1
    for side, sign in enumerate((-1, 1)):
        widths = [(_SIDEWALK, rng.uniform(1.0, 1.8 if side == canal else 4.5))]
        if side == canal:
            widths += [(_WATER, rng.uniform(9, 18))]
        if rng.uniform() < (0.7 if side == canal else 0.4):
            widths += [(_VEGETATION, rng.uniform(1, 6))]
        for category, width in widths:
            edges = [edges[0] - width, *edges] if sign < 0 else [*edges, edges[-1] + width]
            strips = [category, *strips] if sign < 0 else [*strips, category]
    walls = (edges[0], edges[-1])
    outside = int(rng.choice([_VEGETATION, _SIDEWALK]))
    start = rng.uniform(10, 40)
    crossing = (start, start + rng.uniform(5, 10)) if rng.uniform() < 0.45 else (1.0, 0.0)
    return _Street(np.array(edges), (outside, *strips, outside), walls, crossing)


def _surface(paints: Paints, category: int, x: np.ndarray, z: np.ndarray, sky: np.ndarray) -> np.ndarray:
    """Colour (3, P) of the ground of one class, with grain, slabs or ripples."""
    rough, tone = paints.uniform(0.03, 0.2), paints.surface_colour(CLASSES[category])[..., 0]
    rough = 0.3 if category == _VEGETATION else rough
    colour = tone * (1 + rough * paints.grain_at(x * paints.uniform(2, 8) + 500, z * paints.uniform(1, 4)))
    if category == _WATER:
        ripple = np.sin(z * paints.uniform(3, 7) + 1.5 * np.sin(x * 1.3) + 6 * paints.grain_at(x * 0.4 + 99, z * 0.4))
        mix = paints.uniform(0.2, 0.6)
        colour = (mix * sky[:, None] + (1 - mix) * colour) * (1 + 0.18 * ripple)
    elif category == _SIDEWALK or (category == _ROAD and paints.uniform(0, 1) < 0.25):
        slab = paints.uniform(0.5, 1.2)
        joint = ((x / slab) % 1 < 0.12) | ((z / slab) % 1 < 0.12)
        colour = colour * np.where(joint & (z < 14), 0.78, 1)
    return colour


def _markings(paints: Paints, street: _Street, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Mask of the road markings: dashed centre line, edge lines, sometimes a zebra crossing."""
    left, right = street.spans(_ROAD)[0]
    middle, width = (left + right) / 2, right - left
    dash, mask = paints.uniform(3, 7), np.zeros(x.shape, bool)
    if paints.uniform(0, 1) < 0.75:
        mask |= (np.abs(x - middle) < 0.09) & ((z / dash) % 1 < paints.uniform(0.4, 1.0))
    if paints.uniform(0, 1) < 0.4:
        mask |= np.abs(np.abs(x - middle) - (width / 2 - 0.35)) < 0.07
    if paints.uniform(0, 1) < 0.4:
        distance = paints.uniform(6, 22)
        mask |= (np.abs(z - distance) < 1.6) & (((x - left) / 1.0) % 1 < 0.5)
    return mask


def _draw_ground(canvas: Canvas, street: _Street, paints: Paints, sky: np.ndarray) -> None:
    """Intersect the downward rays with the ground, colour its strips, and add soft shadows of the things."""
    below = (canvas.down > canvas.camera.eye / 400) & (canvas.camera.eye < canvas.depth * canvas.down)
    z = canvas.camera.eye / canvas.down[below]
    x = canvas.right[below] * z
    strip = np.searchsorted(street.edges, x)
    categories = np.array(street.strips, np.uint8)[strip]
    dry = categories != _WATER
    crossed = (z > street.crossing[0]) & (z < street.crossing[1]) & dry
    categories[crossed] = _ROAD
    strip[crossed] = street.strips.index(_ROAD)
    colour = np.zeros((3, len(z)), np.float32)
    for number, category in enumerate(street.strips):
        in_strip = strip == number
        if in_strip.any():
            colour[:, in_strip] = _surface(paints, category, x[in_strip], z[in_strip], sky)
    road = street.spans(_ROAD)[0]
    for _ in range(int(paints.rng.integers(0, 4))):  # repaired patches, in the colours of the pavement
        px, pz, tone = paints.uniform(*road), paints.uniform(4, 25), paints.surface_colour("sidewalk")[..., 0]
        patch = (
            (categories == _ROAD)
            & (np.abs(x - px) < paints.uniform(0.4, 1.5))
            & (np.abs(z - pz) < paints.uniform(0.5, 2.5))
        )
        colour[:, patch] = tone
    marked = _markings(paints, street, x, z) & (categories == _ROAD) & ~crossed
    colour[:, marked] = 0.3 * colour[:, marked] + 0.7 * paints.tone((0, 0.3), (0.8, 1), hue=(0.1, 0.15))[..., 0]
    kerb = np.abs(x[:, None] - np.array(road)).min(axis=1) < 0.1
    colour[:, kerb & ~crossed] *= paints.uniform(0.6, 1.2)
    for sx, sz, wide, long in street.shadows:
        gap = np.maximum(np.abs(x - sx) / (wide + 0.1), np.abs(z - sz) / (long + 0.15))
        colour *= np.where((gap < 1.25) & dry, 0.55 + 0.36 * np.clip(gap, 0, 1.25), 1).astype(np.float32)
    canvas.depth[below], canvas.category[below], canvas.colour[:, below] = z, categories, colour


def _draw_sky(canvas: Canvas, paints: Paints, horizon: np.ndarray) -> None:
    """Draw a colour gradient upwards from the horizon, clouds, and sometimes hills."""
    rng, shape = paints.rng, canvas.shape
    zenith = paints.tone((0.0, 0.7), (0.25, 0.95), hue=(0.52, 0.68))
    height = np.clip(-canvas.down * paints.uniform(1.0, 2.5), 0, 1)
    canvas.colour[:] = horizon[:, None, None] * (1 - height) + zenith * height
    clouds = smooth_field(rng, shape, shape[1] / paints.uniform(3, 7)) + 0.5 * smooth_field(rng, shape, shape[1] / 16)
    cover = np.clip(clouds * 1.6 - paints.uniform(-0.6, 1.0), 0, 0.85).astype(np.float32)
    canvas.colour[:] += cover * (paints.tone((0.0, 0.12), (0.6, 1.0)) - canvas.colour)
    canvas.category[:] = _SKY
    if rng.uniform() < 0.3:
        bumps = smooth_field(rng, (2, 512), 40)[0] + 0.25 * smooth_field(rng, (2, 512), 6)[0]
        ridge = paints.uniform(0.03, 0.12) * (1.4 + bumps)
        above = ridge[((canvas.right * 120 + 256).astype(int)) % 512]
        hill = canvas.down > -above
        canvas.category[hill] = _VEGETATION
        canvas.colour[:, hill] = (0.5 * horizon[:, None, None] + 0.5 * paints.surface_colour("vegetation"))[:, 0]
        canvas.depth[hill] = 300


def _draw_houses(canvas: Canvas, street: _Street, paints: Paints) -> None:
    """Draw rows of houses along both sides, with gaps, and often a row across the far end of the street."""
    for side, wall in enumerate(street.walls):
        z, usual = paints.uniform(-6, 4), paints.uniform(5, 16)
        built = paints.uniform(0.55, 1.0)
        while z < 90:
            width, height, depth = paints.uniform(6, 18), usual * paints.uniform(0.6, 1.5), paints.uniform(7, 12)
            blocked = z < street.crossing[1] and z + width > street.crossing[0]
            if paints.uniform(0, 1) < built and not blocked:
                setback = paints.uniform(0, 1.5)
                x = (wall - setback - depth, wall - setback) if side == 0 else (wall + setback, wall + setback + depth)
                size = (depth, height, width)
                canvas.box((x[0], 0, max(z, 0.05)), (x[1], height, z + width), house(paints, size), _BUILDING)
            z += width + (paints.uniform(2, 8) if paints.uniform(0, 1) < 0.3 else 0)
    if paints.uniform(0, 1) < 0.7:
        x, far = -50.0, paints.uniform(55, 110)
        while x < 50:
            width, height = paints.uniform(8, 20), paints.uniform(6, 26)
            canvas.box((x, 0, far), (x + width, height, far + 8), house(paints, (width, height, 8)), _BUILDING)
            x += width + (paints.uniform(3, 20) if paints.uniform(0, 1) < 0.4 else 0)


def _place_trees(canvas: Canvas, street: _Street, paints: Paints) -> None:
    """Draw trees along the pavement at regular distances, and anywhere on grass."""
    for low, high in street.spans(_SIDEWALK):
        if paints.uniform(0, 1) < 0.45 and high - low < 20:
            x, step, height = paints.uniform(low + 0.2, high - 0.2), paints.uniform(6, 14), paints.uniform(3.5, 8)
            for z in np.arange(paints.uniform(5, 12), 70, step):
                tall = height * paints.uniform(0.8, 1.2)
                if street.claim(x, z, 0.3, 0.3):
                    wide = tall * paints.uniform(0.5, 0.8)
                    canvas.board((x, 0, z), (wide * 1.5, tall * 1.1), tree(paints, wide, tall), _VEGETATION)
    for low, high in street.spans(_VEGETATION):
        for _ in range(int(paints.rng.integers(0, 7))):
            x, z, tall = paints.uniform(low, high), paints.uniform(5, 60), paints.uniform(0.6, 7)
            if street.claim(x, z, 0.3, 0.3):
                bare = 0.0 if tall < 2 else 0.2
                wide = tall * paints.uniform(0.6, 1.4)
                canvas.board((x, 0, z), (wide * 1.5, tall * 1.1), tree(paints, wide, tall, bare), _VEGETATION)


def _place_vehicles(canvas: Canvas, street: _Street, paints: Paints) -> None:
    """Draw cars and buses along the road or across it at a crossing, and boats on the water."""
    rng = paints.rng
    road, water = street.spans(_ROAD)[0], street.spans(_WATER)
    for _ in range(int(rng.integers(3, 9))):
        bus = rng.uniform() < 0.28
        across = not bus and street.crossing[1] > street.crossing[0] and rng.uniform() < 0.35
        size = (
            (2.5, paints.uniform(2.9, 3.3), paints.uniform(8, 12))
            if bus
            else tuple(rng.uniform((1.65, 1.35, 3.6), (1.95, 1.8, 4.9)))
        )
        x, z = paints.uniform(road[0] + 1.0, road[1] - 1.0), 3.5 + 14 * rng.uniform() ** 1.4
        if across:
            x, z = paints.uniform(-18, 18), paints.uniform(*street.crossing)
        _add_vehicle(canvas, street, paints, put_bus if bus else put_car, (x, 0.0, z), size, 0 if across else 2)
    for low, high in water:
        for _ in range(int(rng.integers(3, 9))):
            size = tuple(rng.uniform((2.0, 1.6, 4.5), (3.2, 3.2, 9.0)))
            position = (paints.uniform(low + 1.7, high - 1.7), -0.1, 3.5 + 9 * rng.uniform())
            _add_vehicle(canvas, street, paints, put_boat, position, size, 0 if rng.uniform() < 0.4 else 2)


def _add_vehicle(
    canvas: Canvas, street: _Street, paints: Paints, draw, position: tuple, size: tuple, along: int
) -> None:
    """Draw a vehicle, unless its ground is taken; `position` is the middle of its near edge."""
    x, y, z = position
    wide, long = (size[0], size[2]) if along == 2 else (size[2], size[0])
    if street.claim(x, z + long / 2, wide / 2 + 0.2, long / 2 + 0.4):
        category = {put_car: _CAR, put_bus: _BUS, put_boat: _BOAT}[draw]
        draw(canvas, paints, Spot(np.array([x - wide / 2, y, z]), size, along, category, street.add_instance(category)))


def _place_people(canvas: Canvas, street: _Street, paints: Paints) -> None:
    """Draw people on pavements and some on the road, alone and in groups."""
    rng = paints.rng
    spans = street.spans(_SIDEWALK)
    for _ in range(int(rng.integers(4, 11))):
        low, high = spans[rng.integers(len(spans))] if rng.uniform() < 0.8 else street.spans(_ROAD)[0]
        x, z = paints.uniform(low, high), 2.2 + 5 * rng.uniform()
        for _ in range(int(rng.integers(1, 4)) if rng.uniform() < 0.35 else 1):
            tall = paints.uniform(1.05, 1.4) if rng.uniform() < 0.2 else paints.uniform(1.5, 1.95)
            if street.claim(x, z, 0.2, 0.2):
                figure, number = person(paints, tall), street.add_instance(_PERSON)
                canvas.board((x, 0, z), (0.7 * tall, 1.02 * tall), figure, _PERSON, number)
            x, z = x + paints.uniform(0.4, 0.8) * rng.choice([-1, 1]), z + paints.uniform(-0.6, 0.6)


def _photograph(canvas: Canvas, paints: Paints, haze: np.ndarray, noise: float) -> np.ndarray:
    """Add haze, uneven light, exposure, a tint, blur and noise; (3, H, W) in [0, 1]."""
    rng = paints.rng
    image = canvas.colour
    misty, dark = rng.uniform(size=2) < (0.2 * paints.variety, 0.15 * paints.variety)
    clear = np.exp(-canvas.depth / (paints.uniform(50, 120) if misty else paints.uniform(150, 500)))
    image = np.where(canvas.category == _SKY, image, image * clear + haze[:, None, None] * (1 - clear))
    height, width = (side // FINE for side in canvas.shape)
    image = image.reshape(3, height, FINE, width, FINE).mean(axis=(2, 4))
    image = ndimage.gaussian_filter(image, (0, *[paints.uniform(0.0, 0.45)] * 2), truncate=2)
    light = 1 + 0.2 * paints.variety * smooth_field(rng, (height, width), width / 2)
    exposure = paints.uniform(0.5, 0.7) if dark else 1 + paints.variety * paints.uniform(-0.25, 0.2)
    tint = 1 + paints.variety * rng.uniform(-0.12, 0.12, (3, 1, 1))
    image = np.clip(image * light * exposure * tint, 0, 1) ** paints.uniform(0.8, 1.25)
    return np.clip(image + noise * rng.standard_normal(image.shape), 0, 1)


def _targets(canvas: Canvas, labels: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the label map, the classes of its instances, and the semantic target with void borders.

    A pixel next to a thing that is closer to the camera becomes void, as does a thing with few visible pixels.
    """
    centre = (slice(FINE // 2, None, FINE),) * 2
    ids, semantic, depth = (
        canvas.instance[centre],
        canvas.category[centre].astype(np.int64),
        canvas.depth[centre],
    )
    border = np.zeros(ids.shape, bool)
    for axis in (0, 1):
        for shift in (1, -1):
            neighbours, nearer = np.roll(ids, shift, axis), np.roll(depth, shift, axis) < depth
            edge = (neighbours != ids) & (neighbours > 0) & (nearer | (ids == 0))
            edge[(slice(None),) * axis + (0 if shift == 1 else -1,)] = False  # pixels that np.roll wrapped around
            border |= edge
    border |= np.isin(ids, np.flatnonzero(np.bincount(np.where(border, 0, ids).ravel()) < _SPECK)) & (ids > 0)
    ids, semantic = np.where(border, 0, ids), np.where(border, VOID, semantic)
    old, compacted = np.unique(ids, return_inverse=True)
    compacted = compacted.reshape(ids.shape) + (old[0] > 0)
    return compacted, np.array(labels, np.int64)[old[old > 0] - 1], semantic


def draw_street(
    seed: int | tuple[int, ...], size: tuple[int, int] = (96, 160), *, variety: float = 0.05, noise: float = 0.02
) -> dict[str, Tensor | list]:
    """Draw one street scene.

    Args:
        seed: an integer, or a tuple such as (seed, index); the same seed gives the same scene.
        size: height and width, at least 32 each.
        variety: variation of colours and light, from 0 (each surface has its usual colour, in sunlight) to 1
            (any surface has any colour).
        noise: standard deviation of the pixel noise, 0 to 1.

    Returns:
        `image` float32 (3, H, W) in [0, 1]; `semantic` int64 (H, W), indices into `CLASSES`, 255 around things;
        `label_map` int32 (H, W), 1..N for things, 0 elsewhere; `boxes` float32 (N, 4) xyxy; `labels` int64
        (N,), all in `THINGS`; `masks` bool (N, H, W), the visible pixels; `panoptic_seg` int32 (H, W), 0 for
        void; `segments_info`, a list of dicts with `id`, `category_id`, `isthing`. N may be 0.
    """
    size = check_size("size", size, _MIN_SIZE)
    variety = check_number("variety", variety, 0, 1)
    noise = check_number("noise", noise, 0, 1)
    rng = scene_rng(seed)
    paints, street = Paints(rng, variety), _plan(rng)
    tall, wide = FINE * size[0], FINE * size[1]
    row, column = tall * rng.uniform(0.35, 0.55), wide * rng.uniform(0.2, 0.8)
    camera = Camera(rng.uniform(1.6, 3.0), wide * rng.uniform(0.8, 1.1), row, column, np.radians(rng.uniform(-5, 5)))
    canvas = Canvas(size, camera)
    hue = (0.5, 0.66) if rng.uniform() < 0.7 else (-0.03, 0.13)  # daylight, or a low sun
    horizon = paints.tone((0.0, 0.4), (0.55, 1.0), hue)[:, 0, 0]
    with np.errstate(over="ignore", invalid="ignore"):
        _draw_sky(canvas, paints, horizon)
        _place_vehicles(canvas, street, paints)
        _place_people(canvas, street, paints)
        _place_trees(canvas, street, paints)
        _draw_houses(canvas, street, paints)
        _draw_ground(canvas, street, paints, horizon)
    image = _photograph(canvas, paints, horizon, noise)
    label_map, labels, semantic = _targets(canvas, street.labels)
    return make_sample(image, label_map, labels, stuff=semantic)
