"""YOLO11's blocks against slow ways of the same, and the shapes and names of its pyramid."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from randomise import randomise

from segedu.backbones.yolo11 import (
    SCALES,
    ConvBlock,
    PixelAttention,
    PyramidPooling,
    Scale,
    SplitAttention,
    SplitBlock,
    YOLO11Pyramid,
)

TINY = Scale(0.5, 1.0, 1024, deep=False)
BASE_CHANNELS = (8, 16, 16, 32, 32)
SIZES = ((64, 96), (32, 32), (64, 32), (32, 96), (32, 32))


def features(channels: int, size: tuple[int, int] = (5, 7)) -> torch.Tensor:
    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_a_convolution_block() -> None:
    block, x = randomise(ConvBlock(3, 4, 3, stride=2)), features(3)
    y = F.batch_norm(
        F.conv2d(x, block.conv.weight, stride=2, padding=1),
        block.bn.running_mean,
        block.bn.running_var,
        block.bn.weight,
        block.bn.bias,
        eps=1e-3,
    )
    assert torch.allclose(block(x), y * torch.sigmoid(y)) and block.bn.momentum == 0.03
    assert block(x).shape == (2, 4, 3, 4)


def test_poolings_in_a_row_are_poolings_side_by_side() -> None:
    block, x = randomise(PyramidPooling(8)), features(8, (17, 15))
    small = block.reduce(x)
    pooled = [F.max_pool2d(small, k, stride=1, padding=k // 2) for k in (5, 9, 13)]
    assert torch.equal(block(x), block.merge(torch.cat([small, *pooled], dim=1)))


def test_attention_place_by_place() -> None:
    """Heads of 4 values and 2 keys each; every place gathers from all 35 by its own softmax."""
    block, x = randomise(PixelAttention(8, heads=2)), features(8)
    both = block.qkv(x).flatten(2)  # (B, 16, L): of each head 2 queries, 2 keys, 4 values
    gathered, values = torch.zeros(2, 8, 35).double(), torch.zeros(2, 8, 35).double()
    for b in range(2):
        for head in range(2):
            query, key, value = both[b, 8 * head : 8 * head + 8].split([2, 2, 4])
            values[b, 4 * head : 4 * head + 4] = value
            for i in range(35):
                shares = torch.stack([(query[:, i] @ key[:, j]) / 2**0.5 for j in range(35)]).softmax(0)
                gathered[b, 4 * head : 4 * head + 4, i] = value @ shares
    wanted = block.proj(gathered.reshape(2, 8, 5, 7) + block.position(values.reshape(2, 8, 5, 7)))
    assert torch.allclose(block(x), wanted)
    with torch.no_grad():
        block.qkv.conv.weight[0] += 0.1
    assert not torch.allclose(block(x), wanted)


@pytest.mark.parametrize("deep", [False, True])
def test_a_split_block_step_by_step(deep: bool) -> None:
    block, x = randomise(SplitBlock(6, 16, 2, deep)), features(6)
    kept = list(block.split(x).chunk(2, dim=1))
    for inner in block.blocks:
        last = kept[-1]
        if deep:
            y = inner.main(last)
            for residual in inner.blocks:
                y = y + residual.second(residual.first(y))
            kept.append(inner.merge(torch.cat([y, inner.beside(last)], dim=1)))
        else:
            kept.append(last + inner.second(inner.first(last)))
    assert torch.equal(block(x), block.merge(torch.cat(kept, dim=1))) and len(kept) == 4
    assert block(x).shape == (2, 16, 5, 7)


def test_split_attention_leaves_half_alone() -> None:
    block, x = randomise(SplitAttention(16, 1)), features(16)
    beside, through = block.split(x).chunk(2, dim=1)
    layer = block.blocks[0]
    through = through + layer.attention(through)
    through = through + layer.feed_forward[1](layer.feed_forward[0](through))
    assert torch.equal(block(x), block.merge(torch.cat([beside, through], dim=1)))


@pytest.mark.parametrize(("scale", "size"), list(zip(SCALES, SIZES, strict=True)))
def test_features_at_strides_8_16_32(scale: str, size: tuple[int, int]) -> None:
    with torch.device("meta"):
        pyramid = YOLO11Pyramid(SCALES[scale])
        got = pyramid(torch.zeros(2, 3, *size))
    wanted = {"n": (64, 128, 256), "s": (128, 256, 512), "m": (256, 512, 512), "l": (256, 512, 512)}
    assert pyramid.channels == wanted.get(scale, (384, 768, 768)) and pyramid.strides == (8, 16, 32)
    assert [tuple(f.shape) for f in got] == [
        (2, c, size[0] // s, size[1] // s) for c, s in zip(pyramid.channels, pyramid.strides, strict=True)
    ]


def test_each_level_knows_of_the_whole_image_and_every_parameter_learns() -> None:
    torch.manual_seed(0)
    pyramid = YOLO11Pyramid(TINY, base_channels=BASE_CHANNELS).double().eval()
    images = torch.rand(1, 3, 64, 96, dtype=torch.float64, requires_grad=True)
    fine, middle, coarse = pyramid(images)
    (corner,) = torch.autograd.grad(fine[0, :, 0, 0].sum(), images, retain_graph=True)
    assert corner[0, :, -8:, -8:].abs().sum() > 0
    (fine.sum() + middle.sum() + coarse.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in pyramid.parameters())


def test_bad_input() -> None:
    pyramid = YOLO11Pyramid(TINY, base_channels=BASE_CHANNELS)
    with pytest.raises(
        ValueError, match=r"images has shape \(1, 3, 64, 65\), expected H and W that are multiples of 32"
    ):
        pyramid(torch.rand(1, 3, 64, 65))
    with pytest.raises(ValueError, match=r"expected \(B, 3, H, W\)"):
        pyramid(torch.rand(1, 4, 64, 64))
    with pytest.raises(ValueError, match="base_channels has 2 entries, expected 5"):
        YOLO11Pyramid(TINY, base_channels=(8, 8))
