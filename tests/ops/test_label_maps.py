"""Numbers of label maps against loops, and what is no label map."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segedu.ops.eikonal import solve_eikonal
from segedu.ops.label_maps import drop_small_objects, relabel_by_occurrence, relabel_sequential
from segedu.validation.label_maps import check_label_map


@pytest.mark.parametrize("names", [[0, 1, 2, 5], [3, 7, 9], [0, 4, 70_000, 2**31 - 1], [2**31 - 1, 8]])
@pytest.mark.parametrize("shape", [(7, 9), (3, 4, 5), (1, 1)])
def test_numbers_equal_a_loop(names: list[int], shape: tuple[int, ...]) -> None:
    labels = np.random.default_rng(len(names)).choice(names, shape)
    label_map = torch.from_numpy(labels)
    present = sorted(set(labels.ravel().tolist()) - {0})
    in_order = list(dict.fromkeys(n for n in labels.ravel().tolist() if n))
    large = [n for n in present if (labels == n).sum() >= 12]
    for got, given, order in (
        (relabel_sequential(label_map), label_map, present),
        (relabel_sequential(label_map.mT), label_map.mT, present),
        (relabel_by_occurrence(label_map), label_map, in_order),
        (drop_small_objects(label_map, 12), label_map, large),
    ):
        expected = torch.zeros(given.shape, dtype=torch.int32)
        for number, name in enumerate(order, start=1):
            expected[given == name] = number
        assert got.dtype == torch.int32 and torch.equal(got, expected)


def test_labels_of_every_integer_type() -> None:
    label_map = torch.tensor([[0, 5, 5], [7, 7, 0]])
    for dtype in (torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.uint64):
        assert check_label_map("label_map", label_map.to(dtype)).equal(label_map)
        assert relabel_sequential(label_map.to(dtype)).tolist() == [[0, 1, 1], [2, 2, 0]]


def test_arrays_are_refused_in_the_same_words() -> None:
    """The solver takes arrays and may not import the check."""
    for bad in (torch.zeros(2, 3), torch.zeros(2, 3).bool(), torch.zeros(0, 3).int(), -torch.ones(2, 3).int()):
        said = []
        for check, given in (
            (lambda given: check_label_map("label_map", given, (2,)), bad),
            (solve_eikonal, bad.numpy()),
        ):
            with pytest.raises((TypeError, ValueError)) as caught:
                check(given)
            said.append((caught.type, str(caught.value).replace("torch.", "")))
        assert said[0] == said[1]
