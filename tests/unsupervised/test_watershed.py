"""Watershed against scikit-image, bit for bit; markers against loops and scenes drawn by hand.

Of several markers at one height scikit-image takes the one that its heap happens to have on top, we take them in
raster order. So maps are compared where markers have heights of their own; and where they tie, a literal priority
queue stands between the two: with scikit-image's rule it gives its maps, with ours it gives ours.
"""

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import data, filters, segmentation

from segedu.unsupervised import watershed as watershed_file
from segedu.unsupervised.watershed import distance_markers, watershed

KINDS = ("random", "plateaus", "flat", "distance")


def landscape(kind, seed):
    """Elevation, markers, mask."""
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(1, 26, 2))
    elevation = {
        "random": rng.random(size),
        "plateaus": rng.integers(0, 4, size).astype(float),
        "flat": np.zeros(size),
        "distance": -ndimage.distance_transform_edt(rng.random(size) < 0.9),
    }[kind]
    markers = (rng.random(size) < (0.02, 0.1, 0.3)[seed % 3]) * rng.integers(1, 9, size)
    return elevation, markers, rng.random(size) < (0.8 if seed % 4 else 2)


def ours(elevation, markers, mask, **options):
    return watershed(*map(torch.from_numpy, (elevation, markers, mask)), **options).numpy()


def theirs(elevation, markers, mask, connectivity=1, ridge=False):
    return segmentation.watershed(elevation, markers, connectivity, mask=mask, watershed_line=ridge)


def apart(elevation, markers, rng):
    """No two markers at one height: each is raised a little."""
    raised = elevation.copy()
    raised[markers > 0] += 1e-4 * rng.permutation((markers > 0).sum())
    return raised


@pytest.mark.parametrize("ridge", [False, True])
@pytest.mark.parametrize("connectivity", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_scikit_image(kind, connectivity, ridge):
    for seed in range(40):
        elevation, markers, mask = landscape(kind, seed)
        elevation = apart(elevation, markers, np.random.default_rng(seed))
        right = theirs(elevation, markers, mask, connectivity, ridge)
        np.testing.assert_array_equal(ours(elevation, markers, mask, connectivity=connectivity, ridge=ridge), right)


@pytest.mark.parametrize("ridge", [False, True])
@pytest.mark.parametrize("connectivity", [1, 2])
def test_equals_scikit_image_on_a_photograph(connectivity, ridge):
    elevation = filters.sobel(data.camera()[:301, :255])
    markers = np.zeros(elevation.shape, dtype=np.int64)
    markers[8::20, 8::20] = np.arange(1, markers[8::20, 8::20].size + 1).reshape(markers[8::20, 8::20].shape)
    elevation = apart(elevation, markers, np.random.default_rng(0))
    mask = np.ones(elevation.shape, dtype=bool)
    found = ours(elevation, markers, mask, connectivity=connectivity, ridge=ridge)
    np.testing.assert_array_equal(found, theirs(elevation, markers, mask, connectivity, ridge))
    assert (found == 0).any() == ridge


@pytest.mark.parametrize("mistake", ["last come first served", "four neighbours of eight", "no level order"])
def test_parity_notices_a_mistake(monkeypatch, mistake):
    flood = watershed_file._flood

    def wrong(queues, levels, state, steps):
        if mistake == "last come first served":
            for queue in queues:
                queue.reverse()
        elif mistake == "four neighbours of eight":
            steps = steps[:4]
        else:
            queues = [[pixel for queue in queues for pixel in queue], *([] for _ in queues)]
        return flood(queues, levels, state, steps)

    monkeypatch.setattr(watershed_file, "_flood", wrong)
    differ = 0
    for seed in range(40):
        elevation, markers, mask = landscape("plateaus", seed)
        right = by_heap(elevation, markers, mask, 2, in_turn=True)
        differ += (ours(elevation, markers, mask, connectivity=2) != right).any()
    assert differ > 5


# --- equal markers ----------------------------------------------------------------------------------------------


def sift(heap, key, at, down):
    """Textbook binary heap, up or down."""
    while True:
        if down:
            children = [c for c in (2 * at + 1, 2 * at + 2) if c < len(heap)]
            other = min(children, key=lambda c: key(heap[c]), default=None)
            swap = other is not None and key(heap[other]) < key(heap[at])
        else:
            other = (at - 1) // 2
            swap = at > 0 and key(heap[at]) < key(heap[other])
        if not swap:
            return
        heap[at], heap[other], at = heap[other], heap[at], other


def by_heap(elevation, markers, mask, connectivity, in_turn):
    """One priority queue of (height, age, place); markers have the ages 0, 1, 2, ... in turn, or all have 0."""
    near = [(-1, 0), (0, -1), (0, 1), (1, 0)] + ([(-1, -1), (-1, 1), (1, -1), (1, 1)] if connectivity == 2 else [])
    labels, heap = np.where(mask, markers, 0), []

    def key(entry):
        return entry[:2]

    def push(entry):
        heap.append(entry)
        sift(heap, key, len(heap) - 1, down=False)

    age = 0
    for place in zip(*np.nonzero(labels), strict=True):
        push((elevation[place], age if in_turn else 0, place))
        age += 1
    while heap:
        height, _, (row, column) = heap[0]
        last = heap.pop()
        if heap:
            heap[0] = last
            sift(heap, key, 0, down=True)
        for down, right in near:
            place = row + down, column + right
            inside = 0 <= place[0] < labels.shape[0] and 0 <= place[1] < labels.shape[1]
            if inside and mask[place] and labels[place] == 0:
                labels[place] = labels[row, column]
                push((max(height, elevation[place]), age, place))
                age += 1
    return labels


@pytest.mark.parametrize("kind", KINDS)
def test_where_markers_tie_only_their_turn_differs(kind):
    differ = pixels = 0
    for seed in range(40):
        elevation, markers, mask = landscape(kind, seed)
        for connectivity in (1, 2):
            right = theirs(elevation, markers, mask, connectivity)
            np.testing.assert_array_equal(by_heap(elevation, markers, mask, connectivity, in_turn=False), right)
            found = ours(elevation, markers, mask, connectivity=connectivity)
            np.testing.assert_array_equal(found, by_heap(elevation, markers, mask, connectivity, in_turn=True))
            differ, pixels = differ + (found != right).sum(), pixels + mask.sum()
    print(f"{kind}: {differ / pixels:.4f} of the pixels differ from scikit-image's where its markers tie")
    assert differ / pixels < 0.1 and (differ == 0) == (kind == "random")


# --- what the words promise -------------------------------------------------------------------------------------


@pytest.mark.parametrize("connectivity", [1, 2])
def test_a_ridge_keeps_waters_apart(connectivity):
    rng = np.random.default_rng(0)
    elevation, markers = rng.random((41, 33)), np.zeros((41, 33), dtype=np.int64)
    markers[5::10, 5::10] = np.arange(1, 13).reshape(4, 3)
    labels = ours(elevation, markers, np.ones_like(markers, dtype=bool), ridge=True, connectivity=connectivity)
    near = [(0, 1), (1, 0)] + ([(1, 1), (1, -1)] if connectivity == 2 else [])
    for step in near:
        moved = np.roll(labels, step, (0, 1))[1:, 1:-1]
        here = labels[1:, 1:-1]
        assert ((here == moved) | (here == 0) | (moved == 0)).all()
    assert set(np.unique(labels)) == set(range(13)) and 0 < (labels == 0).mean() < 0.4


def test_two_discs_that_touch_are_parted():
    y, x = np.indices((60, 90))
    mask = torch.from_numpy((np.hypot(y - 30, x - 30) < 20) | (np.hypot(y - 30, x - 60) < 20))
    distance = torch.from_numpy(ndimage.distance_transform_edt(mask))
    markers = distance_markers(mask, min_distance=10)
    assert markers.max() == 2
    labels = watershed(-distance, markers, mask)
    assert ((labels > 0) == mask).all()
    left, right = sorted((labels == k).nonzero()[:, 1].float().mean() for k in (1, 2))
    assert abs(left - 29.4) < 1 and abs(right - 60.6) < 1
    assert abs((labels == 1).sum() - (labels == 2).sum()) < 0.05 * mask.sum()


def test_one_pixel_constant_land_and_no_marker():
    one = torch.ones(1, 1)
    assert watershed(one, torch.tensor([[7]])).tolist() == [[7]]
    assert watershed(one, torch.tensor([[0]])).tolist() == [[0]]
    assert watershed(one, torch.tensor([[7]]), torch.zeros(1, 1).bool()).tolist() == [[0]]
    assert watershed(torch.zeros(1, 6), torch.tensor([[0, 3, 0, 0, 0, 5]])).tolist() == [[3, 3, 3, 3, 5, 5]]
    flat = torch.zeros(5, 7)
    assert not watershed(flat, torch.zeros(5, 7).long()).any()
    assert (watershed(flat, torch.eye(5, 7).long(), ridge=True) == 1).all()


def test_infinite_walls_are_climbed_last():
    heights = torch.tensor([[0.0, torch.inf, torch.inf, 0.0, -torch.inf]])
    assert watershed(heights, torch.tensor([[1, 0, 0, 0, 2]])).tolist() == [[1, 1, 2, 2, 2]]


def test_arguments_are_left_as_they_were():
    elevation, markers, mask = map(torch.from_numpy, landscape("plateaus", 5))
    copies = elevation.clone(), markers.clone(), mask.clone()
    for ridge in (False, True):
        assert watershed(elevation, markers, mask, ridge).dtype == torch.int32
    distance_markers(mask)
    assert all(torch.equal(a, b) for a, b in zip((elevation, markers, mask), copies, strict=True))


# --- markers ----------------------------------------------------------------------------------------------------


def markers_by_loops(mask, min_distance):
    """Flood each plateau by hand, then take places greedily."""
    height, width = mask.shape
    pixels = [(r, c) for r in range(height) for c in range(width)]
    outside = [p for p in pixels if not mask[p]]
    square = {p: min(((p[0] - r) ** 2 + (p[1] - c) ** 2 for r, c in outside), default=1) for p in pixels}
    places, seen = [], set()
    for start in pixels:
        if not mask[start] or start in seen:
            continue
        plateau, higher, stack = {start}, False, [start]
        while stack:
            r, c = stack.pop()
            for other in ((r + i, c + j) for i in (-1, 0, 1) for j in (-1, 0, 1)):
                if other in square and other not in plateau:
                    higher |= square[other] > square[start]
                    if square[other] == square[start]:
                        plateau.add(other)
                        stack.append(other)
        seen |= plateau
        if not higher:
            places.append(start)
    taken = []
    for place in sorted(places, key=lambda p: -square[p]):
        if all((place[0] - r) ** 2 + (place[1] - c) ** 2 >= min_distance**2 for r, c in taken):
            taken.append(place)
    markers = np.zeros(mask.shape, dtype=np.int64)
    for number, place in enumerate(taken, start=1):
        markers[place] = number
    return markers


@pytest.mark.parametrize("min_distance", [0, 1, 2.5, 5])
def test_markers_equal_loops(min_distance):
    for seed in range(40):
        rng = np.random.default_rng(seed)
        size = tuple(rng.integers(1, 20, 2))
        mask = ndimage.binary_opening(rng.random(size) < 0.85) if seed % 2 else rng.random(size) < 0.9
        found = distance_markers(torch.from_numpy(mask), min_distance)
        np.testing.assert_array_equal(found, markers_by_loops(mask, min_distance))


def test_markers_of_shapes_known_by_hand():
    square = torch.zeros(8, 8).bool()
    square[1:7, 1:7] = True  # distances 1 2 3 3 2 1: four pixels on top
    assert distance_markers(square).nonzero().tolist() == [[3, 3]]
    assert distance_markers(~square).bool().sum() == 4  # a frame: highest in its corners
    cut = torch.ones(5, 6).bool()
    cut[:, 5] = False
    assert distance_markers(cut).nonzero().tolist() == [[0, 0]]  # highest at the border, which is kept
    assert distance_markers(torch.ones(3, 4).bool()).nonzero().tolist() == [[0, 0]]
    assert distance_markers(torch.zeros(3, 4).bool()).sum() == 0
    assert distance_markers(torch.ones(1, 1).bool()).tolist() == [[1]]


def test_higher_places_are_taken_first():
    mask = torch.zeros(20, 40).bool()
    mask[6:11, 2:7], mask[3:14, 12:23], mask[6:11, 30:35] = True, True, True
    assert distance_markers(mask).sum() == 1 + 2 + 3
    assert distance_markers(mask)[8, 17] == 1
    near = distance_markers(mask, min_distance=13.1)  # the left one is 13 pixels away, the right one 15
    assert near.bool().sum() == 2 and near[8, 17] == 1 and near[8, 32] == 2
    assert distance_markers(mask, min_distance=13).bool().sum() == 3
    assert distance_markers(mask, min_distance=100).nonzero().tolist() == [[8, 17]]


FLAT, NONE = torch.zeros(2, 3), torch.zeros(2, 3).long()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: watershed(FLAT.numpy(), NONE), TypeError, "elevation has type ndarray, expected"),
        (lambda: watershed(FLAT.bool(), NONE), TypeError, "elevation has dtype torch.bool, expected"),
        (lambda: watershed(FLAT[0], NONE), ValueError, r"elevation has shape \(3,\), expected"),
        (lambda: watershed(FLAT[:0], NONE[:0]), ValueError, r"elevation has shape \(0, 3\), expected"),
        (lambda: watershed(FLAT / 0, NONE), ValueError, "elevation contains NaN, expected"),
        (lambda: watershed(FLAT, FLAT), TypeError, "markers has dtype torch.float32, expected"),
        (lambda: watershed(FLAT, NONE.bool()), TypeError, "markers has dtype torch.bool, expected"),
        (lambda: watershed(FLAT, NONE.mT), ValueError, r"markers has shape \(3, 2\), expected"),
        (lambda: watershed(FLAT, NONE - 1), ValueError, "markers has the value -1, expected"),
        (lambda: watershed(FLAT, NONE, NONE), TypeError, "mask has dtype torch.int64, expected"),
        (lambda: watershed(FLAT, NONE, NONE[:, :1].bool()), ValueError, r"mask has shape \(2, 1\), expected"),
        (lambda: watershed(FLAT, NONE, connectivity=8), ValueError, "connectivity is 8, expected"),
        (lambda: distance_markers(FLAT), TypeError, "mask has dtype torch.float32, expected"),
        (lambda: distance_markers([[1]]), TypeError, "mask has type list, expected"),
        (lambda: distance_markers(FLAT.bool()[None]), ValueError, r"mask has shape \(1, 2, 3\), expected"),
        (lambda: distance_markers(FLAT.bool()[:, :0]), ValueError, r"mask has shape \(2, 0\), expected"),
        (lambda: distance_markers(FLAT.bool(), -1), ValueError, "min_distance is -1, expected"),
        (lambda: distance_markers(FLAT.bool(), float("nan")), ValueError, "min_distance is nan, expected"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
