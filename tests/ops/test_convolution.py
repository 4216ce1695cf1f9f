"""Convolution arithmetic against torch over legal configurations, and its properties."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from segedu.ops.convolution import (
    conv2d_loops,
    conv_matrix,
    conv_output_size,
    receptive_field,
    transposed_conv2d_scatter,
    transposed_conv_output_size,
)

# size, kernel, stride, padding, dilation
GRID = list(itertools.product(range(1, 10), range(1, 5), range(1, 4), range(3), range(1, 4)))


def torch_size(function, size, *args, **options):
    """The width that torch gives a row of this length, or None where it refuses."""
    try:
        return function(torch.zeros(1, 1, size), *args, **options).shape[-1]
    except RuntimeError:
        return None


def our_size(function, *args):
    try:
        return function(*args)
    except ValueError:
        return None


def test_conv_sizes_equal_torch_on_every_configuration():
    legal = 0
    for size, kernel, stride, padding, dilation in GRID:
        options = {"stride": stride, "padding": padding, "dilation": dilation}
        expected = torch_size(F.conv1d, size, torch.zeros(1, 1, kernel), **options)
        assert our_size(conv_output_size, size, kernel, stride, padding, dilation) == expected, (size, kernel, options)
        legal += expected is not None
    assert legal > 700


def test_transposed_sizes_equal_torch_on_every_configuration():
    legal = 0
    for (size, kernel, stride, padding, dilation), extra in itertools.product(GRID, range(3)):
        options = {"stride": stride, "padding": padding, "dilation": dilation, "output_padding": extra}
        expected = torch_size(F.conv_transpose1d, size, torch.zeros(1, 1, kernel), **options)
        ours = our_size(transposed_conv_output_size, size, kernel, stride, padding, extra, dilation)
        assert ours == (expected or None), (size, kernel, options)
        legal += ours is not None
    assert legal > 1500


def printed_without_floor(size, kernel, stride, padding):
    return (size - kernel + 2 * padding) / stride + 1


def test_the_formula_without_floor_is_wrong_where_the_stride_does_not_divide():
    configurations = list(itertools.product(range(3, 17), (1, 2, 3, 5), (1, 2, 3), (0, 1, 2)))
    legal = [c for c in configurations if our_size(conv_output_size, *c) is not None]
    wrong = [c for c in legal if printed_without_floor(*c) != conv_output_size(*c)]
    assert wrong and all((c[0] + 2 * c[3] - c[1]) % c[2] for c in wrong)
    assert all(int(printed_without_floor(*c) // 1) == conv_output_size(*c) for c in legal)


def test_seven_and_eight_meet_and_output_padding_parts_them():
    assert conv_output_size(7, 3, 2, 1) == conv_output_size(8, 3, 2, 1) == 4
    assert transposed_conv_output_size(4, 3, 2, 1) == 7
    assert transposed_conv_output_size(4, 3, 2, 1, output_padding=1) == 8


def test_dilated_is_not_transposed():
    assert conv_output_size(7, 3, padding=2, dilation=2) == 7
    assert transposed_conv_output_size(7, 3, stride=2) == 15
    assert transposed_conv_output_size(2, 3, stride=2) == 5


@given(*[st.integers(*bounds) for bounds in ((1, 60), (1, 7), (1, 5), (0, 4), (1, 4))])
@settings(max_examples=200, deadline=None, derandomize=True)
def test_transposed_sizes_are_those_that_the_convolution_takes_back(size, kernel, stride, padding, dilation):
    low = our_size(transposed_conv_output_size, size, kernel, stride, padding, 0, dilation)
    if low is None:
        return
    for extra in range(stride):
        out = transposed_conv_output_size(size, kernel, stride, padding, extra, dilation)
        assert conv_output_size(out, kernel, stride, padding, dilation) == size
    assert conv_output_size(low + stride, kernel, stride, padding, dilation) == size + 1


# batch, in, out, (H, W), (Kh, Kw), stride, padding, dilation
CONVOLUTIONS = [
    (2, 3, 4, (7, 9), (3, 3), 1, 0, 1),
    (1, 2, 3, (8, 5), (3, 2), 2, 1, 1),
    (3, 1, 2, (9, 11), (2, 3), 3, 2, 2),
    (1, 2, 1, (6, 7), (1, 1), 2, 0, 3),
    (1, 3, 2, (4, 5), (4, 5), 1, 3, 1),
]


def tensors(*shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]


def compare(ours, theirs, arguments):
    """Values and gradients of all tensors."""
    found = []
    for function in (ours, theirs):
        inputs = [a.clone().requires_grad_() for a in arguments]
        value = function(*inputs)
        weights = torch.linspace(0.5, 2, value.numel(), dtype=torch.float64).reshape(value.shape)
        found.append((value, *torch.autograd.grad((weights * value).sum(), inputs)))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("b", "i", "o", "size", "kernel", "stride", "padding", "dilation"), CONVOLUTIONS)
def test_loops_equal_torch(b, i, o, size, kernel, stride, padding, dilation):
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    arguments = tensors((b, i, *size), (o, i, *kernel), (o,))
    compare(lambda *a: conv2d_loops(*a, **options), lambda *a: F.conv2d(*a, **options), arguments)
    x, w, _ = arguments
    torch.testing.assert_close(conv2d_loops(x, w, **options), F.conv2d(x, w, **options), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("b", "i", "o", "size", "kernel", "stride", "padding", "dilation"), CONVOLUTIONS)
def test_scatter_equals_torch(b, i, o, size, kernel, stride, padding, dilation):
    for extra in range(max(stride, dilation)):
        options = {"stride": stride, "padding": padding, "dilation": dilation, "output_padding": extra}
        arguments = tensors((b, i, *size), (i, o, *kernel), (o,))

        def ours(*a, options=options):
            return transposed_conv2d_scatter(*a, **options)

        compare(ours, lambda *a, options=options: F.conv_transpose2d(*a, **options), arguments)


@pytest.mark.parametrize("perturb", ["flipped", "no_bias", "shifted"])
def test_comparison_refuses_a_perturbed_function(perturb):
    perturbed = {
        "flipped": lambda x, w, b: conv2d_loops(x, w.flip(2, 3), b),
        "no_bias": lambda x, w, b: conv2d_loops(x, w) + 0 * b.sum(),
        "shifted": lambda x, w, b: conv2d_loops(x.roll(1, 3), w, b),
    }[perturb]
    with pytest.raises(AssertionError):
        compare(perturbed, F.conv2d, tensors((2, 3, 5, 6), (2, 3, 3, 3), (2,)))


@st.composite
def small_convolutions(draw):
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 4)))
    stride, padding, dilation = draw(st.integers(1, 3)), draw(st.integers(0, 3)), draw(st.integers(1, 2))
    least = [max(1, dilation * (k - 1) + 1 - 2 * padding) for k in kernel]
    size = tuple(draw(st.integers(low, low + 4)) for low in least)
    return kernel, size, stride, padding, dilation


@given(small_convolutions(), st.integers(0, 99))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_matrix_and_transpose_are_convolution_and_adjoint(convolution, seed):
    kernel_size, size, stride, padding, dilation = convolution
    kernel, image = tensors(kernel_size, size, seed=seed)
    matrix = conv_matrix(kernel, size, stride, padding, dilation)
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    out = conv2d_loops(image[None, None], kernel[None, None], **options)[0, 0]
    torch.testing.assert_close(matrix @ image.flatten(), out.flatten(), rtol=0, atol=1e-12)
    # the transposed convolution that ends at this size: output padding makes up for what the floor dropped
    (other,) = tensors(out.shape, seed=seed + 1)
    missing = [
        n - (m - 1) * stride + 2 * padding - dilation * (k - 1) - 1
        for n, m, k in zip(size, out.shape, kernel_size, strict=True)
    ]
    back = F.conv_transpose2d(other[None, None], kernel[None, None], output_padding=missing, **options)[0, 0]
    torch.testing.assert_close(matrix.T @ other.flatten(), back.flatten(), rtol=0, atol=1e-12)
    if missing[0] == missing[1]:
        ours = transposed_conv2d_scatter(other[None, None], kernel[None, None], output_padding=missing[0], **options)
        torch.testing.assert_close(ours[0, 0], back, rtol=0, atol=1e-12)
    # <W x, y> = <x, W' y>
    assert (out * other).sum().item() == pytest.approx((image * back).sum().item(), abs=1e-9)


def test_matrix_by_hand():
    matrix = conv_matrix(torch.tensor([[1.0, 2.0, 3.0]]), (1, 4), padding=0)
    assert matrix.tolist() == [[1, 2, 3, 0], [0, 1, 2, 3]]
    padded = conv_matrix(torch.eye(1), (2, 1), padding=1)  # 1x1 kernel on a 4x3 padded image
    assert padded.shape == (12, 2) and padded.sum() == 2


LAYERS = st.tuples(st.just("conv"), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.integers(1, 3))


@given(st.lists(LAYERS, max_size=4))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_receptive_field_is_what_the_gradient_reaches(layers):
    size, stride, padding = receptive_field(layers)
    length = size + 3 * stride + 1
    x = torch.zeros(1, 1, length, dtype=torch.float64, requires_grad=True)
    y = x
    for _, k, s, p, d in layers:
        y = F.conv1d(y, torch.ones(1, 1, k, dtype=torch.float64), stride=s, padding=p, dilation=d)
    for u in range(y.shape[-1]):
        (gradient,) = torch.autograd.grad(y[0, 0, u], x, retain_graph=True)
        seen = gradient[0, 0].nonzero().flatten().tolist()
        first, last = u * stride - padding, u * stride - padding + size - 1
        assert all(first <= i <= last for i in seen)
        if first >= 0 and last < length:  # wholly inside: both ends are reached
            assert (seen[0], seen[-1]) == (first, last)
    if not padding:  # inner padding adds windows that see less than the whole field
        assert y.shape[-1] == conv_output_size(length, size, stride)


def test_receptive_field_of_known_stacks():
    conv, pool = ("conv", 3, 1, 1, 1), ("pool", 2, 2, 0, 1)
    vgg16 = [conv] * 2 + [pool] + [conv] * 2 + [pool] + ([conv] * 3 + [pool]) * 3
    assert receptive_field(vgg16)[:2] == (212, 32)
    assert receptive_field([*vgg16, ("fc6 as 7x7", 7, 1, 3, 1)])[:2] == (404, 32)
    unet = ([("conv", 3, 1, 0, 1)] * 2 + [pool]) * 4 + [("conv", 3, 1, 0, 1)] * 2
    assert receptive_field(unet) == (140, 16, 0)
    assert receptive_field([("atrous", 3, 1, 2**i, 2**i) for i in range(4)]) == (31, 1, 15)
    assert receptive_field([]) == (1, 1, 0)
