"""U-Net: a contracting path, an expanding path, and a skip at every resolution.

Paper: Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
    MICCAI 2015, arXiv 1505.04597.
Idea: The contracting path pools four times and learns what is in the picture. The expanding path learns
    where: it up-samples and, at every resolution, concatenates the features of the contracting path. Few
    labelled images suffice: elastic deformation makes more, and a weight map makes the gaps between cells dear.
Simplified: no drop-out at the end of the contracting path (the paper gives no rate). With `padding=1`, which
    is not in the paper, every size is allowed: the image is grown at the bottom and at the right to the next
    multiple of 2**depth by repeating its last row and column, and the logits are cut back.
Shapes: images (B, C, H, W) -> logits (B, K, H', W'). With padding=0, H' = unet_out_size(H), 572 -> 388;
    with padding=1, H' = H. `postprocess`: logits (B, K, H', W') -> labels (B, H', W').
Quality: val IoU (Gaussian + Otsu): nuclei 0.894 (0.814), 372 CPU-s; shapes 0.901 (0.185), 145; cells 0.881 (0.576), 41.
Course: 06-unet
Lab: 06_unet
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn

from segedu.layers.labels import highest_class
from segedu.losses.cross_entropy import cross_entropy
from segedu.validation.images import check_images


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions, each followed by a ReLU; with padding 0 each takes 2 pixels off H and W."""

    def __init__(self, in_channels: int, out_channels: int, padding: int = 0) -> None:
        _check_counts(in_channels=in_channels, out_channels=out_channels)
        _check_padding(padding)
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=padding),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=padding),
            nn.ReLU(inplace=True),
        )


class Up(nn.Module):
    """One step of the expanding path: 2x2 up-convolution, crop of the skip, concatenation, double conv."""

    def __init__(self, in_channels: int, padding: int = 0) -> None:
        super().__init__()
        self.up_conv = nn.ConvTranspose2d(in_channels, in_channels // 2, kernel_size=2, stride=2)
        self.double_conv = DoubleConv(in_channels, in_channels // 2, padding)

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        up = self.up_conv(features)  # (B, 2C, h, w) -> (B, C, 2h, 2w)
        skip = center_crop(skip, up.shape[-2:])
        return self.double_conv(torch.cat([skip, up], dim=1))  # (B, C + C, 2h, 2w) -> (B, C, ., .)


class UNet(nn.Module):
    """The U of the paper's figure 1.

    Args:
        in_channels: channels of the image, 1 in the paper.
        num_classes: K, background included, 2 in the paper.
        base_channels: channels at the full resolution, doubled at every pooling.
        depth: number of poolings, 4 in the paper.
        padding: 0 as in the paper (the output is smaller than the image) or 1 (output as large as the image).
    """

    def __init__(
        self, in_channels: int = 1, num_classes: int = 2, base_channels: int = 64, depth: int = 4, padding: int = 0
    ) -> None:
        super().__init__()
        _check_counts(in_channels=in_channels, num_classes=num_classes, base_channels=base_channels, depth=depth)
        _check_padding(padding)
        self.in_channels, self.num_classes, self.depth, self.padding = in_channels, num_classes, depth, padding
        widths = [base_channels * 2**level for level in range(depth + 1)]  # 64, 128, 256, 512, 1024
        self.contracting = nn.ModuleList(
            DoubleConv(before, after, padding) for before, after in zip([in_channels, *widths], widths, strict=False)
        )
        self.expanding = nn.ModuleList(Up(width, padding) for width in reversed(widths[1:]))
        self.head = nn.Conv2d(base_channels, num_classes, kernel_size=1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights as the paper's section 3 says: Gaussian, deviation sqrt(2 / N), biases zero."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                # Paper: N is the number of incoming nodes of one neuron. A 3x3 convolution has 9 C of them.
                # The up-convolution has C: with stride 2, each output pixel sees one pixel of the input.
                taps = 1 if isinstance(module, nn.ConvTranspose2d) else math.prod(module.kernel_size)
                nn.init.normal_(module.weight, std=math.sqrt(2 / (module.in_channels * taps)))
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, K, H', W'); there is no softmax inside.

        Raises:
            ValueError: the shape is wrong or, with padding=0, the size is not legal (see `unet_out_size`).
        """
        check_images(images, self.in_channels)
        height, width = images.shape[-2:]
        if self.padding:
            step = 2**self.depth
            features = F.pad(images, (0, -width % step, 0, -height % step), mode="replicate")
        else:
            unet_out_size(height, self.depth)
            unet_out_size(width, self.depth)
            features = images
        skips = []
        for double_conv in self.contracting[:-1]:
            features = double_conv(features)
            skips.append(features)
            features = F.max_pool2d(features, kernel_size=2)
        features = self.contracting[-1](features)
        for up, skip in zip(self.expanding, reversed(skips), strict=True):
            features = up(features, skip)
        logits = self.head(features)  # (B, K, H', W')
        return logits[..., :height, :width] if self.padding else logits


def center_crop(features: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Cut the centre out of the last two axes; the odd pixel of a rest stays at the bottom and right.

    Args:
        features: (..., H, W); also a target (B, H, W) or a weight map.
        size: height and width of the cut, or one number for both.

    Returns:
        A view (..., h, w) from row (H - h) // 2 and column (W - w) // 2.

    Raises:
        ValueError: fewer than two axes, or a size below 1 or above that of `features`.

    >>> center_crop(torch.arange(5)[None].repeat(5, 1), (1, 2))
    tensor([[1, 2]])
    """
    if features.ndim < 2:
        raise ValueError(f"features has shape {tuple(features.shape)}, expected (..., H, W)")
    h, w = (size, size) if isinstance(size, int) else size
    height, width = features.shape[-2:]
    if not (1 <= h <= height and 1 <= w <= width):
        raise ValueError(f"size is {(h, w)}, expected at least (1, 1) and at most {(height, width)}")
    top, left = (height - h) // 2, (width - w) // 2
    return features[..., top : top + h, left : left + w]


def unet_out_size(size: int, depth: int = 4) -> int:
    """Height (or width) of the output of the unpadded U-Net for an image of height (or width) `size`.

    Each of the 2 depth + 1 double convolutions takes 4 pixels, a pooling halves, an up-convolution doubles.

    Args:
        size: of the image, in pixels.
        depth: number of poolings.

    Returns:
        The size of the logits, size - 92 - 92 for depth 4.

    Raises:
        ValueError: an odd size would be pooled, or nothing would be left; the message names a legal size.

    >>> unet_out_size(572), unet_out_size(188), unet_out_size(20, depth=1)
    (388, 4, 4)
    """
    _check_counts(size=size, depth=depth)
    # A double convolution after n poolings takes 4 * 2**n pixels: two of them for each n < depth, and one at
    # the bottom: 184 = 2 * 4 * (1 + 2 + 4 + 8) + 4 * 16.
    lost = 2 * 4 * (2**depth - 1) + 4 * 2**depth
    # Every pooling meets an even number if what is left at the bottom, (size - 4 * (2**depth - 1)) / 2**depth,
    # is a whole number.
    cut = (size + 4) % 2**depth
    if cut or size <= lost:
        beyond = max(size, lost + 1)
        raise ValueError(
            f"size is {size}, expected one at which every pooling of an unpadded U-Net of depth {depth} meets "
            f"an even number and something is left; the next such size is {beyond - (beyond + 4) % -(2**depth)}"
        )
    return size - lost


def separate_cells(label_map: np.ndarray | Tensor) -> np.ndarray:
    """Make background of each pixel whose 3x3 neighbourhood holds two cells, as the paper does before the map.

    Args:
        label_map: (H, W) integers, 0 is background.

    Returns:
        A new label map (H, W), int32.

    >>> separate_cells(np.array([[1, 1, 1, 2, 2, 2]]))
    array([[1, 1, 0, 0, 2, 2]], dtype=int32)
    """
    labels = _check_label_map(label_map).astype(np.int64)
    highest = ndimage.maximum_filter(labels, size=3)
    above = labels.max() + 1  # background must not count as the lowest label
    lowest = ndimage.minimum_filter(np.where(labels == 0, above, labels), size=3)
    return np.where((labels > 0) & (lowest < highest), 0, labels).astype(np.int32)


def border_weight_map(
    label_map: np.ndarray | Tensor,
    w0: float = 10.0,
    sigma: float = 5.0,
    class_weights: bool | tuple[float, float] = True,
) -> Tensor:
    """Weight of each pixel in the loss: equation 2 of the paper, w = w_c + w0 exp(-(d1 + d2)^2 / (2 sigma^2)).

    d1 and d2 are the distances to the nearest and the second nearest cell, between centres of pixels: 1 beside
    a cell. The second term is there on background only, for the gap between two cells; with fewer than two
    cells it is 0. Cells that touch have no gap: call `separate_cells` first.

    Args:
        label_map: (H, W) integers, 0 is background, every other number is one cell.
        w0: height of the second term.
        sigma: its reach in pixels.
        class_weights: w_c. True: H W / (2 n_c) for the n_c pixels of background and of cells, so that both
            classes weigh the same and the mean of w_c is 1; an image of one class has w_c = 1. False: 1.
            A pair: the weights of background and of cells.

    Returns:
        Weights (H, W), float32.

    Raises:
        TypeError: `label_map` is not an array or tensor of integers.
        ValueError: a wrong shape, an empty or negative map, or a parameter out of range.

    >>> border_weight_map(np.array([[1, 0, 2]]), w0=10, sigma=1, class_weights=False)
    tensor([[1.0000, 2.3534, 1.0000]])
    """
    labels = _check_label_map(label_map)
    if w0 < 0 or not sigma > 0:
        raise ValueError(f"w0 is {w0} and sigma is {sigma}, expected w0 >= 0 and sigma > 0")
    background = labels == 0
    # With fewer than two cells d2 is infinite, and exp(-inf) is the 0 that we want.
    nearest, second = np.full((2, *labels.shape), np.inf)
    for label in np.unique(labels[~background]):
        distance = ndimage.distance_transform_edt(labels != label)
        second = np.minimum(second, np.maximum(nearest, distance))
        nearest = np.minimum(nearest, distance)
    weights = _class_weight_map(background, class_weights)
    border = w0 * np.exp(-((nearest + second) ** 2) / (2 * sigma**2))
    return torch.from_numpy((weights + background * border).astype(np.float32))


def _class_weight_map(background: np.ndarray, class_weights: bool | tuple[float, float]) -> np.ndarray:
    counts = background.sum(), (~background).sum()
    if isinstance(class_weights, bool):
        balanced = class_weights and min(counts) > 0
        class_weights = [background.size / (2 * n) if balanced else 1.0 for n in counts]
    if len(class_weights) != 2 or min(class_weights) < 0:
        raise ValueError(f"class_weights is {class_weights}, expected True, False or two numbers >= 0")
    return np.where(background, *class_weights)


def unet_loss(logits: Tensor, target: Tensor, weight_map: Tensor | None = None) -> Tensor:
    """Cross-entropy of the pixel-wise softmax, weighted by a map: equation 1 of the paper.

    Paper: the energy is the sum of w(x) times the cross-entropy. Ours is that sum over the sum of w(x), so
    that the learning rate does not depend on the size of the image.

    Args:
        logits: (B, K, H, W).
        target: (B, H, W) int64; 255 is ignored. For the unpadded net, `center_crop` it to the logits.
        weight_map: (B, H, W) weights such as `border_weight_map` gives; None weighs all pixels the same.

    Returns:
        A scalar, 0 where no pixel counts.
    """
    return cross_entropy(logits, target, ignore_index=255, pixel_weights=weight_map)


@torch.no_grad()
def predict_tiles(
    model: Callable[[Tensor], Tensor], image: Tensor, tile_size: int = 572, stride: int | None = None, margin: int = 0
) -> Tensor:
    """Overlap-tile strategy (the paper's figure 2): an image of any size, one tile of input at a time.

    The image is mirrored at its borders, input tiles overlap, output tiles lie side by side: each logit
    comes from its full neighbourhood, and no averaging hides a seam.

    Args:
        model: maps (1, C, tile_size, tile_size) to (1, K, s, s), centred in the tile. In eval mode.
        image: (C, H, W), any H and W from 1.
        tile_size: height and width of an input tile. A tile may be larger than the image.
        stride: step from tile to tile. None: the size of the valid output, for a model with `depth` poolings
            rounded down to a multiple of 2**depth.
            Paper: the step is the valid size itself, 388. But a pooling pairs pixels from the corner of its
            tile: at an offset that is no multiple of 2**depth it pairs others than in the whole image, and
            values jump at the seam. With 384 they do not.
        margin: pixels cut from each side of the model's output. 0 for the unpadded net. A padded net sees
            zeros around every tile and needs a margin; from 6 * 2**depth on, 96, no zero reaches a logit.

    Returns:
        Logits (K, H, W), equal to those of the whole mirrored image.

    Raises:
        ValueError: a wrong shape, a tile without valid output, or a stride that leaves holes.
    """
    if not isinstance(image, Tensor) or image.ndim != 3 or 0 in image.shape:
        given = f"of shape {tuple(image.shape)}" if isinstance(image, Tensor) else f"a {type(image).__name__}"
        raise ValueError(f"image is {given}, expected a tensor (C, H, W) with no empty axis")
    _check_counts(tile_size=tile_size)
    _, height, width = image.shape
    valid = _valid_size(model, image, tile_size, margin)
    if stride is None:
        step = 2 ** getattr(model, "depth", 0)
        stride = max(valid // step * step, 1) if valid >= step else valid
    if not 1 <= stride <= valid:
        raise ValueError(f"stride is {stride}, expected 1 to {valid}, the size of one tile's valid output")
    border = (tile_size - valid) // 2
    tops, lefts = range(0, height, stride), range(0, width, stride)
    rows = _mirror(torch.arange(-border, tops[-1] - border + tile_size), height)
    columns = _mirror(torch.arange(-border, lefts[-1] - border + tile_size), width)
    canvas = image[:, rows.to(image.device)][:, :, columns.to(image.device)]
    out = None
    for top in tops:
        for left in lefts:
            tile = canvas[:, top : top + tile_size, left : left + tile_size]
            logits = center_crop(model(tile[None])[0], valid)
            if out is None:
                out = logits.new_empty((len(logits), height, width))
            out[:, top : top + valid, left : left + valid] = logits[:, : height - top, : width - left]
    return out


def _valid_size(model: Callable[[Tensor], Tensor], image: Tensor, tile_size: int, margin: int) -> int:
    """Size of the part of a tile's output that is kept: the model's own output less the margin."""
    shape = model(image.new_zeros((1, image.shape[0], tile_size, tile_size))).shape
    valid = shape[-1] - 2 * margin
    square = len(shape) == 4 and shape[-1] == shape[-2]
    if margin < 0 or not square or not 1 <= valid <= tile_size or (tile_size - valid) % 2:
        raise ValueError(
            f"a tile of {tile_size} with margin {margin} gives an output of shape {tuple(shape)}, expected "
            f"(1, K, s, s) with s - 2 margin at least 1 and an even number of pixels lost"
        )
    return valid


def _mirror(index: Tensor, size: int) -> Tensor:
    """Indices outside 0 .. size - 1 reflected into it, as often as needed; the edge pixel is not doubled."""
    period = max(2 * (size - 1), 1)
    index = index % period
    return torch.minimum(index, period - index) if size > 1 else torch.zeros_like(index)


postprocess = highest_class


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if not isinstance(count, int) or isinstance(count, bool):
            raise TypeError(f"{name} is {count!r}, expected an int of at least 1")
        if count < 1:
            raise ValueError(f"{name} is {count}, expected at least 1")


def _check_padding(padding: int) -> None:
    if padding not in (0, 1):
        raise ValueError(f"padding is {padding!r}, expected 0 (the paper's) or 1 (size kept)")


def _check_label_map(label_map: np.ndarray | Tensor) -> np.ndarray:
    if not isinstance(label_map, np.ndarray | Tensor):
        raise TypeError(f"label_map has type {type(label_map).__name__}, expected an array or tensor of integers")
    labels = label_map.cpu().numpy() if isinstance(label_map, Tensor) else label_map
    if labels.dtype.kind not in "iu":
        raise TypeError(f"label_map has dtype {labels.dtype}, expected integers")
    if labels.ndim != 2 or labels.size == 0:
        raise ValueError(f"label_map has shape {labels.shape}, expected (H, W) with H and W at least 1")
    if labels.min() < 0:
        raise ValueError(f"label_map has the label {labels.min()}, expected 0 for background and more for cells")
    return labels
