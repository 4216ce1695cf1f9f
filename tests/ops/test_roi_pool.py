"""RoIPool against torchvision and against the paper's words as loops."""

import math

import pytest
import torch
from torchvision.ops import roi_pool as oracle

from segedu.ops.roi_pool import check_regions, roi_pool

SIZES = [(13, 17), (8, 8), (1, 5)]


def scene(H, W, counts=(5, 0, 8), scale=0.25, seed=0, dtype=torch.float64):
    """Features, and boxes of which some reach over the edges of the image, or lie on halves, or have no area."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(len(counts), 3, H, W, generator=generator, dtype=dtype)
    boxes = []
    for count in counts:
        corner = (torch.rand(count, 2, generator=generator, dtype=dtype) * 1.2 - 0.3) * torch.tensor([W, H])
        side = torch.rand(count, 2, generator=generator, dtype=dtype) ** 2 * torch.tensor([W, H])
        boxes.append(torch.cat([corner, corner + side], dim=1) / scale)
    boxes[-1][:3] = torch.tensor([[1.0, 2, 1, 2], [-2.0, 2, 6, 10], [-80.0, -80, -60, -60]])
    return features, boxes


def by_hand(features, boxes, size, scale):
    """The largest value of each bin, place by place."""
    C, H, W = features.shape[1:]

    def half_up(value):
        return int(math.copysign(math.floor(abs(value) + 0.5), value))

    out = []
    for image, of_image in enumerate(boxes):
        for box in of_image.tolist():
            x1, y1, x2, y2 = (half_up(value * scale) for value in box)
            width, height = x2 - x1 + 1, y2 - y1 + 1
            result = torch.zeros(C, *size, dtype=features.dtype)
            for i in range(size[0]):
                rows = range(y1 + math.floor(i * height / size[0]), y1 + math.ceil((i + 1) * height / size[0]))
                rows = [row for row in rows if 0 <= row < H]
                for j in range(size[1]):
                    columns = range(x1 + math.floor(j * width / size[1]), x1 + math.ceil((j + 1) * width / size[1]))
                    columns = [column for column in columns if 0 <= column < W]
                    if rows and columns:
                        result[:, i, j] = features[image][:, rows][:, :, columns].amax(dim=(1, 2))
            out.append(result)
    return torch.stack(out)


@pytest.mark.parametrize("output", [(1, 1), (2, 4), (7, 8)])
def test_equals_the_loops(output):
    for H, W in SIZES:
        features, boxes = scene(H, W, seed=3)
        assert torch.equal(roi_pool(features, boxes, output, 0.25), by_hand(features, boxes, output, 0.25))


def value_and_gradient(function, features, boxes, *options):
    features = features.clone().requires_grad_()
    value = function(features, boxes, *options)
    weights = torch.linspace(0.5, 2, value.numel(), dtype=value.dtype).reshape(value.shape)
    return value, *torch.autograd.grad((weights * value).sum(), features)


@pytest.mark.parametrize("output", [1, 7, (3, 5)])
@pytest.mark.parametrize("tied", [False, True])
def test_equals_torchvision(output, tied):
    for H, W in SIZES:
        features, boxes = scene(H, W)
        if tied:  # the first of equal values gets the gradient
            features = features.round()
        got, expected = (value_and_gradient(f, features, boxes, output, 0.25) for f in (roi_pool, oracle))
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
        assert (got[0][-6] == 0).all() and got[0].std() > 0.1  # far outside


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_torchvision_at_the_size_of_a_detector(dtype):
    features, boxes = scene(50, 67, counts=(40, 30), scale=1 / 16, dtype=dtype)
    got, expected = (value_and_gradient(f, features, boxes, 7, 1 / 16) for f in (roi_pool, oracle))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("change", ["moved", "scaled", "image", "order", "average"])
def test_comparison_refuses_a_change(change):
    features, boxes = scene(13, 17)
    expected = oracle(features, boxes, 3, 0.25)
    got = {
        "moved": lambda: roi_pool(features, [b + 2 for b in boxes], 3, 0.25),
        "scaled": lambda: roi_pool(features, boxes, 3, 0.24),
        "image": lambda: roi_pool(features.flip(0), boxes, 3, 0.25),
        "order": lambda: roi_pool(features, [b.flip(0) for b in boxes], 3, 0.25),
        "average": lambda: roi_pool(features, boxes, 3, 0.25) * (1 - 1e-9),
    }[change]()
    with pytest.raises(AssertionError):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_halves_are_rounded_away_from_zero():
    ramp = torch.arange(6.0).expand(1, 1, 6, 6)
    for start, stop, largest in ((0.5, 0.5, 1), (2.5, 2.5, 3), (-0.5, 1.49, 1), (-0.5, 1.5, 2)):
        box = torch.tensor([[start, 0.0, stop, 0.0]])
        assert roi_pool(ramp, [box], 1).item() == oracle(ramp, [box], 1).item() == largest


def test_no_boxes_and_gradients_all_the_same():
    features, boxes = scene(8, 8)
    features.requires_grad_()
    out = roi_pool(features, [b[:0] for b in boxes], (2, 3))
    assert out.shape == (0, 3, 2, 3) and out.dtype == torch.float64
    (gradient,) = torch.autograd.grad(out.sum(), features)
    assert not gradient.any()


def test_types():
    features, boxes = scene(8, 8, dtype=torch.float32)
    whole = [b.round() for b in boxes]
    expected = roi_pool(features, whole, 3, 0.25)
    assert torch.equal(roi_pool(features, [b.long() for b in whole], 3, 0.25), expected)
    half = roi_pool(features.half(), whole, 3, 0.25)
    assert half.dtype == torch.float16 and half.is_contiguous()
    assert torch.equal(half, expected.half())


def test_boxes_get_no_gradient():
    features, boxes = scene(8, 8)
    assert not roi_pool(features, [b.requires_grad_() for b in boxes], 2).requires_grad


def test_the_image_of_each_box():
    _, boxes = scene(8, 8)
    image, corners, size = check_regions(torch.zeros(3, 1, 8, 8), boxes, (4, 5), 0.5)
    assert image.tolist() == [0] * 5 + [2] * 8 and size == (4, 5)
    torch.testing.assert_close(corners, torch.cat(boxes).float() / 2)
