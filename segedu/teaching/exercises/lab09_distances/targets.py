"""Training targets of the lab's networks: what the exercises compute, by the library's compiled loops."""

from __future__ import annotations

import torch
from torch import Tensor

from segedu.instance.cellpose.flows import diffusion_flow
from segedu.instance.signed_distance import signed_distance
from segedu.instance.stardist import object_probability, star_distances
from segedu.ops.flows import spread_heat
from segedu.teaching.exercises.lab09_distances.cells import cell_masks


def all_targets(label_map: Tensor, n_rays: int) -> dict[str, Tensor]:
    """Compute the targets of three methods for one image.

    In each cell heat diffuses for about twice its height plus width, where the exercise takes a number of steps.

    Args:
        label_map: (H, W) integers, 0 is background.
        n_rays: R.

    Returns:
        float32 tensors: `distance` (H, W) in pixels, positive inside; `probability` (H, W), 1 in the centre of a cell;
        `rays` (R, H, W) in pixels; `flows` (2, H, W), dy and dx, of length 1; `inside` (H, W), 1 in cells.
    """
    return {
        "distance": signed_distance(label_map),
        "probability": object_probability(label_map),
        "rays": star_distances(label_map, n_rays),
        "flows": diffusion_flow(label_map),
        "inside": (label_map > 0).float(),
    }


def heat(label_map: Tensor) -> Tensor:
    """Heat of all cells, for figures. The flow is the direction of its gradient.

    Args:
        label_map: (H, W) integers, 0 is background.

    Returns:
        (H, W) float64: 1 at the hottest pixel of each cell and 0 in the background.
    """
    total = torch.zeros(label_map.shape, dtype=torch.float64)
    for inside in cell_masks(label_map):
        pixels = inside.nonzero()
        y, x = pixels[(pixels - pixels.double().mean(dim=0)).norm(dim=1).argmin()].tolist()
        height, width = (pixels.amax(dim=0) - pixels.amin(dim=0) + 1).tolist()
        one = spread_heat(inside, (y, x), 2 * (height + width + 4))
        total += one / one.max()
    return total
