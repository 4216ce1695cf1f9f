"""Dense U-Net: its encoder against torchvision, its decoder by functional calls, its widths against the table."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision
from learning import fit
from randomise import randomise
from torch import Tensor, nn

from segedu.backbones.densenet import DenseNet, densenet121
from segedu.losses.cross_entropy import cross_entropy
from segedu.semantic import dense_unet as dense_unet_file
from segedu.semantic.dense_unet import DenseUNet, UpAdd, dense_unet_161, postprocess


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def torchvision_features(encoder: nn.Module, images: Tensor) -> list[Tensor]:
    """What each of torchvision's transitions sees, by hooks: the first convolution, four blocks."""
    found: list[Tensor] = []
    wanted = ["relu0", *(f"transition{i}.relu" for i in (1, 2, 3))]
    handles = [
        encoder.features.get_submodule(name).register_forward_hook(lambda _, __, out: found.append(out.clone()))
        for name in wanted
    ]
    last = F.relu(encoder.features(images))
    for handle in handles:
        handle.remove()
    return [*found, last]


def decode(w: dict[str, Tensor], features: list[Tensor], size: torch.Size) -> Tensor:
    """Table 1 of the paper on copied weights, written for this test."""
    *skips, x = features
    for i in range(5):
        skip = skips[3 - i] if i < 4 else None
        height, width = size if skip is None else skip.shape[-2:]
        rows = (torch.arange(height) * x.shape[-2]) // height  # nearest neighbour
        columns = (torch.arange(width) * x.shape[-1]) // width
        x = x[:, :, rows][..., columns]
        if skip is not None:
            name = f"expanding.{i}.project"
            fits = f"{name}.weight" not in w
            x = x + (skip if fits else F.conv2d(skip, w[f"{name}.weight"], w[f"{name}.bias"]))
        name = f"expanding.{i}.conv"
        x = F.conv2d(x, w[f"{name}.0.weight"], padding=1)
        statistics = w[f"{name}.1.running_mean"], w[f"{name}.1.running_var"]
        x = F.relu(F.batch_norm(x, *statistics, w[f"{name}.1.weight"], w[f"{name}.1.bias"]))
    return F.conv2d(x, w["head.weight"], w["head.bias"])


def net_and_encoder() -> tuple[DenseUNet, nn.Module]:
    encoder = randomise(torchvision.models.densenet121())
    del encoder.classifier
    net = randomise(DenseUNet(densenet121(), 4), seed=1)
    net.backbone.load_state_dict(encoder.state_dict(), strict=True)
    return net, encoder


@pytest.mark.parametrize("size", [(64, 96), (45, 67)])
@torch.no_grad()
def test_parity_with_torchvisions_encoder(size: tuple[int, int]) -> None:
    net, encoder = net_and_encoder()
    images = random(1, 3, *size)
    right = decode(net.state_dict(), torchvision_features(encoder, images), images.shape[-2:])
    assert right.std() > 0.01
    torch.testing.assert_close(net(images), right, rtol=0, atol=1e-9)


@torch.no_grad()
def test_parity_notices_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    net, encoder = net_and_encoder()
    images = random(1, 3, 64, 64)
    right = decode(net.state_dict(), torchvision_features(encoder, images), images.shape[-2:])
    net.expanding[1].conv[0].weight.add_(0.01)
    assert (net(images) - right).abs().max() > 1e-5
    net.expanding[1].conv[0].weight.sub_(0.01)
    torch.testing.assert_close(net(images), right, rtol=0, atol=1e-9)
    smooth = F.interpolate

    def bilinear(x: Tensor, size: tuple[int, int], mode: str) -> Tensor:
        return smooth(x, size=size, mode="bilinear")

    monkeypatch.setattr(dense_unet_file.F, "interpolate", bilinear)
    assert (net(images) - right).abs().max() > 1e-3


def test_table_1_of_the_paper() -> None:
    """DenseUNet-167: blocks of 6, 12, 36, 24 layers; steps up of 768, 384, 96, 96, 64 channels; sums, one projected."""
    with torch.device("meta"):  # shapes without numbers
        net = dense_unet_161()
        sizes = []
        for module in [*net.expanding, net.head]:
            module.register_forward_hook(lambda _, __, out: sizes.append(tuple(out.shape[1:])))
        assert net(torch.empty(1, 3, 224, 224)).shape == (1, 3, 224, 224)
    assert net.backbone.channels == (96, 384, 768, 2112, 2208)
    assert sizes == [(768, 14, 14), (384, 28, 28), (96, 56, 56), (96, 112, 112), (64, 224, 224), (3, 224, 224)]
    assert [isinstance(step.project, nn.Conv2d) for step in net.expanding] == [True, False, False, False, False]
    # 167 layers: 161 less the classifier, six convolutions up, and the head.
    layers = [m for n, m in net.named_modules() if isinstance(m, nn.Conv2d) and "project" not in n]
    assert len(layers) == 160 + 5 + 1


def test_step_up_by_hand() -> None:
    step = UpAdd(1, 1, 1).eval()
    nn.init.dirac_(step.conv[0].weight)
    features, skip = torch.tensor([[[[1.0, 2.0]]]]), torch.arange(8.0).reshape(1, 1, 2, 4)
    up = torch.tensor([[[[1.0, 1, 2, 2], [1, 1, 2, 2]]]])
    torch.testing.assert_close(step(features, (2, 4), skip), up + skip, rtol=1e-4, atol=0)
    torch.testing.assert_close(step(features, (2, 4)), up, rtol=1e-4, atol=0)


@torch.no_grad()
def test_steps_that_end_early_are_the_first_steps() -> None:
    torch.manual_seed(0)
    backbone = DenseNet((2, 2, 2, 2), growth_rate=4, width=6)
    whole, short = DenseUNet(backbone, 4, (8, 7, 6, 5, 4)).eval(), DenseUNet(backbone, 4, (8, 7, 6, 5)).eval()
    short.expanding.load_state_dict(whole.expanding[:4].state_dict())
    seen = []
    whole.expanding[3].register_forward_hook(lambda _, __, out: seen.append(out))
    images = random(1, 3, 45, 67, dtype=torch.float32)
    whole(images)
    right = F.interpolate(short.head(seen[0]), size=(45, 67), mode="bilinear")
    torch.testing.assert_close(short(images), right)


@pytest.mark.learns
def test_fits_one_batch() -> None:
    torch.manual_seed(0)
    net = DenseUNet(DenseNet((2, 2, 2, 2), growth_rate=6, width=8), 2, (16, 16, 12, 8, 8))
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
        (lambda: DenseUNet(densenet121(), 0), "num_classes is 0"),
        (lambda: DenseUNet(densenet121(), 2, (8,) * 6), r"widths is \(8, 8, 8, 8, 8, 8\)"),
        (lambda: DenseUNet(densenet121(), 2, ()), r"widths is \(\)"),
        (lambda: DenseUNet(densenet121(), 2, (8, 8, 8, 8, 0)), r"widths\[4\] is 0"),
        (lambda: postprocess(torch.rand(2, 4, 4)), "logits has shape"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
