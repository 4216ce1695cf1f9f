"""Boxes against torchvision, closed forms, and the definitions of degenerate cases."""

import pytest
import torch
import torchvision.ops as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from segedu.ops.boxes import (
    box_area,
    box_iou,
    clip_boxes,
    complete_box_iou,
    cxcywh_to_xyxy,
    distance_box_iou,
    generalized_box_iou,
    xywh_to_xyxy,
    xyxy_to_cxcywh,
    xyxy_to_xywh,
)

SHAPES = [(4, 6), (1, 7), (13, 5)]
PAIRWISE = [(box_iou, oracle.box_iou), (generalized_box_iou, oracle.generalized_box_iou)]
# torchvision adds 1e-7 to the squared diagonal, ours does not.
DISTANCES = [(distance_box_iou, oracle.distance_box_iou), (complete_box_iou, oracle.complete_box_iou)]
FORMS = [("xywh", xyxy_to_xywh, xywh_to_xyxy), ("cxcywh", xyxy_to_cxcywh, cxcywh_to_xyxy)]
ALL = [box_iou, generalized_box_iou, distance_box_iou, complete_box_iou]


def random_boxes(count, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator, dtype=dtype) * 10 - 2
    size = torch.rand(count, 2, generator=generator, dtype=dtype) * 6 + 0.1
    return torch.cat([corner, corner + size], dim=1)


def box(*corners):
    return torch.tensor([corners], dtype=torch.float64)


def compare(ours, theirs, atol=1e-12):
    """The parity test itself: values and gradients of both arguments, on three shapes."""
    for n, m in SHAPES:
        results = []
        for function in (ours, theirs):
            a, b = random_boxes(n, 1).requires_grad_(), random_boxes(m, 2).requires_grad_()
            value = function(a, b)
            weights = torch.linspace(0.5, 2, n * m, dtype=torch.float64).reshape(n, m)
            results.append((value, *torch.autograd.grad((weights * value).sum(), (a, b))))
        torch.testing.assert_close(results[0], results[1], rtol=0, atol=atol)


@pytest.mark.parametrize(("ours", "theirs"), PAIRWISE)
def test_equals_torchvision(ours, theirs):
    compare(ours, theirs)


@pytest.mark.parametrize(("ours", "theirs"), DISTANCES)
def test_distances_equal_torchvision_up_to_its_eps(ours, theirs):
    compare(ours, theirs, atol=1e-7)
    with pytest.raises(AssertionError):
        compare(lambda a, b: ours(a, b) * (1 + 1e-6), theirs, atol=1e-7)


@pytest.mark.parametrize(("ours", "theirs"), PAIRWISE)
@pytest.mark.parametrize("perturb", ["scaled", "shifted", "plus_one_pixel", "wrong_column", "no_gradient"])
def test_comparison_refuses_a_perturbed_function(ours, theirs, perturb):
    one = torch.tensor([0, 0, 1, 1])
    perturbed = {
        "scaled": lambda a, b: ours(a, b) * (1 + 1e-6),
        "shifted": lambda a, b: ours(a + torch.tensor([0, 0, 1e-6, 0]), b),
        "plus_one_pixel": lambda a, b: ours(a + one, b + one),
        "wrong_column": lambda a, b: ours(a, b).flip(1),
        "no_gradient": lambda a, b: ours(a, b.detach()) + 0 * b.sum(),
    }[perturb]
    with pytest.raises(AssertionError):
        compare(perturbed, theirs)


def test_area_equals_torchvision():
    boxes = random_boxes(11, 3)
    torch.testing.assert_close(box_area(boxes), oracle.box_area(boxes), rtol=0, atol=0)


def test_homework():
    a, b = box(0, 0, 2, 2), box(1, 1, 3, 4)
    assert box_iou(a, b).item() == pytest.approx(1 / 9, abs=1e-15)
    assert generalized_box_iou(a, b).item() == pytest.approx(1 / 9 - 3 / 12, abs=1e-15)
    assert generalized_box_iou(a, b).item() == pytest.approx(-5 / 36, abs=1e-15)


def test_disjoint_boxes_have_no_iou_gradient_but_a_giou_gradient():
    for function, zero in ((box_iou, True), (generalized_box_iou, False)):
        a = box(0, 0, 1, 1).requires_grad_()
        (gradient,) = torch.autograd.grad(function(a, box(5, 5, 6, 7)).sum(), a)
        assert bool((gradient == 0).all()) is zero


def test_degenerate_boxes_are_defined():
    point, elsewhere, square = box(1, 1, 1, 1), box(3, 2, 3, 2), box(0, 0, 2, 2)
    segment, same_line, parallel = box(0, 0, 2, 0), box(5, 0, 7, 0), box(0, 1, 2, 1)
    assert box_iou(point, point).item() == 0
    assert box_iou(point, square).item() == 0
    assert box_iou(segment, segment).item() == 0
    assert generalized_box_iou(point, point).item() == 0
    assert generalized_box_iou(segment, same_line).item() == 0
    assert generalized_box_iou(point, elsewhere).item() == -1
    assert generalized_box_iou(segment, parallel).item() == -1
    assert generalized_box_iou(point, square).item() == 0
    for function in (box_iou, generalized_box_iou):
        a = point.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(function(a, point).sum(), a)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("function", ALL)
def test_no_boxes(function):
    none, some = torch.zeros(0, 4), random_boxes(3, 0, torch.float32)
    assert function(none, some).shape == (0, 3)
    assert function(some, none).shape == (3, 0)
    assert function(none, none).shape == (0, 0)
    assert box_area(none).shape == (0,)


def test_integers_and_half_precision_become_floats():
    ints = torch.tensor([[0, 0, 2, 2]])
    assert box_area(ints).dtype == torch.get_default_dtype()
    torch.testing.assert_close(box_iou(ints, ints + 1), torch.tensor([[1 / 7]]))
    half = torch.tensor([[0.0, 0.0, 600.0, 600.0]], dtype=torch.float16)
    assert box_area(half).item() == 360_000  # float16 ends at 65504


@pytest.mark.parametrize("function", ALL[:3])  # the weight of complete_box_iou is held fixed: no true gradient
def test_gradcheck(function):
    a, b = random_boxes(3, 4).requires_grad_(), random_boxes(2, 5).requires_grad_()
    assert torch.autograd.gradcheck(function, (a, b))


CORNERS = st.lists(st.tuples(*[st.integers(0, 8)] * 4), min_size=1, max_size=4)


def sorted_boxes(corners):
    raw = torch.tensor(corners, dtype=torch.float64)
    return torch.cat([torch.minimum(raw[:, :2], raw[:, 2:]), torch.maximum(raw[:, :2], raw[:, 2:])], dim=1)


@given(CORNERS, CORNERS)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_bounds_symmetry_and_invariance(first, second):
    a, b = sorted_boxes(first), sorted_boxes(second)
    iou, giou = box_iou(a, b), generalized_box_iou(a, b)
    assert ((iou >= 0) & (iou <= 1)).all()
    assert ((giou >= -1) & (giou <= iou)).all()
    assert torch.equal(iou, box_iou(b, a).T)
    assert torch.equal(giou, generalized_box_iou(b, a).T)
    torch.testing.assert_close(giou, generalized_box_iou(4 * a + 16, 4 * b + 16))
    swap = [1, 0, 3, 2]
    assert torch.equal(iou, box_iou(a[:, swap], b[:, swap]))


def test_distances_of_degenerate_boxes():
    point, square = box(1, 1, 1, 1), box(0, 0, 2, 2)
    for function in (distance_box_iou, complete_box_iou):
        assert function(point, point).item() == 0
        assert torch.isfinite(function(point, square)).all()
        a = point.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(function(a, point).sum() + function(a, square).sum(), a)
        assert torch.isfinite(gradient).all()
    assert distance_box_iou(point, square).item() == 0
    assert complete_box_iou(box(0, 0, 2, 4), box(0, 0, 2, 4)).item() == 1


@given(CORNERS, CORNERS)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_distance_and_complete_iou_order(first, second):
    a, b = sorted_boxes(first), sorted_boxes(second)
    iou, diou, ciou = box_iou(a, b), distance_box_iou(a, b), complete_box_iou(a, b)
    assert ((diou >= -1) & (diou <= iou)).all() and (ciou <= diou + 1e-12).all()
    assert torch.equal(diou, distance_box_iou(b, a).T)


@pytest.mark.parametrize(("form", "there", "back"), FORMS)
def test_forms_equal_torchvision_and_invert(form, there, back):
    boxes = random_boxes(9, 6)
    torch.testing.assert_close(there(boxes), oracle.box_convert(boxes, "xyxy", form), rtol=0, atol=1e-12)
    torch.testing.assert_close(back(there(boxes)), boxes, rtol=0, atol=1e-12)


@given(CORNERS)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_clipping_equals_torchvision_and_is_idempotent(corners):
    boxes = sorted_boxes(corners) * 2 - 4
    clipped = clip_boxes(boxes, (5, 7))
    assert torch.equal(clipped, oracle.clip_boxes_to_image(boxes, (5, 7)))
    assert torch.equal(clip_boxes(clipped, (5, 7)), clipped)


SCALES = [1e-30, 1e-20, 1.0, 1e18, 2e19, 1e37]  # float32 ends at 3.4e38: the area of a box of 2e19 is more
FAR = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.5, 0.25, 1.5, 2.0], [-2.0, 0.0, 3.0, 0.5], [3.0, 3.0, 3.0, 4.0]]).double()


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize("scale", SCALES)
def test_a_scale_changes_nothing_in_float32(function, scale):
    results = []
    for factor, dtype in ((1.0, torch.float64), (scale, torch.float32)):
        boxes = (FAR * factor).to(dtype).requires_grad_()
        values = function(boxes, (FAR.flip(0) * factor).to(dtype))
        (gradient,) = torch.autograd.grad(values.sum(), boxes)
        results.append((values.detach().double(), gradient.double() * factor))
        assert values.dtype == gradient.dtype == dtype
    torch.testing.assert_close(*(values for values, _ in results), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(*(gradient for _, gradient in results), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize("scale", [2.0**-1000, 2.0**-520, 2.0**600, 2.0**1020])
def test_a_scale_changes_nothing_in_float64(function, scale):
    expected, got = function(FAR, FAR.flip(0)), function(FAR * scale, FAR.flip(0) * scale)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_boxes_of_other_types(function, dtype):
    boxes = torch.tensor([[0, 0, 40000, 40000], [20000, 0, 60000, 40000]])  # areas that int32 and float16 cannot hold
    expected = function(boxes.to(dtype).double(), boxes.to(dtype).double().flip(0))
    got = function(boxes.to(dtype), boxes.to(dtype).flip(0))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("function", ALL)
def test_small_boxes_far_apart(function):
    near = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    far = near + 1e20  # both have one corner only: 1e20 + 1 is 1e20
    expected = function(near.double(), far.double())
    torch.testing.assert_close(function(near, far), expected.float(), rtol=1e-6, atol=1e-6)
