"""Graph segmentation against scikit-image and against a literal reading of the paper."""

import numpy as np
import pytest
import torch
from skimage import data, segmentation

from segedu.unsupervised import felzenszwalb as felzenszwalb_file
from segedu.unsupervised.felzenszwalb import felzenszwalb, grid_edges, merge_regions

SETTINGS = [(100, 0.8, 20), (300, 0.0, 1), (50, 1.5, 5)]


def numbered(labels):
    """From 1, in the raster order of the first pixels: equal partitions have equal numbers."""
    _, first, region = np.unique(labels, return_index=True, return_inverse=True)
    return (np.argsort(np.argsort(first))[region] + 1).reshape(labels.shape)


def tensor_of(pixels):
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)


@pytest.mark.parametrize(("scale", "sigma", "min_size"), SETTINGS)
@pytest.mark.parametrize("levels", [0, 5])
def test_equals_scikit_image(scale, sigma, min_size, levels):
    rng = np.random.default_rng(0)
    for _ in range(20):
        pixels = rng.random((*rng.integers(1, 40, 2), 3))
        pixels = np.round(pixels * (levels - 1)) / (levels - 1) if levels else pixels  # many equal edges, or none
        right = numbered(segmentation.felzenszwalb(pixels, scale, sigma, min_size))
        np.testing.assert_array_equal(felzenszwalb(tensor_of(pixels), scale, sigma, min_size), right)


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
def test_equals_scikit_image_on_photographs(name):
    pixels = getattr(data, name)()[:255, :301] / 255
    right = numbered(segmentation.felzenszwalb(pixels, 100, 0.8, 20))
    ours = felzenszwalb(tensor_of(pixels), 100, 0.8, 20)
    np.testing.assert_array_equal(ours, right)
    assert ours.max() > 50


@pytest.mark.parametrize("mistake", ["not sorted", "four neighbours", "scale", "small ones stay"])
def test_parity_notices_a_mistake(monkeypatch, mistake):
    edges, merge = felzenszwalb_file.grid_edges, felzenszwalb_file.merge_regions

    def no_corners(pixels):
        weights, ends = edges(pixels)
        row = pixels.shape[1]
        return tuple(a[..., np.isin(ends[1] - ends[0], (1, row))] for a in (weights, ends))

    def wrong(weights, ends, nodes, k, min_size):
        if mistake == "not sorted":
            ends = ends[:, ::-1]  # the weights stay in order, or the loop would refuse them
        return merge(weights, ends, nodes, k * (1.02 if mistake == "scale" else 1), min_size * (mistake[0] != "s"))

    monkeypatch.setattr(felzenszwalb_file, "merge_regions", merge if mistake == "four neighbours" else wrong)
    if mistake == "four neighbours":
        monkeypatch.setattr(felzenszwalb_file, "grid_edges", no_corners)
    pixels = data.chelsea()[:120, :150] / 255
    right = numbered(segmentation.felzenszwalb(pixels, 100, 0.8, 20))
    assert (felzenszwalb(tensor_of(pixels), 100, 0.8, 20).numpy() != right).any()


def merge_by_sets(weights, ends, nodes, k, min_size):
    """The paper's algorithm 1 with sets; the inside of a region is its largest edge so far."""
    region, inside = [{node} for node in range(nodes)], [0.0] * nodes
    of = list(range(nodes))

    def merge(a, b):
        region[a] |= region[b]
        for node in region[b]:
            of[node] = a

    for weight, one, other in zip(weights, *ends, strict=True):
        a, b = of[one], of[other]
        if a != b and weight <= min(inside[a] + k / len(region[a]), inside[b] + k / len(region[b])):
            merge(a, b)
            inside[a] = weight
    for one, other in ends.T:
        a, b = of[one], of[other]
        if a != b and min(len(region[a]), len(region[b])) < min_size:
            merge(a, b)
    return np.array(of)


def test_merging_equals_sets_on_any_graph():
    for seed in range(60):
        rng = np.random.default_rng(seed)
        nodes, edges = int(rng.integers(1, 40)), int(rng.integers(0, 90))
        weights = np.sort(rng.integers(0, 9, edges).astype(float))
        ends = rng.integers(0, nodes, (2, edges))
        arguments = weights, ends, nodes, float(rng.integers(0, 12)), int(rng.integers(0, 6))
        found, right = merge_regions(*arguments), merge_by_sets(*arguments)
        np.testing.assert_array_equal(numbered(found), numbered(right))


def test_edges_of_a_grid():
    pixels = np.arange(6.0).reshape(2, 3, 1)
    weights, ends = grid_edges(pixels)
    assert len(weights) == 4 + 3 + 2 + 2  # right, down, two diagonals
    np.testing.assert_array_equal(weights, abs(ends[0] - ends[1]))
    assert len({tuple(sorted(pair)) for pair in ends.T.tolist()}) == 11


def test_larger_scale_and_size_give_fewer_regions():
    image = tensor_of(data.coffee()[:150, :150] / 255)
    counts = [int(felzenszwalb(image, k, 0.8, 5).max()) for k in (20, 100, 500)]
    assert counts[0] > counts[1] > counts[2]
    labels = felzenszwalb(image, 20, 0.8, 40)
    assert labels.flatten().bincount()[1:].min() >= 40


def test_one_pixel_constant_and_rows():
    assert felzenszwalb(torch.zeros(3, 1, 1)).tolist() == [[1]]
    flat = felzenszwalb(torch.full((3, 7, 5), 0.3), 1, 0, 1)
    assert flat.dtype == torch.int32 and (flat == 1).all()
    step = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(3, 1, 4)
    assert felzenszwalb(step, 10, 0, 1).tolist() == [[1, 1, 2, 2]]
    assert felzenszwalb(step, 10, 0, 3).tolist() == [[1, 1, 1, 1]]


IMAGE = torch.zeros(3, 4, 5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: felzenszwalb(IMAGE.numpy()), TypeError, "image has type ndarray, expected"),
        (lambda: felzenszwalb(IMAGE.long()), TypeError, "image has dtype torch.int64, expected"),
        (lambda: felzenszwalb(IMAGE[0]), ValueError, r"image has shape \(4, 5\), expected"),
        (lambda: felzenszwalb(IMAGE[:, :, :0]), ValueError, r"image has shape \(3, 4, 0\), expected"),
        (lambda: felzenszwalb(IMAGE / 0), ValueError, r"image has values outside \[0, 1\], expected"),
        (lambda: felzenszwalb(IMAGE, scale=-1), ValueError, "scale is -1, expected"),
        (lambda: felzenszwalb(IMAGE, sigma=float("nan")), ValueError, "sigma is nan, expected"),
        (lambda: felzenszwalb(IMAGE, min_size=-5), ValueError, "min_size is -5, expected"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
