"""What every backbone promises, at tiny widths."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from segedu.backbones.convnext import ConvNeXt
from segedu.backbones.densenet import DenseBlock, DenseNet, Transition
from segedu.backbones.fpn import FPN
from segedu.backbones.resnet import BasicBlock, Bottleneck, ResNet
from segedu.backbones.swin import Swin
from segedu.backbones.tiny_vit import TinyViT
from segedu.backbones.vgg import VGG
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize

STAGES, WIDTHS = ((4,), (6, 6), (8,)), (4, 6, 8, 10)


def tiny_vit(**options: object) -> TinyViT:
    """Fresh blocks pass on what they are given: the factor 0 of their last normalisation hides gradients."""
    model = TinyViT((4, 8, 8, 12), (1, 1, 2, 1), (1, 2, 2, 4), (7, 3, 2, 2), **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    return model


TINY: dict[str, Callable[..., nn.Module]] = {
    "vgg": lambda **options: VGG(STAGES, **options),
    "vgg bn": lambda **options: VGG(STAGES, batch_norm=True, **options),
    "resnet basic": lambda **options: ResNet(BasicBlock, (1, 1, 1, 1), WIDTHS, **options),
    "resnet bottleneck": lambda **options: ResNet(Bottleneck, (1, 2, 1, 1), WIDTHS, **options),
    "resnet dilated": lambda **options: ResNet(BasicBlock, (1, 2, 1, 2), WIDTHS, output_stride=8, **options),
    "densenet": lambda **options: DenseNet((2, 3, 2), 4, 6, **options),
    "swin": lambda **options: Swin(8, (2, 1, 2, 2), (2, 2, 4, 8), window_size=3, **options),
    "swin dense": lambda **options: Swin(8, (2, 1, 2, 2), (2, 2, 4, 8), window_size=3, dense=True, **options),
    "convnext": lambda **options: ConvNeXt((1, 2, 3, 1), (4, 6, 10, 16), **options),
    "tiny_vit": tiny_vit,
    "tiny_vit of MobileSAM": lambda **options: tiny_vit(last_stride=1, **options),
}
every_backbone = pytest.mark.parametrize("name", TINY)


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def side(name: str, length: int, stride: int) -> int:
    """Height or width of features: VGG's pooling and ConvNeXt round down, as does plain Swin's first step."""
    if name.startswith(("vgg", "convnext")):
        return length // stride
    return -(-(length // 4) // (stride // 4)) if name == "swin" else -(-length // stride)


@every_backbone
@pytest.mark.parametrize("size", [(64, 96), (45, 37)])
def test_channels_strides_and_gradients(name: str, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = TINY[name]()
    features = model(images(2, 3, *size))
    assert isinstance(features, list)
    for feature, channels, stride in zip(features, model.channels, model.strides, strict=True):
        assert feature.shape[:2] == (2, channels)
        if name != "densenet" or stride <= 4:  # whose transitions round down what its stem rounded up
            assert feature.shape[2:] == tuple(side(name, length, stride) for length in size)
    sum(feature.square().mean() for feature in features).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, key


@every_backbone
def test_images_of_a_batch_do_not_meet_and_nothing_is_random(name: str) -> None:
    torch.manual_seed(0)
    model, batch = TINY[name]().double().eval(), images(3, 3, 45, 37).double()
    together = model(batch)
    for feature, again in zip(together, model(batch), strict=True):
        assert torch.equal(feature, again)
    for i in range(3):
        for feature, alone in zip(together, model(batch[i : i + 1]), strict=True):
            torch.testing.assert_close(alone[0], feature[i])


@every_backbone
def test_half_precision_and_a_pyramid_on_it(name: str) -> None:
    torch.manual_seed(0)
    bottom, batch = TINY[name]().eval(), images(1, 3, 70, 53)
    sizes = [f.shape[2:] for f in bottom(batch)]
    model = FPN(bottom, out_channels=6, levels=range(len(sizes)))
    assert [f.shape for f in model(batch)] == [(1, 6, *size) for size in sizes]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(f.isfinite().all() for f in model(batch))


@every_backbone
def test_normalisation_is_inside_and_not_in_the_file(name: str) -> None:
    torch.manual_seed(0)
    plain = TINY[name]().eval()
    inside = TINY[name](normalize=Normalize(IMAGENET_MEAN, IMAGENET_STD)).eval()
    inside.load_state_dict(plain.state_dict(), strict=True)
    batch = images(1, 3, 64, 64)
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    for got, expected in zip(inside(batch), plain((batch - mean) / std), strict=True):
        torch.testing.assert_close(got, expected)
    assert torch.equal(batch, images(1, 3, 64, 64))
    assert [f.dtype for f in inside.double()(batch.double())] == [torch.float64] * len(inside.channels)


@every_backbone
def test_other_numbers_of_channels(name: str) -> None:
    assert len(TINY[name](in_channels=1)(images(2, 1, 64, 64))) == len(TINY[name]().channels)


@every_backbone
@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda batch: batch[0], ValueError),
        (lambda batch: batch[:, :1], ValueError),
        (lambda batch: batch[:0], ValueError),
        (lambda batch: batch[..., :0], ValueError),
        (lambda batch: (255 * batch).to(torch.uint8), TypeError),
        (lambda batch: batch.numpy(), TypeError),
    ],
    ids=["no batch axis", "channels", "empty batch", "empty image", "uint8", "numpy"],
)
def test_bad_images(name: str, change: Callable[[Tensor], Tensor], error: type[Exception]) -> None:
    with pytest.raises(error, match="^images has .*, expected "):
        TINY[name]()(change(images(2, 3, 64, 64)))


SMALLEST = [
    (VGG(STAGES), 8),
    (VGG(STAGES, first_padding=3), 4),
    (VGG(STAGES, first_padding=0), 10),
    (VGG(STAGES, ceil_mode=True), 1),
    (VGG(STAGES, ceil_mode=True, first_padding=0), 3),
    (VGG(STAGES, ceil_mode=True, first_padding=100), 1),
    (DenseNet((1, 1, 1), 4, 6), 13),
    (DenseNet((1, 1, 1, 1), 4, 6), 29),
    (ResNet(BasicBlock, (1, 1, 1, 1), WIDTHS), 1),
    (Swin(8, (1, 1), (2, 2)), 4),
    (Swin(8, (1, 1), (2, 2), dense=True), 1),
    (ConvNeXt((1, 1, 1, 1), WIDTHS), 32),
    (TinyViT((4, 8), (1, 1), (1, 2), (7, 3)), 1),
]


@pytest.mark.parametrize(("model", "smallest"), SMALLEST)
def test_smallest_image(model: nn.Module, smallest: int) -> None:
    model.eval()
    assert all(feature.numel() for feature in model(images(1, 3, smallest, smallest)))
    if smallest > 1:
        with pytest.raises(ValueError, match=f"^images has .* at least {smallest}$"):
            model(images(1, 3, smallest, smallest - 1))


def test_stage_shares_the_modules() -> None:
    torch.manual_seed(0)
    model = VGG(STAGES, batch_norm=True).eval()
    x, features = images(1, 3, 24, 32), model(images(1, 3, 24, 32))
    for i, feature in enumerate(features):
        stage = model.stage(i)
        assert not any(isinstance(module, nn.MaxPool2d) for module in stage)
        assert sum(isinstance(module, nn.Conv2d) for module in stage) == len(STAGES[i])
        x = nn.functional.max_pool2d(stage(x), 2)
        assert torch.equal(x, feature)
    assert model.stage(1)[0] is model.features[4]


def test_padding_100_and_ceil_mode_sizes() -> None:
    # 35 + 200 - 2 = 233, then 117, 59, 30 rounded up
    shapes = [tuple(f.shape[2:]) for f in VGG(STAGES, ceil_mode=True, first_padding=100)(images(1, 3, 35, 35))]
    assert shapes == [(117, 117), (59, 59), (30, 30)]


BAD = [
    (lambda: VGG(()), "stages is"),
    (lambda: VGG(((4,), ())), "stages is"),
    (lambda: VGG(((4,), (0,))), "stages is"),
    (lambda: VGG(STAGES, in_channels=0), "in_channels is 0"),
    (lambda: VGG(STAGES, first_padding=-1), "first_padding is -1"),
    (lambda: VGG(STAGES).stage(3), "index is 3"),
    (lambda: VGG(STAGES).stage(-1), "index is -1"),
    (lambda: ResNet(BasicBlock, (1, 1, 1)), "layers has 3 entries"),
    (lambda: ResNet(BasicBlock, (1, 1, 1, 0)), r"layers\[3\] is 0"),
    (lambda: ResNet(BasicBlock, (1, 1, 1, 1), (4, 4)), "widths has 2 entries"),
    (lambda: ResNet(BasicBlock, (1, 1, 1, 1), output_stride=4), "output_stride is 4"),
    (lambda: ResNet(BasicBlock, (1, 1, 1, 1), in_channels=0), "in_channels is 0"),
    (lambda: DenseNet(()), "layers is empty"),
    (lambda: DenseNet((1, 0)), r"layers\[1\] is 0"),
    (lambda: DenseNet((1, 1), growth_rate=0), "growth_rate is 0"),
    (lambda: DenseNet((1, 1), width=0), "width is 0"),
    (lambda: DenseBlock(1, 0, 4), "in_channels is 0"),
    (lambda: Transition(4, 0), "out_channels is 0"),
]


@pytest.mark.parametrize(("make", "words"), BAD)
def test_bad_arguments(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}.*, expected "):
        make()
