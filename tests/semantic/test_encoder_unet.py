"""U-Net on an encoder: the whole net against segmentation_models.pytorch on ResNet and DenseNet."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from learning import fit
from randomise import randomise
from torch import Tensor, nn

from segedu.backbones.densenet import densenet121
from segedu.backbones.resnet import BasicBlock, ResNet, resnet18, resnet34
from segedu.backbones.vgg import VGG
from segedu.losses.cross_entropy import cross_entropy
from segedu.semantic.encoder_unet import EncoderUNet, postprocess

WIDTHS = (24, 20, 16, 12, 8)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def smp_net(encoder: str, widths: tuple[int, ...] = WIDTHS) -> nn.Module:
    smp = pytest.importorskip("segmentation_models_pytorch")
    return randomise(smp.Unet(encoder, encoder_weights=None, decoder_channels=widths, classes=5))


def copied(theirs: nn.Module, backbone: nn.Module, widths: tuple[int, ...] = WIDTHS) -> EncoderUNet:
    ours = EncoderUNet(backbone, 5, widths).double().eval()
    names = {"encoder.": "backbone.", "decoder.blocks.": "expanding.", "segmentation_head.0.": "head."}
    state = {}
    for name, value in theirs.state_dict().items():
        for before, after in names.items():
            if name.startswith(before):
                name = after + name.removeprefix(before)
        state[name] = value
    ours.load_state_dict(state, strict=True)
    return ours


@pytest.mark.parametrize(("encoder", "build"), [("resnet18", resnet18), ("resnet34", resnet34)])
@pytest.mark.parametrize("size", [(64, 96), (45, 67)])
@torch.no_grad()
def test_parity_with_smp(encoder: str, build, size: tuple[int, int]) -> None:
    theirs = smp_net(encoder)
    ours, images = copied(theirs, build()), random(2, 3, *size)
    right = theirs(images)
    assert right.std() > 0.01
    torch.testing.assert_close(ours(images), right, rtol=0, atol=1e-9)


@torch.no_grad()
def test_parity_with_smp_at_the_default_widths() -> None:
    default = (256, 128, 64, 32, 16)
    theirs = smp_net("resnet18", default).float()
    ours, images = copied(theirs, resnet18(), default).float(), random(1, 3, 64, 64, dtype=torch.float32)
    torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(64, 96), (45, 67)])
@torch.no_grad()
def test_parity_on_densenet(size: tuple[int, int]) -> None:
    theirs = smp_net("densenet121")
    ours, images = copied(theirs, densenet121()), random(1, 3, *size)
    # Our backbone rectifies its last features, as torchvision's classifier does; their encoder does not.
    theirs.encoder.features.norm5 = nn.Sequential(theirs.encoder.features.norm5, nn.ReLU())
    right = theirs(images)
    assert right.std() > 0.01
    torch.testing.assert_close(ours(images), right, rtol=0, atol=1e-9)


@pytest.mark.parametrize("key", ["backbone.layer3.0.conv1.weight", "expanding.0.conv1.0.weight", "head.bias"])
@torch.no_grad()
def test_parity_notices_one_weight(key: str) -> None:
    theirs, images = smp_net("resnet18"), random(1, 3, 32, 48)
    ours = copied(theirs, resnet18())
    ours.state_dict()[key].add_(0.1)
    assert (ours(images) - theirs(images)).abs().max() > 1e-4


def test_gradients_agree_with_smp() -> None:
    theirs, images = smp_net("resnet18").train(), random(2, 3, 64, 64)
    ours = copied(theirs, resnet18()).train()
    ours(images).square().mean().backward()
    theirs(images).square().mean().backward()
    right = dict(theirs.named_parameters())
    for name, other in (
        ("head.weight", "segmentation_head.0.weight"),
        ("backbone.conv1.weight", "encoder.conv1.weight"),
    ):
        gradient = ours.get_parameter(name).grad
        torch.testing.assert_close(gradient, right[other].grad, rtol=1e-8, atol=1e-12)


@torch.no_grad()
def test_steps_that_end_early_are_the_first_steps() -> None:
    torch.manual_seed(0)
    backbone = ResNet(BasicBlock, (1, 1, 1, 1), (4, 4, 6, 6))
    whole, short = EncoderUNet(backbone, 4, (8, 7, 6, 5, 4)).eval(), EncoderUNet(backbone, 4, (8, 7, 6, 5)).eval()
    short.expanding.load_state_dict(whole.expanding[:4].state_dict())
    seen = []
    whole.expanding[3].register_forward_hook(lambda _, __, out: seen.append(out))
    images = random(1, 3, 45, 67, dtype=torch.float32)
    whole(images)
    right = F.interpolate(short.head(seen[0]), size=(45, 67), mode="bilinear")
    torch.testing.assert_close(short(images), right)


def test_any_backbone_will_do() -> None:
    vgg = VGG(((4, 4), (6,), (8,), (8,), (8,)), batch_norm=True)
    net = EncoderUNet(vgg, 3, WIDTHS).eval()
    assert net(torch.rand(1, 3, 64, 41)).shape == (1, 3, 64, 41)


@pytest.mark.learns
def test_fits_one_batch() -> None:
    torch.manual_seed(0)
    net = EncoderUNet(ResNet(BasicBlock, (1, 1, 1, 1), (8, 8, 16, 16)), 2, (16, 12, 8, 8, 8))
    rows, columns = torch.meshgrid(torch.arange(48), torch.arange(48), indexing="ij")
    centres = torch.tensor([[15, 17], [28, 30]])
    target = torch.stack([(rows - r).square() + (columns - c).square() < 60 for r, c in centres]).long()
    images = 0.6 * target[:, None] + 0.4 * random(2, 3, 48, 48, dtype=torch.float32)
    _, loss = fit(net, lambda: cross_entropy(net(images), target), steps=100, lr=5e-3)
    net.train()  # with the batch's statistics
    assert loss < 0.1 and (postprocess(net(images)) == target).float().mean() > 0.97


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: EncoderUNet(resnet18(), 0), "num_classes is 0"),
        (lambda: EncoderUNet(resnet18(), 2, (8,) * 6), r"widths is \(8, 8, 8, 8, 8, 8\)"),
        (lambda: EncoderUNet(resnet18(), 2, ()), r"widths is \(\)"),
        (lambda: EncoderUNet(resnet18(), 2, (8, 8, 8, 8, 0)), r"widths\[4\] is 0"),
        (lambda: postprocess(torch.rand(2, 4, 4)), "logits has shape"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
