"""DeepLab v1 part by part: there is no packaged reference that runs.

Holes are compared with loops over taps and with the net at stride 32; fields of view are measured by gradients.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from learning import fit
from randomise import randomise
from torch import Tensor, nn

from segedu.backbones.vgg import VGG, vgg16
from segedu.losses.cross_entropy import cross_entropy
from segedu.semantic.deeplabv1 import AtrousVGG, DeepLabV1, deeplabv1_loss, postprocess

STAGES = ((4, 4), (4, 4), (6, 6), (6, 6), (8, 8))


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def small_vgg(**options: object) -> VGG:
    torch.manual_seed(0)
    return VGG(STAGES, **options)


def small_net(num_classes: int = 4, rate: int = 2, **options: object) -> DeepLabV1:
    return DeepLabV1(AtrousVGG(small_vgg(**options)), num_classes, width=8, rate=rate)


def seen_by(output: Tensor, images: Tensor) -> tuple[slice, slice]:
    """Rows and columns of the image that an output depends on."""
    grad = torch.autograd.grad(output, images, retain_graph=True)[0].abs().sum(dim=(0, 1))
    rows, columns = (grad.sum(dim=d).nonzero().flatten() for d in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


# --- whole net --------------------------------------------------------------------------------------------------


def atrous(x: Tensor, weight: Tensor, bias: Tensor, rate: int) -> Tensor:
    """A dilated convolution as a sum over taps of shifted images: no dilation argument."""
    reach = rate * (weight.shape[-1] // 2)
    h, w = x.shape[-2:]
    padded = F.pad(x, (reach,) * 4)
    out = bias.reshape(-1, 1, 1).expand(len(x), -1, h, w)
    for i in range(weight.shape[-2]):
        for j in range(weight.shape[-1]):
            shifted = padded[..., i * rate : i * rate + h, j * rate : j * rate + w]
            out = out + torch.einsum("oc,bchw->bohw", weight[..., i, j], shifted)
    return out


def oracle(net: DeepLabV1, images: Tensor) -> Tensor:
    """Scores of the net by sums over taps, before upsampling."""
    w, x = net.state_dict(), images
    for i in range(5):
        for j in (0, 2):
            names = (
                f"backbone.stages.{i}.{key}.{kind}"
                for key in (list(net.backbone.stages[i]._modules)[j],)
                for kind in ("weight", "bias")
            )
            x = atrous(x, *(w[name] for name in names), rate=2 if i == 4 else 1).clamp(min=0)
        # the maximum over shifted copies, cut to every second place where the stage halves
        windows = F.pad(x, (1,) * 4, value=-torch.inf)
        h, width = x.shape[-2:]
        x = torch.stack([windows[..., a : a + h, b : b + width] for a in range(3) for b in range(3)]).amax(0)
        x = x[..., ::2, ::2] if i < 3 else x
    x = sum(F.pad(x, (1 - a, 1 + a, 1 - b, 1 + b))[..., 1:-1, 1:-1] for a in (-1, 0, 1) for b in (-1, 0, 1)) / 9
    x = atrous(x, w["fc6.weight"], w["fc6.bias"], rate=2).clamp(min=0)
    x = atrous(x, w["fc7.weight"], w["fc7.bias"], rate=1).clamp(min=0)
    return atrous(x, w["fc8.weight"], w["fc8.bias"], rate=1)


@pytest.mark.parametrize("size", [(41, 57), (40, 35)])
@torch.no_grad()
def test_scores_equal_those_of_sums_over_taps(size: tuple[int, int]) -> None:
    net, images = randomise(small_net()), random(2, 3, *size)
    expected = oracle(net, images)
    logits = net(images)
    assert logits.shape == (2, 4, *size) and expected.std() > 0.01
    torch.testing.assert_close(logits[..., ::8, ::8], expected, rtol=0, atol=1e-11)
    net.fc6.dilation = net.fc6.padding = (3, 3)
    assert (net(images)[..., ::8, ::8] - expected).abs().max() > 1e-3


# --- holes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(65, 97), (64, 90)])
@torch.no_grad()
def test_after_the_fourth_pooling_every_second_place_is_that_of_the_strided_net(size: tuple[int, int]) -> None:
    backbone, images = randomise(AtrousVGG(small_vgg())), random(1, 3, *size)
    x = images
    for i in range(4):
        x = F.max_pool2d(backbone.stages[i](x), 3, stride=2, padding=1)
    torch.testing.assert_close(backbone(images)[3][..., ::2, ::2], x, rtol=0, atol=1e-12)


@torch.no_grad()
def test_holes_keep_what_trained_filters_see() -> None:
    """Far from the border, each fourth place behind conv5 is that of the strided net, up to the 3x3 maximum."""
    backbone, images = randomise(AtrousVGG(small_vgg())), random(1, 3, 257, 257)
    dense, coarse = images, images
    for i in range(4):
        coarse = F.max_pool2d(backbone.stages[i](coarse), 3, stride=2, padding=1)
    dense = backbone.stages[4](backbone(images)[3])  # with holes, stride 8
    for layer in backbone.stages[4]:
        coarse = (
            F.conv2d(coarse, layer.weight, layer.bias, padding=1) if isinstance(layer, nn.Conv2d) else layer(coarse)
        )
    assert dense.shape[-1] == 33 and coarse.shape[-1] == 17
    torch.testing.assert_close(dense[..., ::2, ::2], coarse, rtol=0, atol=1e-12)
    wrong = F.conv2d(backbone(images)[3], backbone.stages[4][0].weight, backbone.stages[4][0].bias, padding=1)
    assert (wrong.clamp(min=0) - backbone.stages[4][:2](backbone(images)[3])).abs().max() > 1e-3


def test_strides_channels_and_places() -> None:
    backbone = AtrousVGG(small_vgg()).double()
    images = random(1, 3, 65, 97).requires_grad_()
    features = backbone(images)
    assert backbone.strides == (2, 4, 8, 8, 8) and backbone.channels == (4, 4, 6, 6, 8)
    for x, stride in zip(features, backbone.strides, strict=True):
        assert x.shape[-2:] == (-(-65 // stride), -(-97 // stride))


def test_a_feature_belongs_to_the_pixel_in_the_centre_of_what_it_sees() -> None:
    backbone = AtrousVGG(small_vgg()).double()
    for i, pool in enumerate(backbone.pools):  # a mean of positive numbers hides nothing, unlike a maximum
        backbone.pools[i] = nn.AvgPool2d(3, pool.stride, padding=1)
        for layer in backbone.stages[i][::2]:
            nn.init.constant_(layer.weight, 0.1)
            nn.init.constant_(layer.bias, 1)
    images = random(1, 3, 257, 257).requires_grad_()
    sizes = []
    for features, stride in zip(backbone(images), backbone.strides, strict=True):
        rows, columns = seen_by(features[0, 0, 128 // stride, 128 // stride], images)
        assert rows == columns and rows.start + rows.stop - 1 == 2 * 128
        sizes.append(rows.stop - rows.start)
    # two 3x3 convolutions and a 3x3 pooling a stage: 6 features of the stage's stride; 10 with rate 2
    strides, extents = (1, 2, 4, 8, 8), (6, 6, 6, 6, 10)
    assert sizes == [1 + sum(s * e for s, e in zip(strides[:n], extents, strict=False)) for n in range(1, 6)]


def test_the_given_vgg_stays_as_it_was() -> None:
    vgg = small_vgg(first_padding=100)
    backbone = AtrousVGG(vgg)
    assert vgg.stage(4)[0].dilation == (1, 1) and vgg.stage(0)[0].padding == (100, 100)
    assert backbone.stages[4][0].dilation == (2, 2) and backbone.stages[0][0].padding == (1, 1)
    assert torch.equal(backbone.stages[4][0].weight, vgg.stage(4)[0].weight)
    assert backbone.stages[4][0].weight is not vgg.stage(4)[0].weight


def test_batch_normalisation_and_normalisation_of_the_images_are_kept() -> None:
    twice = nn.Hardtanh(0.2, 0.5)
    net = small_net(batch_norm=True, normalize=twice).eval()
    images = random(1, 3, 33, 40, dtype=torch.float32)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) == 10
    torch.testing.assert_close(net(images), net(twice(images)))
    assert not torch.allclose(net(images), net(images * 0.4))


# --- field of view ----------------------------------------------------------------------------------------------


class Every(nn.Module):
    """Features that are the pixels of every eighth row and column."""

    channels, strides, in_channels = (3,), (8,), 3

    def forward(self, images: Tensor) -> list[Tensor]:
        return [images[..., ::8, ::8]]


@pytest.mark.parametrize(("rate", "taps"), [(1, 5), (4, 11), (12, 27)])
def test_field_of_view_grows_with_the_rate_at_the_same_number_of_weights(rate: int, taps: int) -> None:
    net = DeepLabV1(Every(), 2, width=4, rate=rate).double().eval()
    for layer in (net.fc6, net.fc7, net.fc8):
        nn.init.constant_(layer.weight, 0.1)
        nn.init.constant_(layer.bias, 1)
    images = random(1, 3, 241, 241).requires_grad_()
    rows, columns = seen_by(net(images)[0, 0, 120, 120], images)
    # 2 rate + 1 places of the kernel, one more on each side by the average before it
    assert (rows.stop - rows.start - 1) / 8 + 1 == taps == 2 * rate + 3 and columns == rows
    assert net.fc6.weight.numel() == 4 * 3 * 9


def test_number_of_parameters() -> None:
    # the paper's table of fields of view: 20.5 million with 3x3 kernels and 1024 channels
    count = sum(p.numel() for p in DeepLabV1(AtrousVGG(vgg16()), 21).parameters())
    assert round(count / 1e5) == 205


# --- loss and labels --------------------------------------------------------------------------------------------


def test_loss_looks_at_every_eighth_row_and_column() -> None:
    logits = random(2, 3, 20, 17).requires_grad_()
    target = torch.randint(0, 3, (2, 20, 17), generator=torch.Generator().manual_seed(1))
    target[0, 8, 8] = 255
    loss = deeplabv1_loss(logits, target)
    places = [(b, y, x) for b in range(2) for y in (0, 8, 16) for x in (0, 8, 16) if (b, y, x) != (0, 8, 8)]
    by_hand = [-logits[b, :, y, x].log_softmax(0)[target[b, y, x]] for b, y, x in places]
    torch.testing.assert_close(loss, torch.stack(by_hand).mean())
    loss.backward()
    assert logits.grad.abs().sum(dim=1).count_nonzero() == 17
    torch.testing.assert_close(deeplabv1_loss(logits, target, stride=1), cross_entropy(logits, target))


@pytest.mark.learns
def test_fits_one_batch() -> None:
    torch.manual_seed(0)
    net = DeepLabV1(AtrousVGG(VGG(STAGES, batch_norm=True)), 2, width=16, rate=2, dropout=0)
    target = torch.zeros(2, 32, 40, dtype=torch.int64)
    target[0, 4:20, 6:22], target[1, 12:28, 16:36] = 1, 1
    images = 0.7 * target[:, None] + 0.3 * random(2, 3, 32, 40, dtype=torch.float32)
    _, loss = fit(net, lambda: deeplabv1_loss(net(images), target), steps=100, lr=1e-2)
    net.train()  # with the batch's statistics
    labels = postprocess(net(images))
    assert loss < 0.1 and torch.equal(labels[:, ::8, ::8], target[:, ::8, ::8])  # the others are interpolated
    assert (labels == target).float().mean() > 0.8


@pytest.mark.parametrize("size", [(12, 17), (40, 60)])
def test_the_crf_moves_borders_to_where_colours_change(size: tuple[int, int]) -> None:
    h, w = size
    images, logits = torch.full((2, 3, h, w), 0.1), torch.zeros(2, 2, h, w)
    images[:, :, :, w // 2 :] = 0.9
    logits[:, 1, :, w // 2 - 2 :] = 2.0  # two columns too early
    logits[:, 0, :, : w // 2 - 2] = 2.0
    truth = (torch.arange(w) >= w // 2).long().expand(2, h, w)
    assert not torch.equal(postprocess(logits), truth)
    assert torch.equal(postprocess(logits, images), truth)
    assert torch.equal(postprocess(logits, images, iterations=0), postprocess(logits))


LOGITS = torch.zeros(2, 3, 8, 9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: small_net(num_classes=0), "num_classes is 0, expected"),
        (lambda: small_net(rate=0), "rate is 0, expected"),
        (lambda: AtrousVGG(VGG(STAGES[:4])), "vgg has 4 stages, expected 5"),
        (lambda: small_net()(torch.zeros(1, 1, 16, 16)), "images has shape"),
        (lambda: deeplabv1_loss(LOGITS, torch.zeros(2, 8, 9).long(), stride=0), "stride is 0, expected"),
        (lambda: deeplabv1_loss(LOGITS, torch.zeros(2, 20, 9).long()), "target has shape"),
        (lambda: deeplabv1_loss(LOGITS, torch.zeros(2, *(n - 1 for n in LOGITS.shape[2:])).long()), "as logits has"),
        (lambda: postprocess(LOGITS[0]), "logits has shape"),
        (lambda: postprocess(LOGITS[0], torch.zeros(2, 3, 8, 9)), "logits has shape"),
        (lambda: postprocess(LOGITS[:0], torch.zeros(0, 3, 8, 9)), "logits has shape"),
        (lambda: postprocess(LOGITS, torch.zeros(2, 3, 8, 8)), r"images has shape \(2, 3, 8, 8\), expected"),
        (lambda: postprocess(LOGITS, torch.zeros(1, 3, 8, 9)), r"images has shape \(1, 3, 8, 9\), expected"),
        (lambda: postprocess(LOGITS, iterations=3), "iterations is given without images"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
