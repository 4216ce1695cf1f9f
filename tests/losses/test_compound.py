"""Compound losses against their formulas pixel by pixel, and the parts that MONAI has."""

from itertools import product

import pytest
import torch
from losses.cases import SHAPES, assert_same, one_hot, random_maps
from monai.losses import DiceCELoss
from monai.losses.unified_focal_loss import AsymmetricFocalLoss, AsymmetricFocalTverskyLoss

from segedu.losses.compound import combo_loss, exponential_logarithmic_loss, log_probabilities, unified_focal_loss
from segedu.losses.cross_entropy import cross_entropy
from segedu.losses.dice import dice_loss


def soft_dice(z, target, k, smooth):
    """Of one image (K, ...)."""
    p, y = z.softmax(0)[k][target != 255], (target == k).double()[target != 255]
    return (2 * (p * y).sum() + smooth) / (p.sum() + y.sum() + smooth)


def combo_by_hand(z, target, alpha, beta, smooth, include_background):
    p, classes, entropy, dice = z.softmax(1), range(0 if include_background else 1, z.shape[1]), [], []
    for image, (truth, k) in ((i, pair) for i in range(len(z)) for pair in product([target[i]], classes)):
        q, y = p[image, k][truth != 255], (truth == k).double()[truth != 255]
        entropy.append(-(beta * y * q.log() + (1 - beta) * (1 - y) * (1 - q).log()))
        dice.append(1 - soft_dice(z[image], truth, k, smooth))
    return alpha * torch.cat(entropy).mean() + (1 - alpha) * sum(dice) / len(dice)


def test_combo_equals_the_formula():
    for shape, (alpha, beta), background in product(SHAPES, [(0.5, 0.5), (0.2, 0.8)], (True, False)):
        logits, target = random_maps(shape, ignored=0.1)
        options = {"alpha": alpha, "beta": beta, "smooth": 0.7, "include_background": background}
        by_hand = lambda z, t=target, o=options: combo_by_hand(z, t, **o)  # noqa: E731
        assert_same(lambda z, t=target, o=options: combo_loss(z, t, **o), by_hand, logits)
        for wrong in ({"alpha": alpha + 0.01}, {"include_background": not background}, {"smooth": 1.0}):
            with pytest.raises(AssertionError):
                assert_same(lambda z, t=target, o=options | wrong: combo_loss(z, t, **o), by_hand, logits)


def test_combo_of_two_classes_is_dice_and_cross_entropy():
    """With both maps, the binary cross-entropies of a pixel are equal; MONAI's DiceCE is the sum of both parts."""
    logits, target = random_maps((2, 2, 6, 8))
    peer = DiceCELoss(softmax=True, smooth_nr=1, smooth_dr=1)
    ours = lambda z: 2 * combo_loss(z, target, alpha=0.5, include_background=True)  # noqa: E731
    expected = lambda z: cross_entropy(z, target) / 2 + dice_loss(z, target)  # noqa: E731
    assert_same(ours, expected, logits)
    theirs = peer(logits, one_hot(target, 2)).item()
    assert (cross_entropy(logits, target) + dice_loss(logits, target)).item() == pytest.approx(theirs)


def test_log_probabilities_keep_their_digits():
    z = torch.tensor([[30.0, 0.0, 0.0]])
    log_p, log_not_p = log_probabilities(z)
    assert log_not_p[0, 0].item() == pytest.approx(-30 + torch.tensor(2.0).log().item(), abs=1e-5)  # log(1 - p): -inf
    p = torch.rand(50, 4, dtype=torch.float64).softmax(1)
    torch.testing.assert_close(log_probabilities(p.log())[1], torch.log(1 - p))


def exponential_by_hand(z, target, w, gamma, smooth, class_weights):
    dice = [(-soft_dice(z[i], target[i], k, smooth).log()) ** gamma for i in range(len(z)) for k in range(z.shape[1])]
    counted = target != 255
    true = target[counted]
    p = z.softmax(1).movedim(1, -1)[counted].gather(1, true[:, None])[:, 0]
    weights = class_weights[true] if class_weights is not None else torch.ones_like(p)
    entropy = (weights * (-p.log()) ** gamma).sum() / weights.sum()
    return w * sum(dice) / len(dice) + (1 - w) * entropy


def test_exponential_logarithmic_equals_the_formula():
    for shape, gamma in product(SHAPES, (0.3, 1.0, 2.0)):
        logits, target = random_maps(shape, ignored=0.1)
        for weights in (None, torch.linspace(0.3, 2, shape[1], dtype=torch.float64)):
            ours = lambda z, g=gamma, t=target, w=weights: exponential_logarithmic_loss(  # noqa: E731
                z, t, gamma=g, class_weights=w, smooth=1.0
            )
            by_hand = lambda z, g=gamma, t=target, w=weights: exponential_by_hand(z, t, 0.8, g, 1.0, w)  # noqa: E731
            assert_same(ours, by_hand, logits, 1e-11)
            with pytest.raises(AssertionError):
                assert_same(lambda z, f=ours, g=gamma: f(z, g=g + 0.001), by_hand, logits, 1e-11)


def unified_by_hand(z, target, weight, delta, gamma, smooth):
    p, focal, tversky = z.softmax(1), [], []
    for image, truth in zip(p, target, strict=True):
        for pixel, true in zip(image.flatten(1).T, truth.flatten().tolist(), strict=True):
            if true == 0:
                focal.append(-(1 - delta) * (1 - pixel[0]) ** gamma * pixel[0].log())
            elif true != 255:
                focal.append(-delta * pixel[true].log())
        for k in range(z.shape[1]):
            q, y = image[k][truth != 255], (truth == k).double()[truth != 255]
            tp, fn, fp = (q * y).sum(), ((1 - q) * y).sum(), (q * (1 - y)).sum()
            error = 1 - (tp + smooth) / (tp + delta * fn + (1 - delta) * fp + smooth)
            tversky.append(error if k == 0 else error ** (1 - gamma))
    return weight * sum(focal) / len(focal) + (1 - weight) * sum(tversky) / len(tversky)


def test_unified_focal_equals_the_formula():
    for shape in SHAPES:
        logits, target = random_maps(shape, ignored=0.1)
        for weight, delta, gamma in [(0.5, 0.6, 0.5), (0.2, 0.8, 0.1)]:
            options = {"weight": weight, "delta": delta, "gamma": gamma, "smooth": 1e-3}
            by_hand = lambda z, t=target, o=options: unified_by_hand(z, t, **o)  # noqa: E731
            assert_same(lambda z, t=target, o=options: unified_focal_loss(z, t, **o), by_hand, logits)
            for wrong in ({"delta": 1 - delta}, {"gamma": gamma + 0.01}, {"weight": weight + 0.01}):
                with pytest.raises(AssertionError):
                    assert_same(lambda z, t=target, o=options | wrong: unified_focal_loss(z, t, **o), by_hand, logits)


def test_unified_focal_has_the_parts_of_monai():
    """Two classes; its focal part is a mean over classes too, half of ours; it cuts p at 1e-7."""
    logits, target = random_maps((2, 2, 6, 8))
    p, y = logits.softmax(1), one_hot(target, 2)
    for delta, gamma in [(0.7, 0.5), (0.6, 0.2)]:
        options = {"delta": delta, "gamma": gamma}
        focal = 2 * AsymmetricFocalLoss(**options)(p, y).item()
        assert unified_focal_loss(logits, target, weight=1, **options).item() == pytest.approx(focal, abs=1e-6)
        tversky = AsymmetricFocalTverskyLoss(**options)(p, y).item()
        assert unified_focal_loss(logits, target, weight=0, **options).item() == pytest.approx(tversky, abs=1e-6)
