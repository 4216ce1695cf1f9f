"""The class of the highest logit."""

from __future__ import annotations

import pytest
import torch

from segedu.layers.labels import highest_class


def test_the_highest_and_the_first_of_equals() -> None:
    labels = highest_class(torch.tensor([[[[1.0, 0.0]], [[3.0, 0.0]], [[2.0, 0.0]]]]))
    assert labels.tolist() == [[[1, 0]]] and labels.dtype == torch.int64


def test_of_volumes() -> None:
    logits = torch.randn(2, 3, 4, 5, 6)
    assert torch.equal(highest_class(logits), logits.argmax(dim=1))


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 4), (1, 0, 4, 4)])
def test_bad_input(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="logits has shape"):
        highest_class(torch.zeros(shape))


def test_wrong_type() -> None:
    with pytest.raises(TypeError, match="logits has type ndarray, expected a tensor"):
        highest_class(torch.zeros(1, 2, 4, 4).numpy())
