"""U-Net: a contracting path, an expanding path, and a skip connection at every resolution.

Paper: Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
    MICCAI 2015, arXiv 1505.04597.
Idea: The contracting path pools four times and learns what is in the image. The expanding path learns where:
    it upsamples and, at every resolution, concatenates the features of the contracting path. Few labelled images
    suffice, because elastic deformation makes more and a weight map makes errors in the gaps between cells expensive.
Simplified: no dropout at the end of the contracting path (the paper gives no rate). With `padding=1`, which
    is not in the paper, every size is allowed: the image is padded at the bottom and at the right to the next
    multiple of 2**depth by repeating its last row and column, and the logits are cropped.
Shapes: images (B, C, H, W) -> logits (B, K, H', W'). With padding=0, H' = unet_out_size(H), 572 -> 388;
    with padding=1, H' = H. `postprocess`: logits (B, K, H', W') -> labels (B, H', W').
Quality: val IoU (Gaussian + Otsu): shapes 0.901 (0.185), 145 CPU-s; cells 0.881 (0.576), 41.
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
from segedu.validation.label_maps import check_label_map
from segedu.validation.numbers import check_choice, check_integers, check_number
from segedu.validation.tensors import check_tensor


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions, each followed by a ReLU; without padding, H and W decrease by 4."""

    def __init__(self, in_channels: int, out_channels: int, padding: int = 0) -> None:
        check_integers(in_channels=in_channels, out_channels=out_channels)
        check_choice("padding", padding, (0, 1))
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=padding),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=padding),
            nn.ReLU(inplace=True),
        )


class Up(nn.Module):
    """One step of the expanding path: 2x2 up-convolution, cropping of the skip, concatenation, double convolution."""

    def __init__(self, in_channels: int, padding: int = 0) -> None:
        super().__init__()
        self.up_conv = nn.ConvTranspose2d(in_channels, in_channels // 2, kernel_size=2, stride=2)
        self.double_conv = DoubleConv(in_channels, in_channels // 2, padding)

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        up = self.up_conv(features)  # (B, 2C, h, w) -> (B, C, 2h, 2w)
        skip = center_crop(skip, up.shape[-2:])
        return self.double_conv(torch.cat([skip, up], dim=1))  # (B, C + C, 2h, 2w) -> (B, C, ., .)


class UNet(nn.Module):
    """The network of the paper's figure 1.

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
        check_integers(in_channels=in_channels, num_classes=num_classes, base_channels=base_channels, depth=depth)
        check_choice("padding", padding, (0, 1))
        self.in_channels, self.num_classes, self.depth, self.padding = in_channels, num_classes, depth, padding
        widths = [base_channels * 2**level for level in range(depth + 1)]  # 64, 128, 256, 512, 1024
        self.contracting = nn.ModuleList(
            DoubleConv(before, after, padding) for before, after in zip([in_channels, *widths], widths, strict=False)
        )
        self.expanding = nn.ModuleList(Up(width, padding) for width in reversed(widths[1:]))
        self.head = nn.Conv2d(base_channels, num_classes, kernel_size=1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as in the paper's section 3: Gaussian weights of standard deviation sqrt(2 / N), biases 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                # Paper: N is the number of incoming nodes of one neuron. A 3x3 convolution has 9 C of them.
                # The up-convolution has C: with stride 2, each output pixel sees one pixel of the input.
                taps = 1 if isinstance(module, nn.ConvTranspose2d) else math.prod(module.kernel_size)
                nn.init.normal_(module.weight, std=math.sqrt(2 / (module.in_channels * taps)))
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, K, H', W').

        Raises:
            ValueError: with padding=0, the size of the images is not valid (see `unet_out_size`).
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
    """Crop the centre of the last two axes, one pixel nearer to the top and left if the margin is odd.

    Args:
        features: (..., H, W); also a target (B, H, W) or a weight map.
        size: (h, w), or one integer for both.

    Returns:
        A view (..., h, w) from row (H - h) // 2 and column (W - w) // 2.

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

    Each of the 2 depth + 1 double convolutions removes 4 pixels, a pooling halves, an up-convolution doubles.

    Args:
        size: in pixels.
        depth: number of poolings.

    Returns:
        The size of the logits, size - 92 - 92 for depth 4.

    Raises:
        ValueError: a pooling would meet an odd size, or no output would remain. The message names a valid size.

    >>> unet_out_size(572), unet_out_size(188), unet_out_size(20, depth=1)
    (388, 4, 4)
    """
    check_integers(size=size, depth=depth)
    # A double convolution after n poolings removes 4 * 2**n pixels: there are two of them for each n < depth, and
    # one at the bottom: 184 = 2 * 4 * (1 + 2 + 4 + 8) + 4 * 16.
    lost = 2 * 4 * (2**depth - 1) + 4 * 2**depth
    # Every pooling meets an even size if the size at the bottom, (size - 4 * (2**depth - 1)) / 2**depth, is an
    # integer.
    remainder = (size + 4) % 2**depth
    if remainder or size <= lost:
        minimum = max(size, lost + 1)
        raise ValueError(
            f"size is {size}, expected one at which every pooling of an unpadded U-Net of depth {depth} meets an "
            f"even size and some output remains; the next such size is {minimum - (minimum + 4) % -(2**depth)}"
        )
    return size - lost


def separate_cells(label_map: np.ndarray | Tensor) -> np.ndarray:
    """Set pixels to background if their 3x3 neighbourhood contains two cells, as the paper does before the weighting.

    Args:
        label_map: (H, W) integers, 0 is background.

    Returns:
        A new label map (H, W), int32.

    >>> separate_cells(np.array([[1, 1, 1, 2, 2, 2]]))
    array([[1, 1, 0, 0, 2, 2]], dtype=int32)
    """
    labels = _to_array(label_map)
    highest = ndimage.maximum_filter(labels, size=3)
    largest = labels.max() + 1  # background must not count as the lowest label
    lowest = ndimage.minimum_filter(np.where(labels == 0, largest, labels), size=3)
    return np.where((labels > 0) & (lowest < highest), 0, labels).astype(np.int32)


def border_weight_map(
    label_map: np.ndarray | Tensor,
    w0: float = 10.0,
    sigma: float = 5.0,
    class_weights: bool | tuple[float, float] = True,
) -> Tensor:
    """Weight of each pixel in the loss: equation 2 of the paper, w = w_c + w0 exp(-(d1 + d2)^2 / (2 sigma^2)).

    d1 and d2 are the distances to the nearest and the second nearest cell, measured between pixel centres: 1 next to
    a cell. The second term applies to background only, to emphasise the gap between two cells; with fewer than two
    cells it is 0. Touching cells have no gap: call `separate_cells` first.

    Args:
        label_map: (H, W) integers, 0 is background, every other label is one cell.
        w0: height of the second term.
        sigma: width of the second term in pixels.
        class_weights: w_c. True: H W / (2 n_c) for the n_c pixels of background and of cells, so that both
            classes have the same total weight and the mean of w_c is 1; if the image has one class only, w_c = 1.
            False: 1. A pair: the weights of background and of cells.

    Returns:
        Weights (H, W), float32.

    >>> border_weight_map(np.array([[1, 0, 2]]), w0=10, sigma=1, class_weights=False)
    tensor([[1.0000, 2.3534, 1.0000]])
    """
    check_number("w0", w0)
    check_number("sigma", sigma, exclusive=True)
    labels = _to_array(label_map)
    background = labels == 0
    # with fewer than two cells, d2 is infinite and exp(-inf) is 0
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
        raise ValueError(f"class_weights is {class_weights}, expected True, False or two numbers of at least 0")
    return np.where(background, *class_weights)


def unet_loss(logits: Tensor, target: Tensor, weight_map: Tensor | None = None) -> Tensor:
    """Cross-entropy of the pixel-wise softmax, weighted by a map: equation 1 of the paper; 0 if every pixel is ignored.

    Paper: the energy is the sum of w(x) times the cross-entropy. Ours is that sum over the sum of w(x), so
    that the learning rate does not depend on the size of the image.

    Args:
        logits: (B, K, H, W).
        target: (B, H, W) int64; 255 is ignored. For the unpadded network, `center_crop` it to the logits.
        weight_map: (B, H, W), for example of `border_weight_map`; None weights all pixels equally.
    """
    return cross_entropy(logits, target, ignore_index=255, pixel_weights=weight_map)


@torch.no_grad()
def predict_tiles(
    model: Callable[[Tensor], Tensor], image: Tensor, tile_size: int = 572, stride: int | None = None, margin: int = 0
) -> Tensor:
    """Predict an image of any size tile by tile: the overlap-tile strategy of the paper's figure 2.

    The image is mirrored at its borders. Input tiles overlap and output tiles do not, so that each logit depends on
    its full neighbourhood and no averaging hides a seam.

    Args:
        model: maps (1, C, tile_size, tile_size) to (1, K, s, s), centred in the tile. In eval mode.
        image: (C, H, W), any H and W.
        tile_size: height and width of an input tile. A tile may be larger than the image.
        stride: distance between tiles. None: the size of the valid output, for a model with `depth` poolings
            rounded down to a multiple of 2**depth.
            Paper: the stride is the valid size itself, 388. But a pooling groups pixels from the corner of its
            tile: at an offset that is not a multiple of 2**depth it groups other pixels than in the whole image,
            and values jump at the seam. With 384 they do not.
        margin: pixels to crop from each side of the model's output. 0 for the unpadded network. A padded network
            sees zeros around every tile and needs a margin; from 6 * 2**depth on, 96, no zero affects a logit.

    Returns:
        Logits (K, H, W), equal to those of the whole mirrored image.
    """
    check_tensor("image", image, "C H W")
    check_integers(tile_size=tile_size)
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
    """Size of the part of a tile's output that is kept: the model's own output without the margin."""
    shape = model(image.new_zeros((1, image.shape[0], tile_size, tile_size))).shape
    valid = shape[-1] - 2 * margin
    square = len(shape) == 4 and shape[-1] == shape[-2]
    if margin < 0 or not square or not 1 <= valid <= tile_size or (tile_size - valid) % 2:
        raise ValueError(
            f"tile_size is {tile_size} with margin {margin}, and the output has shape {tuple(shape)}, expected "
            f"(1, K, s, s) with s - 2 margin of at least 1 and an even number of pixels lost"
        )
    return valid


def _mirror(index: Tensor, size: int) -> Tensor:
    """Reflect indices outside [0, size) into it, as often as necessary, without repeating the edge pixel."""
    period = max(2 * (size - 1), 1)
    index = index % period
    return torch.minimum(index, period - index) if size > 1 else torch.zeros_like(index)


def _to_array(label_map: np.ndarray | Tensor) -> np.ndarray:
    if not isinstance(label_map, np.ndarray | Tensor):
        raise TypeError(f"label_map has type {type(label_map).__name__}, expected an array or tensor of integers")
    # a copy, because torch does not take arrays with negative strides
    labels = label_map if isinstance(label_map, Tensor) else torch.from_numpy(label_map.copy())
    return check_label_map("label_map", labels, axes=(2,)).cpu().numpy()


postprocess = highest_class
