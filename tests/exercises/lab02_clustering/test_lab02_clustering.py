"""What is special about lab 2: its references agree with the library's methods, and its statements hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.data import coins
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from segedu.teaching.checks.judge import draw, judge, outcomes_of
from segedu.teaching.exercises import lab02_clustering as lab
from segedu.unsupervised.kmeans import kmeans_step
from segedu.unsupervised.normalized_cut import ncut_value
from segedu.unsupervised.thresholding import otsu_threshold
from segedu.unsupervised.watershed import distance_markers

BY_NAME = {exercise.name: exercise for exercise in lab.exercises}


def reference(name):
    return BY_NAME[name].reference


def all_cases(name, seeds=5):
    return [case["args"] for seed in range(seeds) for _, _, case in draw(BY_NAME[name], seed)]


def verdict_of(name, function):
    drawn = draw(BY_NAME[name], 0)
    return judge(BY_NAME[name], drawn, outcomes_of(BY_NAME[name], function, drawn))


def test_points():
    assert [exercise.points for exercise in lab.exercises] == [3, 4, 3, 4, 3, 3]


def test_otsu_is_the_librarys_threshold():
    for image, bins in all_cases("otsu"):
        assert reference("otsu")(image, bins) == otsu_threshold(image, bins)
    grey = torch.from_numpy(coins().astype(np.float32)) / 255
    assert reference("otsu")(grey, 256) == pytest.approx(otsu_threshold(grey), abs=1e-7)


def test_otsu_meets_ties_and_edges_of_bins_in_every_draw():
    tied = on_edges = 0
    for image, bins in all_cases("otsu"):
        if image.min() < image.max():
            counts, edges = np.histogram(image.numpy(), bins)
            tied += counts[int(np.searchsorted(edges, reference("otsu")(image, bins)))] == 0
            on_edges += np.isin(image.numpy(), edges[1:-1]).any()
    assert tied >= 10 and on_edges >= 20


def test_kmeans_step_is_the_librarys():
    for points, centres in all_cases("kmeans_step"):
        ours, theirs = reference("kmeans_step")(points, centres), kmeans_step(points, centres)
        assert torch.equal(ours[0], theirs[0])
        torch.testing.assert_close(ours[1], theirs[1])


def test_repeated_steps_are_scikit_learns_kmeans():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(300, 3, generator=generator, dtype=torch.float64)
    centres = points[:4]
    theirs = KMeans(4, init=centres.numpy(), n_init=1, max_iter=100, tol=0).fit(points.numpy())
    for _ in range(100):
        labels, centres = reference("kmeans_step")(points, centres)
    assert np.array_equal(labels.numpy(), theirs.labels_)
    assert np.allclose(centres.numpy(), theirs.cluster_centers_)


def test_pca_project_is_scikit_learns_up_to_signs():
    for features, n in all_cases("pca_project"):
        theirs = PCA(n).fit_transform(features.numpy())
        ours = reference("pca_project")(features, n).numpy()
        signs = np.where((ours * theirs).sum(axis=0) < 0, -1, 1)
        assert np.allclose(ours * signs, theirs, atol=1e-8)


def test_signs_of_components_are_free_and_nothing_else_is():
    def turned(features, n):
        return reference("pca_project")(features, n) * torch.tensor([-1.0, 1, -1, 1])[:n]

    def stretched(features, n):
        return 1.01 * reference("pca_project")(features, n)

    assert verdict_of("pca_project", turned).points == 4
    assert verdict_of("pca_project", stretched).points == 0
    for name, wrong in ((w.name, w.function) for w in BY_NAME["pca_project"].wrong):
        verdict = verdict_of("pca_project", lambda *args, wrong=wrong: -wrong(*args))
        assert [w.name for w in verdict.named] == [name]


def test_ncut_value_is_the_librarys_for_two_segments():
    for weights, inside in all_cases("ncut_value"):
        theirs = ncut_value(weights, inside.long())
        assert reference("ncut_value")(weights, inside) == pytest.approx(theirs, abs=1e-12)


def test_markers_are_the_librarys_where_no_two_summits_are_near():
    """The library thins summits out by their distance from each other, this exercise by a window: see its statement."""
    y, x = np.mgrid[:60, :80]
    discs = [(12, 14, 9), (14, 30, 8), (40, 20, 12), (35, 60, 15), (0, 60, 7)]
    mask = torch.from_numpy(np.any([(y - r) ** 2 + (x - c) ** 2 <= s**2 for r, c, s in discs], axis=0))
    ours, theirs = reference("watershed_markers")(mask, 5).numpy(), distance_markers(mask, 5.0).numpy()
    assert ours.max() == theirs.max() == len(discs)
    assert sorted(np.unique(ours[theirs > 0])) == [1, 2, 3, 4, 5]


def test_a_summit_is_nowhere_lower_than_its_window():
    for mask, reach in all_cases("watershed_markers"):
        depth = ndimage.distance_transform_edt(mask.numpy())
        markers = reference("watershed_markers")(mask, reach).numpy()
        for row, column in np.ndindex(*mask.shape):
            window = depth[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1]
            summit = bool(mask[row, column]) and depth[row, column] >= window.max()
            assert (markers[row, column] > 0) == summit


def test_a_message_for_each_of_the_misconceptions_of_the_syllabus():
    names = {wrong.name for exercise in lab.exercises for wrong in exercise.wrong}
    assert {"smallest variance between", "upper edge", "lower edge", "last of ties", "constant is NaN"} <= names
    assert {"empty cluster is NaN", "L1 distance", "moved while assigning", "means of indices"} <= names
    assert {"unscaled pixels", "swapped axes", "weight squared", "integer division"} <= names
    assert {"no centring", "rows and columns swapped", "smallest first", "loadings, not scores"} <= names
    assert {"cut only", "association within", "edges counted twice", "isolated side is NaN"} <= names
    assert {"every pixel of a plateau", "on the mask", "min_distance ignored", "border dropped"} <= names
