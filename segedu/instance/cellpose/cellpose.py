"""Cellpose: pixels follow a predicted flow to the middle of their cell, and pixels that end together are one cell.

Paper: Stringer, Wang, Michaelos, Pachitariu, "Cellpose: a generalist algorithm for cellular segmentation", Nature
    Methods 18, 2021, bioRxiv 2020.02.02.931238. Numbers are those of the authors' version 3.
Idea: Heat that starts in the middle of a cell and spreads within it decreases towards the border, however bent the cell
    is. The direction in which it increases is a flow that a network can learn at each pixel. Followed step by step, the
    predicted flow takes all pixels of a cell to one point, even where cells touch. Cells whose own flow differs from
    the predicted one are dropped: a quality test that needs no ground truth.
Simplified: whole images, where the authors average overlapping tiles and, optionally, flips and several networks.
Shapes: images (B, C, H, W), any H and W -> `flows` (B, 2, H, W) = 5 (dy, dx), `logits` (B, H, W), `style` (B, S).
    `postprocess`: outputs -> B label maps (H, W) int32.
Quality: forward, gradients and batch statistics are those of cellpose 3.1.1.3's network with its weights (its tests).
    `segedu.weights.load("cells_cellpose")`, 39 CPU-s of training: instance accuracy 0.989 at IoU 0.5 on synthetic
    nuclei, 0.975 at 0.7; Gaussian, Otsu, watershed: 0.440 and 0.302 (tests/benchmarks/cell_weights.py). Real nuclei:
    0.765 after 256 CPU-s, Otsu and watershed 0.607 (`segedu train cellpose --data nuclei_grouped`).
Course: 09-distances
Lab: 09_distances
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# flows.py computes targets and masks; its functions can be imported from here too
from segedu.instance.cellpose.flows import diffusion_flow, masks_from_flows
from segedu.instance.cellpose.flows import flow_error as flow_error
from segedu.instance.cellpose.flows import follow_flows as follow_flows
from segedu.validation.images import check_images
from segedu.validation.label_maps import check_label_map
from segedu.validation.numbers import check_integer, check_number
from segedu.validation.tensors import check_keys, check_no_nan, check_tensor, check_tensor_dict

FLOW_SCALE = 5.0  # the network predicts five times the flow of length 1


def _norm_conv(in_channels: int, out_channels: int, kernel_size: int, relu: bool = True) -> nn.Sequential:
    """Batch norm, ReLU, convolution: pre-activation, as in the second version of residual networks."""
    activation = [nn.ReLU(inplace=True)] if relu else []
    return nn.Sequential(
        nn.BatchNorm2d(in_channels, eps=1e-5, momentum=0.05),
        *activation,
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2),
    )


class ResidualDown(nn.Module):
    """Two residual blocks of two 3x3 convolutions each; the first has a 1x1 convolution as its shortcut."""

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
    """A convolution whose input is shifted, channel by channel, by a linear function of the style."""

    def __init__(self, channels: int, style_channels: int) -> None:
        super().__init__()
        self.conv = _norm_conv(channels, channels, 3)
        self.full = nn.Linear(style_channels, channels)

    def forward(self, features: Tensor, style: Tensor) -> Tensor:
        return self.conv(features + self.full(style)[:, :, None, None])


class ResidualUp(nn.Module):
    """`ResidualDown` with the style in its last three convolutions, and the encoder's features added before them.

    Args:
        in_channels: of the coarser features.
        out_channels: of the result, and of the encoder's features.
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
    """Holds the blocks of the encoder ("down") or decoder ("up") under the authors' names, so that their files load."""

    def __init__(self, direction: str, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.add_module(direction, nn.ModuleDict({f"res_{direction}_{n}": block for n, block in enumerate(blocks)}))


class Cellpose(nn.Module):
    """The paper's figure 1: a U-Net of residual blocks, with additions instead of concatenations, and a style.

    The style is the mean over all pixels of the deepest features, normalised to length 1: it describes the kind of
    image. It shifts the features of the decoder, and predicts the size of the cells (segedu/instance/cellpose/size.py).

    Args:
        in_channels: C. The paper's two are the cells and their nuclei, or zeros.
        widths: channels of each level, fine to coarse, at least two; the last is S.
        out_channels: two flows and a logit. Omnipose adds one.
        diam_mean: pixels, the cell diameter that the network expects; images are resized to it.
        normalize: applied to images first, see `PercentileNormalize`. None: images are used as they are.
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
            raise ValueError(f"widths is {tuple(widths)}, expected two or more integers of at least 1")
        check_integer("out_channels", out_channels, minimum=3)
        self.in_channels, self.normalize = in_channels, nn.Identity() if normalize is None else normalize
        self.register_buffer("diam_mean", torch.full((1,), float(diam_mean)))
        self.register_buffer("diam_labels", torch.full((1,), float(diam_mean)))  # mean of the training cells
        finer = [in_channels, *widths[:-1]]
        coarser = [*widths[1:], widths[-1]]
        self.downsample = _Blocks("down", [ResidualDown(*pair) for pair in zip(finer, widths, strict=True)])
        self.upsample = _Blocks("up", [ResidualUp(*pair, widths[-1]) for pair in zip(coarser, widths, strict=True)])
        self.output = _norm_conv(widths[0], out_channels, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps, style = self.maps_and_style(images)
        # `logits` has no axis of channels, like a batch of `foreground` masks
        return {"flows": maps[:, :2], "logits": maps[:, 2], "style": style}

    def maps_and_style(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The output of the last convolution (B, out_channels, H, W), and the style (B, S) of length 1.

        Images (B, C, H, W) whose sizes are not divisible by the pooling factor are zero-padded at the bottom and right.
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
    """Scale each channel of each image so that its 1st percentile is 0 and its 99th is 1, for the official weights.

    A channel whose percentiles are at most 0.001 apart becomes 0. The module has no state.
    """

    def forward(self, images: Tensor) -> Tensor:
        ordered = images.flatten(2).sort(dim=2).values  # torch.quantile refuses large images
        p1, p99 = (self._percentile(ordered, quantile)[:, :, None, None] for quantile in (0.01, 0.99))
        spread = p99 - p1
        return torch.where(spread > 1e-3, (images - p1) / spread.clamp(min=1e-3), 0.0)

    @staticmethod
    def _percentile(ordered: Tensor, quantile: float) -> Tensor:
        position = quantile * (ordered.shape[2] - 1)
        lower = int(position)
        upper = min(lower + 1, ordered.shape[2] - 1)
        return torch.lerp(ordered[:, :, lower], ordered[:, :, upper], position - lower)


def official_cellpose(normalize: nn.Module | None = None, diam_mean: float = 30.0) -> Cellpose:
    """The network of `cyto`, `cyto2`, `cyto3` and `nuclei` with random weights: 2 channels, 6.6 million parameters.

    Args:
        normalize: applied to images first. None: `PercentileNormalize`, with which the official weights were trained.
        diam_mean: pixels, 30, and 17 for `nuclei`.
    """
    return Cellpose(diam_mean=diam_mean, normalize=PercentileNormalize() if normalize is None else normalize)


def cellpose_targets(label_map: Tensor) -> dict[str, Tensor]:
    """The targets of one label map (H, W) with 0 for the background.

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
    """
    check_keys("targets", targets, ("flows", "foreground"))
    sizes = check_tensor_dict("outputs", outputs, flows="B 2 H W", logits="B H W")
    check_tensor_dict("targets", targets, sizes, flows="B 2 H W")
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
    """Label maps of a batch: see `masks_from_flows`.

    Args:
        outputs: `flows` (B, 2, H, W) and `logits` (B, H, W) of `Cellpose`.
        logit_threshold: pixels with a larger logit belong to cells; 0 is a probability of 1/2.
        flow_threshold: cells with a larger `flow_error` are dropped; 0 drops none.
        min_size: pixels, smaller cells are dropped.
        steps: number of steps along the flow.

    Returns:
        B label maps (H, W) int32, on the device of the outputs.
    """
    check_tensor_dict("outputs", outputs, flows="B 2 H W", logits="B H W")
    check_no_nan("outputs", outputs, ("flows", "logits"))
    check_number("logit_threshold", logit_threshold, minimum=-math.inf)
    flows, foreground = outputs["flows"] / FLOW_SCALE, outputs["logits"] > logit_threshold
    return [
        masks_from_flows(*pair, flow_threshold=flow_threshold, min_size=min_size, steps=steps)
        for pair in zip(flows, foreground, strict=True)
    ]
