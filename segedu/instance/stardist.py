"""StarDist: every pixel says how far its object reaches along rays, and how sure it is to lie inside of one.

Paper: Schmidt, Weigert, Broaddus, Myers, "Cell Detection with Star-convex Polygons", MICCAI 2018, arXiv 1806.03535.
    The term for the background: Weigert, Schmidt, Haase, Sugawara, Myers, WACV 2020, arXiv 1908.03636.
Idea: A box is a poor shape for a cell, and crowded boxes suppress each other. A polygon with a corner on each of 32
    rays fits most nuclei, and a pixel in the middle of a nucleus sees all of it. So a U-Net predicts, at each pixel,
    the polygon and an object probability (how central the pixel is); of polygons that overlap the best one stays.
Simplified: pixels that are not labelled are not left out of the loss; large images are not cut into tiles.
Shapes: images (B, C, H, W) -> `logits` (B, 1, h, w) and `distances` (B, R, h, w), h = ceil(H / grid).
    `postprocess`: outputs -> B label maps (H, W) int32.
Quality: label maps turned into 32 distances at their objects' centres and painted again: mean IoU 0.962 on the 125
    nuclei of StarDist's sample image; 20,000 candidates are suppressed in 0.4 times the CPU time of StarDist's C++.
    `segedu.weights.load("cells_stardist")`, 22 CPU-s of training: instance accuracy 0.986 at IoU 0.5 on drawn
    nuclei, 0.905 at 0.7; Gaussian, Otsu, watershed: 0.440 and 0.302 (tests/benchmarks/cell_weights.py).
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
from segedu.validation.images import check_images
from segedu.validation.label_maps import check_label_map
from segedu.validation.tensors import Sizes, check_maps, check_no_nan

LEAST_DISTANCE = 1e-3  # in pixels: networks also predict distances below 0


def star_distances(label_map: Tensor, n_rays: int = 32, grid: Sequence[int] = (1, 1)) -> Tensor:
    """Distance from each pixel to the border of its object along each ray.

    One walks in steps of length 1 until a step leaves the object, or the image. The border is taken to lie half a
    pixel, along the faster axis, before the pixel that was reached: one step back and `0.5 / max(|dy|, |dx|)` on.

    Args:
        label_map: (H, W) integers, 0 is background.
        n_rays: R; ray k has the angle 2 pi k / R and points to (y, x) = (sin, cos).
        grid: distances are computed at every grid-th pixel of each axis, from pixel 0.

    Returns:
        (R, h, w) float32 in pixels, h = ceil(H / grid); 0 in the background.

    Raises:
        TypeError: `label_map` is no tensor of integers.
        ValueError: another shape, a negative label, fewer than 3 rays, or a grid below 1.

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
    """Distance of each pixel to the nearest one that is not of its object, over the largest such of the object.

    The image's border is no border of an object, but for one that fills the whole image.

    Args:
        label_map: (H, W) or (D, H, W) integers, 0 is background.
        spacing: size of a pixel along each axis. None: 1.

    Returns:
        The same shape, float32, in [0, 1]: 0 in the background, 1 in the middle of every object.

    Raises:
        TypeError: not a tensor of integers.
        ValueError: another shape, a negative label, or a spacing that is not above 0.

    >>> object_probability(torch.tensor([[0, 5, 5, 5, 0]]))
    tensor([[0.0000, 0.5000, 1.0000, 0.5000, 0.0000]])
    """
    numbers = relabel_sequential(label_map).numpy(force=True)
    if spacing is not None and (len(spacing) != label_map.ndim or min(spacing) <= 0):
        raise ValueError(f"spacing is {tuple(spacing)}, expected {label_map.ndim} numbers above 0")
    probability = np.zeros(numbers.shape, np.float32)
    alone = bool((numbers == 1).all())
    for number, box in enumerate(ndimage.find_objects(numbers), start=1):
        grown = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)
        inside = np.pad(numbers[grown] == number, int(alone))
        distance = ndimage.distance_transform_edt(inside, sampling=spacing)
        distance = distance[(slice(1, -1),) * numbers.ndim] if alone else distance
        probability[grown] += (distance / distance.max()).astype(np.float32)
    return torch.from_numpy(probability).to(label_map.device)


def stardist_targets(label_map: Tensor, n_rays: int = 32, grid: Sequence[int] = (2, 2)) -> dict[str, Tensor]:
    """What the network is to predict for one image.

    Args:
        label_map: (H, W) integers, 0 is background.
        n_rays: R.
        grid: step between the pixels that predict, along each axis.

    Returns:
        `probability` (1, h, w) and `distances` (R, h, w), float32, h = ceil(H / grid).

    Raises:
        TypeError: as `star_distances`.
        ValueError: as `star_distances`.
    """
    distances = star_distances(label_map, n_rays, grid)
    return {"probability": object_probability(label_map)[None, :: grid[0], :: grid[1]], "distances": distances}


class StarDist(nn.Module):
    """Backbone, one more convolution, and two heads: is there an object, and how far does it reach along each ray?

    Args:
        backbone: maps images to features on its `grid`; has `in_channels`, `out_channels`, `grid`, and `step`, the
            sizes that it can take. Three numbers in `grid` mean volumes.
        n_rays: R.
        width: channels of the convolution before the heads.
        normalize: what the images go through first, such as `percentile_normalize`. None: nothing.
    """

    def __init__(
        self, backbone: nn.Module, n_rays: int = 32, width: int = 128, normalize: Callable | None = None
    ) -> None:
        super().__init__()
        if n_rays < 3:
            raise ValueError(f"n_rays is {n_rays}, expected at least 3")
        conv = nn.Conv2d if len(backbone.grid) == 2 else nn.Conv3d
        self.backbone, self.n_rays, self.grid, self.normalize = backbone, n_rays, backbone.grid, normalize
        self.features = conv(backbone.out_channels, width, kernel_size=3, padding=1)
        self.prob = conv(width, 1, kernel_size=1)
        self.dist = conv(width, n_rays, kernel_size=1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Predict from images (B, C, H, W), or volumes (B, C, D, H, W), of any size.

        Raises:
            TypeError: the images are no floating-point numbers.
            ValueError: the shape is wrong.
        """
        check_images(images, self.backbone.in_channels, axes=len(self.grid))
        size = images.shape[2:]
        features = images if self.normalize is None else self.normalize(images)
        for axis, step in enumerate(self.backbone.step, start=2):  # mirrored at the far end, as StarDist's code does
            index = np.pad(np.arange(images.shape[axis]), (0, -images.shape[axis] % step), mode="reflect")
            features = features.index_select(axis, torch.from_numpy(index).to(images.device))
        features = F.relu(self.features(self.backbone(features)))
        kept = (..., *(slice(-(-side // step)) for side, step in zip(size, self.grid, strict=True)))
        # An axis of channels for both: they are multiplied in the loss, and have 2 or 3 axes of space behind it.
        return {"logits": self.prob(features)[kept], "distances": self.dist(features)[kept]}


def official_stardist(in_channels: int = 1, normalize: Callable | None = None) -> StarDist:
    """The network of the published weights: 32 rays on a grid of 2 x 2, 1.4 million weights.

    Args:
        in_channels: C of the images; 3 for `2D_versatile_he`.
        normalize: what the images go through first. None: `percentile_normalize`, with which these were trained.

    Returns:
        The model, its weights drawn at random.
    """
    return StarDist(StarDistUNet(in_channels), normalize=percentile_normalize if normalize is None else normalize)


def stardist_loss(
    outputs: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    distance_weight: float = 0.2,
    background_weight: float = 1e-4,
) -> dict[str, Tensor]:
    """Cross-entropy of the object probability, and absolute errors of the distances where there are objects.

    Errors of distances weigh as much as the pixel's object probability: pixels in the middle of an object, whose
    polygons survive, count most. In the background distances are drawn to 0, very gently.

    Args:
        outputs: `logits` (B, 1, h, w) and `distances` (B, R, h, w), or with one axis more for volumes.
        targets: `probability` (B, 1, h, w) and `distances` (B, R, h, w).
        distance_weight: of both terms of distances.
        background_weight: of distances in the background.

    Returns:
        `object`, `distance` and `background`, scalars, and `loss`, their sum.

    Raises:
        TypeError: outputs or targets are no dicts of floating-point numbers.
        ValueError: a key is missing, or shapes differ.
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
    code also cuts all corners down to whole pixels: in a crowd of 20,000 it decides on 3 candidates otherwise.

    Args:
        distances: (N, R) in pixels, at least 0.
        points: (N, 2), (y, x).
        scores: (N,). Of equal ones the first comes first.
        overlap_threshold: a polygon goes if it overlaps a better one that stays by more than this.

    Returns:
        (K,) int64: which stay, the highest score first.

    Raises:
        TypeError: as `star_polygons`.
        ValueError: as `star_polygons`; scores of another shape or NaN; a threshold outside [0, 1].

    >>> polygon_nms(torch.full((3, 8), 4.0), torch.tensor([[9, 9], [9, 10], [9, 30]]), torch.tensor([0.5, 0.9, 0.7]))
    tensor([1, 2])
    """
    order = order_of_scores(scores, len(distances))
    return order[suppress_polygons(distances[order], points[order], overlap_threshold).to(order.device)]


def order_of_scores(scores: Tensor, count: int) -> Tensor:
    """Indices from the highest score to the lowest; of equal ones the first comes first.

    Args:
        scores: (N,).
        count: the N that is expected.

    Returns:
        (N,) int64.

    Raises:
        TypeError: not a tensor.
        ValueError: another shape, or NaN.
    """
    if not isinstance(scores, Tensor):
        raise TypeError(f"scores has type {type(scores).__name__}, expected a tensor of {count} numbers")
    if scores.shape != (count,) or torch.isnan(scores).any():
        what = "a NaN" if scores.shape == (count,) else f"shape {tuple(scores.shape)}"
        raise ValueError(f"scores has {what}, expected {count} numbers, one a candidate")
    return scores.argsort(descending=True, stable=True)


def check_pair(name: str, given: Mapping[str, Tensor], first: str, sizes: Sizes | None = None) -> Sizes:
    """Refuse what is not a dict of distances and of what `first` names, on the same pixels or voxels.

    Args:
        name: of the argument.
        given: its value.
        first: the key that it has besides `distances`.
        sizes: lengths of axes that are known already.

    Returns:
        The lengths of its axes.

    Raises:
        TypeError: no dict of floating-point numbers.
        ValueError: a key is missing, or the tensors do not fit each other.
    """
    logits = given.get(first) if isinstance(given, Mapping) else None
    space = "d h w" if isinstance(logits, Tensor) and logits.ndim == 5 else "h w"
    return check_maps(name, given, sizes, **{first: f"B 1 {space}", "distances": f"B R {space}"})


def check_grid(logits: Tensor, size: Sequence[int], grid: Sequence[int]) -> None:
    """Refuse outputs that are not those of images, or volumes, of a size.

    Args:
        logits: (B, 1, h, w), or (B, 1, d, h, w).
        size: H and W, or D, H and W.
        grid: step between the pixels that predict, along each axis.

    Raises:
        ValueError: the numbers of axes differ, the grid is below 1, or h is not ceil(H / grid).
    """
    shape = tuple(logits.shape[2:])
    if not len(size) == len(grid) == len(shape) or min(grid) < 1:
        raise ValueError(f"size is {tuple(size)} and grid {tuple(grid)}, expected {len(shape)} numbers of at least 1")
    expected = tuple(-(-side // step) for side, step in zip(size, grid, strict=True))
    if shape != expected:
        noun = "pixels" if len(shape) == 2 else "voxels"
        raise ValueError(f"outputs has {shape} {noun}, expected {expected} of {tuple(size)} on the grid {tuple(grid)}")


def render_polygons(distances: Tensor, points: Tensor, size: tuple[int, int], scores: Tensor | None = None) -> Tensor:
    """Paint star polygons into a label map; where two overlap, the one with the higher score is seen.

    Args:
        distances: (N, R) in pixels, at least 0.
        points: (N, 2), (y, x).
        size: H and W.
        scores: (N,). None: the later one is seen.

    Returns:
        (H, W) int32: polygon n has the label n + 1, 0 is background.

    Raises:
        TypeError: as `star_polygons`.
        ValueError: as `star_polygons`, scores of another shape, or a size below 1.

    >>> render_polygons(torch.full((2, 4), 1.0), torch.tensor([[1, 1], [1, 2]]), (3, 4), torch.tensor([0.9, 0.8]))
    tensor([[0, 1, 2, 0],
            [1, 1, 1, 2],
            [0, 1, 2, 0]], dtype=torch.int32)
    """
    if scores is not None and scores.shape != (len(points),):
        raise ValueError(f"scores has shape {tuple(scores.shape)}, expected {(len(points),)}")
    order = torch.arange(len(points), device=points.device) if scores is None else scores.argsort(stable=True)
    painted = rasterize_polygons(distances[order], points[order], size)
    return torch.cat([order.new_zeros(1), order + 1]).int()[painted.long()]


def candidates(
    logits: Tensor, distances: Tensor, grid: Sequence[int], score_threshold: float, border: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """The polygons of one image that are likely enough.

    Args:
        logits: (1, h, w), or (1, d, h, w).
        distances: (R, h, w), or (R, d, h, w), in pixels.
        grid: step between the pixels that predict, along each axis.
        score_threshold: a pixel is a candidate if its object probability is above this.
        border: so many pixels of the grid along each side are no candidates.

    Returns:
        Distances (N, R), not below 0.001; points (N, 2) or (N, 3) in pixels of the image; object probabilities (N,).

    Raises:
        ValueError: `grid` has another number of axes, or `score_threshold` is outside [0, 1].
    """
    scores = logits[0].sigmoid()
    if len(grid) != scores.ndim or not 0 <= score_threshold <= 1:
        what = f"grid is {tuple(grid)} and score_threshold {score_threshold}"
        raise ValueError(f"{what}, expected {scores.ndim} numbers and one in [0, 1]")
    found = scores > score_threshold
    for axis in range(scores.ndim) if border else ():
        found.movedim(axis, 0)[:border] = False
        found.movedim(axis, 0)[-border:] = False
    points = found.nonzero() * torch.tensor(tuple(grid), device=found.device)
    return distances.movedim(0, -1)[found].clamp(min=LEAST_DISTANCE), points, scores[found]


@torch.no_grad()
def postprocess(
    outputs: Mapping[str, Tensor],
    size: tuple[int, int],
    grid: Sequence[int] = (2, 2),
    score_threshold: float = 0.5,
    overlap_threshold: float = 0.4,
    border: int = 0,
) -> list[Tensor]:
    """Label maps: likely polygons, of those that overlap the best, painted.

    Args:
        outputs: `logits` (B, 1, h, w) and `distances` (B, R, h, w), of `StarDist.forward`.
        size: H and W of the images.
        grid: of the model.
        score_threshold: least object probability of a candidate. Published weights come with one of their own.
        overlap_threshold: see `polygon_nms`.
        border: so many pixels of the grid along each side are no candidates; StarDist's code has 2, which loses what
            is cut there, and 0 keeps it.

    Returns:
        B label maps (H, W) int32, on the device of the outputs; labels are 1, 2, ... from the most likely object on.

    Raises:
        TypeError: `outputs` is no dict of floating-point numbers.
        ValueError: a key is missing, a shape does not fit, a logit is NaN, a distance of a candidate is not finite, or
            a threshold is outside [0, 1].
    """
    check_pair("outputs", outputs, "logits")
    check_no_nan("outputs", outputs, ("logits",))  # distances count where there are objects only
    check_grid(outputs["logits"], size, grid)
    label_maps = []
    for logits, reach in zip(outputs["logits"], outputs["distances"], strict=True):
        distances, points, scores = candidates(logits, reach, grid, score_threshold, border)
        best = polygon_nms(distances, points, scores, overlap_threshold)
        label_maps.append(render_polygons(distances[best], points[best], size, scores[best]))
    return label_maps
