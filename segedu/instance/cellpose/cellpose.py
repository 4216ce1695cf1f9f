"""Cellpose: pixels flow to the middle of their cell, and cells are the places where many pixels meet.

Paper: Stringer, Wang, Michaelos, Pachitariu, "Cellpose: a generalist algorithm for cellular segmentation", Nature
    Methods 18, 2021, bioRxiv 2020.02.02.931238. Numbers are those of the authors' version 3.
Idea: Heat that starts in the middle of a cell and spreads within it falls towards the border everywhere, however bent
    the cell is; the direction in which it rises is a flow that a network can learn at each pixel. Followed step by
    step, the predicted flow takes all pixels of a cell to one place, also where cells touch. Cells whose own flow
    differs from the predicted one are dropped: a test of quality that needs no truth.
Simplified: whole images, where the authors average overlapping tiles and, if asked, flips and several networks.
Shapes: images (B, C, H, W), any H and W -> `flows` (B, 2, H, W) = 5 (dy, dx), `logits` (B, H, W), `style` (B, S).
    `postprocess`: outputs -> B label maps (H, W) int32.
Quality: forward, gradients and batch statistics are those of cellpose 3.1.1.3's network with its weights (its tests).
    `segedu.weights.load("cells_cellpose")`, 39 CPU-s of training: instance accuracy 0.989 at IoU 0.5 on drawn
    nuclei, 0.975 at 0.7; Gaussian, Otsu, watershed: 0.440 and 0.302 (tests/benchmarks/cell_weights.py).
Course: 09-distances
Lab: 09_distances
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Targets and the way back are in a file of their own; the method is one, so its names are all here.
from segedu.instance.cellpose.flows import diffusion_flow, masks_from_flows
from segedu.instance.cellpose.flows import flow_error as flow_error
from segedu.instance.cellpose.flows import follow_flows as follow_flows
from segedu.validation.images import check_images
from segedu.validation.label_maps import check_label_map
from segedu.validation.numbers import check_number
from segedu.validation.tensors import check_keys, check_maps, check_no_nan, check_tensor

FLOW_SCALE = 5.0  # the network predicts five times the flow of length 1


def _norm_conv(in_channels: int, out_channels: int, kernel_size: int, relu: bool = True) -> nn.Sequential:
    """Batch norm, ReLU, convolution: in this order, as in the second version of residual networks."""
    between = [nn.ReLU(inplace=True)] if relu else []
    return nn.Sequential(
        nn.BatchNorm2d(in_channels, eps=1e-5, momentum=0.05),
        *between,
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2),
    )


class ResidualDown(nn.Module):
    """Four convolutions 3x3, two residual steps; the first skips through a convolution 1x1.

    Args:
        in_channels: of the features.
        out_channels: of what comes out.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.ModuleDict(
            {f"conv_{i}": _norm_conv(out_channels if i else in_channels, out_channels, 3) for i in range(4)}
        )
        self.proj = _norm_conv(in_channels, out_channels, 1, relu=False)

    def forward(self, features: Tensor) -> Tensor:
        first, second, third, fourth = self.conv.values()
        features = self.proj(features) + second(first(features))
        return features + fourth(third(features))


class StyledConv(nn.Module):
    """A convolution whose input is shifted, channel by channel, by a linear function of the style.

    Args:
        channels: C of the features.
        style_channels: S of the style.
    """

    def __init__(self, channels: int, style_channels: int) -> None:
        super().__init__()
        self.conv = _norm_conv(channels, channels, 3)
        self.full = nn.Linear(style_channels, channels)

    def forward(self, features: Tensor, style: Tensor) -> Tensor:
        return self.conv(features + self.full(style)[:, :, None, None])


class ResidualUp(nn.Module):
    """`ResidualDown` with the style in its last three convolutions, and the encoder's features added before them.

    Args:
        in_channels: of the features from below.
        out_channels: of what comes out, and of the encoder's features.
        style_channels: S of the style.
    """

    def __init__(self, in_channels: int, out_channels: int, style_channels: int) -> None:
        super().__init__()
        styled = {f"conv_{i}": StyledConv(out_channels, style_channels) for i in range(1, 4)}
        self.conv = nn.ModuleDict({"conv_0": _norm_conv(in_channels, out_channels, 3), **styled})
        self.proj = _norm_conv(in_channels, out_channels, 1, relu=False)

    def forward(self, features: Tensor, skip: Tensor, style: Tensor) -> Tensor:
        first, second, third, fourth = self.conv.values()
        features = self.proj(features) + second(first(features) + skip, style)
        return features + fourth(third(features, style), style)


class _Blocks(nn.Module):
    """Holds the blocks of one way under the authors' names, so that their files load as they are."""

    def __init__(self, way: str, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.add_module(way, nn.ModuleDict({f"res_{way}_{n}": block for n, block in enumerate(blocks)}))


class Cellpose(nn.Module):
    """The paper's figure 1: a U-Net of residual blocks, additions in place of concatenations, and a style.

    The style is the mean over all places of the deepest features, cut to length 1: what kind of image it is. It
    shifts the features of the way up, and tells the size of the cells (segedu/instance/cellpose/size.py).

    Args:
        in_channels: C. The paper's two are the cells and, or zeros, their nuclei.
        widths: channels of each level, fine to coarse; the last is S.
        out_channels: two flows and a logit. Omnipose adds one.
        diam_mean: pixels, the diameter of cells for which the network is made: images are resized to it.
        normalize: applied to images first, see `PercentileNormalize`. None: images are taken as they are.
    """

    def __init__(
        self,
        in_channels: int = 2,
        widths: Sequence[int] = (32, 64, 128, 256),
        out_channels: int = 3,
        diam_mean: float = 30.0,
        normalize: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if len(widths) < 2 or min(widths) < 1:
            raise ValueError(f"widths is {tuple(widths)}, expected two or more numbers of at least 1")
        if out_channels < 3:
            raise ValueError(f"out_channels is {out_channels}, expected at least 3: two flows and a logit")
        self.in_channels, self.normalize = in_channels, nn.Identity() if normalize is None else normalize
        self.register_buffer("diam_mean", torch.full((1,), float(diam_mean)))
        self.register_buffer("diam_labels", torch.full((1,), float(diam_mean)))  # mean of the training cells
        above = [in_channels, *widths[:-1]]
        below = [*widths[1:], widths[-1]]
        self.downsample = _Blocks("down", [ResidualDown(*pair) for pair in zip(above, widths, strict=True)])
        self.upsample = _Blocks("up", [ResidualUp(*pair, widths[-1]) for pair in zip(below, widths, strict=True)])
        self.output = _norm_conv(widths[0], out_channels, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps, style = self.maps_and_style(images)
        # One number a pixel has no axis of channels, as in a label map: `foreground` of the targets stacks to the same.
        return {"flows": maps[:, :2], "logits": maps[:, 2], "style": style}

    def maps_and_style(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What the last convolution gives, before channels have names.

        H and W that the poolings do not divide are filled up with zeros below and on the right, and cut again.

        Args:
            images: (B, C, H, W).

        Returns:
            (B, out_channels, H, W) and the style (B, S), of length 1.
        """
        check_images(images, self.in_channels)
        height, width = images.shape[2:]
        down, up = list(self.downsample.down.values()), list(self.upsample.up.values())
        multiple = 2 ** (len(down) - 1)
        features = F.pad(self.normalize(images), (0, -width % multiple, 0, -height % multiple))
        levels = [down[0](features)]
        for block in down[1:]:
            levels.append(block(F.max_pool2d(levels[-1], 2)))
        style = F.normalize(levels[-1].mean(dim=(2, 3)))  # (B, S)
        features = levels[-1]
        for n in reversed(range(len(up))):
            if n < len(up) - 1:
                features = F.interpolate(features, scale_factor=2, mode="nearest")
            features = up[n](features, levels[n], style)
        return self.output(features)[:, :, :height, :width], style


class PercentileNormalize(nn.Module):
    """Each channel of each image so that its first percentile is 0 and its 99th is 1, which the official files ask.

    A channel whose percentiles are no more than 0.001 apart is all 0. Nothing of it is in a state dict.
    """

    def forward(self, images: Tensor) -> Tensor:
        ordered = images.flatten(2).sort(dim=2).values  # torch.quantile refuses large images
        low, high = (self._percentile(ordered, share)[:, :, None, None] for share in (0.01, 0.99))
        spread = high - low
        return torch.where(spread > 1e-3, (images - low) / spread.clamp(min=1e-3), 0.0)

    @staticmethod
    def _percentile(ordered: Tensor, share: float) -> Tensor:
        place = share * (ordered.shape[2] - 1)
        below = int(place)
        above = min(below + 1, ordered.shape[2] - 1)
        return torch.lerp(ordered[:, :, below], ordered[:, :, above], place - below)


def official_cellpose(normalize: nn.Module | None = None, diam_mean: float = 30.0) -> Cellpose:
    """The network of `cyto`, `cyto2`, `cyto3` and `nuclei`: two channels in, 6.6 million weights.

    Args:
        normalize: applied to images first. None: `PercentileNormalize`, with which these were trained.
        diam_mean: pixels, 30, and 17 for `nuclei`.

    Returns:
        The network, with weights drawn at random.
    """
    return Cellpose(diam_mean=diam_mean, normalize=PercentileNormalize() if normalize is None else normalize)


def cellpose_targets(label_map: Tensor) -> dict[str, Tensor]:
    """What the network is to learn from one label map.

    Args:
        label_map: (H, W) integers, 0 is background.

    Returns:
        `flows` (2, H, W) float32 of `diffusion_flow`, of length 1, and `foreground` (H, W) bool.
    """
    return {"flows": diffusion_flow(label_map), "foreground": check_label_map("label_map", label_map) > 0}


def cellpose_loss(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Half the mean squared difference to five times the flow, and binary cross-entropy of foreground.

    Args:
        outputs: `flows` (B, 2, H, W) and `logits` (B, H, W) of `Cellpose`.
        targets: `flows` (B, 2, H, W) of length 1 and `foreground` (B, H, W), stacks of `cellpose_targets`.

    Returns:
        Scalars `flow`, `foreground`, and `loss`, their sum.

    Raises:
        TypeError: outputs or targets are no dicts, or a tensor is not of floating-point numbers.
        ValueError: a key is missing or shapes differ.
    """
    check_keys("targets", targets, ("flows", "foreground"))
    sizes = check_maps("outputs", outputs, flows="B 2 H W", logits="B H W")
    check_maps("targets", targets, sizes, flows="B 2 H W")
    check_tensor("targets['foreground']", targets["foreground"], "B H W", sizes)
    flow = F.mse_loss(outputs["flows"], FLOW_SCALE * targets["flows"].to(outputs["flows"])) / 2
    foreground = F.binary_cross_entropy_with_logits(outputs["logits"], targets["foreground"].to(outputs["logits"]))
    return {"loss": flow + foreground, "flow": flow, "foreground": foreground}


def postprocess(
    outputs: Mapping[str, Tensor],
    logit_threshold: float = 0.0,
    flow_threshold: float = 0.4,
    min_size: int = 15,
    steps: int = 200,
) -> list[Tensor]:
    """Cells from what the network gave: see `masks_from_flows`.

    Args:
        outputs: `flows` (B, 2, H, W) and `logits` (B, H, W) of `Cellpose`.
        logit_threshold: pixels whose logit is above belong to cells; 0 is a probability of 1/2.
        flow_threshold: cells with a larger `flow_error` are dropped; 0 drops none.
        min_size: pixels, smaller cells are dropped.
        steps: how often pixels move.

    Returns:
        B label maps (H, W) int32, on the device of the outputs.

    Raises:
        TypeError: `outputs` is no dict, or a tensor in it is not of floating-point numbers.
        ValueError: a key is missing, a shape is another one, flows are not finite, or a logit is NaN.
    """
    check_maps("outputs", outputs, flows="B 2 H W", logits="B H W")
    check_no_nan("outputs", outputs, ("flows", "logits"))
    check_number("logit_threshold", logit_threshold, minimum=-math.inf)
    flows, foreground = outputs["flows"] / FLOW_SCALE, outputs["logits"] > logit_threshold
    return [
        masks_from_flows(*pair, flow_threshold=flow_threshold, min_size=min_size, steps=steps)
        for pair in zip(flows, foreground, strict=True)
    ]
