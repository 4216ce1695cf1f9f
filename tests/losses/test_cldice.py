"""clDice against MONAI (value and gradient), class by class, and on lines with a gap."""

import pytest
import torch
from losses.cases import assert_same, one_hot, random_maps
from monai.losses.cldice import SoftclDiceLoss, soft_skel

from segedu.losses.cldice import cldice_loss, soft_skeleton
from segedu.losses.dice import dice_loss

SHAPES = [(2, 3, 12, 10), (1, 4, 7, 9), (1, 2, 6, 7, 8)]


def by_monai(z, target, iterations, smooth, include_background):
    """It adds up all classes; ours is the mean over classes, so each goes in alone."""
    peer = SoftclDiceLoss(iter_=iterations, smooth_nr=smooth, smooth_dr=smooth, smooth=1e-14)
    p, y = z.softmax(1), one_hot(target, z.shape[1])
    first = 0 if include_background else 1
    return torch.stack([peer(p[:, k : k + 1], y[:, k : k + 1]) for k in range(first, p.shape[1])]).mean()


def compare(ours):
    for shape in SHAPES:
        logits, target = random_maps(shape)
        for iterations, smooth, background in [(3, 1.0, True), (1, 1e-3, False)]:
            options = {"iterations": iterations, "smooth": smooth, "include_background": background}
            assert_same(
                lambda z, t=target, o=options: ours(z, t, **o),
                lambda z, t=target, o=options: by_monai(z, t, **o),
                logits,
                1e-11,
            )


def test_equals_monai():
    compare(cldice_loss)


@pytest.mark.parametrize(
    "perturbed",
    [
        lambda z, t, **k: cldice_loss(z, t, **k) * (1 + 1e-8),
        lambda z, t, iterations, **k: cldice_loss(z, t, iterations=iterations + 3, **k),
        lambda z, t, iterations, **k: dice_loss(z, t, **k),
        lambda z, t, smooth, **k: cldice_loss(z, t, smooth=2 * smooth, **k),
    ],
)
def test_comparison_refuses(perturbed):
    with pytest.raises(AssertionError):
        compare(perturbed)


@pytest.mark.parametrize("shape", [(2, 3, 11, 13), (1, 2, 7, 8, 9)])
def test_skeleton_equals_monai(shape):
    maps = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(soft_skeleton(maps, 4), soft_skel(maps, 4))


def test_skeleton_of_a_bar_is_its_middle():
    bar = torch.zeros(1, 1, 9, 20)
    bar[..., 2:7, 2:18] = 1
    skeleton = soft_skeleton(bar, 3)[0, 0]
    assert skeleton[4, 5:15].tolist() == [1.0] * 10
    assert not skeleton[[1, 2, 3, 5, 6, 7], 5:15].any()


def test_a_cut_costs_more_than_thinning():
    """Dice sees the pixels; clDice sees the line."""
    target = torch.zeros(1, 15, 40, dtype=torch.int64)
    target[0, 5:10] = 1
    thin, cut = target.clone(), target.clone()
    thin[0, [5, 9]] = 0  # 80 pixels fewer, the line is whole
    cut[0, :, 12:28] = 0  # 80 pixels fewer, the line is broken
    as_logits = lambda preds: 100.0 * torch.stack([1 - preds, preds], dim=1)  # noqa: E731
    dice = [dice_loss(as_logits(preds), target).item() for preds in (thin, cut)]
    assert dice[0] == pytest.approx(dice[1])
    cldice = [cldice_loss(as_logits(preds), target).item() for preds in (thin, cut)]
    assert cldice[0] < 0.01 and cldice[1] > 0.2
