"""watershed_markers: one marker for each local maximum of the distance to the background."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case

EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


def watershed_markers(mask: Tensor, min_distance: int) -> Tensor:
    """Number the local maxima of the distance map.

    Args:
        mask: (H, W) bool, not True everywhere.
        min_distance: how many rows and columns the window of a maximum reaches to each side, at least 1.

    Returns:
        int32 (H, W): 1, 2, ... for maxima in reading order, 0 elsewhere; maxima that touch are one.
    """
    distance = ndimage.distance_transform_edt(mask.numpy())
    return _numbered(_maxima(distance, 2 * min_distance + 1) & mask.numpy())


def _maxima(distance: np.ndarray, size: int) -> np.ndarray:
    return distance == ndimage.maximum_filter(distance, size)


def _numbered(maxima: np.ndarray, structure: np.ndarray = EIGHT_NEIGHBOURS) -> Tensor:
    return torch.from_numpy(ndimage.label(maxima, structure)[0])


def _discs(shape: tuple[int, int], discs: list[tuple[float, float, float]]) -> Tensor:
    """The union of discs (row, column, radius)."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return torch.from_numpy(np.any([(y - r) ** 2 + (x - c) ** 2 <= s**2 for r, c, s in discs], axis=0))


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Cells that touch, a bump beside a maximum, a triangle; plateaus, maxima at the border, an empty mask."""
    r, c, s = (float(n) for n in rng.integers((8, 7, 5), (11, 9, 7)))
    touching = _discs((20, 32), [(r, c, s), (r + 1, c + 2 * s - 1, s - 1), (16, 28, 2)])
    bump = _discs((22, 20), [(r - 1, c + 1, 5), (r + 5, c + 2, 3)])  # a neck, and a second maximum 6 rows below
    bump[0, 18] = True
    triangle = torch.ones(10, 10, dtype=torch.bool).tril()  # in its corner, city-block and Euclidean maxima differ
    triangle = torch.nn.functional.pad(triangle.rot90(int(rng.integers(4))), (1, 2, 2, 1))
    bars = torch.zeros(14, 24, dtype=torch.bool)
    top, left = (int(n) for n in rng.integers(1, 3, 2))
    bars[top : top + 4, left : left + 9] = True  # an even width: its ridge is two pixels wide
    for k in range(7):  # a slanting band: its ridge runs from corner to corner
        bars[6 + k, 11 + k : 14 + k] = True
    bars[10, 3] = True
    border = _discs((16, 18), [(0, c - 2, 4), (r, 17, s - 1), (15, 1, 3)])
    border[:2, 15:] = True
    core = [
        case("two cells that touch, one alone", touching, 2),
        case("a cell with a bump", bump, 7),
        case("a triangle", triangle, 2),
    ]
    edge = [
        case("plateaus", bars, 1),
        case("cells at the image border", border, 3),
        case("an empty mask", torch.zeros(5, 7, dtype=torch.bool), 1),
    ]
    return {"core": (2, core), "edge": (1, edge)}


right = Variants(watershed_markers)


def _with_distance(distance: Callable[[np.ndarray], np.ndarray]) -> Callable:
    """An answer that computes another distance map of the mask."""
    return right.instead(
        lambda a: _numbered(_maxima(distance(a.mask.numpy()), 2 * a.min_distance + 1) & a.mask.numpy())
    )


def _distance(mask: Tensor) -> np.ndarray:
    return ndimage.distance_transform_edt(mask.numpy())


def every_pixel(mask: Tensor, min_distance: int) -> Tensor:
    """Give each pixel of a plateau its own number."""
    maxima = np.argwhere(watershed_markers(mask, min_distance).numpy())
    markers = np.zeros(mask.shape, np.int32)
    markers[tuple(maxima.T)] = np.arange(1, len(maxima) + 1)
    return torch.from_numpy(markers)


def without_the_border(mask: Tensor, min_distance: int) -> Tensor:
    """Drop maxima within min_distance of the image border, as some libraries do."""
    inner = np.zeros(mask.shape, bool)
    inner[min_distance:-min_distance, min_distance:-min_distance] = True
    return _numbered((watershed_markers(mask, min_distance).numpy() > 0) & inner)


def thresholded(mask: Tensor, min_distance: int) -> Tensor:
    """Mark pixels whose distance is more than half of the largest."""
    distance = _distance(mask)
    return _numbered(distance > 0.5 * distance.max())


def highest_only(mask: Tensor, min_distance: int) -> Tensor:
    """Mark the largest distance of the whole image."""
    distance = _distance(mask)
    return _numbered((distance == distance.max()) & mask.numpy())


def _with_maxima(maxima: Callable[[np.ndarray, int], np.ndarray]) -> Callable:
    """An answer that selects the maxima of the distance map in another way: (distance, min_distance) -> bool."""
    return right.instead(lambda a: _numbered(maxima(_distance(a.mask), a.min_distance) & a.mask.numpy()))


def _strict(distance: np.ndarray, reach: int) -> np.ndarray:
    others = np.ones((2 * reach + 1, 2 * reach + 1), bool)
    others[reach, reach] = False
    return distance > ndimage.maximum_filter(distance, footprint=others, mode="constant", cval=0)


def _in_disc(distance: np.ndarray, reach: int) -> np.ndarray:
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return distance == ndimage.maximum_filter(distance, footprint=y**2 + x**2 <= reach**2)


def _in_cross(distance: np.ndarray, reach: int) -> np.ndarray:
    size = 2 * reach + 1
    return (distance >= ndimage.maximum_filter1d(distance, size, 0)) & (
        distance >= ndimage.maximum_filter1d(distance, size, 1)
    )


def _greedy(distance: np.ndarray, reach: int) -> np.ndarray:
    """From the highest pixel down, keep those that are in no window of a kept one."""
    blocked, kept = np.zeros(distance.shape, bool), np.zeros(distance.shape, bool)
    for index in np.argsort(-distance, axis=None, kind="stable"):
        y, x = np.unravel_index(index, distance.shape)
        if distance[y, x] > 0 and not blocked[y, x]:
            kept[y, x] = True
            blocked[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1] = True
    return kept


def _of_component(mask: Tensor, min_distance: int | None) -> Tensor:
    """The maxima of each connected component without the others; its highest pixels if min_distance is None."""
    distance, (parts, count) = _distance(mask), ndimage.label(mask.numpy())
    maxima = np.zeros(mask.shape, np.int32)
    for k in range(1, count + 1):
        own = np.where(parts == k, distance, 0.0)
        highest = own == own.max() if min_distance is None else _maxima(own, 2 * min_distance + 1) & (own > 0)
        maxima[highest] = k
    return torch.from_numpy(maxima) if min_distance is None else _numbered(maxima > 0)


def _by_distance(markers: Tensor, mask: Tensor) -> Tensor:
    """Number the markers by decreasing distance."""
    numbers, distance = markers.numpy(), _distance(mask)
    heights = [distance[numbers == k].max() for k in range(1, numbers.max() + 1)]
    new = np.zeros(len(heights) + 1, np.int32)
    new[np.argsort([-height for height in heights], kind="stable") + 1] = np.arange(1, len(heights) + 1)
    return torch.from_numpy(new[numbers])


WINDOW_HINT = "A window that reaches m pixels to each side has 2 m + 1 rows and columns."

wrong = [
    Wrong(
        "every pixel of a plateau",
        every_pixel,
        "You give every pixel of a plateau its own number. Maxima that touch are one marker.",
        "Number connected groups of pixels, not single pixels.",
    ),
    Wrong(
        "on the mask",
        _with_distance(lambda mask: mask.astype(float)),
        "You look for maxima of the mask, which is constant. Use the distance to the background.",
        "`scipy.ndimage.distance_transform_edt` computes it.",
    ),
    Wrong(
        "min_distance ignored",
        right.given(min_distance=lambda a: 1),
        "You compare each pixel only with its direct neighbours. Compare it with all pixels of its window.",
        WINDOW_HINT,
    ),
    Wrong(
        "half the window",
        right.instead(lambda a: _numbered(_maxima(_distance(a.mask), a.min_distance) & a.mask.numpy())),
        "Your window has `min_distance` rows and columns. It has to reach `min_distance` pixels to each side.",
        WINDOW_HINT,
    ),
    Wrong(
        "border dropped",
        without_the_border,
        "You drop maxima near the image border. A cell that is cut off by the border needs a marker too.",
        "There is nothing to compare with beyond the border, so the window ends there.",
    ),
    Wrong(
        "border is background",
        _with_distance(lambda mask: ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]),
        "You treat the outside of the image as background. Only pixels of the image can be background.",
        "A cell that is cut off by the border may have its largest distance right at the border.",
    ),
    Wrong(
        "4-neighbours",
        right.then(lambda markers, a: _numbered(markers.numpy() > 0, ndimage.generate_binary_structure(2, 1))),
        "You number maxima that touch only at a corner separately. They are one marker.",
        "The `structure` argument of `scipy.ndimage.label` defines which pixels are neighbours.",
    ),
    Wrong(
        "background too",
        right.instead(lambda a: _numbered(_maxima(_distance(a.mask), 2 * a.min_distance + 1))),
        "You also mark maxima in the background, where all distances are 0. Keep only maxima inside the mask.",
        "Keep only those that lie in the mask.",
    ),
    Wrong(
        "threshold",
        thresholded,
        "You mark all distances above half of the largest. Mark pixels whose distance is the largest in their window.",
        "With one threshold for the whole image, small cells may get no marker, and touching cells may share one.",
    ),
    Wrong(
        "steps, not distance",
        _with_distance(lambda mask: ndimage.distance_transform_cdt(mask, "taxicab")),
        "You measure distances in horizontal and vertical steps. Use the Euclidean distance.",
        "A diagonal neighbour is at distance sqrt(2).",
    ),
    Wrong(
        "highest only",
        highest_only,
        "You mark only the largest distance of the whole image. Each cell has a maximum of its own.",
        "Compare each pixel with its window.",
    ),
    Wrong(
        "not numbered",
        right.then(lambda markers, a: (markers > 0).int()),
        "All your markers are 1. Each maximum needs its own number.",
        "`scipy.ndimage.label` numbers connected groups of pixels.",
    ),
    Wrong(
        "even window",
        _with_maxima(lambda distance, reach: _maxima(distance, 2 * reach)),
        "Your window has 2 `min_distance` rows and columns, so it reaches one pixel less to one side.",
        WINDOW_HINT,
    ),
    Wrong(
        "strict maxima",
        _with_maxima(_strict),
        "You require a maximum to be larger than all other pixels of its window, so a plateau has no marker. Equal "
        "pixels are maxima, too.",
        "Compare with >=, or with the largest value of the whole window.",
    ),
    Wrong(
        "chessboard distance",
        _with_distance(lambda mask: ndimage.distance_transform_cdt(mask, "chessboard")),
        "You use the chessboard distance, in which a diagonal step is as long as others. Use the Euclidean distance.",
        "A diagonal neighbour is at distance sqrt(2).",
    ),
    Wrong(
        "rounded distances",
        _with_distance(lambda mask: ndimage.distance_transform_edt(mask).round()),
        "You round the distances to integers, which makes plateaus of different distances. Use them as they are.",
        "sqrt(2) is larger than 1.",
    ),
    Wrong(
        "distance of the inverted mask",
        _with_distance(lambda mask: ndimage.distance_transform_edt(~mask)),
        "You compute the distance of background pixels to the mask. Compute the distance of mask pixels to the "
        "background.",
        "`distance_transform_edt` returns 0 where its argument is False.",
    ),
    Wrong(
        "window is a disc",
        _with_maxima(_in_disc),
        "Your window is a disc. It should be a square that reaches `min_distance` rows and columns to each side.",
        WINDOW_HINT,
    ),
    Wrong(
        "window is a cross",
        _with_maxima(_in_cross),
        "You compare a pixel with its row and its column only. Its window is a square.",
        WINDOW_HINT,
    ),
    Wrong(
        "window wraps around",
        _with_maxima(lambda distance, reach: distance == ndimage.maximum_filter(distance, 2 * reach + 1, mode="wrap")),
        "Your window continues at the opposite border of the image. It should end at the border.",
        "`np.roll` wraps around, and so does the mode 'wrap'.",
    ),
    Wrong(
        "greedy suppression",
        _with_maxima(_greedy),
        "You keep pixels from the highest down, each outside the windows of those kept before. A marker must be the "
        "largest in its own window.",
        "A pixel at the edge of a window can be higher than all pixels that were kept.",
    ),
    Wrong(
        "numbered by distance",
        right.then(lambda markers, a: _by_distance(markers, a.mask)),
        "You number the markers by decreasing distance. Number them in reading order.",
        "`scipy.ndimage.label` numbers in reading order.",
    ),
    Wrong(
        "one per component",
        right.instead(lambda a: _of_component(a.mask, None)),
        "You mark the largest distance of each connected component. Cells that touch are one component, and each needs "
        "a marker.",
        "Compare each pixel with its window.",
    ),
    Wrong(
        "each component alone",
        right.instead(lambda a: _of_component(a.mask, a.min_distance)),
        "You process each connected component alone. The window also compares with pixels of other components.",
        "A small cell beside a large one is not a maximum if the large one reaches into its window.",
    ),
    Wrong(
        "with the number of markers",
        right.then(lambda markers, a: (markers, int(markers.max()))),
        "You return a tuple with the number of markers. Return the map alone.",
        "`scipy.ndimage.label` returns two results.",
    ),
]

exercise = Exercise(
    name="watershed_markers",
    points=3,
    cases=cases,
    reference=watershed_markers,
    wrong=wrong,
    kind="map",
    hides=["segedu.unsupervised.watershed"],
)
