"""SLIC where the answer is known: how many centres there are, and what becomes of one without pixels."""

import numpy as np
import pytest
import torch

from segedu.unsupervised import superpixels as slic_file
from segedu.unsupervised.superpixels import enforce_connectivity, initial_positions, slic


@pytest.mark.parametrize(
    ("size", "step", "right"), [((38, 57), 10.0, (4, 6)), ((33, 24), 10.0, (3, 2)), ((3, 50), 10.0, (1, 5))]
)
def test_rows_and_columns_of_centres_are_the_nearest_numbers(size, step, right):
    places = initial_positions(np.zeros((*size, 3)), step)
    assert tuple(len(np.unique(places[:, axis])) for axis in (0, 1)) == right
    margins = [(places[:, axis].min(), size[axis] - 1 - places[:, axis].max()) for axis in (0, 1)]
    assert all(abs(before - after) <= 1 for before, after in margins)


def test_a_centre_without_pixels_stays(monkeypatch):
    """Two centres at one place: the first takes all pixels and moves; of no pixels there is no mean."""
    seen, nearest = [], slic_file.nearest_centres

    def watched(features, centres, places, step):
        seen.append((centres.copy(), places.copy()))
        return nearest(features, centres, places, step)

    monkeypatch.setattr(slic_file, "initial_positions", lambda lab, step: np.array([[4, 4], [4, 4]]))
    monkeypatch.setattr(slic_file, "nearest_centres", watched)
    with np.errstate(all="raise"):
        slic(torch.rand(3, 9, 9, generator=torch.Generator().manual_seed(0)), 2, iterations=2)
    (first, _), (centres, places) = seen
    np.testing.assert_array_equal(centres[1], first[1])
    assert places[1].tolist() == [4, 4] and (centres[0, :3] != first[0, :3]).all()


def test_orphans_go_by_border_not_by_size_and_grow_on_the_way():
    """A column of 2 between a large piece on one side of it and a small one on three sides."""
    labels = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 2, 2, 2], [1, 1, 1, 3, 3, 2], [1, 1, 1, 2, 2, 2]])
    assert enforce_connectivity(labels, min_size=3).tolist() == (np.where(labels == 1, 1, 2)).tolist()
    chain = np.array([[1, 2, 3, 4, 4, 4, 4]])  # 1 joins 2, and 1-2 is then as large as asked for; 3 joins it
    assert enforce_connectivity(chain, min_size=2).tolist() == [[1, 1, 1, 2, 2, 2, 2]]


def test_the_smallest_orphan_goes_first():
    """The piece of one joins the first of two neighbours, and what is left of the other is then too small as well."""
    assert enforce_connectivity(np.array([[1, 1, 1, 1, 2, 3, 3]]), min_size=3).tolist() == [[1] * 7]


def test_the_window_follows_its_centre_to_the_nearest_pixel(monkeypatch):
    seen, nearest = [], slic_file.nearest_centres

    def watched(features, centres, places, step):
        seen.append((nearest(features, centres, places, step), places.copy()))
        return seen[-1][0]

    monkeypatch.setattr(slic_file, "nearest_centres", watched)
    slic(torch.rand(3, 15, 20, generator=torch.Generator().manual_seed(0)), 12, iterations=2)
    (labels, before), (_, after) = seen
    means = np.array([np.argwhere(labels == k).mean(axis=0) for k in range(len(before))])
    np.testing.assert_array_equal(after, np.rint(means))
    assert (after != np.floor(means)).any() and (after != before).any()
