"""Omnipose: flows along the gradient of the distance to the edge, not of heat from a centre, for cells of any shape.

Paper: Cutler, Stringer, Lo, Rappez, Stroustrup, Peterson, Wiggins, Mougous, "Omnipose: a high-precision
    morphology-independent solution for bacterial cell segmentation", Nature Methods 19, 2022.
Idea: A long or bent cell has no good centre, and Cellpose, whose flows lead there, splits it. The distance to the edge,
    the solution of |grad u| = 1 with u = 0 outside, needs no centre: its gradient leads from the edge to the skeleton.
    Pixels take a few steps of decreasing length along it, just enough to leave the neighbourhood of other cells, and
    end points that lie close to each other are one cell.
Simplified: two dimensions. The loss has one term for each output, with weights of our own; the paper's has more. Ends
    are always clustered by DBSCAN. The boundary is only used in training. The field is solved by fast sweeping, the
    authors' by a fast iterative method; five steps are our choice.
Shapes: images (B, C, H, W) -> {"flows": (B, 2, H, W), "distance", "boundary": (B, H, W)}; flows are (dy, dx).
    `postprocess`: outputs -> B label maps (H, W) int32.
Quality: |field - Euclidean distance| of discs, ellipses, rectangles: mean at most 0.2 pixels, largest 0.8 (disc, r 40).
    `bacteria`: instance accuracy 0.838 at IoU 0.5, the lowest of three seeds (watershed 0.037), 34.8 CPU-s
    (`segedu train omnipose --data bacteria --seeds 3`).
Course: 09-distances
Lab: 09_distances
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from torch import Tensor, nn

from segedu.instance.cellpose.cellpose import FLOW_SCALE, Cellpose
from segedu.losses.cross_entropy import binary_cross_entropy
from segedu.losses.reduction import full_precision
from segedu.losses.regression import l2_loss, smooth_l1_loss
from segedu.ops.eikonal import solve_eikonal
from segedu.ops.label_maps import drop_small_objects, relabel_by_occurrence
from segedu.validation.label_maps import check_label_map
from segedu.validation.numbers import check_integer, check_number
from segedu.validation.tensors import (
    check_dtype,
    check_finite,
    check_floats,
    check_no_nan,
    check_tensor,
    check_tensor_dict,
)

BACKGROUND_DISTANCE = -1.0  # target distance of the background, as far below 0 as the edge of a cell is above
LINES = ((1, 0, 1.0), (0, 1, 1.0), (1, 1, 0.5), (1, -1, 0.5))  # (down, right, 1 / length^2) of the lines to neighbours


def eikonal_distance(label_map: Tensor) -> Tensor:
    """Distance to the nearest pixel outside the cell, by the eikonal equation: smoother than the Euclidean one.

    Distances are between centres of pixels, with u = 0 outside, as in scipy's `distance_transform_edt`: the pixels
    along a straight edge are at 1; at a corner a little less, and a cell of one pixel is at 0.84. Pixels of other cells
    count as outside. The border of the image is not an edge.

    Args:
        label_map: (H, W) integers, 0 is background.

    Returns:
        (H, W) float32, in pixels, 0 on background. A cell that fills the image has no edge; its distance is the length
        of the image's diagonal everywhere.

    >>> eikonal_distance(torch.tensor([[0, 4, 4, 4, 9, 9]]))
    tensor([[0., 1., 2., 1., 1., 2.]])
    """
    label_map = check_label_map("label_map", label_map, (2,))
    field = solve_eikonal(label_map.numpy(force=True))
    field[np.isinf(field)] = math.hypot(*field.shape)
    return torch.from_numpy(field.astype(np.float32)).to(label_map.device)


def field_flow(distance: Tensor, label_map: Tensor) -> Tensor:
    """Direction in which the distance increases: its gradient within each cell, normalised.

    The gradient is the mean of the central differences along rows and columns and of those along diagonals. A pixel
    of another cell counts as distance 0; the border of the image is padded by replication.

    Args:
        distance: (H, W) floats, of `eikonal_distance`.
        label_map: (H, W) integers, 0 is background.

    Returns:
        (2, H, W) float32, (dy, dx) of length 1; on the skeleton, where the gradient is shorter than half, twice the
        gradient; 0 on background.

    >>> cell = torch.tensor([[0, 4, 4, 4, 9, 9]])
    >>> field_flow(eikonal_distance(cell), cell)[1]
    tensor([[ 0.,  1.,  0., -1.,  1.,  1.]])
    """
    label_map = check_label_map("label_map", label_map, (2,))
    height, width = label_map.shape
    check_floats("distance", distance, "H W", {"H": height, "W": width})
    values = F.pad(distance[None, None].double(), (1, 1, 1, 1), mode="replicate")[0, 0]
    labels = F.pad(label_map[None, None].double(), (1, 1, 1, 1), mode="replicate")[0, 0]

    def shifted(down: int, right: int) -> Tensor:
        window = slice(1 + down, 1 + down + height), slice(1 + right, 1 + right + width)
        return torch.where(labels[window] == label_map, values[window], 0.0)

    gradient = values.new_zeros(2, height, width)
    for down, right, inverse in LINES:
        slope = (shifted(down, right) - shifted(-down, -right)) / 2 * inverse  # along the line
        gradient += slope * torch.tensor([down, right]).to(slope)[:, None, None] / 2
    # Paper: normalised everywhere. The gradient has length 1 except on the skeleton, where opposite sides cancel. The
    # remainder there points along the skeleton, and at full length it would split cells at their necks.
    return torch.where(label_map > 0, gradient / gradient.norm(dim=0).clamp(min=0.5), 0.0).float()


def omnipose_targets(label_map: Tensor) -> dict[str, Tensor]:
    """The targets of one image.

    Args:
        label_map: (H, W) integers, 0 is background.

    Returns:
        `flows` (2, H, W), `distance` (H, W), which is `eikonal_distance` in cells and -1 outside, and `boundary`
        (H, W), 1 on the pixels of cells that share an edge with a pixel outside the cell; all float32.
    """
    label_map = check_label_map("label_map", label_map, (2,))
    distance = eikonal_distance(label_map)
    padded = F.pad(label_map[None, None].double(), (1, 1, 1, 1), mode="replicate")[
        0, 0
    ]  # the border of the image is not an edge
    sides = padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]
    edge = torch.stack([side != label_map for side in sides]).any(dim=0)
    inside = label_map > 0
    return {
        "flows": field_flow(distance, label_map),
        "distance": torch.where(inside, distance, BACKGROUND_DISTANCE),
        "boundary": (edge & inside).float(),
    }


def omnipose_loss(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Squared error of the flows, smooth L1 of the distance, cross-entropy of the boundary.

    Args:
        outputs: `flows` (B, 2, H, W), 5 times the flow; `distance` (B, H, W); `boundary` (B, H, W) logits.
        targets: the same keys, of `omnipose_targets`, as batches.

    Returns:
        `flows`, `distance`, `boundary` and their sum `loss`, scalars.
    """
    axes = {"flows": "B 2 H W", "distance": "B H W", "boundary": "B H W"}
    check_tensor_dict("targets", targets, check_tensor_dict("outputs", outputs, **axes), **axes)
    losses = {
        "flows": l2_loss(outputs["flows"], FLOW_SCALE * targets["flows"].to(outputs["flows"])) / 2,
        "distance": smooth_l1_loss(outputs["distance"], targets["distance"].to(outputs["distance"])),
        "boundary": binary_cross_entropy(outputs["boundary"], targets["boundary"]),
    }
    return losses | {"loss": sum(losses.values())}


def suppressed_euler(flows: Tensor, inside: Tensor, steps: int = 5) -> Tensor:
    """End points of the pixels of cells after steps along the flow: x <- x + flow(x) / (t + 1), t = 0, 1, ...

    The first step is one pixel, the second half a pixel: n steps lead at most 1 + 1/2 + ... + 1/n pixels far, five
    2.3. So a pixel leaves the edge, but does not move along the whole skeleton, which would gather pixels in the
    thickest parts of a cell and split it. Between pixels the flow is interpolated, and it is 0 outside cells.

    Args:
        flows: (2, H, W) floats, (dy, dx).
        inside: (H, W) bool, the pixels that move, P of them.
        steps: number of steps; more steps correct more errors of a predicted flow, but split more cells at their necks.

    Returns:
        (P, 2) floats, (y, x), in the raster order of the pixels.

    >>> flows = torch.tensor([[[0.0, 0.0, 0.0]], [[1.0, 1.0, 0.0]]])
    >>> suppressed_euler(flows, torch.ones(1, 3).bool(), steps=2)
    tensor([[0.0000, 1.5000],
            [0.0000, 2.0000],
            [0.0000, 2.0000]])
    """
    check_floats("flows", flows, "2 H W", check_dtype("inside", inside, torch.bool, "H W"))
    flows = full_precision(flows)  # float16 cannot represent row 2049
    check_finite("flows", flows)
    check_integer("steps", steps, minimum=0)
    last = torch.tensor(inside.shape).to(flows) - 1
    points = inside.nonzero().to(flows)  # (P, 2)
    field = torch.where(inside, flows, 0.0)[None]
    for t in range(steps):
        grid = (2 * points / last.clamp(min=1) - 1).flip(1)  # (x, y) in [-1, 1]
        flow = F.grid_sample(field, grid[None, None], align_corners=True)[0, :, 0].mT  # (P, 2)
        points = (points + flow / (t + 1)).clamp(min=points.new_zeros(2), max=last)
    return points


def cluster_points(points: Tensor, eps: float = math.sqrt(2), min_points: int = 4) -> Tensor:
    """DBSCAN (Ester, Kriegel, Sander, Xu, KDD 1996), on points rounded to an eighth of a pixel.

    A point is a core if at least `min_points`, itself included, lie within `eps`. Cores within `eps` of each other
    are one cluster, and so are chains of them. Other points join the nearest core within `eps`; without one they are
    noise. Rounding merges the many points that end at the same position into one with a weight.

    Args:
        points: (P, 2) floats, in pixels; P may be 0.
        eps: pixels.
        min_points: 1 makes every point a core.

    Returns:
        (P,) int64: clusters numbered from 1 in the order of their first points, 0 for noise.

    >>> line = torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.0, 9.0]])
    >>> cluster_points(line, min_points=3), cluster_points(line, min_points=1)
    (tensor([1, 1, 1, 0]), tensor([1, 1, 1, 2]))
    """
    check_tensor("points", points, "P? 2")
    check_finite("points", points)
    check_number("eps", eps, exclusive=True)
    check_number("min_points", min_points, minimum=1)
    if len(points) == 0:
        return torch.zeros(0, dtype=torch.int64, device=points.device)
    rounded = np.round(8 * points.detach().double().numpy(force=True)).astype(np.int64)
    span = np.ptp(rounded[:, 1]) + 1  # one integer per position, because np.unique of pairs is slow
    keys, position_of, counts = np.unique(rounded @ [span, 1], return_inverse=True, return_counts=True)
    positions = np.empty((len(keys), 2))
    positions[position_of] = rounded / 8
    tree = cKDTree(positions)
    first, second = tree.query_pairs(eps + 1e-6, output_type="ndarray").T
    neighbours = counts + np.bincount(first, counts[second], len(keys)) + np.bincount(second, counts[first], len(keys))
    core = neighbours >= min_points
    both = core[first] & core[second]
    links = coo_array((both[both], (first[both], second[both])), shape=(len(keys), len(keys)))
    cluster = connected_components(links, directed=False)[1]
    if not core.all():
        distance, nearest = (
            cKDTree(positions[core]).query(positions[~core]) if core.any() else (np.array([np.inf]), [0])
        )
        cluster[~core] = np.where(distance <= eps + 1e-6, cluster[core][nearest] if core.any() else -1, -1)
    return relabel_by_occurrence(torch.from_numpy(cluster[position_of].astype(np.int64) + 1)).long().to(points.device)


def masks_from_field(
    flows: Tensor, inside: Tensor, steps: int = 5, eps: float = math.sqrt(2), min_points: int = 4, min_size: int = 15
) -> Tensor:
    """Cells of one image: move its pixels by `suppressed_euler`, and group their ends by `cluster_points`.

    Args:
        flows: (2, H, W) floats, (dy, dx), of length 1.
        inside: (H, W) bool, pixels of cells.
        steps: as in `suppressed_euler`.
        eps: as in `cluster_points`. The default merges cells that touch and are only one pixel wide.
        min_points: as in `cluster_points`. Pixels whose ends are noise become background.
        min_size: pixels; smaller cells become background.

    Returns:
        (H, W) int32 label map, cells numbered from 1 in the order of their first pixels.
    """
    clusters = cluster_points(suppressed_euler(flows, inside, steps), eps, min_points)
    label_map = torch.zeros(inside.shape, dtype=torch.int32, device=inside.device)
    label_map[inside] = clusters.to(label_map)
    return drop_small_objects(label_map, min_size)


class Omnipose(Cellpose):
    """The network of Cellpose with four maps: two flows, the distance and the boundary. Arguments as for `Cellpose`."""

    def __init__(
        self,
        in_channels: int = 1,
        widths: Sequence[int] = (32, 64, 128, 256),
        diam_mean: float = 30.0,
        normalize: nn.Module | None = None,
    ) -> None:
        super().__init__(in_channels, widths, 4, diam_mean, normalize)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps, style = self.maps_and_style(images)
        return {"flows": maps[:, :2], "distance": maps[:, 2], "boundary": maps[:, 3], "style": style}


def postprocess(
    outputs: Mapping[str, Tensor],
    threshold: float = 0.0,
    steps: int = 5,
    eps: float = math.sqrt(2),
    min_points: int = 4,
    min_size: int = 15,
) -> list[Tensor]:
    """Label maps of a batch. See `masks_from_field` for the other arguments.

    Args:
        outputs: `flows` (B, 2, H, W), 5 times the flow, and `distance` (B, H, W), of the network.
        threshold: pixels whose distance is above it are inside a cell.

    Returns:
        B label maps (H, W) int32, on the device of the outputs.
    """
    check_tensor_dict("outputs", outputs, flows="B 2 H W", distance="B H W")
    check_no_nan("outputs", outputs, ("flows", "distance"))
    check_number("threshold", threshold, minimum=-math.inf)
    flows, inside = outputs["flows"].detach() / FLOW_SCALE, outputs["distance"] > threshold
    return [masks_from_field(*pair, steps, eps, min_points, min_size) for pair in zip(flows, inside, strict=True)]
