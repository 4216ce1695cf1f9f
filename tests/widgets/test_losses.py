"""The widget of chapter 7: its numbers and its picture, without a slider."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segedu.losses.boxes import generalized_iou_loss
from segedu.losses.cross_entropy import binary_cross_entropy
from segedu.losses.dice import dice_loss
from segedu.losses.focal import sigmoid_focal_loss
from segedu.teaching.widgets import losses


@pytest.mark.parametrize("truth", ("object", "background"))
def test_values_are_those_of_the_library(truth):
    p, pixels, smooth, gamma = 0.3, 5, 2.0, 1.5
    found = losses.values_and_slopes(np.array([p]), truth, gamma, pixels, smooth)
    z = torch.full((1, pixels), torch.logit(torch.tensor(p, dtype=torch.float64)).item(), dtype=torch.float64)
    y = torch.full((1, pixels), int(truth == "object"))
    assert found["cross-entropy"][0, 0] == pytest.approx(binary_cross_entropy(z, y).item())
    assert found["focal"][0, 0] == pytest.approx(sigmoid_focal_loss(z, y, alpha=None, gamma=gamma).item())
    assert found["L2"][0, 0] == pytest.approx((p - int(truth == "object")) ** 2)
    both = torch.stack([torch.zeros_like(z), z], dim=1)[:, :, None]  # softmax of (0, z) is sigmoid(z)
    dice = dice_loss(both, y[:, None], smooth=smooth, include_background=False)
    assert found["Dice"][0, 0] == pytest.approx(dice.item())


@pytest.mark.parametrize("truth", ("object", "background"))
def test_slopes_agree_with_finite_differences(truth):
    z, step = np.array([-3.0, 0.2, 2.5]), 1e-5

    def at(scores):
        return losses.values_and_slopes(1 / (1 + np.exp(-scores)), truth, 2.0, 10, 1.0)

    for name, (_, slope) in at(z).items():
        expected = (at(z + step)[name][0] - at(z - step)[name][0]) / (2 * step)
        np.testing.assert_allclose(slope, expected, atol=1e-8)


def test_only_cross_entropy_and_focal_have_a_gradient_where_the_network_is_confident_and_wrong():
    found = losses.values_and_slopes(np.array([1e-4]), "object", 2.0, 10, 1.0)
    pull = {name: abs(slope[0]) for name, (_, slope) in found.items()}
    assert pull["cross-entropy"] > 0.99 and pull["focal"] > 0.99
    assert pull["L2"] < 1e-3 and pull["Dice"] < 1e-3


def test_picture_has_alt_text_with_the_values(monkeypatch):
    shown = []
    monkeypatch.setattr(losses, "show", lambda fig, alt: shown.append((fig, alt)))
    losses.draw_losses()
    losses.draw_losses(p=0.99, target="background", gamma=0.0, pixels=1000, smooth=0.01)
    assert "cross-entropy: loss 2.996, gradient -0.950" in shown[0][1]
    assert "Target background" in shown[1][1] and len(shown[1][0].axes) == 2


def test_only_plain_iou_stays_where_it_is(monkeypatch):
    shown = []
    monkeypatch.setattr(losses, "show", lambda fig, alt: shown.append(alt))
    losses.draw_race({"generalized IoU": generalized_iou_loss})
    assert "'1 - IoU': 0.0" in shown[0]
    for loss in (generalized_iou_loss, losses.distance_iou_loss):
        reached = losses.race(loss)
        assert reached[0] == 0 and reached[-1] > 0.9
    assert set(losses.race(losses.iou_box_loss)) == {0.0}


def test_static_frames_are_drawn(monkeypatch):
    shown = []
    monkeypatch.setenv("SEGEDU_WIDGETS", "static")
    monkeypatch.setattr(losses, "show", lambda fig, alt: shown.append(alt))
    losses.explorer()
    assert len(shown) == 3 and len(set(shown)) == 3
