"""What every method promises, by one table. A new method is one line in METHODS."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from detection.small_detectors import DETECTORS, InARow
from promptable.small_sam import Asked
from promptable.small_sam import small as small_sam
from torch import Tensor, nn

from segedu.backbones.densenet import DenseNet
from segedu.backbones.erfnet import ERFNetEncoder
from segedu.backbones.resnet import BasicBlock, ResNet
from segedu.backbones.stardist_unet import StarDistUNet
from segedu.backbones.vgg import VGG
from segedu.instance.affinities import AffinityNet
from segedu.instance.cellpose.cellpose import Cellpose
from segedu.instance.denoiseg import DenoiSeg
from segedu.instance.discriminative import DiscriminativeEmbedding
from segedu.instance.omnipose import Omnipose
from segedu.instance.signed_distance import SignedDistance
from segedu.instance.spatial_embedding import SpatialEmbedding
from segedu.instance.stardist import StarDist
from segedu.instance.stardist3d import stardist3d
from segedu.losses.cross_entropy import cross_entropy
from segedu.semantic.deconvnet import DeconvNet
from segedu.semantic.deeplabv1 import AtrousVGG, DeepLabV1
from segedu.semantic.deeplabv2 import DeepLabV2
from segedu.semantic.deeplabv3 import DeepLabV3
from segedu.semantic.deeplabv3plus import DeepLabV3Plus
from segedu.semantic.dense_unet import DenseUNet
from segedu.semantic.encoder_unet import EncoderUNet
from segedu.semantic.fcn import FCN, FCNResNet, fcn_vgg16
from segedu.semantic.nnunet.nnunet import SLICE_PARTS, VOLUME_PARTS
from segedu.semantic.pspnet import PSPNet
from segedu.semantic.res_unet import res_unet, residual_encoder_unet, strided_res_unet
from segedu.semantic.segnet import SegNet
from segedu.semantic.unet import UNet, unet_out_size
from segedu.semantic.unet3d import UNet3D


@dataclass(frozen=True)
class Contract:
    """A method at tiny width.

    `shape` maps (B, H, W) of images to the shape of the output. `sizes` are legal (H, W); `odd` is a pair of
    odd numbers. Where `odd_error` is set, the method refuses odd sizes with a ValueError that says so.
    Methods of volumes have three numbers, (D, H, W), wherever others have two.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: Callable[..., tuple[int, ...]]
    sizes: tuple[tuple[int, ...], ...]
    odd: tuple[int, ...] = (37, 45)
    odd_error: str = ""
    channels: int = 3


def _unet_shape(batch: int, height: int, width: int) -> tuple[int, ...]:
    return batch, 4, unet_out_size(height, 2), unet_out_size(width, 2)


def _as_image(batch: int, height: int, width: int) -> tuple[int, ...]:
    return batch, 4, height, width


def _unet3d(kernel: int = 3, step: int = 2, **options) -> UNet3D:
    """Two poolings; the first kernel and stride of axis 0 as given."""
    kernels, strides = ((kernel, 3, 3), (3, 3, 3), (3, 3, 3)), ((1, 1, 1), (step, 2, 2), (2, 2, 2))
    return UNet3D(3, 4, ((4, 4), (4, 6), (6, 8)), kernels, strides, **options)


def _slices() -> UNet3D:
    return UNet3D(3, 4, ((4, 4), (6, 6), (8, 8)), padding=True, parts=SLICE_PARTS)


def _volume(batch: int, *size: int) -> tuple[int, ...]:
    return batch, 4, *size


def _less_40(batch: int, *size: int) -> tuple[int, ...]:
    return batch, 4, *(n - 40 for n in size)


def _vgg() -> VGG:
    return VGG(((8,), (8,), (8,), (8,), (16,)), batch_norm=True)


def _resnet(output_stride: int) -> ResNet:
    return ResNet(BasicBlock, (1, 1, 1, 1), (8, 8, 16, 16), output_stride=output_stride)


def _fcn(stride: int) -> FCN:
    return fcn_vgg16(4, stride=stride, stages=((3,), (3,), (4,), (4,), (5,)), hidden=16)


def _two_stages() -> VGG:
    return VGG(((3, 4), (5,)), batch_norm=True)


class SideBySide(nn.Module):
    """A model whose outputs has type dict of maps: all of them as channels of one, a style left out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        maps = [value for name, value in self.model(images).items() if name != "style"]
        return torch.cat([value if value.ndim == images.ndim else value[:, None] for value in maps], dim=1)


def _row(length: Callable[[int, int], int]) -> Callable[..., tuple[int, ...]]:
    return lambda batch, *size: (batch, 1, length(*size))


def _channels(count: int) -> Callable[..., tuple[int, ...]]:
    return lambda batch, *size: (batch, count, *size)


def _unet(channels: int) -> UNet:
    return UNet(3, channels, 3, depth=2, padding=1)


def _erfnet() -> SpatialEmbedding:
    return SpatialEmbedding(ERFNetEncoder(3, (4, 6, 8), ((1,), (2,)), (0.0, 0.0)), blocks=1)


OFFSETS = ((-1, 0), (0, -1), (0, -4))

INSTANCES = [
    ("signed_distance", lambda: SignedDistance(_unet(1)), 1),
    ("cellpose", lambda: Cellpose(3, (4, 6, 8)), 3),
    ("omnipose", lambda: Omnipose(3, (4, 6, 8)), 4),
    ("denoiseg", lambda: DenoiSeg(_unet(6)), 6),
    ("spatial_embedding", _erfnet, 5),
    ("discriminative", lambda: DiscriminativeEmbedding(_unet(4), 3), 4),
    ("affinities", lambda: AffinityNet(_unet(4), OFFSETS), 4),
]

METHODS = [
    *(
        Contract(name, lambda build=build: InARow(build()), _row(length), ((64, 96), (64, 45)), odd=(67, 75))
        for name, build, length in DETECTORS
    ),
    *(
        Contract(name, lambda build=build: SideBySide(build()), _channels(count), ((16, 24), (40, 33)))
        for name, build, count in INSTANCES
    ),
    Contract(
        "stardist",
        lambda: SideBySide(StarDist(StarDistUNet(3, 4, 2), 8, 6)),
        lambda b, h, w: (b, 9, -(-h // 2), -(-w // 2)),
        ((16, 24), (20, 12)),
    ),
    Contract(
        "stardist3d",
        lambda: SideBySide(stardist3d(8, 3, base_channels=4, depth=1)),
        lambda b, d, h, w: (b, 9, d, -(-h // 2), -(-w // 2)),
        ((8, 16, 12), (4, 8, 8)),
        (5, 13, 9),
    ),
    # twice, with a mask and without: four masks of 20 x 20 and four scores
    Contract("sam", lambda: Asked(small_sam()), _row(lambda h, w: 2 * 4 * (20 * 20 + 1)), ((40, 40), (64, 45))),
    Contract("unet3d", _unet3d, _less_40, ((44, 44, 48),), (37, 45, 41), "images has 37 voxels"),
    Contract("unet3d padded", lambda: _unet3d(padding=True), _volume, ((8, 16, 12), (16, 8, 8)), (7, 13, 9)),
    Contract(
        "nnunet", lambda: _unet3d(1, 1, padding=True, parts=VOLUME_PARTS), _volume, ((4, 16, 12), (8, 8, 8)), (5, 13, 9)
    ),
    Contract("nnunet slices", _slices, _as_image, ((16, 24), (8, 12))),
    Contract("unet", lambda: UNet(3, 4, 3, depth=2), _unet_shape, ((44, 44), (52, 60)), odd_error="size is 37"),
    Contract("res_unet", lambda: res_unet(3, 4, (4, 6, 8)), _as_image, ((16, 24), (20, 12))),
    Contract("res_unet strided", lambda: strided_res_unet(3, 4, (4, 6, 8), nn.BatchNorm2d), _as_image, ((16, 24),)),
    Contract("res_unet encoder", lambda: residual_encoder_unet(3, 4, (4, 6, 8), (1, 2, 1)), _as_image, ((16, 24),)),
    Contract(
        "dense_unet", lambda: DenseUNet(DenseNet((2, 2, 2, 2), 4, 6), 4), _as_image, ((64, 96), (45, 64)), (67, 75)
    ),
    Contract("encoder_unet", lambda: EncoderUNet(_resnet(32), 4, (8, 8, 6, 6, 4)), _as_image, ((64, 96), (45, 64))),
    Contract("unet padded", lambda: UNet(3, 4, 3, depth=2, padding=1), lambda b, h, w: (b, 4, h, w), ((8, 32),)),
    Contract("deeplabv1", lambda: DeepLabV1(AtrousVGG(_vgg()), 4, 8, rate=2), _as_image, ((32, 48), (40, 33))),
    Contract("deeplabv2", lambda: DeepLabV2(_resnet(8), 4, (1, 2, 3)), _as_image, ((32, 48), (40, 33))),
    Contract("deeplabv3", lambda: DeepLabV3(_resnet(8), 4, (1, 2, 3), width=8), _as_image, ((32, 48), (40, 33))),
    Contract("deeplabv3plus", lambda: DeepLabV3Plus(_resnet(16), 4, (1, 2, 3), 8, 4), _as_image, ((64, 48), (40, 33))),
    Contract("pspnet", lambda: PSPNet(_resnet(8), 4, width=8), _as_image, ((32, 48), (40, 33))),
    Contract("fcn", lambda: FCN(_resnet(32), 4), _as_image, ((64, 96), (64, 33))),
    Contract("fcn resnet", lambda: FCNResNet(_resnet(8), 4), _as_image, ((64, 96), (40, 33))),
    Contract("fcn32s", lambda: _fcn(32), _as_image, ((32, 40),)),
    Contract("fcn16s", lambda: _fcn(16), _as_image, ((32, 40),)),
    Contract("fcn8s", lambda: _fcn(8), _as_image, ((32, 40),)),
    Contract("segnet", lambda: SegNet(_two_stages(), 4), _as_image, ((16, 24),)),
    Contract("deconvnet", lambda: DeconvNet(_two_stages(), 4, hidden=6, kernel_size=3), _as_image, ((16, 24),)),
]

every_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


def build(method: Contract, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return method.build().to(dtype)


def images(method: Contract, batch: int, size: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(batch, method.channels, *size, generator=torch.Generator().manual_seed(1)).to(dtype)


@every_method
@pytest.mark.parametrize("batch", [1, 3])
def test_output_shape(method: Contract, batch: int) -> None:
    model = build(method).eval()
    for size in method.sizes:
        assert model(images(method, batch, size)).shape == method.shape(batch, *size)


@every_method
def test_odd_sizes(method: Contract) -> None:
    model, odd = build(method), images(method, 1, method.odd)
    if method.odd_error:
        with pytest.raises(ValueError, match=method.odd_error):
            model(odd)
    else:
        assert model(odd).shape == method.shape(1, *method.odd)


@every_method
def test_same_type_in_training_and_evaluation(method: Contract) -> None:
    model, batch = build(method), images(method, 2, method.sizes[0])
    assert type(model.train()(batch)) is type(model.eval()(batch))


@every_method
def test_backward_reaches_every_parameter(method: Contract) -> None:
    model = build(method)
    logits = model(images(method, 2, method.sizes[0]))
    generator = torch.Generator().manual_seed(2)
    if logits.shape[1] == 1:
        (logits - torch.randn(logits.shape, generator=generator)).square().mean().backward()
    else:
        target = torch.randint(0, logits.shape[1], (2, *logits.shape[2:]), generator=generator)
        cross_entropy(logits, target).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        # the gradient of a bias before a normalisation or a softmax is 0 up to rounding, so only weights are compared
        assert parameter.ndim == 1 or parameter.grad.abs().sum() > 0, name


@every_method
def test_evaluation_is_deterministic_and_independent_of_the_batch(method: Contract) -> None:
    model, batch = build(method, torch.float64).eval(), images(method, 3, method.sizes[0], torch.float64)
    with torch.no_grad():
        once, again, alone = model(batch), model(batch), model(batch[1:2])
    assert torch.equal(once, again)
    torch.testing.assert_close(once[1:2], alone, rtol=0, atol=1e-12)


@every_method
def test_float64(method: Contract) -> None:
    single, double = build(method).eval(), build(method).double().eval()
    batch = images(method, 1, method.sizes[0])
    out = double(batch.double())
    assert out.dtype == torch.float64
    torch.testing.assert_close(single(batch).double(), out, rtol=1e-4, atol=1e-4)


@every_method
def test_images_are_left_as_they_were(method: Contract) -> None:
    batch = images(method, 1, method.sizes[0])
    before = batch.clone()
    build(method)(batch)
    assert torch.equal(batch, before)


@every_method
def test_under_a_second_on_a_cpu(method: Contract) -> None:
    model, batch = build(method), images(method, 1, method.sizes[0])
    model(batch)
    start = time.process_time()
    model(batch).sum().backward()
    assert time.process_time() - start < 1


@every_method
@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda batch: batch[0], ValueError),
        (lambda batch: batch[:, :1], ValueError),
        (lambda batch: batch[:0], ValueError),
        (lambda batch: batch[..., :0], ValueError),
        (lambda batch: (255 * batch).to(torch.uint8), TypeError),
    ],
    ids=["no batch axis", "channels", "empty batch", "empty image", "uint8"],
)
def test_bad_images(method: Contract, change: Callable[[Tensor], Tensor], error: type[Exception]) -> None:
    with pytest.raises(error, match="images has"):
        build(method)(change(images(method, 1, method.sizes[0])))
