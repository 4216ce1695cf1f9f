"""Collating samples."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

from segedu.datasets.batch import instance_batch, semantic_batch
from segedu.datasets.shapes import Shapes, draw_shapes
from segedu.datasets.transforms import to_tv_tensors


def test_semantic_batch() -> None:
    images, target = next(iter(DataLoader(Shapes(3, size=(17, 20)), batch_size=3, collate_fn=semantic_batch)))
    assert images.shape == (3, 3, 17, 20) and images.dtype == torch.float32
    assert target.shape == (3, 17, 20) and target.dtype == torch.int64
    assert type(semantic_batch([to_tv_tensors(draw_shapes(0))])[1]) is torch.Tensor


def test_instance_batch_takes_any_size_and_none() -> None:
    images, targets = instance_batch([draw_shapes(0, (17, 20)), draw_shapes(1, (30, 18), count=0)])
    assert [tuple(image.shape) for image in images] == [(3, 17, 20), (3, 30, 18)]
    assert targets[1]["boxes"].shape == (0, 4) and set(targets[0]) == {"boxes", "labels", "masks"}


@pytest.mark.parametrize("collate", [semantic_batch, instance_batch])
def test_bad_input(collate) -> None:
    with pytest.raises(ValueError, match="samples is empty"):
        collate([])
    with pytest.raises(ValueError, match="samples have no"):
        collate([draw_shapes(0), {"image": torch.zeros(3, 64, 64)}])


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match="expected one shape"):
        semantic_batch([draw_shapes(0, (17, 20)), draw_shapes(0, (18, 20))])
