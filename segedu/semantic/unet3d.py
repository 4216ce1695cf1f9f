"""3D U-Net: a U-Net for volumes that learns from a few annotated slices.

Paper: Çiçek, Abdulkadir, Lienkamp, Brox, Ronneberger, "3D U-Net: Learning Dense Volumetric Segmentation from Sparse
    Annotation", MICCAI 2016, arXiv 1606.06650.
Idea: Every operation of U-Net gets a third axis. Channels double before each pooling, not after it, to avoid a
    bottleneck before detail is lost; batch normalisation precedes every ReLU. An annotator labels only a few slices:
    all other voxels have weight 0 in the loss, and the network completes the volume.
Simplified: no elastic deformation of the volumes, and batch normalisation uses running statistics in evaluation.
    `padding=True`, which is not in the paper, keeps the size: the volume is padded at its ends to a multiple of the
    strides by repeating its last slices, and the logits are cropped.
Shapes: images (B, C, D, H, W) -> logits (B, K, D', H', W'). Unpadded as in the paper, 116 x 132 x 132 -> 28 x 44 x 44;
    padded, D' H' W' = D H W. With parts of two axes: (B, C, H, W). `postprocess`: logits -> labels (B, D', H', W').
Quality: volume: Dice 0.8761, the least of three seeds (thresholds 0.31), 62.7 CPU-s.
Course: 16-promptable
Lab: 16_promptable
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.layers.labels import highest_class
from segedu.losses.cross_entropy import cross_entropy
from segedu.validation.images import check_images
from segedu.validation.numbers import check_integer, check_integers
from segedu.validation.tensors import check_dtype

Size = tuple[int, ...]  # (D, H, W)

PAPER_WIDTHS = ((32, 64), (64, 128), (128, 256), (256, 512))


def keep_width(in_channels: int, skip_channels: int, stride: Size) -> nn.Module:
    """The paper's up-convolution, which keeps the number of channels; `skip_channels` is not used.

    Paper: without bias. Only then do the convolutions have the 19,069,955 parameters that it states.
    """
    return nn.ConvTranspose3d(in_channels, in_channels, stride, stride, bias=False)


@dataclass(frozen=True)
class Parts:
    """The layers that `UNet3D` is made of. The defaults are the paper's; `segedu.semantic.nnunet.nnunet` has others.

    `conv` is a class of convolutions over `axes` axes. `normalize` takes the number of channels. `pool` takes a stride;
    if it is None, the first convolution of a level has the stride. `up` takes the channels of the coarser level, the
    channels of the skip, and a stride.
    """

    axes: int = 3
    conv: type[nn.Conv2d] | type[nn.Conv3d] = nn.Conv3d
    normalize: Callable[[int], nn.Module] = nn.BatchNorm3d
    activate: Callable[[], nn.Module] = partial(nn.ReLU, inplace=True)
    pool: Callable[[Size], nn.Module] | None = nn.MaxPool3d
    up: Callable[[int, int, Size], nn.Module] = keep_width


class Convs(nn.Sequential):
    """The convolutions of one level, each followed by normalisation and activation.

    Args:
        in_channels: before the first convolution.
        widths: channels after each convolution.
        kernel: size of the kernels along each axis, odd; 1 if neighbours are too far apart to matter.
        padding: whether to keep the size; otherwise, each convolution removes `kernel - 1` voxels.
        parts: see `Parts`.
        stride: of the first convolution.
    """

    def __init__(
        self, in_channels: int, widths: Sequence[int], kernel: Size, padding: bool, parts: Parts, stride: int | Size = 1
    ) -> None:
        layers = []
        for step, width in enumerate(widths):
            pad = tuple(k // 2 for k in kernel) if padding else 0
            layers.append(parts.conv(in_channels, width, kernel, 1 if step else stride, pad))
            layers += [parts.normalize(width), parts.activate()]
            in_channels = width
        super().__init__(*layers)


class UNet3D(nn.Module):
    """The paper's figure 2; with lists of kernels and strides also the networks that nnU-Net plans.

    Args:
        in_channels: channels of the volume, 3 in the paper.
        num_classes: K, background included, 3 in the paper.
        widths: for each level, finest first, the channels after each of its convolutions.
        kernels: for each level, the kernel size along each axis; None is 3 everywhere.
        strides: for each level, the stride before it along each axis, all 1 for the first level; None is 2
            everywhere. A stride of 1 keeps the size of a thin axis.
        padding: False as in the paper (the output is smaller than the volume), or True (as large).
        outputs: number of levels, from the finest, for which `forward_with_aux` returns logits; 1 in the paper.
        parts: the layers.
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 3,
        widths: Sequence[Sequence[int]] = PAPER_WIDTHS,
        kernels: Sequence[Size] | None = None,
        strides: Sequence[Size] | None = None,
        padding: bool = False,
        outputs: int = 1,
        parts: Parts = Parts(),
    ) -> None:
        super().__init__()
        ones, twos, threes = ((n,) * parts.axes for n in (1, 2, 3))
        self.kernels = tuple(map(tuple, kernels or [threes] * len(widths)))
        self.strides = tuple(map(tuple, strides or [ones] + [twos] * (len(widths) - 1)))
        check_integers(in_channels=in_channels, num_classes=num_classes)
        _check_levels(widths, self.kernels, self.strides, outputs, parts.axes)
        self.in_channels, self.num_classes, self.padding, self.axes = in_channels, num_classes, padding, parts.axes
        self.down, self.pools = nn.ModuleList(), nn.ModuleList()
        channels = in_channels
        for width, kernel, stride in zip(widths, self.kernels, self.strides, strict=True):
            pooled = parts.pool is not None and max(stride) > 1
            self.pools.append(parts.pool(stride) if pooled else nn.Identity())
            self.down.append(Convs(channels, width, kernel, padding, parts, 1 if pooled else stride))
            channels = width[-1]
        self.ups, self.merge = nn.ModuleList(), nn.ModuleList()  # coarsest first
        for level in reversed(range(len(widths) - 1)):
            skip = widths[level][-1]
            up = parts.up(channels, skip, self.strides[level + 1])
            self.ups.append(up)
            channels = [skip] * len(widths[level])
            self.merge.append(Convs(up.out_channels + skip, channels, self.kernels[level], padding, parts))
            channels = skip
        self.heads = nn.ModuleList(parts.conv(widths[level][-1], num_classes, 1) for level in range(outputs))

    def forward(self, images: Tensor) -> Tensor:
        """Map volumes (B, C, D, H, W) to logits (B, K, D', H', W').

        Raises:
            ValueError: the size is not valid (see `out_size`).
        """
        size = self._check_images(images)
        logits = self.heads[0](self._features(images)[0])
        return logits[(..., *(slice(n) for n in size))] if self.padding else logits

    def forward_with_aux(self, images: Tensor) -> dict[str, Tensor | list[Tensor]]:
        """Logits of several levels, for deep supervision.

        Args:
            images: (B, C, D, H, W). With padding, D H W must be multiples of the strides, as the sizes of patches are.

        Returns:
            `out`, which `forward` returns, and `aux`, the logits of the next coarser levels, finest first.
        """
        size = self._check_images(images)
        if self.padding and any(self._missing(size)):
            raise ValueError(
                f"images has shape {tuple(images.shape)}, expected sizes that are multiples of {self.total_stride}"
            )
        features = self._features(images)
        logits = [head(level) for head, level in zip(self.heads, features, strict=False)]
        return {"out": logits[0], "aux": logits[1:]}

    @property
    def total_stride(self) -> Size:
        """Product of the strides along each axis. With padding, patch sizes are multiples of it."""
        return tuple(math.prod(steps) for steps in zip(*self.strides, strict=True))

    def out_size(self, size: Sequence[int]) -> Size:
        """Size (D', H', W') of the logits for a volume of size (D, H, W).

        Raises:
            ValueError: in the unpadded network, a pooling would meet a size that its stride does not divide, or no
                output would remain. The message names the axis.
        """
        if len(size) != self.axes or min(size) < 1:
            raise ValueError(f"size is {tuple(size)}, expected {self.axes} integers of at least 1")
        if self.padding:
            return tuple(size)
        return tuple(self._walk(axis, n) for axis, n in enumerate(size))

    def _walk(self, axis: int, size: int) -> int:
        lost = [len(level) // 3 * (kernel[axis] - 1) for level, kernel in zip(self.down, self.kernels, strict=True)]
        steps = [stride[axis] for stride in self.strides]
        out = size
        for loss, step in zip(lost, steps, strict=True):
            if out % step:
                raise ValueError(f"images has {size} voxels on axis {axis}, expected a size that the strides divide")
            out = out // step - loss
        for loss, step in zip(lost[-2::-1], steps[:0:-1], strict=True):
            out = out * step - loss
        if out < 1:
            raise ValueError(f"images has {size} voxels on axis {axis}, expected more: no output would remain")
        return out

    def _missing(self, size: Size) -> list[int]:
        return [-n % step for n, step in zip(size, self.total_stride, strict=True)]

    def _features(self, images: Tensor) -> list[Tensor]:
        """Features of the synthesis path, finest first, without the lowest level."""
        if self.padding:
            missing = self._missing(tuple(images.shape[2:]))
            images = F.pad(images, [n for m in reversed(missing) for n in (0, m)], mode="replicate")
        skips, features = [], images
        for pool, convs in zip(self.pools, self.down, strict=True):
            features = convs(pool(features))
            skips.append(features)
        merged = []
        for up, convs, skip in zip(self.ups, self.merge, skips[-2::-1], strict=True):
            upsampled = up(features)  # (B, C, d, h, w) -> (B, ., 2d, 2h, 2w)
            features = convs(torch.cat([upsampled, center_crop(skip, upsampled.shape[2:])], dim=1))
            merged.append(features)
        return merged[::-1]

    def _check_images(self, images: Tensor) -> Size:
        check_images(images, self.in_channels, axes=self.axes)
        shape, size = tuple(images.shape), tuple(images.shape[2:])
        if self.padding and all(n <= step for n, step in zip(size, self.total_stride, strict=True)):
            raise ValueError(
                f"images has shape {shape}, expected more than {self.total_stride} voxels on one axis: the lowest "
                f"level would have one voxel, which normalisation sets to 0"
            )
        self.out_size(size)
        return size


def center_crop(features: Tensor, size: Sequence[int]) -> Tensor:
    """Crop the centre of all axes after the channels, one voxel nearer to the start if the margin is odd.

    Args:
        features: (B, C, D, H, W).
        size: (d, h, w).

    Returns:
        A view (B, C, d, h, w).
    """
    sizes = tuple(features.shape[2:])
    if len(size) != len(sizes) or any(not 1 <= new <= old for old, new in zip(sizes, size, strict=False)):
        raise ValueError(f"size is {tuple(size)}, expected integers from 1 to {sizes}, the size of features")
    starts = [(old - new) // 2 for old, new in zip(features.shape[2:], size, strict=True)]
    return features[(..., *(slice(start, start + new) for start, new in zip(starts, size, strict=True)))]


def annotate_slices(target: Tensor, slices: dict[int, Sequence[int]], ignore_index: int = 255) -> Tensor:
    """Keep the labels of a few slices and ignore all others: the sparse annotation of the paper.

    Args:
        target: (D, H, W) int64.
        slices: axis -> indices of the annotated slices, such as `{0: [12], 1: [30], 2: [30]}`; an empty dict ignores
            all voxels.
        ignore_index: value of the voxels without annotation.

    Returns:
        A new target (D, H, W).

    >>> annotate_slices(torch.ones(1, 2, 3, dtype=torch.int64), {2: [1]})
    tensor([[[255,   1, 255],
             [255,   1, 255]]])
    """
    check_dtype("target", target, torch.int64)
    known = torch.zeros_like(target, dtype=torch.bool)
    size = tuple(target.shape)
    for axis, values in slices.items():
        indices = [operator.index(n) for n in values]
        if not -len(size) <= axis < len(size) or any(not -size[axis] <= n < size[axis] for n in indices):
            raise ValueError(f"slices has {axis}: {indices}, expected an axis and slices of a target of shape {size}")
        known.index_fill_(axis, torch.tensor(indices, dtype=torch.int64), True)
    return torch.where(known, target, ignore_index)


def unet3d_loss(logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """The paper's weighted softmax loss, in which voxels without annotation have weight 0; 0 if all voxels are ignored.

    Args:
        logits: (B, K, D', H', W').
        target: (B, D', H', W') int64; 255 is ignored. For the unpadded network, crop the target to its centre.
        class_weights: (K,) weight of each class; None weights all classes equally.
    """
    return cross_entropy(logits, target, ignore_index=255, class_weights=class_weights)


def _check_levels(widths: Sequence, kernels: Sequence, strides: Sequence, outputs: int, axes: int) -> None:
    levels = len(widths)
    if levels < 2 or any(len(level) < 1 or min(level) < 1 for level in widths):
        raise ValueError(f"widths is {widths!r}, expected at least two levels of at least one convolution and channel")
    for name, sizes in (("kernels", kernels), ("strides", strides)):
        if len(sizes) != levels or any(len(level) != axes or min(level) < 1 for level in sizes):
            raise ValueError(f"{name} is {sizes}, expected {axes} integers of at least 1 for each of {levels} levels")
    if any(n % 2 == 0 for kernel in kernels for n in kernel):
        raise ValueError(f"kernels is {kernels}, expected odd integers")
    if set(strides[0]) != {1}:
        raise ValueError(f"strides is {strides}, expected 1 on every axis of the first level")
    check_integer("outputs", outputs, 1, levels - 1)


postprocess = highest_class
