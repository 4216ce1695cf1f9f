"""What the training cell of the lab learns: its exercises' numbers for many images, by compiled loops."""

from __future__ import annotations

import torch
from torch import Tensor

from segedu.instance.cellpose.flows import diffusion_flow
from segedu.instance.signed_distance import signed_distance
from segedu.instance.stardist import object_probability, star_distances
from segedu.ops.flows import spread_heat


def all_targets(label_map: Tensor, n_rays: int) -> dict[str, Tensor]:
    """The targets of three methods for one image.

    Heat spreads for twice the height and width of each cell, where the lab's exercise takes a number of steps.

    Args:
        label_map: (H, W) integers, 0 is background.
        n_rays: R.

    Returns:
        float32: `distance` (H, W), in pixels, above 0 inside; `probability` (H, W), 1 in the middle of a cell; `rays`
        (R, H, W) in pixels; `flows` (2, H, W), dy and dx, of length 1; `inside` (H, W), 1 in cells.
    """
    return {
        "distance": signed_distance(label_map),
        "probability": object_probability(label_map),
        "rays": star_distances(label_map, n_rays),
        "flows": diffusion_flow(label_map),
        "inside": (label_map > 0).float(),
    }


def heat(label_map: Tensor) -> Tensor:
    """The heat of all cells whose slope is the flow, for pictures.

    Args:
        label_map: (H, W) integers, 0 is background.

    Returns:
        (H, W) float64, 1 at the source of each cell and 0 in the background.
    """
    total = torch.zeros(label_map.shape, dtype=torch.float64)
    for number in label_map[label_map > 0].unique():
        inside = label_map == number
        places = inside.nonzero()
        y, x = places[(places - places.double().mean(dim=0)).norm(dim=1).argmin()].tolist()
        height, width = (places.amax(dim=0) - places.amin(dim=0) + 1).tolist()
        one = spread_heat(inside, (y, x), 2 * (height + width + 4))
        total += one / one.max()
    return total
