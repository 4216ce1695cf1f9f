"""Pooling against torch, unpooling and its inverses."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from segedu.ops.pooling import average_unpool, max_pool_with_indices, max_unpool, pool_output_size


def random_planes(*shape, seed=0, values=None):
    generator = torch.Generator().manual_seed(seed)
    if values:  # few different values: many ties
        return torch.randint(-values, values, shape, generator=generator).double()
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_sizes_equal_torch_on_every_configuration():
    grid = itertools.product(range(1, 12), range(1, 5), range(1, 4), range(3), range(1, 3), (False, True))
    legal = 0
    for size, kernel, stride, padding, dilation, ceil_mode in grid:
        try:
            expected = F.max_pool1d(torch.zeros(1, 1, size), kernel, stride, padding, dilation, ceil_mode).shape[-1]
        except RuntimeError:
            expected = None
        try:
            ours = pool_output_size(size, kernel, stride, padding, dilation, ceil_mode)
        except ValueError:
            ours = None
        assert ours == expected, (size, kernel, stride, padding, dilation, ceil_mode)
        legal += ours is not None
    assert legal > 500


def test_the_stride_is_the_kernel_size_unless_said():
    assert pool_output_size(9, 3) == 3
    assert pool_output_size(9, 3, 2) == 4
    assert pool_output_size(3, 2, 2, 1, ceil_mode=True) == 2  # a third window would begin in the padding
    assert pool_output_size(1, 2, ceil_mode=True) == 1


CONFIGURATIONS = [(2, 2, 0, 1, False), (3, 2, 1, 1, False), (3, 2, 0, 1, True), (2, 1, 1, 2, False), (3, 3, 1, 2, True)]


@pytest.mark.parametrize("values", [None, 2])
@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation", "ceil_mode"), CONFIGURATIONS)
def test_maxima_and_indices_equal_torch(kernel, stride, padding, dilation, ceil_mode, values):
    images = random_planes(2, 3, 7, 9, values=values)
    options = (kernel, stride, padding, dilation, ceil_mode)
    ours = max_pool_with_indices(images, *options)
    theirs = F.max_pool2d(images, *options, return_indices=True)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_of_equal_maxima_the_first_is_taken():
    values, indices = max_pool_with_indices(torch.zeros(1, 1, 4, 6), 2)
    assert indices.flatten().tolist() == [0, 2, 4, 12, 14, 16]
    images = torch.full((1, 1, 4, 4), -torch.inf)
    _, indices = max_pool_with_indices(images, 2, padding=1)
    assert indices.flatten().tolist() == [0, 1, 3, 4, 5, 7, 12, 13, 15]
    images = torch.tensor([[[[1.0, torch.nan], [torch.inf, 2.0]]]])
    values, indices = max_pool_with_indices(images, 2)
    assert values.isnan().all() and indices.item() == 1


def test_gradient_goes_to_the_maximum():
    images = random_planes(1, 2, 5, 6).requires_grad_()
    values, indices = max_pool_with_indices(images, 2)
    (gradient,) = torch.autograd.grad(values.sum(), images)
    torch.testing.assert_close(gradient, max_unpool(torch.ones_like(values), indices, (5, 6)))


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2), (3, 1)])
def test_unpool_equals_torch(kernel, stride):
    images = random_planes(2, 3, 7, 9, values=3)
    values, indices = max_pool_with_indices(images, kernel, stride)
    theirs = F.max_unpool2d(values, indices, kernel, stride, output_size=(7, 9))
    torch.testing.assert_close(max_unpool(values, indices, (7, 9)), theirs, rtol=0, atol=0)
    weights = random_planes(2, 3, 7, 9, seed=1)
    if kernel == stride:
        grads = []
        for function in (
            lambda v: max_unpool(v, indices, (7, 9)),
            lambda v: F.max_unpool2d(v, indices, 2, output_size=(7, 9)),
        ):
            v = values.clone().requires_grad_()
            grads.append(torch.autograd.grad((weights * function(v)).sum(), v)[0])
        assert torch.equal(*grads)


SHAPE = st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(2, 7), st.integers(3, 9))


@given(SHAPE, st.integers(1, 3), st.integers(0, 99))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_unpooling_inverts_pooling(shape, kernel, seed):
    kernel = min(kernel, *shape[2:])
    images = random_planes(*shape, seed=seed).abs() + 0.1  # positive: the zeros that unpooling fills in never win
    values, indices = max_pool_with_indices(images, kernel)
    sparse = max_unpool(values, indices, shape[2:])
    again, places = max_pool_with_indices(sparse, kernel)
    assert torch.equal(again, values) and torch.equal(places, indices)
    assert torch.equal(sparse[sparse != 0], images[sparse != 0])
    assert int((sparse != 0).sum()) == values.numel()
    dense = average_unpool(values, kernel)
    torch.testing.assert_close(F.avg_pool2d(dense, kernel), values)
    assert torch.equal(max_pool_with_indices(dense, kernel)[0], values)


def test_average_unpooling_is_the_adjoint_of_average_pooling_times_the_area():
    images, values = random_planes(2, 3, 6, 8), random_planes(2, 3, 3, 4, seed=1)
    left = (F.avg_pool2d(images, 2) * values).sum()
    torch.testing.assert_close(left, (images * average_unpool(values, 2)).sum() / 4)


def test_the_four_by_four_of_the_course():
    plane = torch.tensor([[1.0, 3, 2, 1], [4, 2, 0, 5], [6, 1, 3, 2], [0, 2, 8, 4]])[None, None]
    values, indices = max_pool_with_indices(plane, 2)
    assert values.flatten().tolist() == [4, 5, 6, 8] and indices.flatten().tolist() == [4, 7, 8, 14]
    assert max_unpool(values, indices, (4, 4))[0, 0].tolist() == [
        [0, 0, 0, 0],
        [4, 0, 0, 5],
        [6, 0, 0, 0],
        [0, 0, 8, 0],
    ]
    assert F.avg_pool2d(plane, 2).flatten().tolist() == [2.5, 2.0, 2.25, 4.25]
