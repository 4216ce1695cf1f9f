"""Spatial embeddings: each pixel predicts an offset to the centre of its object, and a tolerance for that offset.

Paper: Neven, De Brabandere, Proesmans, Van Gool, "Instance Segmentation by Jointly Optimizing Spatial Embeddings
    and Clustering Bandwidth", CVPR 2019, arXiv 1906.11109.
Idea: A pixel moved by its offset is an embedding in the image plane, and the embeddings of one object should fall into
    one Gaussian. Its bandwidth sigma is learned together with the offsets, through the IoU of the resulting mask: large
    objects get wide Gaussians, and no margin has to be chosen. A seed map predicts how close to its centre a pixel
    lands, so that objects are extracted one after the other, starting from the best seed.
Simplified: one class of objects, so one seed map. In the loss of a mask, pixels outside the object whose Gaussian is
    below e^-18 are ignored: they change it by less than the last digit of float32.
Shapes: images (B, 3, H, W) -> dict of `offsets` (B, 2, H, W), dy before dx, `sigma` (B, 1 or 2, H, W) and `seed`
    (B, 1, H, W), all raw; any H and W. `postprocess`: the dict -> B label maps (H, W) int32.
Quality: the loss equals worked examples and the paper's sums over all pixels; offsets, sigma and seeds made
    from a label map give the map back (its tests).
Course: 10-embeddings
Lab: 10_embeddings
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn

from segedu.backbones.erfnet import ERFNetDecoder, ERFNetEncoder
from segedu.losses.lovasz import lovasz_hinge_loss
from segedu.losses.reduction import full_precision
from segedu.ops.label_maps import relabel_sequential
from segedu.validation.label_maps import check_label_map
from segedu.validation.numbers import check_choice, check_number
from segedu.validation.tensors import check_floats, check_keys, check_no_nan, check_tensor_dict

UNIT = 1024.0  # pixels in one unit of length: an image of the paper, 2048 x 1024 pixels, is 2 wide and 1 high
SIGMA_SCALE = 10.0  # sigma's activation is exp(10 x), so that small outputs reach all sizes of objects
HALF_WIDTH = math.sqrt(2 * math.log(2))  # sigmas from the centre to where the Gaussian is 1/2
MAX_EXPONENT = 18.0  # a Gaussian below e^-18 counts as 0
KEYS = ("offsets", "sigma", "seed")


class SpatialEmbedding(nn.Module):
    """ERFNet with one encoder and two decoders: the paper's two branches.

    Keys of the state dict are those of the authors' network: `encoder...`, `decoders.0...` (offsets and sigma) and
    `decoders.1...` (seeds).

    Args:
        encoder: such as `ERFNetEncoder`; its last features go to both decoders.
        n_sigma: 1 for round Gaussians, 2 for one sigma along y and one along x.
        margin: pixels; initially, sigma is such that a pixel within this distance of a centre joins its object. The
            paper does not mention it; without it a small image is one object at first.
        unit: pixels in one unit of length, the largest offset along each axis.
        blocks: residual blocks in each stage of the decoders.
    """

    def __init__(
        self, encoder: ERFNetEncoder, n_sigma: int = 2, margin: float = 8.0, unit: float = UNIT, blocks: int = 2
    ) -> None:
        super().__init__()
        check_choice("n_sigma", n_sigma, (1, 2))
        check_number("margin", margin, exclusive=True)
        check_number("unit", unit, exclusive=True)
        self.encoder = encoder
        channels = (2 + n_sigma, 1)
        self.decoders = nn.ModuleList(ERFNetDecoder(n, encoder.channels, blocks) for n in channels)
        last = self.decoders[0].output_conv
        with torch.no_grad():  # initially, offsets are almost 0 and sigma is the same everywhere
            last.weight *= 1e-3
            last.bias[:2] = 0
            last.bias[2:] = math.log(math.log(2) * (unit / margin) ** 2) / SIGMA_SCALE

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.encoder(images)[-1]
        height, width = images.shape[-2:]
        # the encoder rounds sizes up; the surplus of the decoders is cropped on the right and at the bottom
        shape, seed = (decoder(features)[..., :height, :width] for decoder in self.decoders)
        # the trained network of the authors has x before y
        return {"offsets": shape[:, :2].flip(1), "sigma": shape[:, 2:].flip(1), "seed": seed}


def spatial_embedding_erfnet(in_channels: int = 3, **options: Any) -> SpatialEmbedding:
    """The paper's network with random weights. `options` are those of `SpatialEmbedding`."""
    return SpatialEmbedding(ERFNetEncoder(in_channels), **options)


def embed(offsets: Tensor, unit: float = UNIT) -> Tensor:
    """The embedding of each pixel: e = x + tanh(o), with the paper's activation.

    Args:
        offsets: (2, H, W) or (B, 2, H, W) raw, dy before dx.
        unit: pixels in one unit of length; pixel (y, x) lies at (y, x) / unit.

    Returns:
        Embeddings in units of length, the same shape.
    """
    check_floats("offsets", offsets, "2 H W" if isinstance(offsets, Tensor) and offsets.ndim == 3 else "B 2 H W")
    check_number("unit", unit, exclusive=True)
    return _grid(offsets, unit) + offsets.tanh()


def gaussian(embeddings: Tensor, centre: Tensor, sigma: Tensor) -> Tensor:
    """Membership of each embedding in the object of a centre: exp(-sum d^2 / (2 sigma^2)), each axis with its sigma.

    An object contains the pixels above 1/2: those within sigma sqrt(2 ln 2) = 1.18 sigma of its centre.

    Args:
        embeddings: (2, ...).
        centre: (2,).
        sigma: (1,) or (2,), above 0, in the unit of the embeddings.

    Returns:
        (...) in [0, 1].

    >>> gaussian(torch.tensor([[0.0, 0.0], [0.0, 2.0]]), torch.zeros(2), torch.tensor([1.0, 2.0]))
    tensor([1.0000, 0.6065])
    """
    if embeddings.ndim < 1 or embeddings.shape[0] != 2 or centre.shape != (2,) or sigma.shape not in {(1,), (2,)}:
        shapes = ", ".join(str(tuple(t.shape)) for t in (embeddings, centre, sigma))
        raise ValueError(f"embeddings, centre and sigma have shapes {shapes}, expected (2, ...), (2,) and (1,) or (2,)")
    if not bool((sigma > 0).all()):
        raise ValueError(f"sigma is {sigma.tolist()}, expected numbers above 0")
    return (-_exponent(embeddings, centre, 0.5 / sigma**2)).exp()


def decode_sigma(raw_sigma: Tensor) -> Tensor:
    """Convert raw sigma channels to sigma in units of length: 1 / (2 sigma^2) = exp(10 raw_sigma), always positive."""
    return (-SIGMA_SCALE * raw_sigma).exp().div(2).sqrt()


def offset_targets(label_map: Tensor, unit: float = UNIT) -> Tensor:
    """The ideal offsets: from each pixel to the mean of the pixels of its object.

    Args:
        label_map: (H, W) integers, 0 is background.
        unit: pixels in one unit of length; 1 gives pixels.

    Returns:
        (2, H, W) float32, dy before dx, after the tanh; 0 in the background.

    >>> offset_targets(torch.tensor([[5, 5, 5, 0]]), unit=1.0)
    tensor([[[ 0.,  0.,  0.,  0.]],
    <BLANKLINE>
            [[ 1.,  0., -1.,  0.]]])
    """
    index = relabel_sequential(label_map, (2,)).long()
    check_number("unit", unit, exclusive=True)
    coordinates = _grid(torch.zeros(2, *label_map.shape, dtype=torch.float64, device=label_map.device), 1.0)
    count = index.flatten().bincount().double()
    centres = torch.stack([index.flatten().bincount(axis.flatten()) for axis in coordinates]) / count  # (2, N)
    return ((centres[:, index] - coordinates) / unit * (index > 0)).float()


def spatial_embedding_targets(label_map: Tensor) -> dict[str, Tensor]:
    """The targets of `spatial_embedding_loss` for one image: `label_map` (H, W) as int32, 0 for the background."""
    labels = check_label_map("label_map", label_map, (2,))
    return {"label_map": labels.int() if labels.max() < 2**31 else relabel_sequential(labels)}


def spatial_embedding_loss(
    outputs: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    *,
    unit: float = UNIT,
    learned_centre: bool = True,
    mask_weight: float = 1.0,
    smooth_weight: float = 10.0,
    seed_weight: float = 1.0,
    foreground_weight: float = 1.0,
) -> dict[str, Tensor]:
    """Losses of masks, sigmas and seeds: mean over images, and within an image over objects (seeds: over pixels).

    Args:
        outputs: `offsets`, `sigma` and `seed` of `SpatialEmbedding`.
        targets: `label_map` (B, H, W), integers.
        unit: that of the network.
        learned_centre: whether a centre is the mean of an object's embeddings (the paper's better choice), through
            which gradients flow, or that of its pixels.
        mask_weight: of the Lovasz hinge loss of all pixels' Gaussians against the mask of the object.
        smooth_weight: of the squared distance of a pixel's raw sigma from its object's mean, because at test time the
            sigma of one seed is used for the whole object.
        seed_weight: of the squared distance of the seed map from the Gaussian, and from 0 in the background.
        foreground_weight: of a foreground pixel in the seed loss; a background pixel has 1.

    Returns:
        Scalars `mask`, `smooth` and `seed`, weighted, and `loss`, their sum. Without objects `mask` and `smooth`
        are 0.
    """
    offsets, raw_sigmas, seed = _full_precision_maps(outputs)
    check_keys("targets", targets, ("label_map",))
    label_maps = check_label_map("targets['label_map']", targets["label_map"], shape=seed[:, 0].shape)
    sums = []
    images = zip(embed(offsets, unit), raw_sigmas, seed.sigmoid(), label_maps, strict=True)
    for embeddings, raw_sigma, seeds, label_map in images:
        mask, smooth, seed_target = _object_losses(embeddings, raw_sigma, label_map, learned_centre, unit)
        weight = torch.where(label_map > 0, foreground_weight, 1.0)
        sums.append(torch.stack([mask, smooth, (weight * (seeds[0] - seed_target) ** 2).mean()]))
    mask, smooth, seed = torch.stack(sums).mean(0) * sums[0].new_tensor([mask_weight, smooth_weight, seed_weight])
    return {"mask": mask, "smooth": smooth, "seed": seed, "loss": mask + smooth + seed}


def _object_losses(
    embeddings: Tensor, raw_sigma: Tensor, label_map: Tensor, learned_centre: bool, unit: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses of the masks and sigmas of one image, means over objects, and the targets of its seeds (H, W)."""
    seed_target = torch.zeros_like(embeddings[0])
    labels = label_map[label_map > 0].unique()
    if not len(labels):
        return seed_target.sum(), seed_target.sum(), seed_target
    pixels = _grid(embeddings, unit)
    masks, smooths = [], []
    for label in labels:
        inside = label_map == label
        centre = (embeddings if learned_centre else pixels)[:, inside].mean(1)
        mean = raw_sigma[:, inside].mean(
            1
        )  # Paper: the mean of sigma. Here of its logarithm, which the network predicts.
        smooths.append(((raw_sigma[:, inside] - mean[:, None]) ** 2).sum(0).mean())
        exponent = _exponent(embeddings, centre, (SIGMA_SCALE * mean).exp())
        near = inside | (exponent < MAX_EXPONENT)
        phi = (-exponent[near]).exp()
        masks.append(lovasz_hinge_loss(2 * phi[None] - 1, inside[near][None], ignore_index=None))
        seed_target[inside] = (-exponent[inside]).exp().detach()  # no gradient from seeds to embeddings
    return torch.stack(masks).mean(), torch.stack(smooths).mean(), seed_target


def greedy_cluster(
    embeddings: Tensor,
    sigma: Tensor,
    seed: Tensor,
    *,
    seed_threshold: float = 0.5,
    foreground_threshold: float = 0.5,
    min_pixels: int = 1,
    min_free_fraction: float = 0.0,
) -> Tensor:
    """Extract objects one by one: the best seed that is left, and all free pixels whose Gaussian around it is > 1/2.

    Pixels of a rejected cluster are not used as seeds again, but another object may still take them.

    Args:
        embeddings: (2, H, W).
        sigma: (1, H, W) or (2, H, W), above 0, in the same unit.
        seed: (H, W) in [0, 1]; among equal seeds the first in raster order is used first.
        seed_threshold: an object starts only from a seed above this.
        foreground_threshold: only pixels with a seed above this join an object.
        min_pixels: smaller clusters are rejected.
        min_free_fraction: smallest fraction of the foreground pixels in a Gaussian that no earlier object has taken.
            The paper uses 0; 1/2 rejects the rim of an object that was left over by its own Gaussian.

    Returns:
        (H, W) int32 label map, 1 for the first object.

    >>> embeddings = torch.tensor([[[0.0, 0.0, 0.0, 0.0]], [[1.0, 1.5, 6.0, 6.0]]])
    >>> greedy_cluster(embeddings, torch.ones(1, 1, 4), torch.tensor([[0.8, 0.7, 0.6, 0.9]]))
    tensor([[2, 2, 1, 1]], dtype=torch.int32)
    """
    sizes = check_floats("seed", seed, "H W")
    check_floats("embeddings", embeddings, "2 H W", sizes)
    check_floats("sigma", sigma, "1|2 H W", sizes)
    for name, share in (
        ("seed_threshold", seed_threshold),
        ("foreground_threshold", foreground_threshold),
        ("min_free_fraction", min_free_fraction),
    ):
        check_number(name, share, maximum=1)
    check_number("min_pixels", min_pixels, minimum=1)
    if not all(bool(tensor.isfinite().all()) for tensor in (embeddings, sigma, seed)) or not bool((sigma > 0).all()):
        raise ValueError("embeddings, sigma or seed contains NaN, infinity or a sigma of 0, expected finite values")
    scores = seed.detach().cpu().double().numpy().ravel()
    pixels = np.flatnonzero(scores > foreground_threshold)
    labels = np.zeros(seed.numel(), dtype=np.int32)
    points = embeddings.detach().cpu().double().flatten(1).numpy().T[pixels]  # (M, 2)
    reach = sigma.detach().cpu().double().expand(2, *seed.shape).flatten(1).numpy().T[pixels] * HALF_WIDTH
    scores = scores[pixels]
    tree = cKDTree(points) if len(points) else None
    unassigned, may_seed = np.ones(len(pixels), dtype=bool), scores > seed_threshold
    count = 0
    for i in np.argsort(-scores, kind="stable"):
        if not (unassigned[i] and may_seed[i]):
            continue
        near = np.array(tree.query_ball_point(points[i], reach[i].max()), dtype=np.int64)
        inside = near[(((points[near] - points[i]) / reach[i]) ** 2).sum(1) < 1]
        members = inside[unassigned[inside]]
        if len(members) < min_pixels or len(members) < min_free_fraction * len(inside):
            may_seed[members] = False
            continue
        count += 1
        labels[pixels[members]] = count
        unassigned[members] = False
    return torch.from_numpy(labels.reshape(seed.shape)).to(seed.device)


def postprocess(outputs: Mapping[str, Tensor], unit: float = UNIT, **options: Any) -> list[Tensor]:
    """Label maps of a batch.

    Args:
        outputs: `offsets`, `sigma` and `seed` of `SpatialEmbedding`.
        unit: that of the network.
        **options: of `greedy_cluster`.

    Returns:
        B label maps (H, W) int32, on the device of the outputs.
    """
    offsets, raw_sigmas, seed = _full_precision_maps(outputs)
    check_no_nan("outputs", outputs, KEYS)
    raw_sigmas = raw_sigmas.double().clamp(-30, 30)  # avoids a sigma of 0 or infinity
    parts = zip(embed(offsets.double(), unit), decode_sigma(raw_sigmas), seed.double().sigmoid()[:, 0], strict=True)
    return [greedy_cluster(*image, **options) for image in parts]


def _grid(like: Tensor, unit: float) -> Tensor:
    """Coordinates (2, H, W) of all pixels, y before x, with the dtype and device of `like` (..., H, W)."""
    axes = [torch.arange(size, dtype=like.dtype, device=like.device) / unit for size in like.shape[-2:]]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def _exponent(embeddings: Tensor, centre: Tensor, precision: Tensor) -> Tensor:
    """Sum over both axes of d^2 / (2 sigma^2), where `precision` (1,) or (2,) is 1 / (2 sigma^2)."""
    distance = embeddings - centre.reshape(-1, *[1] * (embeddings.ndim - 1))
    return (distance**2 * precision.reshape(-1, *[1] * (embeddings.ndim - 1))).sum(0)


def _full_precision_maps(outputs: Mapping[str, Tensor]) -> list[Tensor]:
    check_tensor_dict("outputs", outputs, offsets="B 2 H W", sigma="B 1|2 H W", seed="B 1 H W")
    return [full_precision(outputs[key]) for key in KEYS]
