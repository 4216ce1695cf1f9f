"""Networks beside the peers with the same weights: forward pass and training step; `run.py` times these pairs.

Images are small, so that the group takes minutes; each pair must first give the same numbers. A training step is
zero_grad, forward, cross-entropy, backward and a step of SGD with learning rate 0, which is real work but does not
change the weights. The weights of the peers are copied by the functions of the parity tests.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from randomise import randomise

CLASSES = 5


@dataclass(frozen=True)
class Pair:
    """Two networks of equal weights. `read` extracts the logits from the peer's output.

    `levels` is for networks trained on several outputs: functions from images to a list, ours and the peer's.
    """

    name: str
    ours: nn.Module
    peer: nn.Module
    shape: tuple[int, ...]
    read: Callable = lambda out: out
    levels: tuple[Callable, Callable] | None = None


def parity(name: str):
    """A module of the parity tests."""
    return importlib.import_module(f"semantic.{name}")


# --- pairs ------------------------------------------------------------------------------------------------------


def backbones() -> Iterator[Pair]:
    """Features of the last stage."""
    from segedu.backbones.densenet import densenet121
    from segedu.backbones.resnet import resnet50
    from segedu.backbones.vgg import vgg16_bn

    class Last(nn.Module):
        def __init__(self, backbone: nn.Module) -> None:
            super().__init__()
            self.backbone = backbone

        def forward(self, images: Tensor) -> Tensor:
            return self.backbone(images)[-1]

    for builder, head in ((vgg16_bn, "classifier"), (resnet50, "fc"), (densenet121, "classifier")):
        theirs = getattr(torchvision.models, builder.__name__)()
        setattr(theirs, head, nn.Identity())
        randomise(theirs)
        ours = builder().double().eval()
        ours.load_state_dict(theirs.state_dict())
        if builder is resnet50:
            parts = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
            theirs = nn.Sequential(*(getattr(theirs, part) for part in parts))
        else:
            theirs = theirs.features if builder is vgg16_bn else nn.Sequential(theirs.features, nn.ReLU(inplace=True))
        yield Pair(f"{builder.__name__} / torchvision", Last(ours), theirs, (2, 3, 64, 64))


def timm_vit() -> Iterator[Pair]:
    """ViT-S/16 with DINO's layout, at its native size: patch features."""
    import timm

    from segedu.backbones.vit import vit_small_patch16

    class Patches(nn.Module):
        def __init__(self, backbone: nn.Module) -> None:
            super().__init__()
            self.backbone = backbone

        def forward(self, images: Tensor) -> Tensor:
            return self.backbone(images)["patches"]

    name = "vit_small_patch16_224.dino"
    theirs = randomise(timm.create_model(name, pretrained=False, num_classes=0, global_pool=""))  # all tokens
    ours = vit_small_patch16().double().eval()
    ours.load_state_dict(theirs.state_dict())

    def patches(tokens: Tensor) -> Tensor:
        return tokens[:, 1:].transpose(1, 2).unflatten(2, (14, 14))

    yield Pair("vit_small_patch16 / timm", Patches(ours), theirs, (1, 3, 224, 224), patches)


def torchvision_segmenters() -> Iterator[Pair]:
    """FCN and DeepLabv3 on ResNet-50."""
    from segedu.semantic.deeplabv3 import deeplabv3_resnet50
    from segedu.semantic.fcn import fcn_resnet50

    for builder in (fcn_resnet50, deeplabv3_resnet50):
        make = getattr(torchvision.models.segmentation, builder.__name__)
        theirs = randomise(make(weights=None, weights_backbone=None, num_classes=CLASSES))
        ours = builder(CLASSES).double().eval()
        ours.load_state_dict(theirs.state_dict())
        yield Pair(f"{builder.__name__} / torchvision", ours, theirs, (2, 3, 64, 64), lambda out: out["out"])


def with_smp_backbone(net: nn.Module, encoder: nn.Module) -> nn.Module:
    """The backbone of segmentation_models_pytorch also dilates the first block of a stage."""
    net.backbone.load_state_dict(encoder.state_dict())
    for name, theirs in encoder.named_modules():
        if isinstance(theirs, nn.Conv2d):
            ours = net.backbone.get_submodule(name)
            ours.dilation, ours.padding = theirs.dilation, theirs.padding
    return net


@torch.no_grad()
def smp_pspnet() -> Iterator[Pair]:
    """PSPNet with the peer's head: a 1x1 convolution after the pyramid, then a 3x3 classifier."""
    import segmentation_models_pytorch as smp

    from segedu.backbones.resnet import resnet50
    from segedu.layers.conv import conv_bn_relu
    from segedu.semantic.pspnet import PSPNet

    tests = parity("test_pspnet")
    theirs = smp.PSPNet("resnet50", encoder_weights=None, encoder_depth=5, classes=CLASSES)
    theirs.encoder.make_dilated(8)
    randomise(theirs)
    ours = with_smp_backbone(PSPNet(resnet50(output_stride=8), CLASSES), theirs.encoder)
    channels = ours.backbone.channels[-1]
    first, last = conv_bn_relu(2 * channels, 512, kernel_size=1), nn.Conv2d(512, CLASSES, 3, padding=1)
    ours.classifier = nn.Sequential(*first, nn.Dropout2d(0.2), last)
    ours.double().eval()
    tests.copy_pyramid(ours.pyramid, theirs.decoder.psp)
    ours.pyramid.levels[0][2].eps = 1e-12  # torch trains with no 0
    conv, norm, _ = theirs.decoder.conv
    first[0].weight.copy_(tests.in_our_order(conv.weight, channels))
    first[1].load_state_dict(norm.state_dict())
    last.load_state_dict(theirs.segmentation_head[0].state_dict())
    yield Pair("pspnet, resnet50 / smp", ours, theirs, (2, 3, 64, 64))


def smp_deeplabv3plus() -> Iterator[Pair]:
    """DeepLabv3+ with the peer's separable convolutions: one between pyramid and upsampling, one in the decoder."""
    import segmentation_models_pytorch as smp

    from segedu.backbones.resnet import resnet50
    from segedu.semantic.deeplabv3plus import DeepLabV3Plus, separable_bn_relu

    tests = parity("test_deeplabv3plus")
    rates = (6, 12, 18)
    theirs = randomise(smp.DeepLabV3Plus("resnet50", encoder_weights=None, decoder_atrous_rates=rates, classes=CLASSES))
    ours = DeepLabV3Plus(resnet50(output_stride=16), CLASSES, rates, refinements=1)
    ours.aspp = nn.Sequential(ours.aspp, separable_bn_relu(256, 256))
    with_smp_backbone(ours, theirs.encoder).double().eval()
    decoder = theirs.decoder
    tests.copy_in_order(
        [ours.aspp[0], ours.aspp[1], ours.decoder.reduce, ours.decoder.refine, ours.classifier],
        [decoder.aspp[0], decoder.aspp[1:], decoder.block1, decoder.block2, theirs.segmentation_head[0]],
    )
    yield Pair("deeplabv3plus, resnet50 / smp", ours, theirs, (2, 3, 96, 96))


def smp_unet() -> Iterator[Pair]:
    """U-Net on ResNet-34 at the default widths."""
    from segedu.backbones.resnet import resnet34

    tests, widths = parity("test_encoder_unet"), (256, 128, 64, 32, 16)
    theirs = tests.smp_net("resnet34", widths)
    yield Pair("unet, resnet34 / smp", tests.copied(theirs, resnet34(), widths), theirs, (2, 3, 96, 96))


@torch.no_grad()
def res_unets() -> Iterator[Pair]:
    """The residual U-Nets of MONAI and of dynamic_network_architectures."""
    from functools import partial

    from segedu.semantic.res_unet import residual_encoder_unet, strided_res_unet

    tests, widths = parity("test_res_unet"), (32, 64, 128, 256)
    theirs = tests.monai_net("BATCH", "RELU", widths)
    ours = strided_res_unet(3, 4, widths, nn.BatchNorm2d, nn.ReLU).double().eval()
    tests.copy_from_monai(theirs, ours)
    yield Pair("res_unet, strided / MONAI", ours, theirs, (2, 3, 128, 128))
    theirs = tests.dynamic_net(widths, (1, 2, 2, 2), nn.InstanceNorm2d, nn.LeakyReLU)
    norm = partial(nn.InstanceNorm2d, affine=True)
    ours = residual_encoder_unet(3, 4, widths, (1, 2, 2, 2), norm, nn.LeakyReLU).double().eval()
    tests.copy_from_dynamic(theirs, ours)
    yield Pair("res_unet, residual encoder / dynamic_network_architectures", ours, theirs, (2, 3, 96, 96))


def volumes() -> Iterator[Pair]:
    """A 3D U-Net, and one as nnU-Net plans it, with the losses of all its levels."""
    from monai.networks.nets import DynUNet

    from segedu.semantic.nnunet.nnunet import VOLUME_PARTS
    from segedu.semantic.unet3d import UNet3D

    tests, widths = parity("test_unet3d_parity"), [16, 32, 64]
    pairs = [(width, width) for width in widths]
    ours = UNet3D(1, CLASSES, pairs, padding=True, parts=VOLUME_PARTS)
    with torch.no_grad():  # theirs has biases in the last convolution alone
        for module in ours.modules():
            if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
                module.bias.zero_()
    ours.double().eval()
    kernels, strides = [list(k) for k in ours.kernels], [list(s) for s in ours.strides]
    theirs = DynUNet(3, 1, CLASSES, kernels, strides, strides[1:], filters=widths).double().eval()
    tests.copy_into_monai(ours, theirs)
    yield Pair("unet3d / MONAI", ours, theirs, (1, 1, 24, 24, 24))

    kernels, strides = ((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)), ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2))
    widths = [16, 32, 64, 128]
    pairs = [(width, width) for width in widths]
    ours = UNet3D(1, CLASSES, pairs, kernels, strides, padding=True, outputs=3, parts=VOLUME_PARTS).double().eval()
    theirs = tests.plain_conv_unet(ours, widths)

    theirs.decoder.deep_supervision = False

    def our_levels(images: Tensor) -> list[Tensor]:
        outputs = ours.forward_with_aux(images)
        return [outputs["out"], *outputs["aux"]]

    def their_levels(images: Tensor) -> list[Tensor]:
        theirs.decoder.deep_supervision = True
        return theirs(images)

    levels = our_levels, their_levels
    yield Pair("nnunet / dynamic_network_architectures", ours, theirs, (1, 1, 16, 48, 48), levels=levels)


NETS = (
    backbones,
    timm_vit,
    torchvision_segmenters,
    smp_pspnet,
    smp_deeplabv3plus,
    smp_unet,
    res_unets,
    volumes,
)


# --- what is timed ----------------------------------------------------------------------------------------------


def training_step(model: nn.Module, run: Callable, images: Tensor) -> Callable[[], None]:
    """A function that does one step; each level of an output has a target of its size."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with torch.no_grad():
        outputs = run(images)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    generator = torch.Generator().manual_seed(2)
    targets = [torch.randint(0, o.shape[1], (o.shape[0], *o.shape[2:]), generator=generator) for o in outputs]

    def step() -> None:
        optimizer.zero_grad()
        found = run(images)
        found = found if isinstance(found, list) else [found]
        sum(F.cross_entropy(o, t) for o, t in zip(found, targets, strict=True)).backward()
        optimizer.step()

    return step


def pairs():
    """Yield name, ours, peer, as in `run.py`."""
    for pair in (pair for nets in NETS for pair in nets()):
        ours, peer, read = pair.ours.float().eval(), pair.peer.float().eval(), pair.read
        images = torch.rand(pair.shape, generator=torch.Generator().manual_seed(1))
        runs = ours, lambda images, peer=peer, read=read: read(peer(images))
        forward = [functools.partial(torch.no_grad()(run), images) for run in runs]
        got, expected = (run() for run in forward)
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
        yield f"{pair.name}, forward", *forward
        ours.train(), peer.train()
        models = zip((ours, peer), pair.levels or runs, strict=True)
        yield f"{pair.name}, training step", *(training_step(model, run, images) for model, run in models)
