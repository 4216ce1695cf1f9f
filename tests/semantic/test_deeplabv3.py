"""DeepLabv3 against torchvision on the same weights, and its parts against what the paper says."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from learning import fit, mean_overlap
from randomise import randomise
from torch import Tensor, nn
from torchvision.models.segmentation import deeplabv3_resnet50 as torchvision_50
from torchvision.models.segmentation import deeplabv3_resnet101 as torchvision_101
from torchvision.models.segmentation.deeplabv3 import ASPP as TorchvisionASPP

from segedu.backbones.resnet import BasicBlock, ResNet
from segedu.losses.cross_entropy import cross_entropy
from segedu.semantic.deeplabv3 import (
    ASPP,
    DeepLabV3,
    ImagePooling,
    aspp_rates,
    deeplabv3_resnet50,
    deeplabv3_resnet101,
    postprocess,
)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def small_net(aux: bool = False, num_classes: int = 4) -> DeepLabV3:
    torch.manual_seed(0)
    backbone = ResNet(BasicBlock, (1, 1, 1, 1), (8, 8, 16, 16), output_stride=8)
    return DeepLabV3(backbone, num_classes, rates=(1, 2, 3), width=8, aux=aux)


def reference(builder, num_classes: int = 5) -> nn.Module:
    return builder(weights=None, weights_backbone=None, num_classes=num_classes, aux_loss=True)


# --- parity -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(deeplabv3_resnet50, torchvision_50), (deeplabv3_resnet101, torchvision_101)],
    ids=["50", "101"],
)
@torch.no_grad()
def test_parity_with_torchvision(ours, theirs) -> None:
    other = randomise(reference(theirs))
    net = ours(5, aux=True).double().eval()
    net.load_state_dict(other.state_dict(), strict=True)
    for size in ((48, 64), (33, 47)):
        images = random(1, 3, *size)
        got, expected = net.forward_with_aux(images), other(images)
        for name in ("out", "aux"):
            assert expected[name].std() > 0.01  # a comparison of constants would hold nothing
            torch.testing.assert_close(got[name], expected[name], rtol=0, atol=1e-9)
        assert torch.equal(net(images), got["out"])
    images = images.float()
    torch.testing.assert_close(net.float()(images), other.float()(images)["out"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "key", ["backbone.layer4.0.conv2.weight", "classifier.0.convs.3.0.weight", "classifier.4.bias"]
)
@torch.no_grad()
def test_parity_notices_another_weight(key: str) -> None:
    net, images = randomise(small_net()), random(1, 3, 40, 56)
    right = net(images)
    net.state_dict()[key].add_(0.1)
    assert (net(images) - right).abs().max() > 1e-3


@torch.no_grad()
def test_parity_notices_another_rate() -> None:
    ours = randomise(ASPP(6, (2, 4, 6), width=5))
    theirs = TorchvisionASPP(6, (2, 4, 5), out_channels=5).double().eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    features = random(2, 6, 9, 14)
    assert (ours(features) - theirs(features)).abs().max() > 1e-3


@pytest.mark.parametrize("size", [(12, 16), (7, 1), (1, 1)])
def test_aspp_and_its_gradients_agree_with_torchvision(size: tuple[int, int]) -> None:
    ours = randomise(ASPP(6, (2, 4, 6), width=5))
    theirs = TorchvisionASPP(6, (2, 4, 6), out_channels=5).double().eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    features = [random(2, 6, *size).requires_grad_() for _ in range(2)]
    outs = [net(x) for net, x in zip((ours, theirs), features, strict=True)]
    torch.testing.assert_close(*outs, rtol=0, atol=1e-12)
    for out in outs:
        out.square().sum().backward()
    torch.testing.assert_close(features[0].grad, features[1].grad, rtol=0, atol=1e-12)


def test_training_statistics_agree_with_torchvision() -> None:
    ours, theirs = ASPP(6, (2, 4), width=5, dropout=0).double(), TorchvisionASPP(6, (2, 4), out_channels=5).double()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    theirs.project[3].p = 0
    features = random(3, 6, 9, 11)
    torch.testing.assert_close(ours(features), theirs(features), rtol=0, atol=1e-12)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=0, atol=1e-12, msg=name)


def test_number_of_parameters() -> None:
    # 42.0 and 61.0 million: torchvision's documentation of its weights
    assert round(sum(p.numel() for p in deeplabv3_resnet50(aux=True).parameters()) / 1e4) == 4200
    assert round(sum(p.numel() for p in deeplabv3_resnet101(aux=True).parameters()) / 1e4) == 6100


# --- parts ------------------------------------------------------------------------------------------------------


def test_a_large_rate_leaves_one_tap_inside_the_image() -> None:
    # the paper's reason for image pooling, section 3.3: at rate >= size only the centre of the kernel counts
    branch = randomise(ASPP(2, (9,), width=3)).convs[1][0]
    features = random(1, 2, 9, 9)
    centre = F.conv2d(features, branch.weight[:, :, 1:2, 1:2])
    torch.testing.assert_close(branch(features), centre, rtol=0, atol=1e-12)


def test_image_pooling_sees_the_whole_image_and_is_the_same_everywhere() -> None:
    pool = randomise(ImagePooling(3, 4))
    nn.init.constant_(pool[2].bias, 9)  # so that the ReLU lets all channels pass
    features = random(2, 3, 5, 7).requires_grad_()
    out = pool(features)
    assert out.shape == (2, 4, 5, 7) and torch.equal(out, out[..., :1, :1].expand_as(out))
    out[0, :, 0, 0].sum().backward()
    assert (features.grad[0].abs() > 0).all() and (features.grad[1] == 0).all()
    swapped = features.detach().flip(-1)  # a mean does not know where things are
    torch.testing.assert_close(pool(swapped), out.detach(), rtol=0, atol=1e-12)


def test_one_image_trains() -> None:
    net = small_net().train()
    net(random(1, 3, 32, 40, dtype=torch.float32)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_rates_follow_the_output_stride() -> None:
    assert [aspp_rates(stride) for stride in (32, 16, 8)] == [(3, 6, 9), (6, 12, 18), (12, 24, 36)]


def test_auxiliary_head() -> None:
    net = small_net(aux=True).eval()
    outputs = net.forward_with_aux(random(2, 3, 37, 45, dtype=torch.float32))
    assert {name: tuple(value.shape) for name, value in outputs.items()} == dict.fromkeys(
        ("out", "aux"), (2, 4, 37, 45)
    )
    with pytest.raises(ValueError, match="aux_classifier is None"):
        small_net().forward_with_aux(random(1, 3, 32, 32, dtype=torch.float32))


@pytest.mark.learns
def test_fits_one_batch() -> None:
    torch.manual_seed(0)
    net = small_net(num_classes=2)
    target = torch.zeros(2, 32, 40, dtype=torch.int64)
    target[0, 4:20, 6:22], target[1, 12:28, 16:36] = 1, 1
    images = 0.7 * target[:, None] + 0.3 * random(2, 3, 32, 40, dtype=torch.float32)
    _, loss = fit(net, lambda: cross_entropy(net(images), target), steps=100, lr=1e-2)
    net.train()  # with the batch's statistics
    assert loss < 0.3 and mean_overlap(postprocess(net(images)), target) > 0.6  # background alone has 0.39


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: small_net(num_classes=0), "num_classes is 0, expected"),
        (lambda: ASPP(4, ()), "rates is empty, expected"),
        (lambda: ASPP(4, (0, 1)), r"rates\[0\] is 0, expected"),
        (lambda: ASPP(4, (1,), width=0), "width is 0, expected"),
        (lambda: aspp_rates(4), "output_stride is 4, expected"),
        (lambda: postprocess(torch.zeros(3, 4, 4)), "logits has shape"),
        (lambda: small_net()(torch.zeros(1, 4, 8, 8)), "images has shape"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
