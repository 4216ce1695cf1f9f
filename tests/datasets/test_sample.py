"""Renumbering of label maps."""

import pytest
import torch

from segedu.datasets.sample import compact


@pytest.mark.parametrize(
    ("given", "expected", "old"),
    [
        ([[0, 9, 4]], [[0, 2, 1]], [4, 9]),
        ([[9, 4, 4]], [[2, 1, 1]], [4, 9]),  # no background
        ([[0, 0]], [[0, 0]], []),
        ([[2**40, 0, 3]], [[2, 0, 1]], [3, 2**40]),  # a table up to the largest number would not fit into memory
    ],
)
def test_compact(given, expected, old):
    label_map, names = compact(torch.tensor(given))
    assert label_map.tolist() == expected and label_map.dtype == torch.int32
    assert names.tolist() == old and names.dtype == torch.int64
