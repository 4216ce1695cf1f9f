"""U-Net against the paper's arithmetic, against blocks of others on the same weights, and on bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from learning import fit
from scipy.spatial.distance import cdist
from torch import Tensor, nn

from segedu.losses.cross_entropy import cross_entropy
from segedu.semantic.unet import (
    DoubleConv,
    UNet,
    border_weight_map,
    center_crop,
    postprocess,
    predict_tiles,
    separate_cells,
    unet_loss,
    unet_out_size,
)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def small_net(padding: int = 0, depth: int = 2, dtype: torch.dtype = torch.float64) -> UNet:
    torch.manual_seed(0)
    net = UNet(2, 3, base_channels=3, depth=depth, padding=padding).to(dtype)
    for parameter in net.parameters():  # biases too: at zero they would hide a mistake
        nn.init.normal_(parameter, std=0.3)
    return net.eval()


# --- the paper's numbers --------------------------------------------------------------------------------------


def test_the_papers_net_without_its_memory() -> None:
    with torch.device("meta"):  # shapes without numbers
        net = UNet()
        assert net(torch.empty(1, 1, 572, 572)).shape == (1, 2, 388, 388)
    assert unet_out_size(572) == 388 == 572 - 2 * 92


def test_number_of_parameters_by_hand() -> None:
    def conv(before: int, after: int, taps: int) -> int:
        return before * after * taps + after

    down = sum(conv(a, b, 9) + conv(b, b, 9) for a, b in [(1, 64), (64, 128), (128, 256), (256, 512), (512, 1024)])
    up = sum(conv(2 * c, c, 4) + conv(2 * c, c, 9) + conv(c, c, 9) for c in (512, 256, 128, 64))
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in UNet().parameters())
    assert count == down + up + conv(64, 2, 1) == 31_030_658


def walk(size: int, depth: int) -> int | None:
    """Figure 1 of the paper, step by step."""
    for _ in range(depth):
        size -= 4
        if size <= 0 or size % 2:
            return None
        size //= 2
    size -= 4
    for _ in range(depth):
        size = 2 * size - 4
    return size if size > 0 else None


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_out_size_is_the_walk_through_the_figure(depth: int) -> None:
    for size in range(1, 800):
        expected = walk(size, depth)
        if expected is None:
            with pytest.raises(ValueError, match=f"size is {size}") as error:
                unet_out_size(size, depth)
            advised = int(str(error.value).split()[-1])
            assert advised > size and walk(advised, depth)
            assert not any(walk(between, depth) for between in range(size + 1, advised))
        else:
            assert unet_out_size(size, depth) == expected


def test_real_shapes_at_tiny_width() -> None:
    assert small_net(depth=4)(random(1, 2, 188, 204)).shape == (1, 3, 4, 20)
    assert small_net(depth=1)(random(1, 2, 18, 20)).shape == (1, 3, 2, 4)


def test_double_conv_takes_four_pixels_or_none() -> None:
    assert DoubleConv(2, 5)(random(1, 2, 9, 7).float()).shape == (1, 5, 5, 3)
    assert DoubleConv(2, 5, padding=1)(random(1, 2, 9, 7).float()).shape == (1, 5, 9, 7)


def test_initial_deviation_is_root_two_over_incoming_nodes() -> None:
    torch.manual_seed(0)
    net = UNet(3, 2, base_channels=32, depth=2)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            incoming = module.in_channels * (
                1 if isinstance(module, nn.ConvTranspose2d) else module.kernel_size[0] ** 2
            )
            expected = math.sqrt(2 / incoming)
            spread = 4 / math.sqrt(2 * module.weight.numel())  # four standard errors of a deviation
            assert module.weight.std(correction=0).item() == pytest.approx(expected, rel=spread)
            assert not module.bias.any()


# --- crop and weight map --------------------------------------------------------------------------------------


def test_center_crop_rounds_down() -> None:
    square = torch.arange(30).reshape(5, 6)
    assert center_crop(square, (2, 3)).tolist() == [[7, 8, 9], [13, 14, 15]]  # row (5-2)//2, column (6-3)//2
    assert torch.equal(center_crop(square, (5, 6)), square)
    assert center_crop(square[None, None], 1).item() == 14


def test_weight_map_is_the_formula_pixel_by_pixel() -> None:
    rng = np.random.default_rng(0)
    label_map = np.zeros((17, 23), np.int32)
    for label in (1, 2, 5, 9):  # gaps between labels are allowed
        top, left = rng.integers(0, 12), rng.integers(0, 18)
        label_map[top : top + 4, left : left + 4] = label
    pixels = np.argwhere(np.ones_like(label_map))
    nearest = [cdist(pixels, np.argwhere(label_map == k)).min(axis=1) for k in np.unique(label_map)[1:]]
    d1, d2 = np.sort(nearest, axis=0)[:2].reshape(2, 17, 23)
    expected = np.where(label_map == 0, 10 * np.exp(-((d1 + d2) ** 2) / 50), 0)
    n = [(label_map == 0).sum(), (label_map > 0).sum()]
    expected += np.where(label_map == 0, 391 / (2 * n[0]), 391 / (2 * n[1]))
    result = border_weight_map(label_map)
    assert result.dtype == torch.float32 and result.shape == (17, 23)
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-6)


def test_weight_map_worked_by_hand() -> None:
    row = border_weight_map(np.array([[1, 0, 0, 0, 2]]), w0=10, sigma=5)[0]
    assert row[0] == row[4] == pytest.approx(5 / 4)  # n_c = 2 of 5
    assert row[1:4].tolist() == pytest.approx([5 / 6 + 10 * math.exp(-16 / 50)] * 3)  # d1 + d2 = 4 all along


@pytest.mark.parametrize("label_map", [np.zeros((4, 5), int), np.ones((4, 5), int)])
def test_weight_map_of_one_class_is_one(label_map: np.ndarray) -> None:
    assert torch.equal(border_weight_map(label_map), torch.ones(4, 5))


def test_weight_map_of_a_single_cell_has_class_weights_only() -> None:
    label_map = np.array([[0, 0, 0, 7]])
    assert border_weight_map(label_map).tolist() == [pytest.approx([2 / 3, 2 / 3, 2 / 3, 2])]
    assert border_weight_map(label_map, class_weights=(0.5, 3)).tolist() == [[0.5, 0.5, 0.5, 3]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_weight_map_of_arrays_and_tensors(dtype: type) -> None:
    label_map = np.array([[1, 0, 2], [0, 0, 2]], dtype)
    before = label_map.copy()
    expected = border_weight_map(np.array([[1, 0, 2], [0, 0, 2]]))
    assert torch.equal(border_weight_map(label_map), expected) and np.array_equal(label_map, before)
    if dtype is not np.uint16:
        assert torch.equal(border_weight_map(torch.from_numpy(label_map)), expected)


def test_separate_cells_opens_gaps_where_cells_touch_and_nowhere_else() -> None:
    label_map = np.zeros((6, 8), np.uint16)
    label_map[1:5, 1:4], label_map[1:5, 4:7] = 3, 8
    gap = separate_cells(label_map)
    assert (gap[1:5, 3:5] == 0).all() and (gap[1:5, 1:3] == 3).all() and (gap[1:5, 5:7] == 8).all()
    apart = np.array([[1, 1, 0, 2, 2]])
    assert np.array_equal(separate_cells(apart), apart)
    assert border_weight_map(gap)[2, 3] > 5 and border_weight_map(label_map)[2, 3] == 1


# --- loss and labels --------------------------------------------------------------------------------------------


def test_loss_is_the_weighted_mean_of_cross_entropy() -> None:
    logits, weights = random(2, 3, 4, 5), random(2, 4, 5, seed=1)
    target = torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(2))
    target[0, 0] = 255
    each = F.cross_entropy(logits, target, reduction="none", ignore_index=255)
    counted = weights * (target != 255)
    torch.testing.assert_close(unet_loss(logits, target, weights), (each * counted).sum() / counted.sum())
    torch.testing.assert_close(unet_loss(logits, target), F.cross_entropy(logits, target, ignore_index=255))
    energy = cross_entropy(logits, target, pixel_weights=weights, reduction="sum")  # the paper's E
    torch.testing.assert_close(unet_loss(logits, target, weights) * counted.sum(), energy)


def test_postprocess_takes_the_highest_and_the_first_of_equals() -> None:
    logits = torch.tensor([[[[1.0, 0.0]], [[3.0, 0.0]], [[2.0, 0.0]]]])
    labels = postprocess(logits)
    assert labels.tolist() == [[[1, 0]]] and labels.dtype == torch.int64


# --- tiles ------------------------------------------------------------------------------------------------------


def whole(net: UNet, image: Tensor, border: int) -> Tensor:
    """Prediction of the image mirrored by numpy, in one piece."""
    _, height, width = image.shape
    step = 2**net.depth
    more = [-(size + 2 * border + 4) % step if net.padding == 0 else -size % step for size in (height, width)]
    pads = [(0, 0), *((border, border + extra) for extra in more)]
    mirrored = torch.from_numpy(np.pad(image.numpy(), pads, mode="reflect"))
    logits = net(mirrored[None])[0].detach()
    cut = border if net.padding else 0
    return logits[:, cut : cut + height, cut : cut + width]


@pytest.mark.parametrize("size", [(37, 45), (8, 61), (1, 1), (3, 20)])
@pytest.mark.parametrize("tile_size", [44, 60])
def test_tiles_equal_the_whole_mirrored_image(size: tuple[int, int], tile_size: int) -> None:
    net, image = small_net(), random(2, *size)
    tiles = predict_tiles(net, image, tile_size=tile_size)
    assert tiles.shape == (3, *size)
    torch.testing.assert_close(tiles, whole(net, image, border=20), rtol=0, atol=1e-10)


def test_tiles_of_a_padded_net_with_a_margin() -> None:
    net, image = small_net(padding=1), random(2, 30, 41)
    expected = whole(net, image, border=24)
    torch.testing.assert_close(predict_tiles(net, image, 64, margin=24), expected, rtol=0, atol=1e-10)
    assert (predict_tiles(net, image, 64, margin=20) - expected).abs().max() > 1e-6  # zeros reach in 23 px


def test_depth_four_and_the_papers_step() -> None:
    """The valid size, 20, is no multiple of 16: stepping by it shows a seam, stepping by 16 does not."""
    net, image = small_net(depth=4), random(2, 30, 24)
    expected = whole(net, image, border=92)
    torch.testing.assert_close(predict_tiles(net, image, tile_size=204), expected, rtol=0, atol=1e-10)
    assert (predict_tiles(net, image, tile_size=204, stride=20) - expected).abs().max() > 1e-3


def test_tiles_of_a_plain_convolution_step_by_the_valid_size() -> None:
    conv = nn.Conv2d(2, 3, 5).double()
    image, seen = random(2, 23, 19), []

    def model(tile: Tensor) -> Tensor:
        seen.append(tuple(tile.shape))
        return conv(tile)

    expected = conv(F.pad(image[None], (2, 2, 2, 2), mode="reflect"))[0]
    torch.testing.assert_close(predict_tiles(model, image, tile_size=14), expected, rtol=0, atol=1e-12)
    assert seen == [(1, 2, 14, 14)] * (1 + 3 * 2)  # one to learn the valid size, 10; then 3 x 2 tiles


# --- learning ---------------------------------------------------------------------------------------------------


@pytest.mark.learns
@pytest.mark.parametrize("padding", [0, 1])
def test_fits_one_batch(padding: int) -> None:
    torch.manual_seed(0)
    net = UNet(1, 2, base_channels=8, depth=1, padding=padding)
    rows, columns = torch.meshgrid(torch.arange(36), torch.arange(36), indexing="ij")
    centres = torch.tensor([[15, 17], [20, 22]])
    target = torch.stack([(rows - r).square() + (columns - c).square() < 30 for r, c in centres]).long()
    images = 0.6 * target[:, None] + 0.4 * random(2, 1, 36, 36, dtype=torch.float32)
    target = center_crop(target, net(images).shape[-2:])
    _, loss = fit(net, lambda: unet_loss(net(images), target), steps=120, lr=2e-3)
    net.train()  # with the batch's statistics
    assert loss < 0.1 and (postprocess(net(images)) == target).float().mean() > 0.97


# --- bad input --------------------------------------------------------------------------------------------------

CELLS = np.array([[1, 0, 2]])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: DoubleConv(0, 2), ValueError, "in_channels is 0"),
        (lambda: DoubleConv(1, 2.0), TypeError, "out_channels is 2.0"),
        (lambda: DoubleConv(1, 2, padding=2), ValueError, "padding is 2"),
        (lambda: UNet(num_classes=0), ValueError, "num_classes is 0"),
        (lambda: UNet(depth=0), ValueError, "depth is 0"),
        (lambda: UNet(base_channels=-1), ValueError, "base_channels is -1"),
        (lambda: UNet(padding="same"), ValueError, "padding is 'same'"),
        (lambda: UNet(1, 2, 1, 1)(torch.rand(1, 1, 17, 18)), ValueError, "size is 17"),
        (lambda: UNet(1, 2, 1, 1)(torch.rand(1, 1, 18, 16)), ValueError, "size is 16"),
        (lambda: unet_out_size(0), ValueError, "size is 0"),
        (lambda: unet_out_size(572.0), TypeError, "size is 572.0"),
        (lambda: unet_out_size(184), ValueError, "next such size is 188"),
        (lambda: unet_out_size(573), ValueError, "next such size is 588"),
        (lambda: unet_out_size(572, depth=True), TypeError, "depth is True"),
        (lambda: center_crop(torch.rand(4), 2), ValueError, "features has shape"),
        (lambda: center_crop(torch.rand(4, 4), 5), ValueError, r"size is \(5, 5\)"),
        (lambda: center_crop(torch.rand(4, 4), (0, 2)), ValueError, r"size is \(0, 2\)"),
        (lambda: border_weight_map([[0, 1]]), TypeError, "label_map has type list"),
        (lambda: border_weight_map(CELLS.astype(float)), TypeError, "dtype torch.float64"),
        (lambda: border_weight_map(CELLS > 0), TypeError, "dtype torch.bool"),
        (lambda: border_weight_map(CELLS[0]), ValueError, r"shape \(3,\)"),
        (lambda: border_weight_map(CELLS[:0]), ValueError, "label_map has shape"),
        (lambda: border_weight_map(-CELLS), ValueError, "label -2"),
        (lambda: border_weight_map(CELLS, sigma=0), ValueError, "sigma is 0"),
        (lambda: border_weight_map(CELLS, w0=-1), ValueError, "w0 is -1"),
        (lambda: border_weight_map(CELLS, class_weights=(1, 2, 3)), ValueError, "class_weights is"),
        (lambda: border_weight_map(CELLS, class_weights=(1, -2)), ValueError, "class_weights is"),
        (lambda: separate_cells(CELLS.astype(float)), TypeError, "dtype torch.float64"),
        (lambda: unet_loss(torch.rand(1, 2, 4, 4), torch.zeros(1, 5, 5).long()), ValueError, "target has shape"),
        (lambda: unet_loss(torch.rand(1, 2, 4, 4), torch.zeros(1, 4, 4)), TypeError, "target has dtype"),
        (lambda: postprocess(torch.rand(2, 4, 4)), ValueError, "logits has shape"),
        (lambda: predict_tiles(small_net(), torch.rand(1, 2, 9, 9)), ValueError, "image has shape"),
        (lambda: predict_tiles(small_net(), np.zeros((2, 9, 9))), TypeError, "image has type ndarray"),
        (lambda: predict_tiles(small_net(), random(2, 0, 9), 44), ValueError, "image has shape"),
        (lambda: predict_tiles(small_net(), random(2, 9, 9), 45), ValueError, "size is 45"),
        (lambda: predict_tiles(small_net(), random(2, 9, 9), 44, stride=5), ValueError, "stride is 5"),
        (lambda: predict_tiles(small_net(), random(2, 9, 9), 44, stride=0), ValueError, "stride is 0"),
        (lambda: predict_tiles(small_net(), random(2, 9, 9), 44, margin=2), ValueError, "with margin 2"),
        (lambda: predict_tiles(small_net(), random(2, 9, 9), 44, margin=-1), ValueError, "with margin -1"),
    ],
)
def test_bad_input(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
