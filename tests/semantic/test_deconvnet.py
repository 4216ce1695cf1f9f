"""DeconvNet part by part: torchvision's encoder, nn.MaxUnpool2d, transposed convolutions as flipped ones; learning."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from learning import fit
from semantic.unpooling_oracle import STAGES, random, randomise, torchvision_encoder, walk
from torch import Tensor

from segedu.backbones.vgg import VGG, vgg16_bn
from segedu.losses.cross_entropy import cross_entropy
from segedu.semantic.deconvnet import DeconvNet, postprocess


def small_net() -> DeconvNet:
    net = DeconvNet(VGG(STAGES, batch_norm=True), 5, hidden=9, kernel_size=2).double().eval()
    randomise(net)
    return net


def oracle(net: DeconvNet, images: Tensor) -> Tensor:
    """A transposed convolution of stride 1 is a convolution with the kernel turned by half a circle."""
    w = net.state_dict()
    encoder = torchvision_encoder({k.removeprefix("encoder.features."): v for k, v in w.items() if "encoder" in k})

    def block(x: Tensor, name: str, pad: int, transposed: bool = True) -> Tensor:
        kernel = w[f"{name}.0.weight"]
        if transposed:
            kernel, pad = kernel.transpose(0, 1).flip(-1, -2), kernel.shape[-1] - 1 - pad
        x = F.conv2d(x, kernel, padding=pad)
        mean, variance, scale, shift = (
            w[f"{name}.1.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return torch.relu((x - mean) / (variance + 1e-5).sqrt() * scale + shift)

    def middle(x: Tensor) -> Tensor:
        x = block(x, "bottleneck.fc6", 0, transposed=False)
        x = block(x, "bottleneck.fc7", 0, transposed=False)
        return block(x, "bottleneck.deconv", 0)

    def stage(level: int, count: int) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            for i in range(count):
                x = block(x, f"decoder.{level}.{i}", 1)
            return x

        return run

    x = walk(encoder, images, middle, [stage(level, len(widths)) for level, widths in enumerate(reversed(STAGES))])
    return F.conv2d(x, w["classifier.weight"], w["classifier.bias"])


@pytest.mark.parametrize("size", [(16, 24), (17, 23), (9, 9)])
@torch.no_grad()
def test_parity_with_its_parts(size: tuple[int, int]) -> None:
    net, images = small_net(), random(2, 3, *size)
    assert net(images).shape == (2, 5, *size)
    torch.testing.assert_close(net(images), oracle(net, images), rtol=0, atol=1e-10)


@torch.no_grad()
def test_parity_with_ties() -> None:
    net, images = small_net(), torch.full((2, 3, 37, 29), 0.5, dtype=torch.float64)
    images[1, :, 8:24, 4:20] = 1
    torch.testing.assert_close(net(images), oracle(net, images), rtol=0, atol=1e-10)


def nearest(x: Tensor, indices: Tensor, kernel_size: int, output_size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=output_size)


@torch.no_grad()
def test_parity_notices_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    net, images = small_net(), random(1, 3, 32, 24)
    right = oracle(net, images)
    for name in ("bottleneck.deconv.0.weight", "decoder.2.1.0.weight", "bottleneck.fc7.1.running_mean"):
        tensor = net.state_dict()[name]
        tensor += 0.01
        assert (net(images) - right).abs().max() > 1e-6, name
        tensor -= 0.01
    torch.testing.assert_close(net(images), right, rtol=0, atol=1e-10)
    monkeypatch.setattr(F, "max_unpool2d", nearest)
    assert (net(images) - right).abs().max() > 1e-3


def test_the_papers_table_without_its_memory() -> None:
    """Sizes of the deconvolutions as in the paper's table of layers; 252 million weights."""
    with torch.device("meta"):
        net = DeconvNet(vgg16_bn(), 21)
    blocks = [net.bottleneck.deconv, *(block for stage in net.decoder for block in stage)]
    channels = [block[0].out_channels for block in blocks]
    assert channels == [512, 512, 512, 512, 512, 512, 256, 256, 256, 128, 128, 64, 64, 64]
    assert net.bottleneck.fc6[0].weight.shape == (4096, 512, 7, 7)
    assert net.bottleneck.deconv[0].weight.shape == (4096, 512, 7, 7)
    assert net.classifier.weight.shape == (21, 64, 1, 1)
    assert 251e6 < sum(parameter.numel() for parameter in net.parameters()) < 253e6


def test_one_cell_between_fc6_and_the_deconvolution_at_the_smallest_size() -> None:
    net, seen = DeconvNet(VGG(((2,), (3,)), batch_norm=True), 2, hidden=4, kernel_size=7).eval(), []
    net.bottleneck.fc7.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    assert net.min_size == 25
    assert net(torch.rand(2, 3, 28, 25)).shape == (2, 2, 28, 25) and seen == [(2, 4, 1, 1)]
    with pytest.raises(ValueError, match="expected H and W of at least 25"):
        net(torch.rand(1, 3, 28, 24))


@pytest.mark.learns
def test_fits_one_batch() -> None:
    torch.manual_seed(0)
    net = DeconvNet(VGG(((6,), (12,)), batch_norm=True), 2, hidden=16, kernel_size=3)
    rows, columns = torch.meshgrid(torch.arange(21), torch.arange(24), indexing="ij")
    centres = torch.tensor([[9, 11], [12, 14]])
    target = torch.stack([(rows - r).square() + (columns - c).square() < 30 for r, c in centres]).long()
    images = (0.6 * target[:, None] + 0.4 * random(2, 3, 21, 24)).float()
    _, loss = fit(net, lambda: cross_entropy(net(images), target), steps=100, lr=1e-2)
    net.train()  # with the batch's statistics
    assert loss < 0.1 and (postprocess(net(images)) == target).float().mean() > 0.97


@pytest.mark.parametrize("name", ["num_classes", "hidden", "kernel_size"])
def test_bad_numbers(name: str) -> None:
    options = {"num_classes": 2, "hidden": 2, "kernel_size": 1, name: 0}
    with pytest.raises(ValueError, match=f"{name} is 0, expected"):
        DeconvNet(VGG(((2,),)), **options)


def test_postprocess() -> None:
    labels = postprocess(torch.tensor([[[[1.0, 0.0]], [[3.0, 0.0]], [[2.0, 0.0]]]]))
    assert labels.tolist() == [[[1, 0]]] and labels.dtype == torch.int64
    with pytest.raises(ValueError, match="logits has shape"):
        postprocess(torch.rand(2, 4, 4))


def test_an_encoder_that_grows_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="encoder has a first_padding of 100, expected 1"):
        DeconvNet(VGG(((2,),), first_padding=100), 2)
