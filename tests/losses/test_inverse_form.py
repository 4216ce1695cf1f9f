"""InverseForm with nets whose answer is known, and with one that is trained: the loss grows with displacement."""

import pytest
import torch
import torch.nn.functional as F

from segedu.losses.inverse_form import (
    IDENTITY,
    InverseNet,
    class_boundary,
    inverse_form_loss,
    split_into_tiles,
    synthetic_tiles,
    train_inverse_net,
)

SIDE = 16


def answers(*parameters):
    return lambda preds, target: torch.tensor([parameters]).expand(len(preds), -1)


def test_distance_to_identity():
    truth = torch.ones(1, 8, 8).long()
    affine = inverse_form_loss(torch.zeros(1, 8, 8), truth, answers(1.0, 0.3, 0.0, 0.0, 1.0, 0.4), tile=4)
    assert affine.item() == pytest.approx(0.5)
    homography = inverse_form_loss(torch.zeros(1, 8, 8), truth, answers(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.6, 0.8), tile=4)
    assert homography.item() == pytest.approx(1.0)
    assert inverse_form_loss(torch.zeros(1, 8, 8), truth, answers(*IDENTITY[:6]), tile=4).item() == 0


def test_only_tiles_with_a_boundary_are_asked():
    seen = []

    def net(preds, target):
        seen.append((preds, target))
        return preds.new_tensor(IDENTITY[:6]).expand(len(preds), 6)

    boundary = torch.zeros(2, 5, 8).long()
    boundary[0, 0, 0] = boundary[1, 4, 7] = 1
    boundary[1, 0, 0] = 255
    logits = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    inverse_form_loss(logits, boundary, net, tile=4)
    preds, target = seen[0]
    assert preds.shape == target.shape == (2, 1, 4, 4)
    torch.testing.assert_close(preds[0, 0], logits[0, :4, :4].sigmoid())
    torch.testing.assert_close(preds[1, 0, 0], logits[1, 4, 4:].sigmoid())
    assert not preds[1, 0, 1:].any() and target[1, 0].tolist() == [[0, 0, 0, 1], [0] * 4, [0] * 4, [0] * 4]


def test_class_boundary():
    target = torch.tensor([[[0, 0, 1], [0, 0, 1], [255, 2, 2]]])
    assert class_boundary(target).tolist() == [[[0, 1, 1], [0, 1, 1], [255, 1, 1]]]
    assert class_boundary(target[:, :, :2], ignore_index=None).tolist() == [[[0, 0], [1, 1], [1, 1]]]


def test_tiles_put_together_are_the_image():
    maps = torch.randn(2, 8, 12)
    tiles = split_into_tiles(maps, 4).reshape(2, 2, 3, 4, 4)
    assert torch.equal(tiles.transpose(2, 3).reshape(2, 8, 12), maps)


def shifted(tiles, shift):
    """The tiles, moved along x by a part of half a tile: the parameters of synthetic pairs."""
    theta = torch.tensor(IDENTITY[:6])
    theta[2] = shift
    grid = F.affine_grid(theta.reshape(1, 2, 3).expand(len(tiles), 2, 3), list(tiles.shape), align_corners=True)
    return F.grid_sample(tiles, grid, align_corners=True)


def test_synthetic_pairs_are_what_they_say():
    moved, tiles, theta = synthetic_tiles(4, SIDE, torch.Generator().manual_seed(0))
    grid = F.affine_grid(theta.reshape(-1, 2, 3), list(tiles.shape), align_corners=True)
    again = F.grid_sample(tiles, grid, align_corners=True)
    torch.testing.assert_close(moved, again)
    assert (tiles.amax((1, 2, 3)) > 0.5).all() and 0 <= tiles.min() and tiles.max() <= 1
    assert (theta[:, [2, 5]].abs() <= 0.3).all() and (theta[:, 0] > 0.7).all()


@pytest.fixture(scope="module")
def trained():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = InverseNet(tile=SIDE, width=8)
    untrained = train_inverse_net(InverseNet(tile=SIDE, width=1), steps=1, batch_size=256, tile=SIDE)
    error = train_inverse_net(net, steps=200, batch_size=32, tile=SIDE)
    assert error < 0.75 * untrained
    return net


def test_loss_grows_with_displacement(trained):
    _, tiles, _ = synthetic_tiles(64, SIDE, torch.Generator().manual_seed(9))
    truth = tiles[:, 0]
    losses = []
    for shift in (0.0, 0.1, 0.2, 0.3):
        preds = shifted(tiles, shift)[:, 0].clamp(1e-4, 1 - 1e-4)
        losses.append(inverse_form_loss(torch.logit(preds), truth, trained, tile=SIDE).item())
    assert losses[0] < losses[1] < losses[2] < losses[3]
    assert losses[3] > 3 * losses[0]


def test_gradient_of_a_trained_net_reaches_the_prediction_alone(trained):
    _, tiles, _ = synthetic_tiles(4, SIDE, torch.Generator().manual_seed(9))
    logits = torch.logit(shifted(tiles, 0.2)[:, 0].clamp(1e-2, 1 - 1e-2)).requires_grad_()
    loss = inverse_form_loss(logits, tiles[:, 0], trained, tile=SIDE)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.abs().max() > 0 and torch.isfinite(gradient).all()
    assert not any(parameter.requires_grad for parameter in trained.parameters())
