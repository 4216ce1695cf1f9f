"""Random changes of own images: an image and its ground truth stay together."""

from __future__ import annotations

import pytest
import torch

from segedu.recipes.data import add_noise, jitter_colours, scaled_window
from segedu.recipes.own_changes import AUGMENTATIONS, change_for


def labelled(size: tuple[int, int] = (50, 70)) -> tuple[torch.Tensor, torch.Tensor]:
    """An image that is bright exactly where its target is 1."""
    target = torch.zeros(size, dtype=torch.int64)
    target[10:40, 15:50] = 1
    return 0.2 + 0.6 * target.float().expand(3, -1, -1), target


@pytest.mark.parametrize("factor", [0.5, 0.61, 1.0, 1.7])
def test_a_scaled_window_has_one_size_and_shows_the_same_pixels(factor: float) -> None:
    torch.manual_seed(1)
    image, target = labelled()
    view, classes = scaled_window(image, target, 32, (factor, factor), 255)
    assert view.shape == (3, 32, 32) and classes.shape == (32, 32) and classes.dtype == torch.int64
    known = classes != 255
    assert known.any() and ((view[0] > 0.5) == (classes == 1))[known].float().mean() > 0.9
    assert factor > 0.6 or not known.all()  # the window is then larger than the image


def test_a_scaled_window_makes_objects_larger_and_smaller() -> None:
    target = torch.zeros(64, 64, dtype=torch.int32)
    target[24:40, 24:40] = 7
    small, large = (scaled_window(torch.zeros(3, 64, 64), target, round(64 * f), (f, f), 0)[1] for f in (0.5, 2.0))
    assert int((small == 7).sum()) == 64 and int((large == 7).sum()) == 1024 and large.dtype == torch.int32


def test_colours_and_noise_change_the_image_alone() -> None:
    torch.manual_seed(0)
    image, target = torch.rand(3, 20, 20), torch.ones(20, 20)
    for change in (jitter_colours, add_noise):
        changed, same = change(image, target)
        assert same is target and changed.min() >= 0 and changed.max() <= 1
        assert 0.005 < float((changed - image).abs().mean()) < 0.4


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_each_augmentation_differs_from_the_others_and_none_changes_no_value(kind: str) -> None:
    image, target = torch.rand(3, 50, 70, generator=torch.Generator().manual_seed(0)), labelled()[1]
    arguments = {"window": 32} | ({"targets": lambda label_map: label_map} if kind == "labels" else {})
    views = {}
    for name in AUGMENTATIONS[kind]:
        torch.manual_seed(4)
        views[name], classes = change_for(kind, name, **arguments)(image, target)
        assert views[name].shape == (3, 32, 32) and classes.shape == (32, 32)
    assert torch.isin(views["none"], image).all()
    assert len({float(view.mean()) for view in views.values()}) == 3
    with pytest.raises(ValueError, match="augment is 'heavy', expected one of none, light, strong"):
        change_for(kind, "heavy", **arguments)
