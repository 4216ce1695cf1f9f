"""RoIAlign against torchvision and against the paper's words as loops."""

import math

import pytest
import torch
from torchvision.ops import roi_align as oracle

from segedu.ops.roi_align import roi_align
from segedu.ops.roi_pool import roi_pool

SIZES = [(13, 17), (8, 8), (1, 5)]
OPTIONS = [(ratio, aligned) for ratio in (-1, 0, 1, 2, 3) for aligned in (False, True)]


def scene(H, W, counts=(5, 0, 8), scale=0.25, seed=0, dtype=torch.float64):
    """Features, and boxes of which some reach over the edges of the image, or have no area."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(len(counts), 3, H, W, generator=generator, dtype=dtype)
    boxes = []
    for count in counts:
        corner = (torch.rand(count, 2, generator=generator, dtype=dtype) * 1.2 - 0.3) * torch.tensor([W, H])
        side = torch.rand(count, 2, generator=generator, dtype=dtype) ** 2 * torch.tensor([W, H])
        boxes.append(torch.cat([corner, corner + side], dim=1) / scale)
    boxes[-1][:3] = torch.tensor([[1.0, 2, 1, 2], [0, 0, W / scale, H / scale], [-40.0, -40, -30, -30]])
    return features, boxes


def by_hand(features, boxes, size, scale, ratio, aligned):
    """Every point of every bin, as section 3 says it, with what torchvision does at the edges."""
    C, H, W = features.shape[1:]

    def axis(at, length):
        """Two places and their shares, or none."""
        if at < -1 or at > length:
            return []
        at = min(max(at, 0), length - 1)
        low = math.floor(at)
        return [(low, low + 1 - at), (min(low + 1, length - 1), at - low)]

    out = []
    for image, of_image in enumerate(boxes):
        for box in of_image.tolist():
            x1, y1, x2, y2 = (value * scale - (0.5 if aligned else 0) for value in box)
            width, height = (x2 - x1, y2 - y1) if aligned else (max(x2 - x1, 1), max(y2 - y1, 1))
            result = torch.zeros(C, *size, dtype=features.dtype)
            nx, ny = (ratio, ratio) if ratio > 0 else (math.ceil(width / size[1]), math.ceil(height / size[0]))
            for i in range(size[0]):
                for j in range(size[1]):
                    for y in (y1 + (i + (k + 0.5) / ny) * height / size[0] for k in range(ny)):
                        for x in (x1 + (j + (k + 0.5) / nx) * width / size[1] for k in range(nx)):
                            for row, share in axis(y, H):
                                for column, part in axis(x, W):
                                    result[:, i, j] += share * part * features[image, :, row, column] / (nx * ny)
            out.append(result)
    return torch.stack(out)


@pytest.mark.parametrize(("ratio", "aligned"), OPTIONS)
def test_equals_the_loops(ratio, aligned):
    for H, W in SIZES:
        features, boxes = scene(H, W, seed=3)
        got = roi_align(features, boxes, (2, 3), 0.25, ratio, aligned)
        expected = by_hand(features, boxes, (2, 3), 0.25, ratio, aligned)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def value_and_gradient(function, features, boxes, *options):
    features = features.clone().requires_grad_()
    value = function(features, boxes, *options)
    weights = torch.linspace(0.5, 2, value.numel(), dtype=value.dtype).reshape(value.shape)
    return value, *torch.autograd.grad((weights * value).sum(), features)


@pytest.mark.parametrize(("ratio", "aligned"), OPTIONS)
@pytest.mark.parametrize("output", [1, 7, (3, 4)])
def test_equals_torchvision(ratio, aligned, output):
    for H, W in SIZES:
        features, boxes = scene(H, W)
        options = (output, 0.25, ratio, aligned)
        got, expected = (value_and_gradient(f, features, boxes, *options) for f in (roi_align, oracle))
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
        if (H, W) == SIZES[0]:
            assert expected[0].std() > 0.1 and (expected[0][-6] == 0).all()  # far outside


@pytest.mark.parametrize("ratio", [-1, 2])
def test_equals_torchvision_in_float32_at_the_size_of_a_detector(ratio):
    features, boxes = scene(50, 67, counts=(40, 30), scale=1 / 16, dtype=torch.float32)
    got, expected = (value_and_gradient(f, features, boxes, 7, 1 / 16, ratio) for f in (roi_align, oracle))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("change", ["moved", "scaled", "half a place", "one point more", "image", "order"])
def test_comparison_refuses_a_change(change):
    features, boxes = scene(13, 17)
    expected = oracle(features, boxes, 7, 0.25, 2)
    got = {
        "moved": lambda: roi_align(features, [b + 1e-6 for b in boxes], 7, 0.25, 2),
        "scaled": lambda: roi_align(features, boxes, 7, 0.25 * (1 + 1e-6), 2),
        "half a place": lambda: roi_align(features, boxes, 7, 0.25, 2, aligned=True),
        "one point more": lambda: roi_align(features, boxes, 7, 0.25, 3),
        "image": lambda: roi_align(features.flip(0), boxes, 7, 0.25, 2),
        "order": lambda: roi_align(features, [b.flip(0) for b in boxes], 7, 0.25, 2),
    }[change]()
    with pytest.raises(AssertionError):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-9)


def test_a_plane_is_read_where_the_bins_are():
    """Bilinear interpolation is exact on a plane, so a bin has the value at its middle."""
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
    plane = (2 * x + 5 * y)[None, None]
    box = torch.tensor([[3.3, 2.1, 17.9, 14.5]])
    for ratio in (-1, 1, 2):
        got = roi_align(plane, [box], (4, 5), sampling_ratio=ratio)[0, 0]
        at_x = 3.3 + (17.9 - 3.3) * (torch.arange(5) + 0.5) / 5
        at_y = 2.1 + (14.5 - 2.1) * (torch.arange(4) + 0.5) / 4
        torch.testing.assert_close(got, 2 * at_x + 5 * at_y[:, None])
        # the features of a pixel lie in its middle, at 0.5: what `aligned` knows
        got = roi_align(plane + 3.5, [box], (4, 5), sampling_ratio=ratio, aligned=True)[0, 0]
        torch.testing.assert_close(got, 2 * at_x + 5 * at_y[:, None])


def test_a_little_step_of_the_box_is_a_little_step_of_the_features_and_roi_pool_jumps():
    features, box = (
        torch.randn(1, 4, 12, 12, generator=torch.Generator().manual_seed(0)),
        torch.tensor([[8.0, 8, 30, 36]]),
    )
    steps = {roi_align: [], roi_pool: []}
    for function, found in steps.items():
        values = [function(features, [box + k * 0.05], 4, 0.25) for k in range(60)]
        found += [float((b - a).abs().max()) for a, b in zip(values, values[1:], strict=False)]
    assert max(steps[roi_align]) < 0.1 < 1 < max(steps[roi_pool])
    assert min(steps[roi_align]) > 0 == min(steps[roi_pool])


def test_no_boxes_and_gradients_all_the_same():
    features, boxes = scene(8, 8)
    features.requires_grad_()
    none = [b[:0] for b in boxes]
    out = roi_align(features, none, (2, 3))
    assert out.shape == (0, 3, 2, 3) and out.dtype == torch.float64
    (gradient,) = torch.autograd.grad(out.sum(), features)
    assert not gradient.any()


def test_a_box_without_area_is_zero_only_where_nothing_makes_it_larger():
    features, point = torch.ones(1, 2, 5, 5), torch.tensor([[2.0, 2, 2, 2], [0, 0, 3, 3]])
    for ratio, aligned, expected in ((-1, True, 0), (2, True, 1), (-1, False, 1), (2, False, 1)):
        out = roi_align(features, [point], 2, 1.0, ratio, aligned)
        assert (out[0] == expected).all() and (out[1] == 1).all()
        assert torch.equal(out, oracle(features, [point], 2, 1.0, ratio, aligned))


def test_types():
    features, boxes = scene(8, 8, dtype=torch.float32)
    whole = [b.round() for b in boxes]
    expected = roi_align(features, whole, 3, 0.25)
    assert torch.equal(roi_align(features, [b.long() for b in whole], 3, 0.25), expected)
    assert torch.equal(roi_align(features, tuple(b.double() for b in whole), [3, 3], 0.25), expected)
    half = roi_align(features.half(), whole, 3, 0.25)
    assert half.dtype == torch.float16 and half.is_contiguous()
    torch.testing.assert_close(half.float(), expected, rtol=0, atol=5e-3)


def test_boxes_get_no_gradient():
    features, boxes = scene(8, 8)
    boxes = [b.requires_grad_() for b in boxes]
    assert not roi_align(features, boxes, 2).requires_grad
    assert torch.autograd.gradcheck(
        lambda f: roi_align(f, boxes, 2, 0.25, aligned=True), scene(4, 5)[0].requires_grad_()
    )


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("side", [40.0, 333.3, 2000.0])
def test_boxes_larger_than_the_features_equal_torchvision(side, aligned, monkeypatch):
    """As lists of points, and as weights of lines and columns: both ways of adding up give the same."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 13, 17, generator=generator, dtype=torch.float64)
    corner = -torch.rand(6, 2, generator=generator, dtype=torch.float64) * side
    boxes = list(torch.cat([corner, corner + torch.tensor([side, 0.7 * side])], dim=1).split(3))
    expected = oracle(features, boxes, (3, 5), 0.5, -1, aligned)
    for few in (0, 10**9):
        monkeypatch.setattr("segedu.ops.roi_align.MIN_SEPARABLE_POINTS", few)
        got = roi_align(features, boxes, (3, 5), 0.5, -1, aligned)
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("ratio", [-1, 2])
def test_gradient_of_both_ways_is_the_same(ratio, monkeypatch):
    features, boxes = scene(13, 17)
    boxes = [box * 30 for box in boxes]
    gradients = []
    for few in (0, 10**9):
        monkeypatch.setattr("segedu.ops.roi_align.MIN_SEPARABLE_POINTS", few)
        given = features.clone().requires_grad_()
        out = roi_align(given, boxes, (3, 5), 0.25, ratio)
        gradients.append(torch.autograd.grad((out * torch.arange(out.numel()).view_as(out)).sum(), given)[0])
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


def test_boxes_in_several_parts_equal_boxes_at_once(monkeypatch):
    features, boxes = scene(13, 17)
    at_once = roi_align(features, boxes, (3, 5), 0.25)
    monkeypatch.setattr("segedu.ops.roi_align.MAX_BATCH_POINTS", 100)
    torch.testing.assert_close(roi_align(features, boxes, (3, 5), 0.25), at_once, rtol=0, atol=0)


@pytest.mark.parametrize("side", [1e5, 1e9, 2e19, 3e38])
def test_huge_boxes_need_little_memory(side):
    """The bin in the middle has the whole feature map in it; the share of its points on the map is that of the area."""
    features = torch.ones(1, 2, 8, 8)
    box = torch.tensor([[-side / 2, -side / 2, side / 2, side / 2]])
    got = roi_align(features, [box], 7)
    inside = 9 * 7 / side  # from -1 to 8, of the middle bin, which has a side of side / 7
    assert got.shape == (1, 2, 7, 7) and got.isfinite().all()
    assert got.sum() == got[0, :, 3, 3].sum()
    if side < 1e12:  # else float64 does not resolve a place at the corner of the box
        torch.testing.assert_close(got[0, :, 3, 3], torch.full((2,), inside**2), rtol=1e-2, atol=0)
    assert (
        roi_align(features, [torch.tensor([[0.0, 0.0, 4.0, 4.0]])], 1, sampling_ratio=10**6).sub(1).abs().max() < 1e-3
    )
