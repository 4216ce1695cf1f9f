"""The pyramid against torchvision's, with the same random weights: every level, values and gradients, in float64."""

from __future__ import annotations

import pytest
import torch
from randomise import randomise
from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops import feature_pyramid_network as oracle

from segedu.backbones.fpn import FPN, LevelsP6P7, PoolLevel, TopDown
from segedu.backbones.resnet import BasicBlock, ResNet, resnet18
from segedu.layers.batch_norm import freeze_batch_norm

CHANNELS, OUT = (4, 6, 10), 5
SIZES = [((16, 24), (8, 12), (4, 6)), ((13, 21), (7, 11), (4, 6)), ((3, 1), (2, 1), (1, 1))]
EXTRA = {
    "none": (lambda: None, lambda: None),
    "pool": (PoolLevel, oracle.LastLevelMaxPool),
    "p6p7 of C5": (lambda: LevelsP6P7(10, OUT), lambda: oracle.LastLevelP6P7(10, OUT)),
    "p6p7 of P5": (lambda: LevelsP6P7(OUT, OUT, from_features=False), lambda: oracle.LastLevelP6P7(OUT, OUT)),
}


def pair(name: str) -> tuple[nn.Module, nn.Module]:
    ours, theirs = EXTRA[name]
    theirs = randomise(FeaturePyramidNetwork(CHANNELS, OUT, theirs()))
    ours = TopDown(CHANNELS, OUT, ours()).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


def features(sizes: tuple) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(2, C, *size, generator=generator, dtype=torch.float64).requires_grad_()
        for C, size in zip(CHANNELS, sizes, strict=True)
    ]


def levels_and_gradients(pyramid: nn.Module, sizes: tuple, named: bool) -> list[Tensor]:
    inputs = features(sizes)
    given = {str(i): x for i, x in enumerate(inputs)} if named else inputs
    levels = pyramid(given)
    levels = list(levels.values()) if named else levels
    loss = sum((i + 1) * level.square().sum() for i, level in enumerate(levels))
    return [*levels, *torch.autograd.grad(loss, [*inputs, *pyramid.parameters()])]


@pytest.mark.parametrize("name", EXTRA)
@pytest.mark.parametrize("sizes", SIZES)
def test_equals_torchvision(name: str, sizes: tuple) -> None:
    ours, theirs = pair(name)
    expected = levels_and_gradients(theirs, sizes, named=True)
    torch.testing.assert_close(levels_and_gradients(ours, sizes, named=False), expected, rtol=1e-10, atol=1e-10)
    ours.inner_blocks[2][0].bias.data[0] += 1e-6
    with pytest.raises(AssertionError):
        torch.testing.assert_close(levels_and_gradients(ours, sizes, named=False), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("returned", [(1, 2, 3, 4), (2, 3, 4)])
def test_a_detectors_backbone_loads_and_gives_the_same(returned: tuple[int, ...]) -> None:
    theirs = randomise(
        resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5, returned_layers=list(returned))
    )
    ours = FPN(freeze_batch_norm(resnet18()), 256, returned, PoolLevel()).double().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    for size in ((64, 96), (75, 33)):
        images = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        with torch.no_grad():
            got, expected = ours(images), list(theirs(images).values())
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
        assert [x.shape[1] for x in got] == list(ours.channels)
        assert [-(-size[0] // s) for s in ours.strides] == [x.shape[2] for x in got]


def tiny(**options: object) -> FPN:
    torch.manual_seed(0)
    return FPN(ResNet(BasicBlock, (1, 1, 1, 1), (2, 3, 4, 5)), 6, **options)


def test_channels_and_strides() -> None:
    assert tiny().strides == (4, 8, 16, 32) and tiny().channels == (6,) * 4
    assert tiny(extra=PoolLevel()).strides == (4, 8, 16, 32, 64)
    pyramid = tiny(levels=(2, 3, 4), extra=LevelsP6P7(5, 6))
    assert pyramid.strides == (8, 16, 32, 64, 128) and pyramid.channels == (6,) * 5
    levels = pyramid(torch.rand(2, 3, 70, 90))
    assert [tuple(x.shape) for x in levels] == [(2, 6, -(-70 // s), -(-90 // s)) for s in pyramid.strides]


def test_backward_reaches_every_parameter() -> None:
    pyramid = tiny(levels=(2, 3, 4), extra=LevelsP6P7(5, 6))
    sum(level.square().mean() for level in pyramid(torch.rand(2, 3, 64, 64))).backward()
    for key, parameter in pyramid.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, key


def test_fresh_weights_have_the_bounds_of_torchvision() -> None:
    theirs = FeaturePyramidNetwork((64, 128), 32, oracle.LastLevelP6P7(128, 32)).state_dict()
    for key, value in TopDown((64, 128), 32, LevelsP6P7(128, 32)).state_dict().items():
        torch.testing.assert_close(value.abs().max(), theirs[key].abs().max(), rtol=0.02, atol=0)


def test_bad_input() -> None:
    for bad in ((), (2, 1), (1, 1), (0, 5), (-1, 2)):
        with pytest.raises(ValueError, match="levels is .* expected ascending indices of the features 0 to 4"):
            tiny(levels=bad)
    with pytest.raises(ValueError, match="out_channels is 0, expected"):
        FPN(resnet18(), 0)
    with pytest.raises(ValueError, match="in_channels is 5, expected 6"):
        LevelsP6P7(5, 6, from_features=False)
    with pytest.raises(ValueError, match="images has shape .* expected"):
        tiny()(torch.rand(3, 64, 64))
