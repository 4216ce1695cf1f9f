"""FCN against the paper's arithmetic: convolutions from layers, bilinear kernels, crops, sizes; and on bad input."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from learning import fit, mean_overlap
from torch import Tensor, nn

from segedu.backbones.resnet import BasicBlock, ResNet
from segedu.backbones.vgg import VGG
from segedu.layers.normalize import CaffeNormalize
from segedu.losses.cross_entropy import cross_entropy
from segedu.semantic.fcn import (
    FCN,
    BilinearUpsample,
    ClassifierHead,
    FCNResNet,
    bilinear_kernel,
    fc_to_conv,
    fcn_vgg16,
    postprocess,
)

TINY = ((2,), (2,), (3,), (3,), (3,))


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def tiny_resnet(output_stride: int = 32) -> ResNet:
    return ResNet(BasicBlock, (1, 1, 1, 1), widths=(4, 4, 8, 8), output_stride=output_stride)


# --- a classifier made convolutional ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [7, (2, 5)])
def test_fc_to_conv_gives_the_layers_numbers(size: int | tuple[int, int]) -> None:
    h, w = (size, size) if isinstance(size, int) else size
    layer, features = nn.Linear(3 * h * w, 4).double(), random(2, 3, h, w)
    weight, bias = fc_to_conv(layer.weight, layer.bias, size)
    assert weight.shape == (4, 3, h, w)
    torch.testing.assert_close(F.conv2d(features, weight, bias)[..., 0, 0], layer(features.flatten(1)))


def test_a_larger_image_gives_a_map_of_what_the_classifier_says_of_each_window() -> None:
    head = ClassifierHead(3, 5, hidden=6, kernel_size=4).double().eval()
    fc6, fc7 = nn.Linear(3 * 16, 6).double(), nn.Linear(6, 6).double()
    head.load_fully_connected(fc6, fc7)
    features = random(1, 3, 6, 5)
    scores = head(features)
    assert scores.shape == (1, 5, 3, 2)
    for y in range(3):
        for x in range(2):
            hidden = fc7(fc6(features[:, :, y : y + 4, x : x + 4].flatten(1)).relu()).relu()
            expected = hidden @ head.score.weight[..., 0, 0].T + head.score.bias
            torch.testing.assert_close(scores[:, :, y, x], expected)


# --- bilinear up-sampling ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2, 4, 8, 16, 32])
def test_bilinear_kernel_interpolates(factor: int) -> None:
    """Away from the borders, where one repeats the edge and the other adds nothing, as torch's interpolation."""
    features = random(1, 2, 4, 5)
    up = F.conv_transpose2d(features, bilinear_kernel(2, 2 * factor).double(), stride=factor)
    start = factor // 2
    up = up[..., start : start + 4 * factor, start : start + 5 * factor]
    expected = F.interpolate(features, scale_factor=factor, mode="bilinear", align_corners=False)
    inner = (..., slice(start, -start), slice(start, -start))
    torch.testing.assert_close(up[inner], expected[inner], rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 32, 64])
def test_bilinear_kernel_by_its_formula(size: int) -> None:
    factor, centre = (size + 1) // 2, (size - 1) / 2
    kernel = bilinear_kernel(3, size)
    for y in range(size):
        for x in range(size):
            value = (1 - abs(y - centre) / factor) * (1 - abs(x - centre) / factor)
            assert torch.allclose(kernel[:, :, y, x], value * torch.eye(3), atol=1e-7)


def test_odd_and_even_kernels() -> None:
    assert bilinear_kernel(1, 5).max() == 1 and bilinear_kernel(1, 4).max() == 0.75**2
    for factor in (2, 3, 8):  # every pixel of the result gets weights that sum to 1
        for size in (2 * factor, 2 * factor - 1):
            up = F.conv_transpose2d(torch.ones(1, 1, 4, 4), bilinear_kernel(1, size), stride=factor)
            assert torch.allclose(up[..., factor : 3 * factor, factor : 3 * factor], torch.tensor(1.0), atol=1e-6)


@pytest.mark.parametrize("factor", [2, 8])
def test_the_last_up_sampling_is_the_dense_kernel_and_no_parameter(factor: int) -> None:
    layer, logits = BilinearUpsample(3, factor).double(), random(2, 3, 4, 5)
    expected = F.conv_transpose2d(logits, bilinear_kernel(3, 2 * factor).double(), stride=factor)
    torch.testing.assert_close(layer(logits), expected)
    assert expected.shape[-2:] == (5 * factor, 6 * factor)
    assert not list(layer.parameters()) and not layer.state_dict()


# --- crops and sizes --------------------------------------------------------------------------------------------


def offsets(stride: int, size: tuple[int, int]) -> list[int]:
    """Where the authors' net cuts: found by what the layers are given and what they hand on."""
    net, seen = fcn_vgg16(2, stride=stride, stages=TINY, hidden=2).double().eval(), []
    torch.manual_seed(0)
    for parameter in net.parameters():  # above 0: no ReLU makes a map flat, in which every place would fit
        nn.init.uniform_(parameter, 0, 0.3)
    for score, upscore in zip(net.skip_scores, [*net.upscores, net.bilinear][1:], strict=True):
        score.register_forward_hook(lambda module, given, out: seen.append(out))
        upscore.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    for upscore in net.upscores:
        upscore.register_forward_hook(lambda module, given, out: seen.append(out))
    net.bilinear.register_forward_hook(lambda module, given, out: seen.append(out))
    with torch.no_grad():
        logits = net(random(1, 3, *size))
    found = []
    for _ in net.skip_scores:
        up, skip, total = seen[0], seen[1], seen[2]
        del seen[:3]
        found.append(place(total - up, skip))
    return [*found, place(logits, seen[0])]


def place(part: Tensor, whole: Tensor) -> int:
    """The offset, the same in both axes, at which `part` stands in `whole`."""
    height, width = part.shape[-2:]
    room = min(whole.shape[-2] - height, whole.shape[-1] - width)
    fits = [
        i for i in range(room + 1) if torch.allclose(whole[..., i : i + height, i : i + width], part, rtol=0, atol=1e-9)
    ]
    assert len(fits) == 1
    return fits[0]


@pytest.mark.parametrize("size", [(64, 96), (37, 45), (500, 333)])
def test_crops_are_the_authors(size: tuple[int, int]) -> None:
    assert offsets(32, size) == [19]
    assert offsets(16, size) == [5, 27]
    assert offsets(8, size) == [5, 9, 31]


@pytest.mark.parametrize("stride", [32, 16, 8])
def test_every_size_comes_back(stride: int) -> None:
    """The authors' arithmetic, and ours, for all heights from 1 to 33 and some large ones; widths of 3 and 40."""
    with torch.device("meta"):
        original = fcn_vgg16(2, stride=stride, stages=TINY, hidden=2)
        ours = FCN(tiny_resnet(), 2, stride=stride).eval()
        for height in (*range(1, 34), 224, 500):
            images = torch.empty(1, 3, height, 40 if height % 2 else 3)
            assert original(images).shape == (1, 2, *images.shape[-2:])
            assert ours(images).shape == (1, 2, *images.shape[-2:])


def test_sizes_inside_the_authors_net() -> None:
    """500 pixels: conv1_1 adds 198, five poolings round up to 22, fc6 leaves 16, FCN-32s makes 544 of them."""
    net, seen = fcn_vgg16(2, stride=32, stages=TINY, hidden=2), []
    for module in (net.head.fc6, net.bilinear):
        module.register_forward_hook(lambda module, given, out: seen.append((given[0].shape[-1], out.shape[-1])))
    net(torch.rand(1, 3, 500, 500))
    assert seen == [(22, 16), (16, 544)]


# --- on any backbone --------------------------------------------------------------------------------------------


class Blocks(nn.Module):
    """A backbone whose features are the means of blocks of the image: what comes out must lie where it came from."""

    in_channels, channels, strides = 1, (1, 1, 1), (8, 16, 32)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [F.avg_pool2d(images, stride) for stride in self.strides]


@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize("axis", [-1, -2])
def test_a_ramp_stays_in_its_place(stride: int, axis: int) -> None:
    """Means of a ramp are its values at the centres of the blocks; each path gives the ramp back, sharp to a pixel."""
    net = FCN(Blocks(), 1, stride=stride, head=nn.Identity()).double()
    for score in net.skip_scores:
        nn.init.ones_(score.weight)
    ramp = torch.arange(192.0, dtype=torch.float64)
    images = (ramp[None] if axis == -1 else ramp[:, None]).expand(1, 1, 192, 192)
    with torch.no_grad():
        logits = net(images)
    inner = (..., slice(40, -40), slice(40, -40))
    torch.testing.assert_close(logits[inner], (1 + len(net.levels)) * images[inner], rtol=0, atol=1e-9)


def test_skips_begin_at_zero_so_that_the_net_begins_as_one_without() -> None:
    net, images = FCN(tiny_resnet(), 3, stride=8).double().eval(), random(1, 3, 64, 96)
    for score in net.skip_scores:
        assert not score.weight.any() and not score.bias.any()
    logits = net.head(net.backbone(images)[-1])
    for factor in (2, 2, 8):
        logits = F.conv_transpose2d(logits, bilinear_kernel(3, 2 * factor).double(), None, factor, factor // 2)
    torch.testing.assert_close(net(images), logits, rtol=0, atol=1e-7)


def test_a_dilated_backbone_needs_no_skips() -> None:
    net = FCN(tiny_resnet(8), 3, stride=8)
    assert not net.levels and net(torch.rand(2, 3, 33, 40)).shape == (2, 3, 33, 40)
    with pytest.raises(ValueError, match="stride is 32, expected an even one of the backbone's"):
        FCN(net.backbone, 3, stride=32)


def test_scales_of_the_net_trained_at_once() -> None:
    plain, scaled = (fcn_vgg16(2, stages=TINY, hidden=2, at_once=at_once) for at_once in (False, True))
    assert plain.skip_scales == [1, 1] and scaled.skip_scales == [0.01, 0.0001]
    assert fcn_vgg16(2, stride=16, stages=TINY, hidden=2, at_once=True).skip_scales == [0.01]


def test_caffe_images_are_blue_first_and_less_the_mean() -> None:
    red = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1)
    expected = torch.tensor([-104.00699, -116.66877, 255 - 122.67892]).reshape(1, 3, 1, 1)
    torch.testing.assert_close(CaffeNormalize()(red), expected)
    net = fcn_vgg16(2, stages=TINY, hidden=2, normalize=CaffeNormalize())
    assert not [name for name in net.state_dict() if "normalize" in name]
    assert net(torch.rand(1, 3, 5, 6)).shape == (1, 2, 5, 6)


@pytest.mark.learns
@pytest.mark.parametrize("build", [lambda: FCN(tiny_resnet(), 2, stride=8), lambda: FCNResNet(tiny_resnet(8), 2)])
def test_fits_one_batch(build) -> None:
    torch.manual_seed(0)
    net = build()
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(96), indexing="ij")
    centres = torch.tensor([[30, 40], [36, 60]])
    target = torch.stack([(rows - r).square() + (columns - c).square() < 400 for r, c in centres]).long()
    images = 0.6 * target[:, None] + 0.4 * random(2, 3, 64, 96, dtype=torch.float32)
    first, last = fit(net, lambda: cross_entropy(net(images), target), steps=150, lr=1e-2)
    net.train()  # with the batch's statistics
    assert last < 0.5 * first and mean_overlap(postprocess(net(images)), target) > 0.6  # background alone has 0.40


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fc_to_conv(torch.rand(4), torch.rand(4), 1), r"weight has shape \(4,\), expected"),
        (lambda: fc_to_conv(torch.rand(4, 10), torch.rand(4), 2), r"weight has shape \(4, 10\), expected"),
        (lambda: fc_to_conv(torch.rand(4, 8), torch.rand(8), 2), r"bias has shape \(8,\), expected \(O,\) with O = 4"),
        (lambda: fc_to_conv(torch.rand(4, 8), torch.rand(4), 0), r"kernel_size is \(0, 0\), expected"),
        (lambda: fc_to_conv(torch.rand(4, 8), torch.rand(4), (1, 2, 2)), r"kernel_size is \(1, 2, 2\), expected"),
        (lambda: bilinear_kernel(0, 4), "channels is 0"),
        (lambda: BilinearUpsample(2, 0), "factor is 0, expected"),
        (lambda: BilinearUpsample(2, 3), "factor is 3, expected an even integer"),
        (lambda: ClassifierHead(4, 2, hidden=0), "hidden is 0, expected"),
        (lambda: fcn_vgg16(2, stride=4), "stride is 4, expected 32, 16 or 8"),
        (lambda: FCNResNet(tiny_resnet(8), 0), "num_classes is 0, expected"),
        (lambda: bilinear_kernel(1, 0), "kernel_size is 0, expected"),
        (lambda: FCN(tiny_resnet(), 0), "num_classes is 0"),
        (lambda: FCN(tiny_resnet(), 2, border=-1), "border is -1, expected"),
        (lambda: FCN(tiny_resnet(), 2, stride=7), "stride is 7, expected"),
        (lambda: FCN(VGG(TINY), 2, stride=64), "stride is 64, expected"),
        (lambda: FCN(tiny_resnet(), 2, skip_scales=(1,)), "skip_scales has 1 entries, expected 2"),
        (lambda: CaffeNormalize()(torch.rand(1, 4, 2, 2)), "images has shape"),
        (lambda: postprocess(torch.rand(2, 4, 4)), "logits has shape"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call()


@pytest.mark.parametrize("stride", [32, 16, 8])
def test_a_head_that_loses_cells_needs_a_border(stride: int) -> None:
    net = FCN(VGG(TINY), 2, stride=stride, head=ClassifierHead(VGG(TINY).channels[-1], 2, 4, kernel_size=3))
    with pytest.raises(ValueError, match="^border is 0, expected more: the head loses 2 cells of 32 pixels"):
        net(torch.rand(1, 3, 160, 100))


@pytest.mark.parametrize(
    ("fc6", "fc7", "message"),
    [
        (nn.Linear(4 * 9, 6), nn.Linear(6, 5), r"fc7 has a bias and weights of shape \(5, 6\), expected .* \(6, 6\)"),
        (nn.Linear(8 * 9, 6), nn.Linear(6, 6), r"fc6 has a bias and weights of shape \(6, 72\), expected"),
        (nn.Linear(4 * 9, 6, bias=False), nn.Linear(6, 6), "fc6 has no bias"),
    ],
)
def test_layers_that_do_not_fit_leave_the_head_as_it_was(fc6: nn.Linear, fc7: nn.Linear, message: str) -> None:
    head = ClassifierHead(4, 2, hidden=6, kernel_size=3)
    before = {key: value.clone() for key, value in head.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        head.load_fully_connected(fc6, fc7)
    assert all(torch.equal(value, before[key]) for key, value in head.state_dict().items())


def test_thin_backbones_have_heads() -> None:
    net = FCNResNet(ResNet(BasicBlock, (1, 1, 1, 1), (2, 2, 2, 2), output_stride=8), 3, aux=True)
    assert net(torch.rand(1, 3, 17, 20)).shape == (1, 3, 17, 20)
