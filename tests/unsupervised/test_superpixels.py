"""SLIC against loops written from the paper, and its qualities beside scikit-image's."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import data, segmentation

from segedu.datasets.shapes import draw_shapes
from segedu.datasets.street import draw_street
from segedu.unsupervised import superpixels as slic_file
from segedu.unsupervised.superpixels import enforce_connectivity, initial_positions, nearest_centres, slic


def photograph(name):
    pixels = {"astronaut": data.astronaut, "coffee": data.coffee}[name]()[:201:, :299]
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).double() / 255


# --- parts ------------------------------------------------------------------------------------------------------


def nearest_by_loops(features, centres, places, step):
    height, width, _ = features.shape
    reach = int(np.ceil(step))
    labels = np.zeros((height, width), dtype=int)
    for r in range(height):
        for c in range(width):
            seen = [k for k, (y, x) in enumerate(places) if abs(y - r) <= reach and abs(x - c) <= reach]
            if seen:
                labels[r, c] = min(seen, key=lambda k: (((features[r, c] - centres[k]) ** 2).sum(), k))
            else:
                labels[r, c] = min(range(len(places)), key=lambda k: (((places[k] - (r, c)) ** 2).sum(), k))
    return labels


@pytest.mark.parametrize(("size", "count", "step"), [((13, 17), 9, 4.4), ((1, 20), 4, 2.0), ((9, 9), 2, 3.0)])
def test_assignment_equals_loops(size, count, step):
    rng = np.random.default_rng(count)
    features = rng.integers(0, 4, (*size, 5)).astype(float)  # whole numbers: ties, and no rounding
    places = np.stack([rng.integers(0, n, count) for n in size], axis=1)
    centres = rng.integers(0, 4, (count, 5)).astype(float)
    right = nearest_by_loops(features, centres, places, step)
    np.testing.assert_array_equal(nearest_centres(features, centres, places, step), right)
    assert (nearest_centres(features, centres[::-1], places, step) != right).any()


def test_centres_leave_edges():
    lab = np.zeros((12, 12, 3))
    lab[:, 6:] = 50.0  # the gradient is high in columns 5 and 6
    places = initial_positions(lab, step=12.0)
    assert places.tolist() == [[5, 7]]  # from (6, 6), the first of its neighbours off the edge
    assert initial_positions(np.zeros((12, 12, 3)), 12.0).tolist() == [[6, 6]]
    assert len(initial_positions(np.zeros((40, 61, 3)), 10.0)) == 4 * 6


def test_orphans_join_the_longest_border():
    labels = np.zeros((9, 11), dtype=int)
    labels[:, 6:] = 1
    labels[2:4, 5:7] = [[2, 2], [3, 2]]  # a piece of three and a piece of one
    labels[7, 1] = 1  # a pixel of another superpixel inside
    joined = enforce_connectivity(labels, min_size=5)
    assert joined.max() == 2 and joined[7, 1] == 1 and joined[3, 5] == 1
    for number in (1, 2):
        assert ndimage.label(joined == number)[1] == 1
    kept = enforce_connectivity(labels, min_size=0)
    assert kept.max() == 5  # every piece by itself, 4-connected
    assert enforce_connectivity(np.eye(2, dtype=int), min_size=1).tolist() == [[1, 2], [3, 4]]


def test_orphans_leave_no_small_piece():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 3, rng.integers(1, 25, 2))
        joined = enforce_connectivity(labels, min_size=6)
        sizes = np.bincount(joined.ravel())[1:]
        assert len(sizes) == 1 or sizes.min() >= 6
        assert all(ndimage.label(joined == k)[1] == 1 for k in range(1, joined.max() + 1))
        _, first = np.unique(joined, return_index=True)
        assert (np.diff(first) > 0).all()  # numbered in raster order


# --- the whole --------------------------------------------------------------------------------------------------


def test_a_round_is_what_the_paper_writes():
    """Two rounds by hand on a small image, from the same grid."""
    image = photograph("coffee")[:, 90:121, 120:163]
    found = slic(image, 12, compactness=20.0, iterations=2)
    lab = slic_file.rgb_to_lab(image).permute(1, 2, 0).numpy()
    step = np.sqrt(31 * 43 / 12)
    places = initial_positions(lab, step)
    centres = [np.array([*lab[y, x], y, x]) for y, x in places]
    for _ in range(2):
        labels, best = np.zeros((31, 43), dtype=int), np.full((31, 43), np.inf)
        for k, centre in enumerate(centres):
            y, x = np.rint(centre[3:])
            for r in range(31):
                for c in range(43):
                    if max(abs(r - y), abs(c - x)) <= np.ceil(step):
                        colour = ((lab[r, c] - centre[:3]) ** 2).sum()
                        place = (r - centre[3]) ** 2 + (c - centre[4]) ** 2
                        if (square := colour + place * (20 / step) ** 2) < best[r, c]:
                            best[r, c], labels[r, c] = square, k
        for k in range(len(centres)):
            rows, columns = np.nonzero(labels == k)
            centres[k] = np.array([*lab[rows, columns].mean(0), rows.mean(), columns.mean()])
    np.testing.assert_array_equal(found, enforce_connectivity(labels, step**2 / 4))


def test_each_superpixel_is_one_piece():
    labels = slic(photograph("astronaut"), 150)
    assert labels.dtype == torch.int32 and labels.min() == 1
    for number in range(1, int(labels.max()) + 1):
        assert ndimage.label(labels == number)[1] == 1


def boundary_recall(labels, truth, tolerance=2):
    """Share of the true boundary with one of ours at most `tolerance` pixels away."""
    edges = segmentation.find_boundaries(truth, mode="inner")
    near = ndimage.binary_dilation(segmentation.find_boundaries(labels, mode="inner"), np.ones((3, 3)), tolerance)
    return (edges & near).sum() / edges.sum()


def undersegmentation(labels, truth):
    """Share of the pixels that are not of their superpixel's most frequent class."""
    table = np.zeros((labels.max() + 1, truth.max() + 1))
    np.add.at(table, (labels.ravel(), truth.ravel()), 1)
    return (table.sum(1) - table.max(1)).sum() / labels.size


def roundness(labels):
    """4 pi area / perimeter squared, averaged over the pixels; 1 for a disc, pi / 4 for a square."""
    area, padded, perimeter = np.bincount(labels.ravel()), np.pad(labels, 1), 0
    for step in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        outer = np.roll(padded, step, (0, 1))[1:-1, 1:-1] != labels
        perimeter = perimeter + np.bincount(labels.ravel(), outer.ravel(), minlength=len(area))
    return (4 * np.pi * area**2 / np.maximum(perimeter, 1) ** 2).sum() / labels.size


def theirs_of_as_many(image, count):
    """scikit-image's grid is coarser than asked for: ask for more until it gives at least as many superpixels."""
    pixels = image.double().permute(1, 2, 0).numpy()
    for wanted in range(count, 3 * count, max(1, count // 20)):
        labels = segmentation.slic(pixels, wanted, compactness=10)
        if len(np.unique(labels)) >= count:
            return labels
    raise AssertionError("scikit-image gives too few superpixels")


@pytest.mark.parametrize("name", ["astronaut", "coffee"])
def test_photographs_beside_scikit_image(name):
    image = photograph(name)
    ours = slic(image, 200).numpy()
    theirs = theirs_of_as_many(image, int(ours.max()))
    print(f"{name}: {ours.max()} and {len(np.unique(theirs))}, {roundness(ours):.3f} and {roundness(theirs):.3f}")
    assert 0.85 * 200 < ours.max() < 1.15 * 200
    assert roundness(ours) > roundness(theirs) - 0.05
    agree = boundary_recall(ours, theirs), boundary_recall(theirs, ours)
    print(f"{name}: of each other's boundary {agree[0]:.3f} and {agree[1]:.3f} within 2 pixels")
    assert min(agree) > 0.7


@pytest.mark.parametrize("draw", [draw_street, draw_shapes])
def test_scenes_beside_scikit_image(draw):
    rows = []
    for seed in range(4):
        scene = draw(seed)
        truth = scene["semantic"].numpy() % 255
        ours = slic(scene["image"], 150).numpy()
        theirs = theirs_of_as_many(scene["image"], int(ours.max()))
        blocks = slic(scene["image"], 150, compactness=1e6).numpy()  # what squares alone would give
        rows.append([[f(x, truth) for f in (boundary_recall, undersegmentation)] for x in (ours, theirs, blocks)])
    (recall, error), (their_recall, their_error), (_, plain_error) = np.mean(rows, axis=0)
    print(f"recall {recall:.3f}, theirs {their_recall:.3f}; error {error:.4f}, {their_error:.4f}, {plain_error:.4f}")
    assert recall > their_recall - 0.02 and error < their_error + 0.01
    assert error < 0.9 * plain_error


def test_compactness_makes_squares():
    image = photograph("coffee")
    loose, tight, square = (roundness(slic(image, 100, compactness=m).numpy()) for m in (1.0, 10.0, 1e6))
    assert loose < tight < square and square > 0.7


def test_one_pixel_constant_and_odd_sizes():
    assert slic(torch.zeros(3, 1, 1), 1).tolist() == [[1]]
    assert slic(torch.zeros(3, 1, 1), 50).tolist() == [[1]]
    assert (slic(torch.rand(3, 7, 5), 1) == 1).all()
    assert slic(torch.rand(3, 4, 5, dtype=torch.float64), 20).shape == (4, 5)
    flat = slic(torch.full((3, 40, 60), 0.5), 24)  # squares of 10 x 10
    assert flat.max() == 24 and (flat.flatten().bincount()[1:] >= 80).all()
    assert 1 <= slic(torch.rand(3, 1, 30), 3).max() <= 30


def test_the_image_is_left_as_it_was():
    image = photograph("coffee")[:, :20, :20]
    copy = image.clone()
    slic(image, 4)
    assert torch.equal(image, copy)


IMAGE = torch.zeros(3, 4, 5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: slic(IMAGE.numpy(), 4), TypeError, "image has type ndarray, expected"),
        (lambda: slic(IMAGE.byte(), 4), TypeError, "image has dtype torch.uint8, expected"),
        (lambda: slic(IMAGE[:1], 4), ValueError, r"image has shape \(1, 4, 5\), expected"),
        (lambda: slic(IMAGE[None], 4), ValueError, r"image has shape \(1, 3, 4, 5\), expected"),
        (lambda: slic(IMAGE[:, :0], 4), ValueError, r"image has shape \(3, 0, 5\), expected"),
        (lambda: slic(IMAGE + 2, 4), ValueError, r"image has values outside \[0, 1\], expected"),
        (lambda: slic(IMAGE, 4.0), TypeError, "n_segments is 4.0, expected"),
        (lambda: slic(IMAGE, True), TypeError, "n_segments is True, expected"),
        (lambda: slic(IMAGE, 0), ValueError, "n_segments is 0, expected"),
        (lambda: slic(IMAGE, 4, iterations=0), ValueError, "iterations is 0, expected"),
        (lambda: slic(IMAGE, 4, compactness=0), ValueError, "compactness is 0, expected"),
        (lambda: slic(IMAGE, 4, float("nan")), ValueError, "compactness is nan, expected"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
