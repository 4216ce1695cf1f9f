"""Dice loss against MONAI (value and gradient), by hand, and where there is nothing to sum."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from losses.cases import assert_same
from monai.losses import DiceLoss, GeneralizedWassersteinDiceLoss

from segedu.losses.dice import dice_loss, generalized_wasserstein_dice_loss, log_cosh_dice_loss

SHAPES = [(2, 3, 6, 8), (3, 2, 7, 5), (1, 4, 1, 9), (2, 3, 3, 5, 4)]


def random_case(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return logits, torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)


OPTIONS = [
    {"smooth": smooth, "squared": squared, "per_image": per_image, "include_background": background}
    for smooth in (1.0, 1e-5, 3)
    for squared in (False, True)
    for per_image in (False, True)
    for background in (False, True)
]


def by_monai(logits, target, smooth, squared, per_image, include_background):
    loss = DiceLoss(
        softmax=True,
        smooth_nr=smooth,
        smooth_dr=smooth,
        squared_pred=squared,
        batch=not per_image,
        include_background=include_background,
    )
    one_hot = torch.nn.functional.one_hot(target, logits.shape[1]).movedim(-1, 1)
    return loss(logits, one_hot.to(logits.dtype))  # its own one-hot is float32, which costs digits


def compare(ours):
    for shape in SHAPES:
        logits, target = random_case(shape)
        for options in OPTIONS:
            results = []
            for function in (ours, by_monai):
                z = logits.clone().requires_grad_()
                value = function(z, target, **options)
                results.append((value.double(), *torch.autograd.grad(value, z)))
            torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-12)


def test_equals_monai():
    compare(dice_loss)


def pixelwise(logits, target, smooth, squared, per_image, include_background):
    """The slip of the course: the fraction of each pixel, then a mean."""
    p = logits.softmax(1)
    y = torch.nn.functional.one_hot(target, p.shape[1]).movedim(-1, 1)
    return (1 - (2 * y * p + smooth) / (y + p + smooth)).mean()


PERTURBED = {
    "scaled": lambda z, t, **k: dice_loss(z, t, **k) * (1 + 1e-5),
    "pixelwise": pixelwise,
    "on logits": lambda z, t, **k: dice_loss(z.softmax(1), t, **k),
    "coefficient, not loss": lambda z, t, **k: 1 - dice_loss(z, t, **k),
    "smooth": lambda z, t, smooth, **k: dice_loss(z, t, smooth=smooth + 1e-3, **k),
    "squared": lambda z, t, squared, **k: dice_loss(z, t, squared=not squared, **k),
    "per image": lambda z, t, per_image, **k: dice_loss(z, t, per_image=not per_image, **k),
    "gradient lost": lambda z, t, **k: dice_loss(z.detach(), t, **k) + 0 * z.sum(),
}


@pytest.mark.parametrize("name", PERTURBED)
def test_comparison_refuses_a_perturbed_function(name):
    with pytest.raises(AssertionError):
        compare(PERTURBED[name])


def logits_of(probabilities):
    """(P,) probabilities of class 1 as logits (1, 2, 1, P)."""
    p = torch.tensor(probabilities, dtype=torch.float64)
    return torch.stack([(1 - p).log(), p.log()])[None, :, None]


def test_by_hand():
    target = torch.tensor([[[1, 1, 0, 0]]])
    loss = dice_loss(logits_of([0.5, 0.75, 0.25, 0.25]), target, include_background=False)
    assert loss.item() == pytest.approx(1 - (2 * 1.25 + 1) / (2 + 1.75 + 1), abs=1e-12)
    both = dice_loss(logits_of([0.5, 0.75, 0.25, 0.25]), target, smooth=0, squared=True)
    one = 1 - 2 * 1.25 / (2 + 0.25 + 0.5625 + 0.125)
    other = 1 - 2 * 1.5 / (2 + 0.25 + 0.0625 + 1.125)
    assert both.item() == pytest.approx((one + other) / 2, abs=1e-12)


@pytest.mark.parametrize(("size", "cost"), [(1, 1 / 2), (100, 100 / 101)])
def test_smooth_makes_small_objects_cheap(size, cost):
    target = torch.zeros(1, 20, 20, dtype=torch.int64)
    target.view(-1)[:size] = 1
    missed = torch.stack([torch.full((20, 20), 1e4), torch.zeros(20, 20)])[None]
    assert dice_loss(missed, target, include_background=False).item() == pytest.approx(cost, abs=1e-6)


def test_ignored_pixels_are_as_if_they_were_not_there():
    logits, target = random_case((2, 3, 6, 8))
    target[:, :, 5:] = 255
    for options in OPTIONS:
        expected = dice_loss(logits[..., :5], target[..., :5], **options)
        torch.testing.assert_close(dice_loss(logits, target, **options), expected)
    z = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(dice_loss(z, target), z)
    assert (gradient[..., 5:] == 0).all()


@pytest.mark.parametrize("smooth", [0, 1.0])
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("per_image", [False, True])
def test_all_ignored(smooth, squared, per_image):
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    target = torch.full((2, 4, 4), 255)
    loss = dice_loss(logits, target, smooth=smooth, squared=squared, per_image=per_image)
    assert loss.item() == 0
    assert (torch.autograd.grad(loss, logits)[0] == 0).all()


def test_empty_and_empty_costs_nothing():
    logits = torch.tensor([1e4, 0.0, 0.0]).reshape(1, 3, 1, 1).expand(1, 3, 4, 4)  # class 0 everywhere
    for smooth in (0, 1.0):
        assert dice_loss(logits, torch.zeros(1, 4, 4, dtype=torch.int64), smooth=smooth).item() == 0


def test_large_logits():
    logits = torch.tensor([1e4, -1e4]).reshape(1, 2, 1, 1).requires_grad_()
    for true, cost in ((0, 0.0), (1, 0.5)):
        loss = dice_loss(logits, torch.full((1, 1, 1), true))
        assert loss.item() == cost
        assert torch.isfinite(torch.autograd.grad(loss, logits)[0]).all()


@pytest.mark.parametrize("options", OPTIONS)
def test_gradcheck(options):
    logits, target = random_case((2, 3, 2, 3))
    target[0, 0, 0] = 255
    assert torch.autograd.gradcheck(lambda z: dice_loss(z, target, **options), logits.requires_grad_())


@given(st.integers(0, 10_000), st.booleans(), st.booleans())
@settings(max_examples=30, deadline=None, derandomize=True)
def test_bounds_and_permutations(seed, squared, per_image):
    logits, target = random_case((2, 4, 3, 5), seed)
    options = {"squared": squared, "per_image": per_image}
    loss = dice_loss(logits, target, **options)
    assert 0 <= loss.item() <= 1
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(dice_loss(logits[:, order], order.argsort()[target], **options), loss)
    torch.testing.assert_close(dice_loss(logits.flip(0), target.flip(0), **options), loss)
    torch.testing.assert_close(dice_loss(logits.flip(-1), target.flip(-1), **options), loss)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_sums_in_float32(dtype):
    logits, target = torch.randn(1, 2, 400, 400).to(dtype), torch.randint(2, (1, 400, 400))
    torch.testing.assert_close(dice_loss(logits, target), dice_loss(logits.float(), target))


APART = torch.tensor([[0, 1, 0.8, 0.9], [1, 0, 0.5, 0.2], [0.8, 0.5, 0, 0.6], [0.9, 0.2, 0.6, 0]], dtype=torch.float64)


@pytest.mark.parametrize("shape", SHAPES)
def test_generalized_wasserstein_equals_monai(shape):
    logits, target = random_case(shape)
    distances = APART[: shape[1], : shape[1]].clone()
    distances[0, 1:] = distances[1:, 0] = 1  # MONAI knows no other distance from background
    for smooth in (1e-5, 0.5):
        peer = GeneralizedWassersteinDiceLoss(distances, smooth_nr=smooth, smooth_dr=smooth)
        theirs = lambda z, f=peer: f(z, target)  # noqa: E731
        ours = lambda z, m=distances, s=smooth: generalized_wasserstein_dice_loss(z, target, m, smooth=s)  # noqa: E731
        assert_same(ours, theirs, logits)
        if shape[1] > 2:  # with two classes there is one distance, and it is scaled to 1
            wrong = distances.clone()
            wrong[0, 1] = wrong[1, 0] = 0.9
            with pytest.raises(AssertionError):
                assert_same(lambda z, f=ours, m=wrong: f(z, m), theirs, logits)


def wasserstein_by_hand(z, target, distances, smooth):
    p, losses = z.softmax(1), []
    for image, truth in zip(p, target, strict=True):
        correct = cost = 0.0
        for pixel, true in zip(image.flatten(1).T, truth.flatten().tolist(), strict=True):
            if true != 255:
                apart = (distances[true] * pixel).sum() / distances.max()
                correct = correct + distances[true, 0] / distances.max() * (1 - apart)
                cost = cost + apart
        losses.append(1 - (2 * correct + smooth) / (2 * correct + cost + smooth))
    return sum(losses) / len(losses)


def test_generalized_wasserstein_equals_the_formula():
    logits, target = random_case((2, 4, 5, 6))
    target[:, :2] = 255
    ours = lambda z: generalized_wasserstein_dice_loss(z, target, 3 * APART, smooth=0.1)  # noqa: E731
    assert_same(ours, lambda z: wasserstein_by_hand(z, target, APART, 0.1), logits)
    with pytest.raises(AssertionError):
        assert_same(ours, lambda z: wasserstein_by_hand(z, target, APART.sqrt(), 0.1), logits)


def test_a_near_confusion_costs_less():
    """With class 0 as background: 1 and 3 are 0.2 apart, 1 and 2 are 0.5."""
    target = torch.ones(1, 3, 3, dtype=torch.int64)
    near, far = (1e4 * torch.eye(4, dtype=torch.float64)[k].reshape(1, 4, 1, 1).expand(1, 4, 3, 3) for k in (3, 2))
    losses = [generalized_wasserstein_dice_loss(z, target, APART, smooth=0).item() for z in (near, far)]
    assert losses == pytest.approx([1 - 1.6 / (1.6 + 0.2), 1 - 1 / (1 + 0.5)])
    doubled = generalized_wasserstein_dice_loss(near, target, 2 * APART, smooth=0).item()
    assert doubled == pytest.approx(losses[0])


@pytest.mark.parametrize("options", OPTIONS[::5])
def test_log_cosh_is_of_the_dice_loss(options):
    options = {name: value for name, value in options.items() if name != "squared"}
    logits, target = random_case((2, 3, 6, 8))

    def by_hand(z):
        x = dice_loss(z, target, **options)
        return torch.log((torch.exp(x) + torch.exp(-x)) / 2)

    assert_same(lambda z: log_cosh_dice_loss(z, target, **options), by_hand, logits)
    with pytest.raises(AssertionError):
        assert_same(lambda z: dice_loss(z, target, **options), by_hand, logits)
