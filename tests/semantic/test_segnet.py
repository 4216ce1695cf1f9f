"""SegNet part by part: torchvision's encoder, indices with ties, nn.MaxUnpool2d; its weights; its loss; learning."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from learning import fit
from semantic.unpooling_oracle import STAGES, random, randomise, torchvision_encoder, walk
from torch import Tensor, nn
from torchvision.models import vgg16_bn as torchvision_vgg16_bn

from segedu.backbones.vgg import VGG, vgg16_bn
from segedu.ops.pooling import max_pool_with_indices, max_unpool
from segedu.semantic.segnet import SegNet, median_frequency_weights, postprocess, segnet_loss


def small_net() -> SegNet:
    net = SegNet(VGG(STAGES, batch_norm=True), 5).double().eval()
    randomise(net)
    return net


def oracle(net: SegNet, images: Tensor) -> Tensor:
    """torchvision's encoder, nn.MaxUnpool2d, and functional calls for the decoder."""
    w = net.state_dict()
    encoder = torchvision_encoder({k.removeprefix("encoder.features."): v for k, v in w.items() if "encoder" in k})

    def stage(level: int, count: int):
        def run(x: Tensor) -> Tensor:
            for i in range(count):
                name = f"decoder.{level}.{i}"
                x = F.conv2d(x, w[f"{name}.0.weight"], padding=1)
                mean, variance, scale, shift = (
                    w[f"{name}.1.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
                )
                x = torch.relu((x - mean) / (variance + 1e-5).sqrt() * scale + shift)
            return x

        return run

    counts = [len(widths) for widths in reversed(STAGES)]
    counts[-1] -= 1
    x = walk(encoder, images, lambda x: x, [stage(level, count) for level, count in enumerate(counts)])
    return F.conv2d(x, w["classifier.weight"], w["classifier.bias"], padding=1)


@pytest.mark.parametrize("size", [(16, 24), (17, 23), (1, 5)])
@torch.no_grad()
def test_parity_with_its_parts(size: tuple[int, int]) -> None:
    net, images = small_net(), random(2, 3, *size)
    torch.testing.assert_close(net(images), oracle(net, images), rtol=0, atol=1e-10)


@torch.no_grad()
def test_parity_with_ties() -> None:
    """Flat images: whole regions of every map are equal, and the first of equals must win at every pooling."""
    net, images = small_net(), torch.full((2, 3, 37, 29), 0.5, dtype=torch.float64)
    images[1, :, 8:24, 4:20] = 1
    torch.testing.assert_close(net(images), oracle(net, images), rtol=0, atol=1e-10)


def mean_of_neighbours(x: Tensor, indices: Tensor, kernel_size: int, output_size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=output_size)


def last_of_equals(x: Tensor, kernel_size: int, ceil_mode: bool, return_indices: bool) -> tuple[Tensor, Tensor]:
    pooled, indices = POOL(x.flip(-1), kernel_size, ceil_mode=ceil_mode, return_indices=True)
    width = x.shape[-1]
    return pooled.flip(-1), (indices // width * width + width - 1 - indices % width).flip(-1)


POOL = F.max_pool2d


@pytest.mark.parametrize(("name", "mistake"), [("max_unpool2d", mean_of_neighbours), ("max_pool2d", last_of_equals)])
@torch.no_grad()
def test_parity_notices_a_mistake(monkeypatch: pytest.MonkeyPatch, name: str, mistake) -> None:
    net, images = small_net(), torch.full((1, 3, 32, 24), 0.5, dtype=torch.float64)
    right = oracle(net, images)
    monkeypatch.setattr(F, name, mistake)
    assert (net(images) - right).abs().max() > 1e-3


@torch.no_grad()
def test_parity_notices_one_weight() -> None:
    net, images = small_net(), random(1, 3, 16, 24)
    right = oracle(net, images)
    net.decoder[0][1][1].running_var += 0.01
    assert (net(images) - right).abs().max() > 1e-6


@torch.no_grad()
def test_constant_regions_come_back_at_the_first_place_of_each_window() -> None:
    """The pooling of segedu.ops, written with loops, agrees on where the values go."""
    net = SegNet(VGG(((1,),), batch_norm=True), 2).eval()
    seen = []
    net.classifier.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    kernel = torch.zeros(1, 3, 3, 3)
    kernel[0, 0, 1, 1] = 1  # the encoder hands on its first channel
    net.encoder.features[0].weight.copy_(kernel)
    images = torch.ones(1, 3, 5, 6)
    net(images)
    expected = torch.zeros(5, 6)
    expected[::2, ::2] = 1 / np.sqrt(1 + 1e-5)  # running variance 1
    torch.testing.assert_close(seen[0][0, 0], expected)
    pooled, indices = max_pool_with_indices(images[:, :1], 2, ceil_mode=True)
    assert torch.equal(max_unpool(pooled, indices, (5, 6)) > 0, seen[0] > 0)


# --- the paper's net --------------------------------------------------------------------------------------------


def test_number_of_parameters_by_hand() -> None:
    with torch.device("meta"):
        net = SegNet(vgg16_bn(), 11)
    widths = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    encoder = sum(9 * a * b + 3 * b for a, b in zip([3, *widths], widths, strict=False))
    decoder = sum(9 * b * a + 2 * a for a, b in zip(widths, widths[1:], strict=False))
    total = sum(parameter.numel() for parameter in net.parameters())
    assert total == encoder + decoder + 9 * 64 * 11 + 11 == 29_445_643
    convolutions = [module for module in net.decoder.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) + 1 == 13


def test_encoder_takes_torchvisions_weights() -> None:
    with torch.device("meta"):
        ours, theirs = SegNet(vgg16_bn(), 11).encoder, torchvision_vgg16_bn()
    given = {name: value.shape for name, value in theirs.features.state_dict().items()}
    assert given == {name: value.shape for name, value in ours.features.state_dict().items()}


# --- weights of classes and loss ----------------------------------------------------------------------------------


def test_median_frequency_weights_by_loops() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 50, (7, 6)) * (rng.random((7, 6)) < 0.5)
    counts[:, 2] = 0
    frequencies = {}
    for k in range(6):
        images = [row for row in counts if row[k] > 0]
        if images:
            frequencies[k] = sum(row[k] for row in images) / sum(row.sum() for row in images)
    expected = [np.median(list(frequencies.values())) / frequencies[k] if k in frequencies else 0 for k in range(6)]
    weights = median_frequency_weights(torch.from_numpy(counts))
    torch.testing.assert_close(weights, torch.tensor(expected, dtype=torch.float32))
    assert weights[2] == 0 and weights.dtype == torch.float32


def test_frequency_is_taken_where_the_class_is_present() -> None:
    """Class 1 fills half of the one image that shows it: it is as frequent as class 0 in the first."""
    assert median_frequency_weights(torch.tensor([[4, 0], [2, 2], [4, 0]])).tolist() == pytest.approx([0.8, 4 / 3])
    assert median_frequency_weights(torch.tensor([[3, 3]])).tolist() == [1, 1]


def test_loss_is_cross_entropy_with_class_weights() -> None:
    logits, weights = random(2, 3, 4, 5), torch.tensor([0.5, 2.0, 0.0], dtype=torch.float64)
    target = torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(2))
    target[0, 0] = 255
    expected = F.cross_entropy(logits, target, weight=weights, ignore_index=255)
    torch.testing.assert_close(segnet_loss(logits, target, weights), expected)
    torch.testing.assert_close(segnet_loss(logits, target), F.cross_entropy(logits, target, ignore_index=255))


def test_postprocess_takes_the_highest_and_the_first_of_equals() -> None:
    labels = postprocess(torch.tensor([[[[1.0, 0.0]], [[3.0, 0.0]], [[2.0, 0.0]]]]))
    assert labels.tolist() == [[[1, 0]]] and labels.dtype == torch.int64


@pytest.mark.learns
def test_fits_one_batch() -> None:
    torch.manual_seed(0)
    net = SegNet(VGG(((8,), (16,)), batch_norm=True), 2)
    rows, columns = torch.meshgrid(torch.arange(33), torch.arange(35), indexing="ij")
    centres = torch.tensor([[15, 17], [20, 22]])
    target = torch.stack([(rows - r).square() + (columns - c).square() < 60 for r, c in centres]).long()
    images = (0.6 * target[:, None] + 0.4 * random(2, 3, 33, 35)).float()
    _, loss = fit(net, lambda: segnet_loss(net(images), target, torch.tensor([1.0, 3.0])), steps=140, lr=1e-2)
    net.train()  # with the batch's statistics
    assert loss < 0.1 and (postprocess(net(images)) == target).float().mean() > 0.97


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SegNet(VGG(((2,),)), 0), "num_classes is 0"),
        (lambda: SegNet(VGG(((2,),), first_padding=100), 2), "encoder has a first_padding of 100, expected 1"),
        (lambda: median_frequency_weights(torch.tensor([[1, torch.nan]])), "counts has minimum nan"),
        (lambda: median_frequency_weights(torch.tensor([[1, torch.inf]])), "sum inf, expected"),
        (lambda: median_frequency_weights(torch.ones(3)), r"counts has shape \(3,\), expected"),
        (lambda: median_frequency_weights(torch.ones(0, 3)), r"counts has shape \(0, 3\), expected"),
        (lambda: median_frequency_weights(torch.tensor([[1, -1]])), "counts has minimum -1"),
        (lambda: median_frequency_weights(torch.zeros(2, 3)), "counts has minimum 0.0 and sum 0.0, expected"),
        (lambda: segnet_loss(torch.rand(1, 2, 4, 4), torch.zeros(1, 5, 5).long()), "target has shape"),
        (lambda: postprocess(torch.rand(2, 4, 4)), "logits has shape"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_counts_of_another_type() -> None:
    with pytest.raises(TypeError, match="counts has type ndarray, expected a tensor"):
        median_frequency_weights(torch.ones(2, 3).numpy())
