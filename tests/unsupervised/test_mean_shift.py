"""Mean shift against scikit-learn, against loops over pixels, and in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import data
from skimage.color import rgb2lab
from sklearn.cluster import MeanShift
from torch import Tensor

from segedu.unsupervised import mean_shift as mean_shift_file
from segedu.unsupervised.mean_shift import joint_modes, mean_shift, mean_shift_segmentation


def blobs(n: int, d: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = 4 * torch.randint(0, 3, (n, d), generator=generator)
    return centres + torch.randn(n, d, generator=generator, dtype=torch.float64)


def patch(size: int = 32) -> Tensor:
    """L*a*b* of a part of a photograph, with edges and texture."""
    return torch.from_numpy(rgb2lab(data.astronaut()[60 : 60 + size, 180 : 180 + size])).permute(2, 0, 1).contiguous()


# --- points -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "d", "bandwidth"), [(90, 2, 1.5), (101, 2, 3.0), (60, 5, 4.0), (60, 1, 1.0)])
def test_parity_with_scikit_learn(n: int, d: int, bandwidth: float) -> None:
    for seed in range(2):
        points = blobs(n, d, seed)
        labels, modes = mean_shift(points, bandwidth)
        theirs = MeanShift(bandwidth=bandwidth, bin_seeding=False).fit(points.numpy())
        assert len(modes) > 1
        np.testing.assert_allclose(modes.numpy(), theirs.cluster_centers_, rtol=0, atol=1e-9)
        assert labels.tolist() == theirs.labels_.tolist()


@pytest.mark.parametrize("fault", ["radius", "tolerance", "mass"])
def test_parity_notices(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    points, climb = blobs(101, 2), mean_shift_file._climb

    def wrong(seeds, points, weights, split, radius, tolerance, steps):
        radius = 0.95 * radius if fault == "radius" else radius
        tolerance = 0.1 if fault == "tolerance" else tolerance
        places, mass = climb(seeds, points, weights, split, radius, tolerance, steps)
        return places, -mass if fault == "mass" else mass

    monkeypatch.setattr(mean_shift_file, "_climb", wrong)
    labels, modes = mean_shift(points, 3.0)
    theirs = MeanShift(bandwidth=3.0).fit(points.numpy()).cluster_centers_
    assert modes.shape != theirs.shape or abs(modes.numpy() - theirs).max() > 1e-6


def test_two_hills_by_hand() -> None:
    points = torch.tensor([[0.0, 0.0], [0.0, 2.0], [10.0, 0.0], [10.0, 1.0], [10.0, 2.0]])
    labels, modes = mean_shift(points, 3.0)
    assert labels.tolist() == [1, 1, 0, 0, 0]  # the higher hill first
    assert modes.tolist() == [[10.0, 1.0], [0.0, 1.0]] and modes.dtype == torch.float32


def test_the_window_is_closed() -> None:
    line = torch.tensor([[0.0], [2.0]])
    assert mean_shift(line, 2.0)[1].tolist() == [[1.0]]
    assert mean_shift(line, 1.999)[1].tolist() == [[2.0], [0.0]]  # equal hills: the larger coordinate first


def test_bandwidth_decides_how_many() -> None:
    points = blobs(200, 2)
    numbers = [len(mean_shift(points, bandwidth)[1]) for bandwidth in (1e-6, 1.5, 100.0)]
    assert numbers[0] == 200 > numbers[1] > numbers[2] == 1


def test_one_point_and_equal_points() -> None:
    for n in (1, 6):
        labels, modes = mean_shift(torch.full((n, 3), 0.1), 1.0)
        assert labels.tolist() == [0] * n
        torch.testing.assert_close(modes, torch.full((1, 3), 0.1))


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    points = blobs(100, 2)
    whole = mean_shift(points, 1.5)
    monkeypatch.setattr(mean_shift_file, "CHUNK", 7)
    parts = mean_shift(points, 1.5)
    assert torch.equal(whole[0], parts[0])
    torch.testing.assert_close(whole[1], parts[1], rtol=0, atol=1e-12)


# --- images -----------------------------------------------------------------------------------------------------


def by_loops(image: Tensor, spatial: float, colour: float) -> np.ndarray:
    """The paper's filtering, a pixel at a time, all pixels in the sum: (5, H, W)."""
    _, height, width = image.shape
    places = np.indices((height, width)).reshape(2, -1).T
    pixels = np.hstack([places, image.reshape(3, -1).T.numpy()])
    modes = []
    for place in pixels:
        while True:
            near = np.linalg.norm(pixels[:, :2] - place[:2], axis=1) <= spatial
            alike = np.linalg.norm(pixels[:, 2:] - place[2:], axis=1) <= colour
            old, place = place, pixels[near & alike].mean(axis=0)
            if np.linalg.norm((place - old) / ([spatial] * 2 + [colour] * 3)) <= 0.01:
                break
        modes.append(place)
    return np.array(modes).T.reshape(5, height, width)


@pytest.mark.parametrize(("spatial", "colour"), [(4.3, 8.1), (3.2, 15.7)])
def test_without_cells_as_loops(spatial: float, colour: float) -> None:
    image = patch(24)[:, :, :19]
    ours, loops = joint_modes(image, spatial, colour, bin_size=0).numpy(), by_loops(image, spatial, colour)
    np.testing.assert_allclose(ours, loops, rtol=0, atol=1e-9)
    assert abs(ours[2:] - image.numpy()).mean() > 1  # the filter does something
    assert abs(joint_modes(image, spatial, 0.9 * colour, bin_size=0).numpy() - loops).mean() > 0.1


def test_cells_are_close_to_the_exact_filter() -> None:
    image = patch(48)
    exact = joint_modes(image, 8, 8, bin_size=0)
    moved = (exact[2:] - image).norm(dim=0).mean()
    away = [float((joint_modes(image, 8, 8, cell)[2:] - exact[2:]).norm(dim=0).mean()) for cell in (0.25, 0.5, 1.0)]
    assert away[0] < away[1] < away[2] and away[0] < 0.15 * moved and away[1] < 0.35 * moved


def test_a_window_much_smaller_than_the_image_is_far_from_any_other() -> None:
    image = torch.rand(3, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(joint_modes(image, 1e-9, 1e-9)[2:], image)


def test_cells_hold_all_pixels_once() -> None:
    pixels = np.random.default_rng(0).random((500, 5)) - 0.5
    means, counts, index = mean_shift_file._binned(pixels, 0.4)
    assert counts.sum() == 500 and 1 < len(counts) < 500
    for cell in range(len(counts)):
        inside = pixels[index == cell]
        assert len(inside) == counts[cell] and (np.ptp(inside, axis=0) <= 0.4).all()
        np.testing.assert_allclose(inside.mean(axis=0), means[cell])


def test_noise_goes_and_the_edge_stays() -> None:
    image = torch.zeros(3, 32, 32)
    image[:, :, 16:] = 50
    noisy = image + torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(0))
    filtered = joint_modes(noisy, 8, 20)[2:]
    assert abs(filtered - image).max() < 1 < abs(noisy - image).max()
    labels = mean_shift_segmentation(noisy, 8, 20)
    assert torch.equal(labels, (image[0] > 0).long()) and labels.dtype == torch.int64


def test_regions_are_connected_large_and_numbered_in_order() -> None:
    image = patch(48)
    fine, coarse = (mean_shift_segmentation(image, 8, 8, min_size=size).numpy() for size in (1, 40))
    assert np.bincount(coarse.ravel()).min() >= 40 > np.bincount(fine.ravel()).min() and coarse.max() > 1
    for labels in (fine, coarse):
        numbers, first = np.unique(labels, return_index=True)
        assert numbers.tolist() == list(range(len(numbers))) and (np.diff(first) > 0).all()
        assert all(ndimage.label(labels == number)[1] == 1 for number in numbers)
    # joining only joins: a fine region lies in one coarse region
    assert len(np.unique(np.stack([fine.ravel(), coarse.ravel()]), axis=1).T) == fine.max() + 1


def joined_by_loops(modes: np.ndarray, spatial: float, colour: float) -> np.ndarray:
    """Flood from pixel to pixel along sides, as far as the modes (5, H, W) of the two are near; labels (H, W)."""
    _, height, width = modes.shape
    labels = np.full((height, width), -1)
    for start in np.ndindex(height, width):
        if labels[start] >= 0:
            continue
        labels[start], stack = labels.max() + 1, [start]
        while stack:
            r, c = stack.pop()
            for there in ((r - 1, c), (r, c - 1), (r, c + 1), (r + 1, c)):
                if not (0 <= there[0] < height and 0 <= there[1] < width) or labels[there] >= 0:
                    continue
                step = modes[:, r, c] - modes[:, *there]
                if np.linalg.norm(step[:2]) <= spatial and np.linalg.norm(step[2:]) <= colour:
                    labels[there] = labels[start]
                    stack.append(there)
    return labels


@pytest.mark.parametrize(("spatial", "colour", "cell", "steps"), [(3.0, 6.0, 0.0, 2), (2.0, 5.0, 0.5, 100)])
def test_pixels_are_joined_as_loops_join_their_modes(spatial: float, colour: float, cell: float, steps: int) -> None:
    image = patch(24)[:, :, :19]
    right = joined_by_loops(joint_modes(image, spatial, colour, cell, steps).numpy(), spatial, colour)
    labels = mean_shift_segmentation(image, spatial, colour, 1, cell, steps).numpy()
    np.testing.assert_array_equal(labels, right)
    assert 5 < labels.max() < labels.size / 2


def test_both_windows_keep_regions_apart() -> None:
    flat = torch.zeros(3, 3, 4)
    assert mean_shift_segmentation(flat, 0.9, 5, min_size=1).flatten().tolist() == list(range(12))  # no pixel is near
    assert not mean_shift_segmentation(flat, 1.1, 5, min_size=1).any()
    for other in ([12.0, 0, 0], [0, 8.0, 8]):  # 12 and 11.3 away, the window is 10
        image = torch.zeros(3, 4, 8)
        image[:, :, 4:] = torch.tensor(other)[:, None, None]
        assert mean_shift_segmentation(image, 2, 10, min_size=1)[0].tolist() == [0] * 4 + [1] * 4


@pytest.mark.parametrize(
    ("left", "small", "right", "joins"),
    [
        ((50.0, 0, 0), (60.0, 0, 0), (75.0, 0, 0), 0),  # the nearer colour, though its middle is 31 pixels away
        ((40.0, 0, 0), (60.0, 0, 0), (70.0, 0, 0), 2),  # the nearer colour, though the other region is larger
        ((60.0, 30, 0), (60.0, 0, 0), (70.0, 0, 0), 2),  # all of the colour, not lightness alone
    ],
)
def test_a_small_region_looks_at_colour_alone(left: tuple, small: tuple, right: tuple, joins: int) -> None:
    columns = torch.tensor([0] * 60 + [1] * 2 + [2] * 14)
    image = torch.tensor([left, small, right])[columns].T[:, None].expand(3, 6, 76).contiguous()
    assert torch.equal(mean_shift_segmentation(image, 2, 5, min_size=12)[3], columns)  # 12 pixels are enough
    found = mean_shift_segmentation(image, 2, 5, min_size=13)
    assert torch.equal(found[3], (columns == 2).long() if joins == 0 else (columns > 0).long())


def test_small_region_joins_the_neighbour_of_the_nearest_colour() -> None:
    image = torch.zeros(3, 6, 9)
    image[:, :, 3:5], image[:, :, 5:] = 60, 100
    assert mean_shift_segmentation(image, 2, 10, min_size=1)[0].tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 2]
    assert mean_shift_segmentation(image, 2, 10, min_size=13)[0].tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert not mean_shift_segmentation(image, 2, 10, min_size=1000).any()  # more than all: one region is left


def test_one_pixel_and_constant_image() -> None:
    for size in ((1, 1), (1, 7), (6, 5)):
        image = torch.full((3, *size), 0.25)
        torch.testing.assert_close(joint_modes(image, 2, 1)[2:], image)
        labels = mean_shift_segmentation(image, 20, 1)
        assert labels.shape == size and not labels.any()


def test_same_twice_and_arguments_as_they_were() -> None:
    image = patch(24).float()
    copy = image.clone()
    first, second = (joint_modes(image, 4, 8) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(image, copy) and first.dtype == torch.float32


POINTS, IMAGE = torch.zeros(4, 2), torch.zeros(3, 4, 5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mean_shift(POINTS.numpy(), 1.0), TypeError, "points has type ndarray"),
        (lambda: mean_shift(POINTS.long(), 1.0), TypeError, "points has dtype torch.int64"),
        (lambda: mean_shift(POINTS[0], 1.0), ValueError, r"points has shape \(2,\)"),
        (lambda: mean_shift(POINTS[:0], 1.0), ValueError, r"points has shape \(0, 2\)"),
        (lambda: mean_shift(POINTS * math.nan, 1.0), ValueError, "points has the value"),
        (lambda: mean_shift(POINTS, 0.0), ValueError, "bandwidth is 0.0"),
        (lambda: mean_shift(POINTS, math.inf), ValueError, "bandwidth is inf"),
        (lambda: mean_shift(POINTS, 1.0, 0), ValueError, "steps is 0"),
        (lambda: joint_modes(IMAGE.byte(), 1, 1), TypeError, "image has dtype torch.uint8"),
        (lambda: joint_modes(IMAGE[:1], 1, 1), ValueError, r"image has shape \(1, 4, 5\)"),
        (lambda: joint_modes(IMAGE[None], 1, 1), ValueError, r"image has shape \(1, 3, 4, 5\)"),
        (lambda: joint_modes(IMAGE / 0, 1, 1), ValueError, "image has the value"),
        (lambda: joint_modes(IMAGE, -1, 1), ValueError, "spatial_radius is -1"),
        (lambda: joint_modes(IMAGE, 1, math.nan), ValueError, "colour_radius is nan"),
        (lambda: joint_modes(IMAGE, 1, 1, -0.5), ValueError, "bin_size is -0.5"),
        (lambda: joint_modes(IMAGE, 1, 1, steps=1.5), TypeError, "steps is 1.5"),
        (lambda: mean_shift_segmentation(IMAGE, 1, 1, 0), ValueError, "min_size is 0"),
        (lambda: mean_shift_segmentation(IMAGE, 0, 1), ValueError, "spatial_radius is 0"),
    ],
)
def test_bad_input(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
