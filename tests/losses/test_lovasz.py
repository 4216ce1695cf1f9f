"""Lovász losses against kornia (value and gradient), the definition by sets, and hard predictions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from losses.cases import assert_same, random_maps

from segedu.losses.lovasz import lovasz_extension, lovasz_hinge_loss, lovasz_softmax_loss


def test_softmax_equals_kornia():
    kornia = pytest.importorskip("kornia.losses")
    for shape in [(2, 3, 6, 8), (1, 4, 7, 5), (3, 2, 4, 4)]:
        logits, target = random_maps(shape)
        theirs = lambda z, t=target: kornia.lovasz_softmax_loss(z, t)  # noqa: E731
        assert_same(lambda z, t=target: lovasz_softmax_loss(z, t, only_present=False), theirs, logits)
        with pytest.raises(AssertionError):
            assert_same(lambda z, t=target: lovasz_softmax_loss(z, t, only_present=False) * (1 + 1e-9), theirs, logits)


def test_hinge_equals_kornia():
    kornia = pytest.importorskip("kornia.losses")
    logits, target = random_maps((2, 2, 6, 8))
    theirs = lambda z: kornia.lovasz_hinge_loss(z[:, None], target)  # noqa: E731
    assert_same(lambda z: lovasz_hinge_loss(z, target), theirs, logits[:, 0])
    with pytest.raises(AssertionError):
        assert_same(lambda z: lovasz_hinge_loss(z, target, per_image=False), theirs, logits[:, 0])


def extension_by_hand(errors, truth):
    """The definition: sets of wrong pixels, grown worst first, and the Jaccard loss of each."""
    order = sorted(range(len(errors)), key=lambda i: -errors[i])
    true = {i for i, t in enumerate(truth) if t}
    value, before, wrong = 0.0, 0.0, set()
    for i in order:
        wrong.add(i)
        predicted = true ^ wrong
        union = true | predicted
        loss = 1 - len(true & predicted) / len(union) if union else 0.0
        value, before = value + errors[i] * (loss - before), loss
    return value


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_extension_is_its_definition(seed):
    generator = torch.Generator().manual_seed(seed)
    errors = torch.rand(9, generator=generator, dtype=torch.float64)
    truth = torch.randint(2, (9,), generator=generator).double()
    counted = torch.rand(9, generator=generator) < 0.8
    truth = truth * counted
    value = lovasz_extension(torch.where(counted, errors, 0.0), truth, counted)
    expected = extension_by_hand(errors[counted].tolist(), truth[counted].tolist())
    assert value.item() == pytest.approx(expected, abs=1e-12)


def test_hard_predictions_cost_one_minus_iou():
    _, target = random_maps((3, 3, 6, 8), ignored=0.2)
    _, preds = random_maps((3, 3, 6, 8), seed=1)
    logits = 1e4 * torch.nn.functional.one_hot(preds, 3).movedim(-1, 1).double()
    for per_image in (True, False):
        losses = []
        for images in [slice(i, i + 1) for i in range(3)] if per_image else [slice(None)]:
            t, q = target[images], preds[images]
            ious = [
                1 - ((t == k) & (q == k)).sum() / (((t == k) | (q == k)) & (t != 255)).sum()
                for k in range(3)
                if (t == k).any()
            ]
            losses.append(sum(ious) / len(ious))
        expected = sum(losses) / len(losses)
        assert lovasz_softmax_loss(logits, target, per_image=per_image).item() == pytest.approx(expected.item())


def test_only_present_classes():
    logits, _ = random_maps((1, 3, 4, 4))
    target = torch.zeros(1, 4, 4, dtype=torch.int64)
    p = logits.softmax(1)
    present = lovasz_softmax_loss(logits, target)
    everything = lovasz_softmax_loss(logits, target, only_present=False)
    torch.testing.assert_close(everything, (present + p[:, 1].max() + p[:, 2].max()) / 3)


def test_hinge_without_foreground_is_the_largest_error():
    z = torch.tensor([[0.5, -3.0, 2.0]])
    assert lovasz_hinge_loss(z, torch.zeros(1, 3).long()).item() == 3.0
