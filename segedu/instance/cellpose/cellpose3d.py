"""Cellpose in three dimensions: a network that has only seen images looks at a volume from three sides.

Paper: Stringer, Wang, Michaelos, Pachitariu, "Cellpose: a generalist algorithm for cellular segmentation", Nature
    Methods 18, 2021, Methods: "3D segmentation". Numbers are those of the authors' version 3.
Idea: Every slice across each of the three axes is an image. Each component of the flow is predicted by the two views
    that see it, foreground by three, and they are added up. Pixels follow the flow of three components, and cells are
    where they meet, as in two dimensions; no volume was ever annotated for training.
Simplified: voxels are cubes (resize others before), and whole slices are given to the network. Between voxels the
    flow is exactly trilinear, where the authors' moves by up to half a voxel (they mix two rules for corners).
Shapes: volumes (B, C, D, H, W) -> `flows` (B, 3, D, H, W) dz dy dx, and `logits` (B, D, H, W), sums over views.
    `postprocess3d`: outputs -> B label maps (D, H, W) int32.
Quality: four balls come back at IoU 0.98 or more, and at 0.95 or more are those of cellpose 3.1.1.3.
Course: 09-distances
Lab: 09_distances
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.instance.cellpose.cellpose import FLOW_SCALE
from segedu.instance.cellpose.flows import check_flows, diffusion_flow, group_ends, tidy
from segedu.ops.label_maps import relabel_sequential
from segedu.validation.images import check_images
from segedu.validation.numbers import check_number
from segedu.validation.tensors import check_maps, check_no_nan

# Across which axis the slices are cut, and which two components of the flow they show.
VIEWS = ((0, (1, 2)), (1, (0, 2)), (2, (0, 1)))


class ThreeViews(nn.Module):
    """A network of images, applied to all slices of a volume in three directions.

    Args:
        network: such as `Cellpose`: (N, C, h, w) -> `flows` (N, 2, h, w) and `logits` (N, h, w).
        batch_size: slices that the network sees at a time.
    """

    def __init__(self, network: nn.Module, batch_size: int = 8) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1")
        self.network, self.batch_size = network, batch_size

    def forward(self, volumes: Tensor) -> dict[str, Tensor]:
        check_images(volumes, self.network.in_channels, axes=3)
        each = [self._volume(volume) for volume in volumes]
        return {key: torch.stack([outputs[key] for outputs in each]) for key in each[0]}

    def _volume(self, volume: Tensor) -> dict[str, Tensor]:
        logits, flows = 0, [0, 0, 0]
        for axis, components in VIEWS:
            slices = volume.movedim(1 + axis, 0)  # (N, C, h, w)
            outputs = [self.network(part) for part in slices.split(self.batch_size)]
            logits = logits + torch.cat([output["logits"] for output in outputs]).movedim(0, axis)
            seen = torch.cat([output["flows"] for output in outputs])  # (N, 2, h, w)
            for component, flow in zip(components, seen.unbind(1), strict=True):
                flows[component] = flows[component] + flow.movedim(0, axis)
        return {"flows": torch.stack(flows), "logits": logits}


def diffusion_flow3d(label_map: Tensor) -> Tensor:
    """The flow that three views see: `diffusion_flow` of every slice in three directions, added up.

    Args:
        label_map: (D, H, W) integers, 0 is background.

    Returns:
        (3, D, H, W) float32, dz, dy and dx. Each component is a sum of two, and so within -2 and 2.

    Raises:
        TypeError: `label_map` is not a tensor of integers.
        ValueError: it is not (D, H, W), is empty or has a negative label.
    """
    labels = relabel_sequential(label_map, (3,)).cpu()
    flows = torch.zeros(3, *labels.shape)
    for axis, components in VIEWS:
        seen = torch.stack([diffusion_flow(part) for part in labels.unbind(axis)], dim=1 + axis)
        flows[list(components)] += seen
    return flows.to(label_map.device)


def follow_flows3d(flows: Tensor, foreground: Tensor, steps: int = 200) -> Tensor:
    """Move the voxels of the foreground along the flow, as `follow_flows` does with pixels.

    Args:
        flows: (3, D, H, W) floating-point, dz, dy and dx in voxels a step.
        foreground: (D, H, W) bool.
        steps: how many, at least 0.

    Returns:
        (3, N) float32, where each of the N voxels of the foreground is in the end.

    Raises:
        TypeError: `flows` is not floating-point, or `foreground` not bool.
        ValueError: a shape is another one, `flows` is not finite, or `steps` is negative.
    """
    check_flows(flows, foreground, axes=3)
    if steps < 0:
        raise ValueError(f"steps is {steps}, expected at least 0")
    last = torch.tensor(foreground.shape, device=flows.device)[:, None] - 1.0
    field = (flows.float() * foreground)[None]
    ends = foreground.nonzero().T.float()  # (3, N)
    for _ in range(steps):
        grid = (2 * ends / last.clamp(min=1) - 1).flip(0).T[None, None, None]  # x, y, z in [-1, 1]
        step = F.grid_sample(field, grid, padding_mode="border", align_corners=True)
        ends = (ends + step[0, :, 0, 0]).clamp(min=0).minimum(last)
    return ends


def masks_from_flows3d(
    flows: Tensor, foreground: Tensor, *, steps: int = 200, min_size: int = 15, max_share: float = 0.4
) -> Tensor:
    """Cells of a volume from flows: follow them, group voxels by where they end, fill holes.

    There is no test of the flow: that of a cell is not the gradient of one heat, but a sum over views.

    Args:
        flows: (3, D, H, W) floating-point, dz, dy and dx; a fifth of what three views give.
        foreground: (D, H, W) bool.
        steps: how often voxels move.
        min_size: voxels, smaller cells are dropped.
        max_share: of the volume; a larger cell is taken for background.

    Returns:
        (D, H, W) int32 label map: 1, 2, ... without gaps; all 0 where there is no cell.

    Raises:
        TypeError: `flows` is not floating-point, or `foreground` not bool.
        ValueError: a shape is another one, `flows` is not finite, or a number is out of its range.
    """
    if not 0 < max_share <= 1:
        raise ValueError(f"max_share is {max_share}, expected within (0, 1]")
    ends = follow_flows3d(flows, foreground, steps).cpu()
    labels = np.zeros(tuple(foreground.shape), np.int32)
    labels[foreground.numpy(force=True)] = group_ends(ends, tuple(foreground.shape), max_share)
    return tidy(torch.from_numpy(labels), min_size).to(flows.device)


def postprocess3d(
    outputs: Mapping[str, Tensor], logit_threshold: float = 0.0, min_size: int = 15, steps: int = 200
) -> list[Tensor]:
    """Cells from what three views gave: see `masks_from_flows3d`.

    Args:
        outputs: `flows` (B, 3, D, H, W) and `logits` (B, D, H, W) of `ThreeViews`.
        logit_threshold: voxels whose sum of logits is above belong to cells.
        min_size: voxels, smaller cells are dropped.
        steps: how often voxels move.

    Returns:
        B label maps (D, H, W) int32, on the device of the outputs.

    Raises:
        TypeError: `outputs` is no dict, or a tensor in it is not of floating-point numbers.
        ValueError: a key is missing, a shape is another one, flows are not finite, or a logit is NaN.
    """
    check_maps("outputs", outputs, flows="B 3 D H W", logits="B D H W")
    check_no_nan("outputs", outputs, ("flows", "logits"))
    check_number("logit_threshold", logit_threshold, minimum=-math.inf)
    flows, foreground = outputs["flows"] / FLOW_SCALE, outputs["logits"] > logit_threshold
    return [masks_from_flows3d(*pair, min_size=min_size, steps=steps) for pair in zip(flows, foreground, strict=True)]
