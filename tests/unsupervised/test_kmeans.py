"""k-means against scikit-learn and in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage import data
from sklearn.cluster import KMeans as SklearnKMeans
from torch import Tensor

from segedu.ops.colour import rgb_to_lab
from segedu.unsupervised import kmeans as kmeans_file
from segedu.unsupervised.kmeans import colour_position_features, kmeans, kmeans_plus_plus, kmeans_step


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(n: int, d: int, seed: int = 0) -> Tensor:
    points = torch.randn(n, d, generator=seeded(seed), dtype=torch.float64)
    return points + 3 * torch.randint(0, 3, (n, d), generator=seeded(seed + 1))


def astronaut(step: int = 4) -> Tensor:
    return torch.from_numpy(data.astronaut()[::step, ::step] / 255).permute(2, 0, 1).contiguous()


def sklearn_kmeans(points: Tensor, centres: Tensor, steps: int = 1000) -> SklearnKMeans:
    model = SklearnKMeans(len(centres), init=centres.numpy(), n_init=1, max_iter=steps, tol=0, algorithm="lloyd")
    return model.fit(points.numpy())


# --- Lloyd ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "d", "k"), [(200, 2, 3), (501, 5, 8), (300, 64, 4), (50, 1, 2)])
def test_parity_with_scikit_learn(n: int, d: int, k: int) -> None:
    points = blobs(n, d)
    centres = points[torch.randperm(n, generator=seeded(3))[:k]]
    ours, theirs = kmeans(points, centres, steps=1000), sklearn_kmeans(points, centres)
    assert np.bincount(theirs.labels_, minlength=k).all()  # no cluster is empty, where the two differ
    assert ours.inertia == pytest.approx(theirs.inertia_, rel=1e-9)
    assert ours.labels.tolist() == theirs.labels_.tolist()
    np.testing.assert_allclose(ours.centres.numpy(), theirs.cluster_centers_, rtol=0, atol=1e-9)


def test_parity_on_a_photograph() -> None:
    points = colour_position_features(rgb_to_lab(astronaut()), 50.0)
    centres = kmeans_plus_plus(points, 8, seeded())
    ours, theirs = kmeans(points, centres, steps=1000), sklearn_kmeans(points, centres)
    assert ours.inertia == pytest.approx(theirs.inertia_, rel=1e-9)
    assert ours.labels.tolist() == theirs.labels_.tolist()


def test_parity_when_the_steps_run_out() -> None:
    points = blobs(300, 2)
    centres = points[:5]
    ours, theirs = kmeans(points, centres, steps=2), sklearn_kmeans(points, centres, steps=2)
    assert ours.inertia == pytest.approx(theirs.inertia_, rel=1e-9)
    assert ours.labels.tolist() == theirs.labels_.tolist()
    assert ours.inertia > kmeans(points, centres, steps=3).inertia  # there was more to do


@pytest.mark.parametrize("fault", ["manhattan", "median"])
def test_parity_notices(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    points = blobs(300, 2)
    right = sklearn_kmeans(points, points[:4]).inertia_

    def manhattan(points: Tensor, centres: Tensor) -> Tensor:
        return torch.cdist(points, centres, p=1).argmin(dim=1)

    def median(points: Tensor, labels: Tensor, centres: Tensor) -> Tensor:
        return torch.stack([points[labels == c].median(dim=0).values for c in range(len(centres))])

    name, wrong = {"manhattan": ("_nearest", manhattan), "median": ("_means", median)}[fault]
    monkeypatch.setattr(kmeans_file, name, wrong)
    assert kmeans(points, points[:4], 1000).inertia != pytest.approx(right, rel=1e-6)


def test_step_by_hand() -> None:
    points = torch.tensor([[0.0, 0.0], [0.0, 2.0], [3.0, 1.0], [4.0, 1.0]])
    labels, centres = kmeans_step(points, torch.tensor([[0.0, 1.0], [5.0, 1.0]]))
    assert labels.tolist() == [0, 0, 1, 1] and centres.tolist() == [[0.0, 1.0], [3.5, 1.0]]
    assert kmeans(points, centres).inertia == 2.5


def test_ties_go_to_the_first_centre() -> None:
    labels, _ = kmeans_step(torch.tensor([[1.0]]), torch.tensor([[2.0], [0.0]]))
    assert labels.tolist() == [0]
    assert kmeans_step(torch.ones(9, 3), torch.ones(4, 3))[0].tolist() == [0] * 9


def test_empty_cluster_keeps_its_centre() -> None:
    centres = torch.tensor([[0.0], [100.0]])
    found = kmeans(torch.tensor([[1.0], [2.0]]), centres)
    assert found.labels.tolist() == [0, 0] and found.centres.tolist() == [[1.5], [100.0]]


def test_inertia_never_grows() -> None:
    points = blobs(400, 3)
    inertias = [kmeans(points, points[:7], steps=steps).inertia for steps in range(12)]
    assert all(b <= a for a, b in zip(inertias, inertias[1:], strict=False)) and inertias[-1] < 0.9 * inertias[0]


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_chunks_change_nothing(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    points = blobs(300, 2)
    whole = kmeans(points, points[:4])
    monkeypatch.setattr(kmeans_file, "CHUNK", chunk)
    parts = kmeans(points, points[:4])
    assert torch.equal(whole.labels, parts.labels) and torch.equal(whole.centres, parts.centres)
    assert parts.inertia == pytest.approx(whole.inertia)


def test_distances_of_a_photograph_are_never_in_memory_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, cdist = [], torch.cdist
    monkeypatch.setattr(torch, "cdist", lambda a, b, **kw: sizes.append(len(a) * len(b)) or cdist(a, b, **kw))
    kmeans_step(torch.zeros(2**18, 2), torch.zeros(64, 2))
    assert sum(sizes) == 2**24 and max(sizes) <= kmeans_file.CHUNK


def test_far_from_the_origin_nothing_is_lost() -> None:
    """float32 at 10,000 has steps of 0.001; |p|^2 - 2 p c + |c|^2 would have steps of 8."""
    points = torch.tensor([[10000.0], [10000.5], [10002.0]])
    assert kmeans_step(points, points[[0, 2]])[0].tolist() == [0, 0, 1]


def test_one_pixel_and_dtypes() -> None:
    for dtype in (torch.float32, torch.float64):
        found = kmeans(torch.ones(1, 5, dtype=dtype), torch.zeros(1, 5, dtype=dtype))
        assert found.labels.tolist() == [0] and found.labels.dtype == torch.int64
        assert found.centres.dtype == dtype and found.inertia == 0 and isinstance(found.inertia, float)


# --- k-means++ --------------------------------------------------------------------------------------------------


def test_drawn_by_squared_distance() -> None:
    """0, 1 and 3 with 0 first: 1 and 3 with 1/10 and 9/10. All first centres are equally likely."""
    points = torch.tensor([[0.0], [1.0], [3.0]])
    generator = seeded()
    drawn = [tuple(kmeans_plus_plus(points, 2, generator).flatten().tolist()) for _ in range(3000)]
    first = np.array([pair[0] for pair in drawn])
    assert all(abs((first == value).mean() - 1 / 3) < 0.03 for value in (0, 1, 3))
    second = [b for a, b in drawn if a == 0]
    assert abs(np.mean(np.array(second) == 3) - 0.9) < 0.03


def test_same_generator_same_centres() -> None:
    points = blobs(100, 3)
    same = [kmeans_plus_plus(points, 5, seeded(7)) for _ in range(2)]
    assert torch.equal(*same) and not torch.equal(same[0], kmeans_plus_plus(points, 5, seeded(8)))


def test_distinct_points_first_then_repeats() -> None:
    points = torch.tensor([[0.0], [0.0], [1.0], [1.0], [1.0]])
    for seed in range(20):
        centres = kmeans_plus_plus(points, 7, seeded(seed))  # more than points
        assert sorted(centres[:2].flatten().tolist()) == [0.0, 1.0] and centres.shape == (7, 1)
        found = kmeans(points, centres)
        assert found.inertia == 0 and torch.equal(found.centres, centres) and len(found.labels.unique()) == 2


def test_constant_image() -> None:
    points = colour_position_features(torch.full((3, 4, 5), 0.5), 0.0)
    found = kmeans(points, kmeans_plus_plus(points, 3, seeded()))
    assert found.labels.unique().tolist() == [0] and found.inertia == 0


# --- colours and places -----------------------------------------------------------------------------------------


def test_features_of_a_wide_image() -> None:
    image = torch.rand(3, 2, 4, generator=seeded())
    features = colour_position_features(image, 8.0)
    for row in range(2):
        for column in range(4):
            expected = [*image[:, row, column].tolist(), 2.0 * row, 2.0 * column]  # 8 / max(2, 4)
            assert features[row * 4 + column].tolist() == expected
    assert not colour_position_features(image, 0.0)[:, 3:].any()
    assert colour_position_features(image.double()[:, :1, :1], 3.0).dtype == torch.float64


P, C, IMAGE = torch.zeros(4, 2), torch.zeros(3, 2), torch.zeros(3, 4, 5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: kmeans(P.numpy(), C), TypeError, "points has type ndarray"),
        (lambda: kmeans(P.long(), C), TypeError, "points has dtype torch.int64"),
        (lambda: kmeans(P, C.double()), TypeError, "centres has dtype torch.float64, expected torch.float32"),
        (lambda: kmeans(P[0], C), ValueError, r"points has shape \(2,\), expected \(N, D\)"),
        (lambda: kmeans(P[:0], C), ValueError, r"points has shape \(0, 2\)"),
        (lambda: kmeans(P, C[:0]), ValueError, r"centres has shape \(0, 2\), expected \(k, D\)"),
        (lambda: kmeans(P, C[:, :1]), ValueError, r"centres has shape \(3, 1\), expected \(k, D\) with D = 2"),
        (lambda: kmeans(P * math.nan, C), ValueError, "points has the value"),
        (lambda: kmeans_step(P, C / 0), ValueError, "centres has the value"),
        (lambda: kmeans(P, C, -1), ValueError, "steps is -1"),
        (lambda: kmeans_step(P, C.int()), TypeError, "centres has dtype torch.int32"),
        (lambda: kmeans_plus_plus(P, 0, seeded()), ValueError, "k is 0"),
        (lambda: kmeans_plus_plus(P, 2.0, seeded()), TypeError, "k is 2.0"),
        (lambda: kmeans_plus_plus(P, 2, 0), TypeError, "generator has type int"),
        (lambda: kmeans_plus_plus(P * math.nan, 2, seeded()), ValueError, "points has the value"),
        (lambda: colour_position_features(IMAGE[0], 1.0), ValueError, r"image has shape \(4, 5\)"),
        (lambda: colour_position_features(IMAGE, -1.0), ValueError, "position_weight is -1.0"),
        (lambda: colour_position_features(IMAGE, math.nan), ValueError, "position_weight is nan"),
        (lambda: colour_position_features(IMAGE.long(), 1.0), TypeError, "image has dtype torch.int64"),
    ],
)
def test_bad_input(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
