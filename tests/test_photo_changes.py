"""Random changes of photographs: image and classes move together, colours stay colours, rectangles are hidden."""

from __future__ import annotations

import pytest
import torch

from segedu.recipes.photo_changes import hide_rectangle, jitter_colours, random_view


def coordinates(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An image whose channels are its row, its column and 1, and as its target the same row."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([(rows + 0.5) / height, (columns + 0.5) / width, torch.ones(height, width)])
    return image, rows


@pytest.mark.parametrize("seed", range(8))
def test_classes_move_with_the_image(seed: int) -> None:
    torch.manual_seed(seed)
    image, target = coordinates(60, 90)
    view, classes = random_view(image, target, 64, (0.5, 1.5), 30)
    assert view.shape == (3, 64, 64) and classes.shape == (64, 64) and classes.dtype == torch.int64
    inside = (classes != 255) & (view[2] > 0.999)  # the border is mixed with black
    assert inside.any()
    assert (view[0][inside] * 60 - 0.5 - classes[inside]).abs().max() < 0.75  # nearest row, 45 degrees at most
    assert (view[2][classes == 255] < 0.6).all()  # void is outside of the photograph


def test_a_view_is_upright_mirrored_and_scaled_as_it_should() -> None:
    image, target = coordinates(80, 80)
    directions, steps = set(), []
    for seed in range(30):
        torch.manual_seed(seed)
        view, _ = random_view(image, target, 32, (0.5, 2.0), 0)
        inner = view[:, 12:20, 12:20]
        down, right = inner[0].diff(dim=0) * 80, inner[1].diff(dim=1) * 80
        assert (inner[2] > 0.999).all() and (down > 0).all()  # never upside down
        assert down.mean().item() == pytest.approx(right.abs().mean().item(), rel=1e-3)  # no distortion
        steps.append(down.mean().item())
        directions.add(bool(right.mean() > 0))
    assert directions == {True, False}
    assert 0.5 <= min(steps) < 0.8 and 1.4 < max(steps) <= 2.0


def test_a_view_from_above_is_also_turned() -> None:
    image, target = coordinates(80, 80)
    seen = set()
    for seed in range(40):
        torch.manual_seed(seed)
        view, _ = random_view(image, target, 32, (1.0, 1.0), 0, upright=False)
        down = view[:2, 16, 16] - view[:2, 15, 16]
        seen.add(tuple(torch.sign(torch.where(down.abs() < 1e-4, 0, down)).int().tolist()))
    assert seen == {(1, 0), (-1, 0), (0, 1), (0, -1)}


def test_colours_change_and_shapes_do_not() -> None:
    torch.manual_seed(0)
    image = torch.rand(3, 20, 30) * 0.5 + 0.2
    assert torch.allclose(jitter_colours(image, 0.0), image, atol=1e-6)
    changed = [jitter_colours(image, 0.4) for _ in range(20)]
    assert all(0 <= each.min() and each.max() <= 1 for each in changed)
    means = torch.tensor([float(each.mean()) for each in changed])
    assert means.std() > 0.03
    grey = torch.full((3, 4, 4), 0.5)
    turned = jitter_colours(grey, 0.4)
    assert (turned - turned[0]).abs().max() < 1e-5  # neither hue nor saturation changes grey


def test_one_rectangle_is_hidden() -> None:
    image = coordinates(40, 60)[0]
    shares = []
    for seed in range(40):
        torch.manual_seed(seed)
        hidden = hide_rectangle(image, 0.5)
        changed = (hidden != image).any(dim=0)
        rows, columns = changed.any(dim=1).nonzero(), changed.any(dim=0).nonzero()
        if len(rows):
            box = hidden[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert (box == image.mean(dim=(1, 2))[:, None, None]).all() and len(rows) <= 20 and len(columns) <= 30
        shares.append(float(changed.float().mean()))
    assert max(shares) > 0.1 and max(shares) <= 0.25
