"""3D U-Net: the U with volumes in place of images, learnt from a few annotated slices.

Paper: Çiçek, Abdulkadir, Lienkamp, Brox, Ronneberger, "3D U-Net: Learning Dense Volumetric Segmentation from Sparse
    Annotation", MICCAI 2016, arXiv 1606.06650.
Idea: Every operation of U-Net gets a third axis. Channels double before each pooling, not after it, so that no
    bottleneck comes before the detail is lost; BatchNorm stands before every ReLU. An annotator draws a few slices
    only: all other voxels have weight 0 in the loss, and the net completes the volume.
Simplified: no elastic deformation of the volumes, and BatchNorm uses running statistics in evaluation.
    `padding=True`, which is not in the paper, keeps the size: the volume is grown at its ends to a multiple of the
    strides by repeating its last slices, and the logits are cut back.
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

Size = tuple[int, ...]  # one number an axis: D, H, W

PAPER_WIDTHS = ((32, 64), (64, 128), (128, 256), (256, 512))


def keep_width(in_channels: int, skip_channels: int, stride: Size) -> nn.Module:
    """The paper's up-convolution: as many channels as came in.

    Paper: without bias. Only so do the convolutions have the 19,069,955 parameters that it states.

    Args:
        in_channels: of the level below.
        skip_channels: of the skip that it will meet; not used.
        stride: how much larger each axis gets.

    Returns:
        The module.
    """
    return nn.ConvTranspose3d(in_channels, in_channels, stride, stride, bias=False)


@dataclass(frozen=True)
class Parts:
    """What the levels are made of. The defaults are the paper's; `segedu.semantic.nnunet.nnunet` has others.

    `conv` is a class of convolutions over `axes` axes; `normalize` takes channels; `pool` takes a stride, and where
    it is None the first convolution of a level strides itself; `up` takes channels below, channels of the skip and
    a stride.
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
        kernel: size of the kernels along each axis, odd; 1 where neighbours are too far apart to matter.
        padding: keep the size (False: each convolution takes `kernel - 1` voxels).
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
    """The paper's figure 2; with lists of kernels and strides also the nets that nnU-Net plans.

    Args:
        in_channels: channels of the volume, 3 in the paper.
        num_classes: K, background included, 3 in the paper.
        widths: for each level, finest first, the channels after each of its convolutions.
        kernels: for each level, the kernel along each axis; None is 3 everywhere.
        strides: for each level, the stride in front of it along each axis, all 1 for the first level; None is 2
            everywhere. A stride of 1 keeps a thin axis.
        padding: False as in the paper (the output is smaller than the volume), or True (as large).
        outputs: on how many levels, from the finest, `forward_with_aux` gives logits; 1 is the paper's.
        parts: what the levels are made of.
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
        for name, value in (("in_channels", in_channels), ("num_classes", num_classes)):
            if value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")
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
        """Map volumes (B, C, D, H, W) to logits (B, K, D', H', W'); there is no softmax inside.

        Raises:
            TypeError: the volumes are no floats.
            ValueError: the shape is wrong, or the size is not legal (see `out_size`).
        """
        size = self._check_images(images)
        logits = self.heads[0](self._features(images)[0])
        return logits[(..., *(slice(n) for n in size))] if self.padding else logits

    def forward_with_aux(self, images: Tensor) -> dict[str, Tensor | list[Tensor]]:
        """Deep supervision: logits of several levels.

        Args:
            images: (B, C, D, H, W); with padding, D H W must be multiples of the strides, as those of patches are.

        Returns:
            `out`, what `forward` gives, and `aux`, the logits of the next coarser levels, finest first.

        Raises:
            TypeError: as `forward`.
            ValueError: as `forward`, or a size that is no multiple of the strides.
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
        """Product of the strides along each axis: with padding, patches are multiples of it."""
        return tuple(math.prod(steps) for steps in zip(*self.strides, strict=True))

    def out_size(self, size: Sequence[int]) -> Size:
        """Size of the logits for a volume of this size.

        Args:
            size: (D, H, W).

        Returns:
            (D', H', W').

        Raises:
            ValueError: not one number an axis; or a pooling of the unpadded net would meet a size that its stride
                does not divide, or nothing would be left; the message names the axis.
        """
        if len(size) != self.axes or min(size) < 1:
            raise ValueError(f"size is {tuple(size)}, expected {self.axes} numbers of at least 1")
        if self.padding:
            return tuple(size)
        return tuple(self._walk(axis, n) for axis, n in enumerate(size))

    def _walk(self, axis: int, size: int) -> int:
        lost = [len(level) // 3 * (kernel[axis] - 1) for level, kernel in zip(self.down, self.kernels, strict=True)]
        steps = [stride[axis] for stride in self.strides]
        left = size
        for loss, step in zip(lost, steps, strict=True):
            if left % step:
                raise ValueError(f"images has {size} voxels on axis {axis}, expected a size that poolings divide")
            left = left // step - loss
        for loss, step in zip(lost[-2::-1], steps[:0:-1], strict=True):
            left = left * step - loss
        if left < 1:
            raise ValueError(f"images has {size} voxels on axis {axis}, expected more: nothing would be left")
        return left

    def _missing(self, size: Size) -> list[int]:
        return [-n % step for n, step in zip(size, self.total_stride, strict=True)]

    def _features(self, images: Tensor) -> list[Tensor]:
        """Features of the synthesis path, finest first, the lowest level left out."""
        if self.padding:
            missing = self._missing(tuple(images.shape[2:]))
            images = F.pad(images, [n for m in reversed(missing) for n in (0, m)], mode="replicate")
        skips, features = [], images
        for pool, convs in zip(self.pools, self.down, strict=True):
            features = convs(pool(features))
            skips.append(features)
        found = []
        for up, convs, skip in zip(self.ups, self.merge, skips[-2::-1], strict=True):
            raised = up(features)  # (B, C, d, h, w) -> (B, ., 2d, 2h, 2w)
            features = convs(torch.cat([raised, center_crop(skip, raised.shape[2:])], dim=1))
            found.append(features)
        return found[::-1]

    def _check_images(self, images: Tensor) -> Size:
        check_images(images, self.in_channels, axes=self.axes)
        shape, size = tuple(images.shape), tuple(images.shape[2:])
        if self.padding and all(n <= step for n, step in zip(size, self.total_stride, strict=True)):
            raise ValueError(
                f"images has shape {shape}, expected more than {self.total_stride} voxels on one axis: the lowest "
                f"level would hold one voxel, and normalising one number gives 0"
            )
        self.out_size(size)
        return size


def center_crop(features: Tensor, size: Sequence[int]) -> Tensor:
    """Cut the centre out of all axes behind the channels.

    Args:
        features: (B, C, D, H, W).
        size: of the cut; the odd voxel of a rest stays at the end.

    Returns:
        A view (B, C, d, h, w).

    Raises:
        ValueError: not one number an axis, or one that is below 1 or above that of `features`.
    """
    sizes = tuple(features.shape[2:])
    if len(size) != len(sizes) or any(not 1 <= want <= have for have, want in zip(sizes, size, strict=False)):
        raise ValueError(f"size is {tuple(size)}, expected numbers from 1 up to {sizes}, those of features")
    starts = [(have - want) // 2 for have, want in zip(features.shape[2:], size, strict=True)]
    return features[(..., *(slice(start, start + want) for start, want in zip(starts, size, strict=True)))]


def annotate_slices(target: Tensor, slices: dict[int, Sequence[int]], ignore_index: int = 255) -> Tensor:
    """Keep the labels of a few slices and forget all others: the sparse annotation of the paper.

    Args:
        target: (D, H, W) int64.
        slices: axis -> numbers of the annotated slices, such as `{0: [12], 1: [30], 2: [30]}`; with none, nothing
            is known.
        ignore_index: written where nobody annotated.

    Returns:
        A new target (D, H, W).

    Raises:
        TypeError: `target` is not int64, or a slice is no whole number.
        ValueError: an axis or a slice that the target does not have.

    >>> annotate_slices(torch.ones(1, 2, 3, dtype=torch.int64), {2: [1]})
    tensor([[[255,   1, 255],
             [255,   1, 255]]])
    """
    if not isinstance(target, Tensor) or target.dtype != torch.int64:
        raise TypeError(f"target is {getattr(target, 'dtype', type(target))}, expected a tensor of torch.int64")
    known = torch.zeros_like(target, dtype=torch.bool)
    for axis, numbers in slices.items():
        numbers, size = [operator.index(n) for n in numbers], tuple(target.shape)
        if not -len(size) <= axis < len(size) or any(not -size[axis] <= n < size[axis] for n in numbers):
            raise ValueError(f"slices has {axis}: {numbers}, expected an axis and slices of a target of shape {size}")
        known.index_fill_(axis, torch.tensor(numbers, dtype=torch.int64), True)
    return torch.where(known, target, ignore_index)


def unet3d_loss(logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """The paper's weighted softmax loss: rare classes weigh more, voxels that nobody labelled weigh nothing.

    Args:
        logits: (B, K, D', H', W').
        target: (B, D', H', W') int64; 255 is not labelled. For the unpadded net, cut the target to its centre.
        class_weights: (K,) weight of each class; None weighs all the same.

    Returns:
        A scalar, 0 where no voxel counts.
    """
    return cross_entropy(logits, target, ignore_index=255, class_weights=class_weights)


postprocess = highest_class


def _check_levels(widths: Sequence, kernels: Sequence, strides: Sequence, outputs: int, axes: int) -> None:
    levels = len(widths)
    if levels < 2 or any(len(level) < 1 or min(level) < 1 for level in widths):
        raise ValueError(f"widths is {widths!r}, expected at least two levels of at least one convolution and channel")
    for name, given in (("kernels", kernels), ("strides", strides)):
        if len(given) != levels or any(len(level) != axes for level in given):
            raise ValueError(f"{name} is {given}, expected {axes} numbers for each of {levels} levels")
    if any(n < 1 or n % 2 == 0 for kernel in kernels for n in kernel):
        raise ValueError(f"kernels is {kernels}, expected odd numbers of at least 1")
    if any(n < 1 for stride in strides for n in stride):
        raise ValueError(f"strides is {strides}, expected numbers of at least 1")
    if set(strides[0]) != {1}:
        raise ValueError(f"strides is {strides}, expected 1 on every axis of the first level")
    if not 1 <= outputs < levels:
        raise ValueError(f"outputs is {outputs}, expected 1 to {levels - 1}, one less than the levels")
