"""Cross-entropy against torch.nn.functional: value and gradient, with weights and ignored pixels."""

from functools import partial
from itertools import product

import pytest
import torch
import torch.nn.functional as F

from segedu.losses.cross_entropy import binary_cross_entropy, cross_entropy

SHAPES = [(2, 3, 6, 8), (1, 5, 7, 9), (3, 2, 1, 1), (2, 3, 3, 5, 4)]


def random_case(shape, seed=0, ignored=0.2):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    space = (shape[0], *shape[2:])
    target = torch.randint(shape[1], space, generator=generator)
    target[torch.rand(space, generator=generator) < ignored] = 255
    target[0].flatten()[0] = 0  # at least one pixel counts
    class_weights = torch.rand(shape[1], generator=generator, dtype=torch.float64) + 0.2
    pixel_weights = 5 * torch.rand(space, generator=generator, dtype=torch.float64)
    return logits, target, class_weights, pixel_weights


def assert_same(ours, theirs, logits):
    results = []
    for function in (ours, theirs):
        z = logits.clone().requires_grad_()
        value = function(z)
        weights = torch.linspace(0.5, 2, value.numel(), dtype=value.dtype).reshape(value.shape)
        results.append((value, *torch.autograd.grad((weights * value).sum(), z)))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-12)


def compare(ours):
    for shape in SHAPES:
        logits, target, class_weights, _ = random_case(shape)
        for weights, reduction in product((None, class_weights), ("none", "mean", "sum")):
            assert_same(
                partial(ours, target=target, class_weights=weights, reduction=reduction),
                partial(F.cross_entropy, target=target, weight=weights, ignore_index=255, reduction=reduction),
                logits,
            )


def test_equals_torch():
    compare(cross_entropy)


def mean_over_n(logits, target, class_weights, reduction):
    """The slip: a weighted mean divided by the number of pixels."""
    total = cross_entropy(logits, target, class_weights=class_weights, reduction="sum")
    if reduction != "mean":
        return cross_entropy(logits, target, class_weights=class_weights, reduction=reduction)
    return total / (target != 255).sum()


PERTURBED = {
    "scaled": lambda z, target, **k: cross_entropy(z, target, **k) * (1 + 1e-9),
    "divided by N": mean_over_n,
    "softmax twice": lambda z, target, **k: cross_entropy(z.softmax(1), target, **k),
    "wrong dimension": lambda z, target, **k: cross_entropy(z.log_softmax(-1), target, **k),
    "ignored counted": lambda z, target, **k: cross_entropy(z, target.clamp(max=z.shape[1] - 1), **k),
    "gradient lost": lambda z, target, **k: cross_entropy(z.detach(), target, **k) + 0 * z.sum(),
}


@pytest.mark.parametrize("name", PERTURBED)
def test_comparison_refuses_a_perturbed_function(name):
    with pytest.raises(AssertionError):
        compare(PERTURBED[name])


@pytest.mark.parametrize("shape", SHAPES)
def test_pixel_weights(shape):
    logits, target, class_weights, pixel_weights = random_case(shape)
    each = F.cross_entropy(logits, target, class_weights, ignore_index=255, reduction="none") * pixel_weights
    weights = pixel_weights * class_weights[target.clamp(max=shape[1] - 1)] * (target != 255)
    options = {"class_weights": class_weights, "pixel_weights": pixel_weights}
    torch.testing.assert_close(cross_entropy(logits, target, reduction="none", **options), each)
    torch.testing.assert_close(cross_entropy(logits, target, reduction="sum", **options), each.sum())
    torch.testing.assert_close(cross_entropy(logits, target, **options), each.sum() / weights.sum())


def test_mean_does_not_depend_on_the_scale_of_the_weights():
    logits, target, class_weights, pixel_weights = random_case(SHAPES[0])
    once = cross_entropy(logits, target, class_weights=class_weights, pixel_weights=pixel_weights)
    torch.testing.assert_close(
        cross_entropy(logits, target, class_weights=3 * class_weights, pixel_weights=7 * pixel_weights), once
    )


def compare_binary(ours):
    for shape in [(2, 6, 8), (1, 7, 9), (5,)]:
        generator = torch.Generator().manual_seed(1)
        logits = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
        for target in (
            torch.rand(shape, generator=generator, dtype=torch.float64),
            torch.randint(2, shape, generator=generator),
        ):
            for reduction in ("none", "mean", "sum"):
                assert_same(
                    lambda z, t=target, r=reduction: ours(z, t, reduction=r),
                    lambda z, t=target, r=reduction: F.binary_cross_entropy_with_logits(z, t.double(), reduction=r),
                    logits,
                )


def test_binary_equals_torch():
    compare_binary(binary_cross_entropy)


@pytest.mark.parametrize(
    "perturbed",
    [
        lambda z, t, **k: binary_cross_entropy(z, t, **k) * (1 + 1e-9),
        lambda z, t, **k: binary_cross_entropy(z.sigmoid(), t, **k),
        lambda z, t, **k: binary_cross_entropy(-z, t, **k),
        lambda z, t, **k: binary_cross_entropy(z, (t > 0.5).long(), **k),
    ],
)
def test_binary_comparison_refuses_a_perturbed_function(perturbed):
    with pytest.raises(AssertionError):
        compare_binary(perturbed)


def test_binary_ignores_and_weighs():
    logits = torch.tensor([0.3, -1.0, 2.0, 5.0])
    target = torch.tensor([1, 0, 1, 255])
    each = F.binary_cross_entropy_with_logits(logits[:3], target[:3].float(), reduction="none")
    torch.testing.assert_close(binary_cross_entropy(logits, target), each.mean())
    weights = torch.tensor([1.0, 2.0, 0.5, 100.0])
    expected = (each * weights[:3]).sum() / weights[:3].sum()
    torch.testing.assert_close(binary_cross_entropy(logits, target, pixel_weights=weights), expected)


def test_binary_is_two_classes_with_one_score_fixed():
    z, target = torch.randn(2, 4, 5, dtype=torch.float64), torch.randint(2, (2, 4, 5))
    two = torch.stack([torch.zeros_like(z), z], dim=1)
    torch.testing.assert_close(binary_cross_entropy(z, target), cross_entropy(two, target))


@pytest.mark.parametrize("size", [1e4, -1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_logits(size, dtype):
    logits = torch.tensor([size, 0.0], dtype=dtype).reshape(1, 2, 1, 1).requires_grad_()
    for true in (0, 1):
        loss = cross_entropy(logits, torch.full((1, 1, 1), true))
        assert loss.item() == (1e4 if (size < 0) == (true == 0) else 0)
        assert torch.isfinite(torch.autograd.grad(loss, logits)[0]).all()
        z = torch.tensor([size], dtype=dtype, requires_grad=True)
        loss = binary_cross_entropy(z, torch.tensor([true]))
        assert loss.item() == (1e4 if (size < 0) == (true == 1) else 0)
        assert torch.isfinite(torch.autograd.grad(loss, z)[0]).all()


def test_nothing_counts():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    all_ignored, no_weight = torch.full((2, 4, 4), 255), torch.zeros(2, 4, 4)
    for loss in (
        cross_entropy(logits, all_ignored),
        cross_entropy(logits, torch.zeros(2, 4, 4).long(), pixel_weights=no_weight),
        cross_entropy(logits, torch.zeros(2, 4, 4).long(), class_weights=torch.tensor([0.0, 1, 1])),
        binary_cross_entropy(logits[:, 0], all_ignored),
    ):
        assert loss.item() == 0
        assert (torch.autograd.grad(loss, logits, retain_graph=True)[0] == 0).all()
    assert cross_entropy(logits, all_ignored, reduction="none").shape == (2, 4, 4)


def test_without_an_ignore_index():
    logits, target = torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]])
    assert cross_entropy(logits, target, ignore_index=None).item() == pytest.approx(0.693147, abs=1e-6)
    with pytest.raises(ValueError, match="target has the value 255"):
        cross_entropy(logits, torch.tensor([[[0, 255]]]), ignore_index=None)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_gradcheck(reduction):
    logits, target, class_weights, pixel_weights = random_case((2, 3, 3, 2))
    options = {"class_weights": class_weights, "pixel_weights": pixel_weights, "reduction": reduction}
    assert torch.autograd.gradcheck(lambda z: cross_entropy(z, target, **options), logits.requires_grad_())
    z = logits[:, 0].detach().requires_grad_()
    binary_target = torch.where(target == 255, 255, target % 2)
    options = {"pixel_weights": pixel_weights, "reduction": reduction}
    assert torch.autograd.gradcheck(lambda z: binary_cross_entropy(z, binary_target, **options), z)


def test_permuting_classes_changes_nothing():
    logits, target, class_weights, _ = random_case((2, 4, 5, 5), ignored=0)
    order = torch.tensor([2, 0, 3, 1])
    inverse = order.argsort()
    torch.testing.assert_close(
        cross_entropy(logits[:, order], inverse[target], class_weights=class_weights[order]),
        cross_entropy(logits, target, class_weights=class_weights),
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_sums_in_float32(dtype):
    logits = torch.randn(1, 2, 300, 300).to(dtype).requires_grad_()  # 90,000 pixels: float16 ends at 65504
    target = torch.randint(2, (1, 300, 300))
    for ours, theirs in (
        (cross_entropy(logits, target), F.cross_entropy(logits.float(), target)),
        (
            binary_cross_entropy(logits[:, 0], target),
            F.binary_cross_entropy_with_logits(logits[:, 0].float(), target.float()),
        ),
    ):
        torch.testing.assert_close(ours, theirs)
        assert torch.isfinite(torch.autograd.grad(ours, logits)[0]).all()
