"""Losses of boxes against torchvision (value and gradient), by hand, and where there is no area."""

import math

import pytest
import torch
import torchvision.ops as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from segedu.losses.boxes import (
    complete_iou_loss,
    distance_iou_loss,
    generalized_iou_loss,
    iou_box_loss,
    lp_iou_loss,
)
from segedu.ops.boxes import box_iou, generalized_box_iou

LOSSES = [iou_box_loss, generalized_iou_loss, distance_iou_loss, complete_iou_loss, lp_iou_loss]
ORACLES = [
    (generalized_iou_loss, oracle.generalized_box_iou_loss),
    (distance_iou_loss, oracle.distance_box_iou_loss),
    (complete_iou_loss, oracle.complete_box_iou_loss),
]
HOMEWORK = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 1, 3, 4]])


def random_pairs(count, seed, dtype=torch.float64):
    """Half of the pairs overlap, half may be anywhere."""
    generator = torch.Generator().manual_seed(seed)

    def draw(corner):
        return torch.cat([corner, corner + torch.rand(count, 2, generator=generator, dtype=dtype) * 6 + 0.1], dim=1)

    corner = torch.rand(count, 2, generator=generator, dtype=dtype) * 20
    other = torch.rand(count, 2, generator=generator, dtype=dtype) * 20
    other[::2] = corner[::2] + 0.3
    return draw(corner), draw(other)


def compare(ours, theirs):
    """The parity test itself: value and gradients of both arguments, every reduction, odd and even numbers of pairs.

    On boxes 10,000 times larger: complete_box_iou_loss adds a fixed 1e-7 to every area.
    """
    for count in (1, 2, 7, 40):
        for reduction in ("none", "mean", "sum"):
            results = []
            for function, options in ((ours, {}), (theirs, {"eps": 1e-15})):
                a, b = (x.requires_grad_() for x in random_pairs(count, count))
                value = function(1e4 * a, 1e4 * b, reduction=reduction, **options)
                weights = torch.linspace(0.5, 2, value.numel(), dtype=torch.float64).reshape(value.shape)
                results.append((value, *torch.autograd.grad((weights * value).sum(), (a, b))))
            torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("ours", "theirs"), ORACLES)
def test_equals_torchvision(ours, theirs):
    compare(ours, theirs)


@pytest.mark.parametrize(("ours", "theirs"), ORACLES)
@pytest.mark.parametrize("perturb", ["scaled", "shifted", "xywh", "no_gradient"])
def test_comparison_refuses_a_perturbed_function(ours, theirs, perturb):
    perturbed = {
        "scaled": lambda a, b, **k: ours(a, b, **k) * (1 + 1e-6),
        "shifted": lambda a, b, **k: ours(a + torch.tensor([0, 0, 1e-6, 0]), b, **k),
        "xywh": lambda a, b, **k: ours(torch.cat([a[:, :2], a[:, :2] + a[:, 2:]], 1), b, **k),
        "no_gradient": lambda a, b, **k: ours(a, b.detach(), **k) + 0 * b.sum(),
    }[perturb]
    with pytest.raises(AssertionError):
        compare(perturbed, theirs)


def test_the_balance_of_complete_iou_is_a_constant_for_the_gradient():
    """A comparison that would not see the difference proves nothing."""
    a, b = (x.requires_grad_() for x in random_pairs(5, 0))
    ours = torch.autograd.grad(complete_iou_loss(a, b, reduction="sum"), a)[0]
    v = 4 / math.pi**2 * (_angle(a) - _angle(b)).square()
    free = (distance_iou_loss(a, b, reduction="none") + v**2 / (iou_box_loss(a, b, reduction="none") + v)).sum()
    assert (torch.autograd.grad(free, a)[0] - ours).abs().max() > 1e-4
    assert free.item() == pytest.approx(complete_iou_loss(a, b, reduction="sum").item(), abs=1e-12)


def _angle(boxes):
    return torch.atan((boxes[:, 2] - boxes[:, 0]) / (boxes[:, 3] - boxes[:, 1]))


def test_pairs_are_the_diagonal_of_the_tables():
    a, b = random_pairs(9, 4)
    torch.testing.assert_close(iou_box_loss(a, b, reduction="none"), 1 - box_iou(a, b).diagonal())
    torch.testing.assert_close(generalized_iou_loss(a, b, reduction="none"), 1 - generalized_box_iou(a, b).diagonal())


def test_homework_by_hand():
    v = 4 / math.pi**2 * (math.atan(2 / 3) - math.atan(1)) ** 2
    by_hand = {
        iou_box_loss: 8 / 9,
        generalized_iou_loss: 1 + 5 / 36,
        distance_iou_loss: 8 / 9 + 3.25 / 25,
        complete_iou_loss: 8 / 9 + 3.25 / 25 + v * v / (8 / 9 + v),
        lp_iou_loss: 5 + 8 / 9,
    }
    for loss, value in by_hand.items():
        assert loss(*HOMEWORK).item() == pytest.approx(value, abs=1e-6), loss.__name__
    assert lp_iou_loss(*HOMEWORK, p=2, weight=0.5).item() == pytest.approx(0.5 * 7 + 8 / 9, abs=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradcheck(loss):
    if loss is complete_iou_loss:
        return  # its balance is a constant by definition: see the test above, and torchvision
    a, b = (x.requires_grad_() for x in random_pairs(6, 11))
    torch.autograd.gradcheck(lambda x, y: loss(x, y, reduction="none"), (a, b))


@pytest.mark.parametrize("shift", [(2.0, 0.0), (0.0, 3.0), (2.0, 3.0), (9.0, 0.0), (-5.0, 7.0), (-2.0, 0.0)])
def test_only_the_overlap_has_no_gradient_without_overlap(shift):
    target = torch.tensor([[0.0, 0, 2, 3]], dtype=torch.float64)
    grads = {}
    for loss in LOSSES:
        box = (target + torch.tensor([*shift, *shift], dtype=torch.float64)).requires_grad_()
        grads[loss] = torch.autograd.grad(loss(box, target), box)[0]
    assert grads.pop(iou_box_loss).tolist() == [[0.0] * 4]  # touching boxes too
    assert all(grad.abs().sum() > 0 for grad in grads.values())


def test_inside_the_target_only_distance_moves_a_box():
    target = torch.tensor([[0.0, 0, 10, 10]], dtype=torch.float64)
    moved = {}
    for loss in (iou_box_loss, generalized_iou_loss, distance_iou_loss, complete_iou_loss):
        box = torch.tensor([[1.0, 2, 4, 5]], dtype=torch.float64, requires_grad=True)
        grad = torch.autograd.grad(loss(box, target), box)[0][0]
        moved[loss] = (grad[0] + grad[2]).item()
    assert moved[iou_box_loss] == pytest.approx(0, abs=1e-12)
    assert moved[generalized_iou_loss] == pytest.approx(0, abs=1e-12)
    assert moved[distance_iou_loss] < -1e-3 and moved[complete_iou_loss] < -1e-3


@pytest.mark.parametrize("loss", LOSSES)
def test_boxes_without_area_give_no_nan(loss):
    point, segment, normal = [1.0, 1, 1, 1], [0.0, 1, 3, 1], [0.0, 0, 2, 2]
    for a in (point, segment, normal):
        for b in (point, segment, normal):
            box = torch.tensor([a], requires_grad=True)
            value = loss(box, torch.tensor([b]))
            assert value.isfinite() and torch.autograd.grad(value, box)[0].isfinite().all(), (a, b)


@pytest.mark.parametrize("loss", LOSSES)
def test_two_equal_points_have_loss_one_and_no_pairs_have_loss_zero(loss):
    point = torch.ones(1, 4)
    assert loss(point, point).item() == 1.0
    none = torch.zeros(0, 4, requires_grad=True)
    for reduction in ("mean", "sum"):
        value = loss(none, torch.zeros(0, 4), reduction=reduction)
        assert value.item() == 0 and torch.autograd.grad(value, none)[0].shape == (0, 4)
    assert loss(none, torch.zeros(0, 4), reduction="none").shape == (0,)


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_is_computed_in_float32(loss):
    box = torch.tensor([[0.0, 0, 300, 300]])
    value = loss(box.half(), box.half() + 1)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(box, box + 1).item(), abs=1e-6)


coordinates = st.floats(-50, 50, width=32)
sizes = st.floats(0.125, 30, width=32)
some_boxes = st.builds(lambda x, y, w, h: [x, y, x + w, y + h], coordinates, coordinates, sizes, sizes)
pairs = st.lists(st.tuples(some_boxes, some_boxes), min_size=1, max_size=5)


@given(pairs)
@settings(max_examples=60, deadline=None)
def test_bounds_order_and_symmetry(drawn):
    a, b = (torch.tensor([pair[i] for pair in drawn], dtype=torch.float64) for i in (0, 1))
    iou, giou, diou, ciou, lp = (loss(a, b, reduction="none") for loss in LOSSES)
    slack = 1e-12
    assert ((iou >= -slack) & (iou <= 1)).all()
    assert ((giou >= iou - slack) & (giou <= 2)).all()
    assert ((diou >= iou - slack) & (diou <= 2)).all()
    assert (ciou >= diou - slack).all() and (lp >= iou).all()
    for loss in LOSSES:
        torch.testing.assert_close(loss(a, b), loss(b, a), rtol=0, atol=1e-9)
        assert loss(a, a).item() == pytest.approx(0, abs=1e-9)
        torch.testing.assert_close(loss(a, b, reduction="mean"), loss(a, b, reduction="none").mean())


@given(pairs, st.floats(0.25, 8, width=32), coordinates, coordinates)
@settings(max_examples=60, deadline=None)
def test_ratios_do_not_change_with_place_and_scale(drawn, scale, dx, dy):
    a, b = (torch.tensor([pair[i] for pair in drawn], dtype=torch.float64) for i in (0, 1))
    shift = torch.tensor([dx, dy, dx, dy], dtype=torch.float64)
    for loss in LOSSES[:4]:
        torch.testing.assert_close(loss(scale * a + shift, scale * b + shift), loss(a, b), rtol=0, atol=1e-8)


@given(pairs, st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_the_order_of_pairs_does_not_matter(drawn, random):
    shuffled = random.sample(drawn, len(drawn))
    for loss in LOSSES:
        values = [
            loss(*(torch.tensor([pair[i] for pair in rows], dtype=torch.float64) for i in (0, 1)))
            for rows in (drawn, shuffled)
        ]
        torch.testing.assert_close(*values, rtol=0, atol=1e-9)


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss is not lp_iou_loss])
@pytest.mark.parametrize("scale", [1e-30, 2e19, 1e37])
def test_areas_that_float32_cannot_hold(loss, scale):
    boxes, target = random_pairs(20, 0)
    results = []
    for factor, dtype in ((1.0, torch.float64), (scale, torch.float32)):
        given = (boxes.detach() * factor).to(dtype).requires_grad_()
        values = loss(given, (target.detach() * factor).to(dtype), reduction="none")
        (gradient,) = torch.autograd.grad(values.sum(), given)
        assert values.dtype == gradient.dtype == dtype
        results.append((values.detach().double(), gradient.double() * factor))
    torch.testing.assert_close(*(values for values, _ in results), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(*(gradient for _, gradient in results), rtol=1e-3, atol=1e-3)
