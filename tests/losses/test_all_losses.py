"""What every loss promises: safe numbers, right gradients, ignored pixels without influence, bounds, symmetries."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from losses.cases import random_maps
from losses.table import LOSSES

VOLUMES = [entry for entry in LOSSES if entry.volumes]


def case(entry, shape=(2, 5, 6), seed=0, ignored=0.0):
    """Logits and target of the entry's kind: (B, K, ...) or one score a pixel."""
    logits, target = random_maps((shape[0], entry.classes, *shape[1:]), seed, ignored)
    if entry.one_score:
        return logits[:, 0], torch.where(target == 255, 255, target.clamp(max=1) * (target != 255))
    return logits, target


def gradient_of(entry, logits, target, **options):
    z = logits.clone().requires_grad_()
    value = entry.function(z, target, **options)
    return value.detach(), torch.autograd.grad(value, z)[0]


def sure(entry, target, size):
    """Logits of ±size that say exactly what the target says."""
    known = torch.where(target == 255, 0, target)
    if entry.one_score:
        return size * (2.0 * known - 1)
    right = torch.nn.functional.one_hot(known, entry.classes).movedim(-1, 1)
    return size * (2.0 * right - 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("entry", LOSSES, ids=str)
def test_finite_at_huge_logits(entry, dtype):
    logits, target = case(entry, ignored=0.2)
    for huge in (1e4 * logits.sign(), sure(entry, target, 1e4), -sure(entry, target, 1e4), 0 * logits, 1e-30 * logits):
        value, gradient = gradient_of(entry, huge.to(dtype), target)
        assert torch.isfinite(value) and torch.isfinite(gradient).all()


@pytest.mark.parametrize("entry", LOSSES, ids=str)
def test_finite_on_the_way_to_being_sure(entry):
    _, target = case(entry)
    for size in (1, 3, 10, 15, 30, 50, 90, 200, 800):
        for sign in (-1, 1):
            value, gradient = gradient_of(entry, sign * sure(entry, target, size).float(), target)
            assert torch.isfinite(value) and torch.isfinite(gradient).all(), size


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("entry", LOSSES, ids=str)
def test_gradcheck(entry, seed):
    logits, target = case(entry, (1, 3, 4), seed, ignored=0.2)
    assert torch.autograd.gradcheck(lambda z: entry.function(z, target, **entry.slopes), logits.requires_grad_())


@pytest.mark.parametrize("entry", VOLUMES, ids=str)
def test_volumes(entry):
    logits, target = case(entry, (1, 3, 2, 3), ignored=0.2)
    assert torch.autograd.gradcheck(lambda z: entry.function(z, target), logits.requires_grad_(), fast_mode=True)


@pytest.mark.parametrize("entry", LOSSES, ids=str)
def test_gradient_descends(entry):
    logits, target = case(entry, seed=3)
    value, gradient = gradient_of(entry, logits, target, **entry.slopes)
    assert gradient.abs().max() > 0
    step = 1e-3 / gradient.norm()
    assert entry.function(logits - step * gradient, target, **entry.slopes) < value


@given(st.integers(0, 10_000))
@settings(max_examples=3, deadline=None, derandomize=True)
@pytest.mark.parametrize("entry", LOSSES, ids=str)
def test_ignored_pixels_never_matter(entry, seed):
    logits, target = case(entry, seed=seed, ignored=0.3)
    ignored = target == 255
    value, gradient = gradient_of(entry, logits, target)
    at_ignored = ignored if entry.one_score else ignored[:, None].expand_as(logits)
    assert (gradient[at_ignored] == 0).all()
    other = torch.where(at_ignored, 50 * logits.flip(-1), logits)
    torch.testing.assert_close(gradient_of(entry, other, target), (value, gradient), rtol=0, atol=0)
    other_index = torch.where(ignored, -7, target)
    torch.testing.assert_close(gradient_of(entry, logits, other_index, ignore_index=-7), (value, gradient))


@pytest.mark.parametrize("entry", LOSSES, ids=str)
def test_all_ignored(entry):
    logits, target = case(entry, ignored=2)
    assert (target == 255).all()
    value, gradient = gradient_of(entry, logits, target)
    if entry.empty is not None:
        assert value.item() == pytest.approx(entry.empty, abs=1e-4)
    assert (gradient == 0).all()


@given(st.integers(0, 10_000))
@settings(max_examples=5, deadline=None, derandomize=True)
@pytest.mark.parametrize("entry", LOSSES, ids=str)
def test_bounds(entry, seed):
    logits, target = case(entry, seed=seed, ignored=0.2)
    for z in (logits, 100 * logits):
        assert entry.lowest - 1e-12 <= entry.function(z, target).item() <= entry.highest + 1e-12


@pytest.mark.parametrize("entry", LOSSES, ids=str)
def test_perfect_prediction(entry):
    for seed in range(3):
        _, target = case(entry, seed=seed, ignored=0.2)
        perfect = entry.function(sure(entry, target, 1e4).double(), target).item()
        worst = entry.function(-sure(entry, target, 1e4).double(), target).item()
        assert perfect < worst or not entry.sees_classes
        if entry.perfect is not None:
            assert perfect == pytest.approx(entry.perfect, abs=0.2 if entry.lowest < 0 else 1e-9)


@pytest.mark.parametrize("entry", LOSSES, ids=str)
def test_a_class_that_is_not_there(entry):
    logits, target = case(entry)
    for only in (0, 1):
        value, gradient = gradient_of(entry, logits, torch.full_like(target, only))
        assert torch.isfinite(value) and torch.isfinite(gradient).all()
        assert gradient.abs().max() > 0 or entry.needs_edge or (entry.name == "inverse_form_loss" and only == 0)


@given(st.integers(0, 10_000))
@settings(max_examples=3, deadline=None, derandomize=True)
@pytest.mark.parametrize("entry", [e for e in LOSSES if e.moves], ids=str)
def test_pixels_in_another_order(entry, seed):
    logits, target = case(entry, seed=seed, ignored=0.2)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(seed))
    moved = logits.flatten(-2)[..., order].reshape(logits.shape), target.flatten(1)[:, order].reshape(target.shape)
    torch.testing.assert_close(entry.function(*moved), entry.function(logits, target))


@pytest.mark.parametrize("entry", [e for e in LOSSES if not e.moves], ids=str)
def test_place_matters_to_losses_of_place(entry):
    logits, target = case(entry, (2, 12, 40))
    target[:, :, :20], target[:, :, 20:] = 0, 1  # two halves, then noise
    order = torch.randperm(480, generator=torch.Generator().manual_seed(0))
    moved = logits.flatten(-2)[..., order].reshape(logits.shape), target.flatten(1)[:, order].reshape(target.shape)
    assert (entry.function(*moved) - entry.function(logits, target)).abs() > 1e-6


@given(st.integers(0, 10_000))
@settings(max_examples=3, deadline=None, derandomize=True)
@pytest.mark.parametrize("entry", [e for e in LOSSES if e.mirrors], ids=str)
def test_mirrored_images_cost_the_same(entry, seed):
    logits, target = case(entry, seed=seed)
    value = entry.function(logits, target)
    torch.testing.assert_close(entry.function(logits.flip(-1), target.flip(-1)), value)
    torch.testing.assert_close(entry.function(logits.flip(-2), target.flip(-2)), value)
    torch.testing.assert_close(entry.function(logits.flip(0), target.flip(0)), value)


@given(st.integers(0, 10_000))
@settings(max_examples=3, deadline=None, derandomize=True)
@pytest.mark.parametrize("entry", [e for e in LOSSES if e.renames and not e.one_score], ids=str)
def test_classes_in_another_order(entry, seed):
    logits, target = case(entry, seed=seed)
    order = torch.tensor([2, 0, 1])
    renamed = entry.function(logits[:, order], order.argsort()[target])
    torch.testing.assert_close(renamed, entry.function(logits, target))


@pytest.mark.parametrize("entry", [e for e in LOSSES if e.batch_is_mean], ids=str)
def test_a_batch_is_the_mean_of_its_images(entry):
    logits, target = case(entry)
    alone = [entry.function(logits[i : i + 1], target[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(entry.function(logits, target), sum(alone) / 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("entry", LOSSES, ids=str)
def test_half_precision_is_computed_in_float32(entry, dtype):
    logits, target = case(entry)
    half = logits.to(dtype)
    value = entry.function(half, target)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, entry.function(half.float(), target))
