"""Region losses against MONAI (value and gradient), or pixel by pixel where it has none."""

import math
from itertools import product

import pytest
import torch
from losses.cases import SHAPES, VOLUME, assert_same, one_hot, random_maps
from monai.losses import DiceLoss, TverskyLoss

from segedu.losses.dice import dice_loss
from segedu.losses.region import (
    focal_tversky_loss,
    iou_loss,
    sensitivity_specificity_loss,
    tversky_error,
    tversky_loss,
)

CHOICES = [
    {"smooth": smooth, "per_image": per_image, "include_background": background}
    for smooth, per_image, background in product((1.0, 1e-5), (True, False), (True, False))
]


def of_monai(loss, smooth, per_image, include_background, **more):
    options = {"smooth_nr": smooth, "smooth_dr": smooth, "batch": not per_image, **more}
    return loss(softmax=True, include_background=include_background, **options)


def compare(ours, theirs, atol=1e-12):
    """`theirs` gets logits, one-hot truth and the options."""
    for shape in [*SHAPES, VOLUME]:
        logits, target = random_maps(shape)
        for options in CHOICES:
            assert_same(
                lambda z, t=target, o=options: ours(z, t, **o),
                lambda z, t=target, o=options: theirs(z, one_hot(t, z.shape[1]), **o),
                logits,
                atol,
            )


def iou_by_monai(z, y, smooth, **options):
    """Its Jaccard index doubles numerator and denominator, but not the smoothing."""
    return of_monai(DiceLoss, 2 * smooth, jaccard=True, **options)(z, y)


def test_iou_equals_monai():
    compare(iou_loss, iou_by_monai)


@pytest.mark.parametrize("perturbed", [dice_loss, lambda z, t, smooth, **k: iou_loss(z, t, smooth=2 * smooth, **k)])
def test_comparison_refuses_another_iou(perturbed):
    with pytest.raises(AssertionError):
        compare(perturbed, iou_by_monai)


@pytest.mark.parametrize(("alpha", "beta"), [(0.3, 0.7), (0.9, 0.2), (0.5, 0.5)])
def test_tversky_equals_monai(alpha, beta):
    compare(
        lambda z, t, **options: tversky_loss(z, t, alpha=alpha, beta=beta, **options),
        lambda z, y, **options: of_monai(TverskyLoss, alpha=alpha, beta=beta, **options)(z, y),
    )


def test_comparison_refuses_swapped_prices():
    with pytest.raises(AssertionError):
        compare(
            lambda z, t, **options: tversky_loss(z, t, alpha=0.7, beta=0.3, **options),
            lambda z, y, **options: of_monai(TverskyLoss, alpha=0.3, beta=0.7, **options)(z, y),
        )


def test_tversky_contains_dice_and_iou():
    logits, target = random_maps((2, 3, 6, 8), ignored=0.2)
    half = tversky_loss(logits, target, alpha=0.5, beta=0.5, smooth=0.5)
    torch.testing.assert_close(half, dice_loss(logits, target, smooth=1))
    torch.testing.assert_close(tversky_loss(logits, target, alpha=1, beta=1), iou_loss(logits, target))


def focal_tversky_by_hand(z, y, smooth, per_image, include_background, gamma=4 / 3):
    p = z.softmax(1)
    images = [slice(i, i + 1) for i in range(len(p))] if per_image else [slice(None)]
    losses = []
    for image in images:
        for k in range(0 if include_background else 1, p.shape[1]):
            own, truth = p[image, k], y[image, k]
            tp, fp, fn = (own * truth).sum(), (own * (1 - truth)).sum(), ((1 - own) * truth).sum()
            losses.append((1 - (tp + smooth) / (tp + 0.3 * fp + 0.7 * fn + smooth)) ** (1 / gamma))
    return sum(losses) / len(losses)


def test_focal_tversky_equals_the_formula():
    compare(focal_tversky_loss, focal_tversky_by_hand)


@pytest.mark.parametrize(
    "perturbed",
    [
        lambda z, t, **k: tversky_loss(z, t, **k) ** 0.75,  # the power after the mean, as in smp
        lambda z, t, **k: focal_tversky_loss(z, t, gamma=0.75, **k),
        lambda z, t, **k: focal_tversky_loss(z, t, alpha=0.7, beta=0.3, **k),
    ],
)
def test_comparison_refuses_another_focal_tversky(perturbed):
    with pytest.raises(AssertionError):
        compare(perturbed, focal_tversky_by_hand)


def test_small_errors_keep_their_digits():
    counts = (torch.tensor(1e6), torch.tensor(0.0), torch.tensor(1e-3))
    assert tversky_error(counts, 0.5, 0.5, 0).item() == pytest.approx(0.5e-9, rel=1e-6)  # 1 - 0.9999999995 is 0


def sensitivity_by_hand(z, target, weight, per_image, include_background):
    p = z.softmax(1).movedim(1, -1)
    groups = [[i] for i in range(len(p))] if per_image else [list(range(len(p)))]
    losses = []
    for images in groups:
        for k in range(0 if include_background else 1, p.shape[-1]):
            on, off = [], []
            for image in images:
                pixels = zip(p[image].reshape(-1, p.shape[-1]), target[image].flatten().tolist(), strict=True)
                for probabilities, true in pixels:
                    if true != 255:
                        (on if true == k else off).append((float(true == k) - probabilities[k]) ** 2)
            parts = [sum(part) / len(part) if part else 0 for part in (on, off)]
            losses.append(weight * parts[0] + (1 - weight) * parts[1])
    return sum(losses) / len(losses)


@pytest.mark.parametrize("shape", SHAPES)
def test_sensitivity_specificity_equals_the_formula(shape):
    logits, target = random_maps(shape, ignored=0.2)
    for weight, per_image, background in product((0.05, 0.8), (True, False), (True, False)):
        options = {"weight": weight, "per_image": per_image, "include_background": background}
        by_hand = lambda z, o=options: sensitivity_by_hand(z, target, **o)  # noqa: E731
        assert_same(lambda z, o=options: sensitivity_specificity_loss(z, target, **o), by_hand, logits)
        if shape[1] > 2:  # of two classes, the sensitivity of one is the specificity of the other
            swapped = {**options, "weight": 1 - weight}
            with pytest.raises(AssertionError):
                assert_same(lambda z, o=swapped: sensitivity_specificity_loss(z, target, **o), by_hand, logits)


@pytest.mark.parametrize("loss", [iou_loss, tversky_loss, focal_tversky_loss, sensitivity_specificity_loss, dice_loss])
def test_class_weights_are_those_of_the_mean(loss):
    logits, target = random_maps((1, 3, 6, 8), ignored=0.2)
    weights = torch.tensor([0.5, 2.0, 1.5], dtype=torch.float64)
    alone = [loss(logits, target, class_weights=torch.eye(3).double()[k]) for k in range(3)]
    torch.testing.assert_close(loss(logits, target), sum(alone) / 3)
    expected = sum(w * value for w, value in zip(weights, alone, strict=True)) / 4
    torch.testing.assert_close(loss(logits, target, class_weights=weights), expected)
    expected = (2 * alone[1] + 1.5 * alone[2]) / 3.5
    torch.testing.assert_close(loss(logits, target, class_weights=weights, include_background=False), expected)


def test_a_missed_object_costs_what_the_docstrings_say():
    target = torch.zeros(1, 10, 10, dtype=torch.int64)
    target[0, 0, :4] = 1
    missed = torch.stack([torch.full((1, 10, 10), 1e4), torch.zeros(1, 10, 10)], dim=1)
    options = {"include_background": False}
    assert iou_loss(missed, target, **options).item() == pytest.approx(1 - 1 / 5)
    assert tversky_loss(missed, target, **options).item() == pytest.approx(2.8 / 3.8)
    assert focal_tversky_loss(missed, target, **options).item() == pytest.approx((2.8 / 3.8) ** 0.75)
    assert sensitivity_specificity_loss(missed, target, **options).item() == pytest.approx(0.05)
    assert math.isclose(iou_loss(missed, target, smooth=0, **options).item(), 1)
