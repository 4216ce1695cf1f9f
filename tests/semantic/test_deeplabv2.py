"""DeepLab v2 part by part: there is no packaged reference that runs.

The sum is compared with four separate convolutions, written as sums over taps; the merging with separate passes.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from learning import fit
from randomise import randomise
from torch import Tensor, nn

from segedu.backbones.resnet import BasicBlock, ResNet, resnet101
from segedu.backbones.vgg import VGG
from segedu.losses.cross_entropy import cross_entropy
from segedu.semantic.deeplabv1 import AtrousVGG
from segedu.semantic.deeplabv2 import (
    DeepLabV2,
    SummedASPP,
    deeplabv2_loss,
    parameter_groups,
    poly_decay,
    postprocess,
)

RATES = (1, 2, 3, 4)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def small_net(num_classes: int = 4, rates: tuple[int, ...] = RATES, **options: object) -> DeepLabV2:
    torch.manual_seed(0)
    backbone = ResNet(BasicBlock, (1, 1, 1, 1), (8, 8, 16, 16), output_stride=8)
    return DeepLabV2(backbone, num_classes, rates, **options)


# --- atrous spatial pyramid pooling -----------------------------------------------------------------------------


def atrous(x: Tensor, layer: nn.Conv2d, rate: int) -> Tensor:
    """A dilated convolution as a sum over taps of shifted features."""
    h, w = x.shape[-2:]
    padded = F.pad(x, (rate,) * 4)
    out = layer.bias.reshape(-1, 1, 1).expand(len(x), -1, h, w)
    for i in range(3):
        for j in range(3):
            shifted = padded[..., i * rate : i * rate + h, j * rate : j * rate + w]
            out = out + torch.einsum("oc,bchw->bohw", layer.weight[..., i, j], shifted)
    return out


@pytest.mark.parametrize("size", [(12, 16), (7, 5)])
@torch.no_grad()
def test_sum_of_four_convolutions(size: tuple[int, int]) -> None:
    aspp, features = randomise(SummedASPP(5, 3)), random(2, 5, *size)
    expected = sum(atrous(features, layer, rate) for layer, rate in zip(aspp.branches, (6, 12, 18, 24), strict=True))
    torch.testing.assert_close(aspp(features), expected, rtol=0, atol=1e-12)
    aspp.branches[2].bias[0] += 0.1
    assert (aspp(features) - expected).abs().max() > 0.09


@torch.no_grad()
def test_branches_of_three_layers() -> None:
    aspp, features = randomise(SummedASPP(5, 3, RATES, width=6)), random(2, 5, 9, 11)
    expected = 0
    for branch, rate in zip(aspp.branches, RATES, strict=True):
        x = atrous(features, branch[0], rate).clamp(min=0)
        x = F.conv2d(x, branch[3].weight, branch[3].bias).clamp(min=0)
        expected = expected + F.conv2d(x, branch[6].weight, branch[6].bias)
    torch.testing.assert_close(aspp(features), expected, rtol=0, atol=1e-12)


def test_field_of_view_of_each_branch() -> None:
    aspp = SummedASPP(1, 1, (2, 5)).double()
    for layer in aspp.branches:
        nn.init.ones_(layer.weight)
    features = random(1, 1, 21, 21).requires_grad_()
    aspp(features)[0, 0, 10, 10].backward()
    seen = {tuple(place.tolist()) for place in features.grad[0, 0].nonzero()}
    assert seen == {(10 + i * r, 10 + j * r) for r in (2, 5) for i in (-1, 0, 1) for j in (-1, 0, 1)}
    assert features.grad[0, 0, 10, 10] == 2  # both centres


def test_number_of_parameters() -> None:
    # 3x3 kernels from 2048 channels to 21 classes, four times, behind ResNet-101 without its classifier
    net = DeepLabV2(resnet101(output_stride=8), 21)
    assert sum(p.numel() for p in net.aspp.parameters()) == 4 * (2048 * 9 * 21 + 21)
    assert round(sum(p.numel() for p in net.parameters()) / 1e5) == 440  # 42.5 and 1.5 million


# --- several sizes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(65, 97), (37, 45), (40, 56)])
@torch.no_grad()
def test_merged_is_the_maximum_of_separate_passes(size: tuple[int, int]) -> None:
    net, images = randomise(small_net()), random(2, 3, *size)

    def resize(x: Tensor, to: tuple[int, ...]) -> Tensor:
        return F.interpolate(x, to, mode="bilinear", align_corners=True)

    scores = []
    for scale in (1, 0.75, 0.5):
        smaller = resize(images, tuple(round(scale * (n - 1)) + 1 for n in size))
        scores.append(net.aspp(net.backbone(smaller)[-1]))
    shape = tuple(-(-n // 8) for n in size)
    assert scores[0].shape[-2:] == shape and scores[2].shape[-1] < shape[1]
    expected = resize(scores[0], shape)
    for score in scores[1:]:
        expected = torch.maximum(expected, resize(score, shape))
    logits = net(images)
    assert logits.shape == (2, 4, *size)
    torch.testing.assert_close(logits[..., ::8, ::8], expected, rtol=0, atol=1e-12)
    assert (logits[..., ::8, ::8] - scores[0]).abs().max() > 1e-3  # the other sizes count
    each = net.forward_with_scales(images)["scales"]
    assert each.shape == (2, 3, 4, *size)
    torch.testing.assert_close(each[:, 0, :, ::8, ::8], scores[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(each[..., ::8, ::8].amax(dim=1), expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_the_image_at_half_size_keeps_every_second_pixel_of_sizes_8_n_plus_1() -> None:
    given = []
    net = small_net(scales=(1, 0.5)).double().eval()
    net.backbone.register_forward_pre_hook(lambda module, args: given.append(args[0]))
    images = random(1, 3, 33, 41)
    net(images)
    assert torch.equal(given[0], images)
    torch.testing.assert_close(given[1], images[..., ::2, ::2], rtol=0, atol=1e-12)


@torch.no_grad()
def test_one_size_is_a_plain_net() -> None:
    net, images = randomise(small_net(scales=(1.0,))), random(1, 3, 40, 33)
    scores = net.aspp(net.backbone(images)[-1])
    assert torch.equal(net(images)[..., ::8, ::8], scores)


def test_backbone_of_deeplab_v1() -> None:
    torch.manual_seed(0)
    vgg = VGG(((4,), (4,), (6,), (6,), (8,)))
    net = DeepLabV2(AtrousVGG(vgg), 3, RATES, width=6).eval()
    assert net(random(1, 3, 37, 45, dtype=torch.float32)).shape == (1, 3, 37, 45)


# --- loss, learning rates, labels -------------------------------------------------------------------------------


def test_loss_adds_the_merged_scores_and_each_size() -> None:
    net = small_net()
    outputs = net.forward_with_scales(random(2, 3, 33, 40, dtype=torch.float32))
    target = torch.randint(0, 4, (2, 33, 40), generator=torch.Generator().manual_seed(1))
    target[1, :9] = 255
    coarse = target[:, ::8, ::8]
    parts = [cross_entropy(x[..., ::8, ::8], coarse) for x in (outputs["out"], *outputs["scales"].unbind(1))]
    assert len(parts) == 4
    loss = deeplabv2_loss(outputs, target)
    torch.testing.assert_close(loss, sum(parts))
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_the_classifier_learns_ten_times_faster() -> None:
    net = small_net()
    backbone, head = parameter_groups(net, learning_rate=0.002)
    assert (backbone["lr"], head["lr"]) == (0.002, 0.02)
    assert len(backbone["params"]) + len(head["params"]) == len(list(net.parameters()))
    before = [p.detach().clone() for p in (net.backbone.conv1.weight, net.aspp.branches[0].bias)]
    optimizer = torch.optim.SGD(parameter_groups(net, 0.002))
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    moved = [
        (a - b).mean() for a, b in zip(before, (net.backbone.conv1.weight, net.aspp.branches[0].bias), strict=True)
    ]
    torch.testing.assert_close(torch.stack(moved), torch.tensor([0.002, 0.02]), rtol=1e-4, atol=0)


def test_poly_decay() -> None:
    assert [poly_decay(step, 10, power=1) for step in (0, 5, 10)] == [1, 0.5, 0]
    assert poly_decay(5, 10) == 0.5**0.9 and poly_decay(3, 10, power=0) == 1
    net = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: poly_decay(step, 4))
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.1 * (1 - step / 4) ** 0.9 for step in range(4)])


@pytest.mark.learns
def test_fits_one_batch() -> None:
    torch.manual_seed(0)
    net = small_net(num_classes=2)
    target = torch.zeros(2, 33, 41, dtype=torch.int64)
    target[0, 4:20, 6:22], target[1, 12:28, 16:36] = 1, 1
    images = 0.7 * target[:, None] + 0.3 * random(2, 3, 33, 41, dtype=torch.float32)
    _, loss = fit(net, lambda: deeplabv2_loss(net.forward_with_scales(images), target), steps=70, lr=1e-2)
    net.train()  # with the batch's statistics
    labels = postprocess(net(images))
    assert loss < 0.4 and (labels[:, ::8, ::8] == target[:, ::8, ::8]).float().mean() > 0.98


def test_the_crf_removes_an_island() -> None:
    images, logits = torch.full((1, 3, 20, 24), 0.5), torch.zeros(1, 2, 20, 24)
    logits[:, 0], logits[:, 0, 10, 12], logits[:, 1, 10, 12] = 2, 0, 0.5
    assert postprocess(logits).sum() == 1 and postprocess(logits, images).sum() == 0


LOGITS = torch.zeros(2, 3, 8, 9)
OUTPUTS = {"out": LOGITS, "scales": LOGITS[:, None]}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: small_net(num_classes=0), "num_classes is 0, expected"),
        (lambda: small_net(rates=()), "rates is empty, expected"),
        (lambda: small_net(rates=(1, 0)), r"rates\[1\] is 0, expected"),
        (lambda: small_net(width=0), "width is 0, expected"),
        (lambda: small_net(scales=(0.5, 1)), r"scales is \(0.5, 1\), expected"),
        (lambda: small_net(scales=(1, 0)), r"scales is \(1, 0\), expected"),
        (lambda: small_net()(torch.zeros(1, 1, 16, 16)), "images has shape"),
        (lambda: deeplabv2_loss({"out": LOGITS}, torch.zeros(2, 8, 9).long()), r"keys \['out'\], expected"),
        (lambda: deeplabv2_loss(OUTPUTS, torch.zeros(2, 8, 9).long(), 0), "stride is 0, expected"),
        (lambda: deeplabv2_loss(OUTPUTS, torch.zeros(2, 20, 9).long()), "target has shape"),
        (lambda: deeplabv2_loss(OUTPUTS, torch.zeros(2, *(n - 1 for n in LOGITS.shape[2:])).long()), "as logits has"),
        (
            lambda: deeplabv2_loss({"out": LOGITS, "scales": LOGITS}, torch.zeros(2, 8, 9).long()),
            r"outputs\[\'scales\'\] has shape",
        ),
        (lambda: parameter_groups(small_net(), 0), "learning_rate is 0, expected"),
        (lambda: poly_decay(5, 4), "step is 5, expected"),
        (lambda: poly_decay(0, 4, -1), "power is -1, expected"),
        (lambda: postprocess(LOGITS[0]), "logits has shape"),
        (lambda: postprocess(LOGITS, torch.zeros(2, 3, 8, 8)), r"images has shape \(2, 3, 8, 8\), expected"),
        (lambda: postprocess(LOGITS, iterations=3), "iterations is given without images"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_the_loss_wants_every_scale() -> None:
    with pytest.raises(TypeError, match="outputs has type Tensor, expected a dict with the keys out, scales"):
        deeplabv2_loss(LOGITS, torch.zeros(2, 8, 9).long())
