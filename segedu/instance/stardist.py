"""StarDist: each pixel predicts the distance to its object's border along rays, and how central in the object it is.

Paper: Schmidt, Weigert, Broaddus, Myers, "Cell Detection with Star-convex Polygons", MICCAI 2018, arXiv 1806.03535.
    The term for the background: Weigert, Schmidt, Haase, Sugawara, Myers, WACV 2020, arXiv 1908.03636.
Idea: A box is a poor shape for a cell, and crowded boxes suppress each other. A polygon with a corner on each of 32
    rays fits most nuclei, and from a pixel in the middle of a nucleus the rays reach all of it. So a U-Net predicts, at
    each pixel, the polygon and an object probability (how central the pixel is). Non-maximum suppression keeps the best
    of the polygons that overlap.
Simplified: no pixels are ignored in the loss; large images are not split into tiles.
Shapes: images (B, C, H, W) -> `logits` (B, 1, h, w) and `distances` (B, R, h, w), h = ceil(H / grid).
    `postprocess`: outputs -> B label maps (H, W) int32.
Quality: label maps turned into 32 distances at their objects' centres and rendered again: mean IoU 0.962 on the 125
    nuclei of StarDist's sample image; 20,000 candidates are suppressed in 0.4 times the CPU time of StarDist's C++.
    `segedu.weights.load("cells_stardist")`, 22 CPU-s of training: instance accuracy 0.986 at IoU 0.5 on synthetic
    nuclei, 0.905 at 0.7; Gaussian, Otsu, watershed: 0.440 and 0.302 (tests/benchmarks/cell_weights.py). Real nuclei:
    0.690 after 280 CPU-s, Otsu and watershed 0.607 (`segedu train stardist --data nuclei_grouped`).
Course: 09-distances
Lab: 09_distances
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn

from segedu.backbones.stardist_unet import StarDistUNet, percentile_normalize
from segedu.losses.regression import l1_loss
from segedu.ops.label_maps import relabel_sequential
from segedu.ops.polygons import rasterize_polygons, star_rays, suppress_polygons
from segedu.ops.rays import ray_lengths
from segedu.validation.boxes import check_scores
from segedu.validation.images import check_images
from segedu.validation.label_maps import check_label_map
from segedu.validation.numbers import check_integer, check_number
from segedu.validation.tensors import Sizes, check_no_nan, check_tensor_dict

MIN_DISTANCE = 1e-3  # in pixels; networks also predict distances below 0


def star_distances(label_map: Tensor, n_rays: int = 32, grid: Sequence[int] = (1, 1)) -> Tensor:
    """Distance from each pixel to the border of its object along each ray.

    The ray is followed in steps of length 1 until a step leaves the object or the image. The border is taken to lie
    half a pixel, along the faster axis, beyond the last step inside: one step back and `0.5 / max(|dy|, |dx|)` forward.

    Args:
        label_map: (H, W) integers, 0 is background.
        n_rays: R, at least 3; ray k has the angle 2 pi k / R and points to (y, x) = (sin, cos).
        grid: distances are computed at every grid-th pixel of each axis, from pixel 0.

    Returns:
        (R, h, w) float32 in pixels, h = ceil(H / grid); 0 in the background.

    >>> star_distances(torch.tensor([[0, 7, 7, 7, 0]]), n_rays=4)[:, 0, 1]
    tensor([2.5000, 0.5000, 0.5000, 0.5000])
    """
    check_label_map("label_map", label_map, (2,))
    # Single precision as in StarDist's code: rounding decides which pixel a step along a diagonal ends on.
    angles = torch.arange(len(star_rays(n_rays)), dtype=torch.float32) * np.float32(2 * np.pi / n_rays)
    rays = torch.stack([angles.sin(), angles.cos()], dim=1).to(label_map.device)
    lengths = ray_lengths(label_map, rays, grid)
    back = 1 - 0.5 / rays.abs().amax(dim=1)
    return torch.where(lengths > 0, lengths - back[:, None, None], 0.0)


def object_probability(label_map: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
    """Distance of each pixel to the nearest pixel outside its object, divided by the object's largest such distance.

    The border of the image is not a border of an object, unless one object fills the whole image.

    Args:
        label_map: (H, W) or (D, H, W) integers, 0 is background.
        spacing: size of a pixel along each axis, above 0. None: 1.

    Returns:
        The same shape, float32, in [0, 1]: 0 in the background, 1 in the middle of every object.

    >>> object_probability(torch.tensor([[0, 5, 5, 5, 0]]))
    tensor([[0.0000, 0.5000, 1.0000, 0.5000, 0.0000]])
    """
    labels = relabel_sequential(label_map).numpy(force=True)
    if spacing is not None and (len(spacing) != label_map.ndim or min(spacing) <= 0):
        raise ValueError(f"spacing is {tuple(spacing)}, expected {label_map.ndim} numbers above 0, one per axis")
    probability = np.zeros(labels.shape, np.float32)
    fills_image = bool((labels == 1).all())
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        padded_box = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)
        inside = np.pad(labels[padded_box] == label, int(fills_image))
        distance = ndimage.distance_transform_edt(inside, sampling=spacing)
        distance = distance[(slice(1, -1),) * labels.ndim] if fills_image else distance
        probability[padded_box] += (distance / distance.max()).astype(np.float32)
    return torch.from_numpy(probability).to(label_map.device)


def stardist_targets(label_map: Tensor, n_rays: int = 32, grid: Sequence[int] = (2, 2)) -> dict[str, Tensor]:
    """The targets of one image, `probability` (1, h, w) and `distances` (R, h, w), float32, with h = ceil(H / grid).

    Args:
        label_map: (H, W) integers, 0 is background.
        n_rays: R.
        grid: step between the pixels that predict, along each axis.
    """
    distances = star_distances(label_map, n_rays, grid)
    return {"probability": object_probability(label_map)[None, :: grid[0], :: grid[1]], "distances": distances}


class StarDist(nn.Module):
    """Backbone, one more convolution, and two heads: the object probability, and the distances along the rays.

    Args:
        backbone: maps images to features on its `grid`; has `in_channels`, `out_channels`, `grid`, and `step`, the
            numbers that H and W must be multiples of. A `grid` of three numbers means volumes.
        n_rays: R.
        width: channels of the convolution before the heads.
        normalize: applied to the images first, such as `percentile_normalize`. None: nothing.
    """

    def __init__(
        self, backbone: nn.Module, n_rays: int = 32, width: int = 128, normalize: Callable | None = None
    ) -> None:
        super().__init__()
        check_integer("n_rays", n_rays, minimum=3)
        conv = nn.Conv2d if len(backbone.grid) == 2 else nn.Conv3d
        self.backbone, self.n_rays, self.grid, self.normalize = backbone, n_rays, backbone.grid, normalize
        self.features = conv(backbone.out_channels, width, kernel_size=3, padding=1)
        self.prob = conv(width, 1, kernel_size=1)
        self.dist = conv(width, n_rays, kernel_size=1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Predict from images (B, C, H, W), or volumes (B, C, D, H, W), of any size."""
        check_images(images, self.backbone.in_channels, axes=len(self.grid))
        size = images.shape[2:]
        features = images if self.normalize is None else self.normalize(images)
        for axis, step in enumerate(self.backbone.step, start=2):  # mirrored at the far end, as StarDist's code does
            index = np.pad(np.arange(images.shape[axis]), (0, -images.shape[axis] % step), mode="reflect")
            features = features.index_select(axis, torch.from_numpy(index).to(images.device))
        features = F.relu(self.features(self.backbone(features)))
        crop = (..., *(slice(-(-side // step)) for side, step in zip(size, self.grid, strict=True)))
        # both keep the axis of channels, because the loss multiplies them
        return {"logits": self.prob(features)[crop], "distances": self.dist(features)[crop]}


def official_stardist(in_channels: int = 1, normalize: Callable | None = None) -> StarDist:
    """The network of the published weights, randomly initialised: 32 rays on a grid of 2 x 2, 1.4 million parameters.

    Args:
        in_channels: C of the images; 3 for `2D_versatile_he`.
        normalize: applied to the images first. None: `percentile_normalize`, with which the weights were trained.
    """
    return StarDist(StarDistUNet(in_channels), normalize=percentile_normalize if normalize is None else normalize)


def stardist_loss(
    outputs: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    distance_weight: float = 0.2,
    background_weight: float = 1e-4,
) -> dict[str, Tensor]:
    """Cross-entropy of the object probability, and absolute errors of the distances inside objects.

    Errors of distances are weighted by the pixel's object probability: pixels in the middle of an object, whose
    polygons survive suppression, count most. In the background a small term pulls the distances towards 0.

    Args:
        outputs: `logits` (B, 1, h, w) and `distances` (B, R, h, w), or with one more axis for volumes.
        targets: `probability` (B, 1, h, w) and `distances` (B, R, h, w).
        distance_weight: of both terms of distances.
        background_weight: of distances in the background.

    Returns:
        `object`, `distance` and `background`, scalars, and `loss`, their sum.
    """
    check_pair("targets", targets, "probability", check_pair("outputs", outputs, "logits"))
    logits, preds = outputs["logits"], outputs["distances"]
    probability, distances = targets["probability"].to(logits), targets["distances"].to(preds)
    weights = probability.expand_as(preds)
    # Paper: the weighted errors are averaged over all pixels. StarDist's code, whose weights are used here, divides
    # by the sum of the weights, so that the share of background in an image does not matter.
    terms = {
        "object": F.binary_cross_entropy_with_logits(logits, probability),
        "distance": distance_weight * l1_loss(preds, distances, weights=weights),
        "background": distance_weight * background_weight * ((weights == 0) * preds.abs()).mean(),
    }
    return {"loss": sum(terms.values()), **terms}


def polygon_nms(distances: Tensor, points: Tensor, scores: Tensor, overlap_threshold: float = 0.4) -> Tensor:
    """Of star polygons that overlap, keep the one with the highest score: exact, see `suppress_polygons`.

    The overlap is the shared area over the smaller of both areas, not over the union, as in StarDist's code. That
    code also rounds all corners down to integers: in a crowd of 20,000 it decides on 3 candidates otherwise.

    Args:
        distances: (N, R) in pixels, at least 0.
        points: (N, 2), (y, x).
        scores: (N,). Among equal scores the first polygon comes first.
        overlap_threshold: in [0, 1]; a polygon is removed if it overlaps a better one that is kept by more than this.

    Returns:
        (K,) int64: the polygons that are kept, the highest score first.

    >>> polygon_nms(torch.full((3, 8), 4.0), torch.tensor([[9, 9], [9, 10], [9, 30]]), torch.tensor([0.5, 0.9, 0.7]))
    tensor([1, 2])
    """
    order = order_of_scores(scores, len(distances))
    return order[suppress_polygons(distances[order], points[order], overlap_threshold).to(order.device)]


def order_of_scores(scores: Tensor, count: int) -> Tensor:
    """Indices (N,) of `count` scores (N,) from the highest to the lowest; among equal scores the first comes first."""
    check_scores("scores", scores, count)
    return scores.argsort(descending=True, stable=True)


def check_pair(name: str, maps: Mapping[str, Tensor], first: str, sizes: Sizes | None = None) -> Sizes:
    """Check a dict with `distances` and the key `first` on the same pixels or voxels, and return the axes' lengths."""
    logits = maps.get(first) if isinstance(maps, Mapping) else None
    axes = "d h w" if isinstance(logits, Tensor) and logits.ndim == 5 else "h w"
    return check_tensor_dict(name, maps, sizes, **{first: f"B 1 {axes}", "distances": f"B R {axes}"})


def check_grid(logits: Tensor, size: Sequence[int], grid: Sequence[int]) -> None:
    """Check that `logits` (B, 1, h, w) or (B, 1, d, h, w) are those of images of `size`: h = ceil(H / grid)."""
    shape = tuple(logits.shape[2:])
    if not len(size) == len(grid) == len(shape) or min(grid) < 1:
        raise ValueError(f"size is {tuple(size)} and grid {tuple(grid)}, expected {len(shape)} numbers of at least 1")
    expected = tuple(-(-side // step) for side, step in zip(size, grid, strict=True))
    if shape != expected:
        noun = "pixels" if len(shape) == 2 else "voxels"
        raise ValueError(f"outputs has {shape} {noun}, expected {expected}: size {tuple(size)}, grid {tuple(grid)}")


def render_polygons(distances: Tensor, points: Tensor, size: tuple[int, int], scores: Tensor | None = None) -> Tensor:
    """Paint star polygons into a label map; where two overlap, the one with the higher score is visible.

    Args:
        distances: (N, R) in pixels, at least 0.
        points: (N, 2), (y, x).
        size: H and W.
        scores: (N,). None: the later one is visible.

    Returns:
        (H, W) int32: polygon n has the label n + 1, 0 is background.

    >>> render_polygons(torch.full((2, 4), 1.0), torch.tensor([[1, 1], [1, 2]]), (3, 4), torch.tensor([0.9, 0.8]))
    tensor([[0, 1, 2, 0],
            [1, 1, 1, 2],
            [0, 1, 2, 0]], dtype=torch.int32)
    """
    if scores is not None and scores.shape != (len(points),):
        raise ValueError(f"scores has shape {tuple(scores.shape)}, expected {(len(points),)}")
    order = torch.arange(len(points), device=points.device) if scores is None else scores.argsort(stable=True)
    rendered = rasterize_polygons(distances[order], points[order], size)
    return torch.cat([order.new_zeros(1), order + 1]).int()[rendered.long()]


def candidates(
    logits: Tensor, distances: Tensor, grid: Sequence[int], score_threshold: float, border: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """The polygons of one image whose object probability is above a threshold.

    Args:
        logits: (1, h, w), or (1, d, h, w).
        distances: (R, h, w), or (R, d, h, w), in pixels.
        grid: step between the pixels that predict, along each axis.
        score_threshold: in [0, 1]; a pixel is a candidate if its object probability is above this.
        border: width of the margin of the grid, in its pixels, that has no candidates.

    Returns:
        Distances (N, R), at least 0.001; points (N, 2) or (N, 3) in pixels of the image; object probabilities (N,).
    """
    scores = logits[0].sigmoid()
    check_number("score_threshold", score_threshold, maximum=1)
    if len(grid) != scores.ndim:
        raise ValueError(f"grid is {tuple(grid)}, expected {scores.ndim} integers, one per axis")
    is_candidate = scores > score_threshold
    for axis in range(scores.ndim) if border else ():
        is_candidate.movedim(axis, 0)[:border] = False
        is_candidate.movedim(axis, 0)[-border:] = False
    points = is_candidate.nonzero() * torch.tensor(tuple(grid), device=is_candidate.device)
    return distances.movedim(0, -1)[is_candidate].clamp(min=MIN_DISTANCE), points, scores[is_candidate]


@torch.no_grad()
def postprocess(
    outputs: Mapping[str, Tensor],
    size: tuple[int, int],
    grid: Sequence[int] = (2, 2),
    score_threshold: float = 0.5,
    overlap_threshold: float = 0.4,
    border: int = 0,
) -> list[Tensor]:
    """Label maps: candidates, non-maximum suppression, painting.

    Args:
        outputs: `logits` (B, 1, h, w) and `distances` (B, R, h, w), of `StarDist.forward`.
        size: H and W of the images.
        grid: of the model.
        score_threshold: smallest object probability of a candidate. Published weights come with a threshold.
        overlap_threshold: see `polygon_nms`.
        border: width of the margin of the grid, in its pixels, that has no candidates. StarDist's code uses 2, which
            loses objects cropped by the border of the image; 0 keeps them.

    Returns:
        B label maps (H, W) int32, on the device of the outputs; labels are 1, 2, ... in the order of decreasing scores.
    """
    check_pair("outputs", outputs, "logits")
    check_no_nan("outputs", outputs, ("logits",))  # distances count only where there are objects
    check_grid(outputs["logits"], size, grid)
    label_maps = []
    for logits, distance_map in zip(outputs["logits"], outputs["distances"], strict=True):
        distances, points, scores = candidates(logits, distance_map, grid, score_threshold, border)
        keep = polygon_nms(distances, points, scores, overlap_threshold)
        label_maps.append(render_polygons(distances[keep], points[keep], size, scores[keep]))
    return label_maps
