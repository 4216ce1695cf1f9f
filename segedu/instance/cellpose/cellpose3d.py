"""Cellpose in three dimensions: a network trained on images is applied to a volume from three sides.

Paper: Stringer, Wang, Michaelos, Pachitariu, "Cellpose: a generalist algorithm for cellular segmentation", Nature
    Methods 18, 2021, Methods: "3D segmentation". Numbers are those of the authors' version 3.
Idea: Every slice across each of the three axes is an image. Each component of the flow is predicted in the two views
    that contain it, foreground in all three, and predictions are summed. Pixels follow the flow of three components
    and are grouped by their end points, as in two dimensions; no volume was ever annotated for training.
Simplified: voxels are cubes (resize others before), and whole slices are given to the network. Between voxels the
    flow is exactly trilinear, where the authors' is off by up to half a voxel (they mix two rules for corners).
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
from segedu.instance.cellpose.flows import check_flows, cluster_end_points, diffusion_flow, fill_holes_and_remove_small
from segedu.ops.label_maps import relabel_sequential
from segedu.validation.images import check_images
from segedu.validation.numbers import check_integer, check_number
from segedu.validation.tensors import check_no_nan, check_tensor_dict

# The axis perpendicular to the slices, and the two components of the flow within a slice.
VIEWS = ((0, (1, 2)), (1, (0, 2)), (2, (0, 1)))


class ThreeViews(nn.Module):
    """A network for images, applied to all slices of a volume in three directions.

    Args:
        network: such as `Cellpose`: (N, C, h, w) -> `flows` (N, 2, h, w) and `logits` (N, h, w).
        batch_size: number of slices per forward pass.
    """

    def __init__(self, network: nn.Module, batch_size: int = 8) -> None:
        super().__init__()
        check_integer("batch_size", batch_size)
        self.network, self.batch_size = network, batch_size

    def forward(self, volumes: Tensor) -> dict[str, Tensor]:
        check_images(volumes, self.network.in_channels, axes=3)
        outputs_per_volume = [self._volume(volume) for volume in volumes]
        return {key: torch.stack([outputs[key] for outputs in outputs_per_volume]) for key in outputs_per_volume[0]}

    def _volume(self, volume: Tensor) -> dict[str, Tensor]:
        logits, flows = 0, [0, 0, 0]
        for axis, components in VIEWS:
            slices = volume.movedim(1 + axis, 0)  # (N, C, h, w)
            outputs = [self.network(part) for part in slices.split(self.batch_size)]
            logits = logits + torch.cat([output["logits"] for output in outputs]).movedim(0, axis)
            view_flows = torch.cat([output["flows"] for output in outputs])  # (N, 2, h, w)
            for component, flow in zip(components, view_flows.unbind(1), strict=True):
                flows[component] = flows[component] + flow.movedim(0, axis)
        return {"flows": torch.stack(flows), "logits": logits}


def diffusion_flow3d(label_map: Tensor) -> Tensor:
    """The flow of three views: the sum of `diffusion_flow` of every slice in three directions.

    Args:
        label_map: (D, H, W) integers, 0 is background.

    Returns:
        (3, D, H, W) float32, dz, dy and dx. Each component is a sum of two, and so between -2 and 2.
    """
    labels = relabel_sequential(label_map, (3,)).cpu()
    flows = torch.zeros(3, *labels.shape)
    for axis, components in VIEWS:
        view_flows = torch.stack([diffusion_flow(part) for part in labels.unbind(axis)], dim=1 + axis)
        flows[list(components)] += view_flows
    return flows.to(label_map.device)


def follow_flows3d(flows: Tensor, foreground: Tensor, steps: int = 200) -> Tensor:
    """Move the voxels of the foreground along the flow, as `follow_flows` does with pixels.

    Args:
        flows: (3, D, H, W) floating-point, dz, dy and dx in voxels per step.
        foreground: (D, H, W) bool.
        steps: number of steps, at least 0.

    Returns:
        (3, N) float32, the end point of each of the N voxels of the foreground.
    """
    check_flows(flows, foreground, axes=3)
    check_integer("steps", steps, minimum=0)
    last = torch.tensor(foreground.shape, device=flows.device)[:, None] - 1.0
    field = (flows.float() * foreground)[None]
    ends = foreground.nonzero().T.float()  # (3, N)
    for _ in range(steps):
        grid = (2 * ends / last.clamp(min=1) - 1).flip(0).T[None, None, None]  # x, y, z in [-1, 1]
        step = F.grid_sample(field, grid, padding_mode="border", align_corners=True)
        ends = (ends + step[0, :, 0, 0]).clamp(min=0).minimum(last)
    return ends


def masks_from_flows3d(
    flows: Tensor, foreground: Tensor, *, steps: int = 200, min_size: int = 15, max_size_fraction: float = 0.4
) -> Tensor:
    """Cells of a volume from flows: follow them, group voxels by their end points, fill holes.

    There is no `flow_error` test: the flow is a sum over views, not the gradient of a single heat distribution.

    Args:
        flows: (3, D, H, W) floating-point, dz, dy and dx; a fifth of the output of `ThreeViews`.
        foreground: (D, H, W) bool.
        steps: number of steps along the flow.
        min_size: voxels, smaller cells are dropped.
        max_size_fraction: of the volume, in (0, 1]; a larger cell becomes background.

    Returns:
        (D, H, W) int32 label map: 1, 2, ... without gaps; all 0 if there is no cell.
    """
    check_number("max_size_fraction", max_size_fraction, maximum=1, exclusive=True)
    ends = follow_flows3d(flows, foreground, steps).cpu()
    labels = np.zeros(tuple(foreground.shape), np.int32)
    labels[foreground.numpy(force=True)] = cluster_end_points(ends, tuple(foreground.shape), max_size_fraction)
    return fill_holes_and_remove_small(torch.from_numpy(labels), min_size).to(flows.device)


def postprocess3d(
    outputs: Mapping[str, Tensor], logit_threshold: float = 0.0, min_size: int = 15, steps: int = 200
) -> list[Tensor]:
    """Label maps of a batch of volumes: see `masks_from_flows3d`.

    Args:
        outputs: `flows` (B, 3, D, H, W) and `logits` (B, D, H, W) of `ThreeViews`.
        logit_threshold: voxels with a larger sum of logits belong to cells.
        min_size: voxels, smaller cells are dropped.
        steps: number of steps along the flow.

    Returns:
        B label maps (D, H, W) int32, on the device of the outputs.
    """
    check_tensor_dict("outputs", outputs, flows="B 3 D H W", logits="B D H W")
    check_no_nan("outputs", outputs, ("flows", "logits"))
    check_number("logit_threshold", logit_threshold, minimum=-math.inf)
    flows, foreground = outputs["flows"] / FLOW_SCALE, outputs["logits"] > logit_threshold
    return [masks_from_flows3d(*pair, min_size=min_size, steps=steps) for pair in zip(flows, foreground, strict=True)]
