"""nnU-Net: a plain U-Net, and rules that fit everything around it to the data.

Paper: Isensee, Jaeger, Kohl, Petersen, Maier-Hein, "nnU-Net: a self-configuring method for deep learning-based
    biomedical image segmentation", Nature Methods 2021, arXiv 1904.08128, with its supplement.
Idea: Which net is used matters less than spacing, patch size, normalisation and sampling. These are computed from a
    fingerprint of the training set (`nnunet_plan`). The rest is fixed: Dice and cross-entropy on several levels,
    patches of which a third show foreground, overlapping patches with Gaussian weights, mirrored and averaged.
Simplified: of the augmentations only mirroring, brightness, contrast and noise; no folds, no ensemble, no removal of
    small components. In all else the defaults are the paper's.
Shapes: images (B, C, D, H, W) -> logits (B, K, D, H, W), any size; (B, C, H, W) in a plan on slices.
    `predict_volume`: a dict of `image` (C, D, H, W) and `spacing` (3,) -> labels (D, H, W) in its own voxels.
Quality: volume: Dice 0.8990, the least of three seeds (thresholds 0.31), 89.9 CPU-s.
Course: 16-promptable
Lab: 16_promptable
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn

from segedu.losses.cross_entropy import cross_entropy
from segedu.losses.dice import dice_loss
from segedu.semantic.nnunet.plan import Plan
from segedu.semantic.nnunet.volume import (
    check_spacing,
    crop_to_nonzero,
    new_shape,
    normalize_ct,
    normalize_z,
    resample,
    resample_classes,
    resample_labels,
    thick_axis,
)
from segedu.semantic.unet3d import Parts, Size, UNet3D

MIN_WEIGHT = 1e-3  # of a voxel in a corner of a patch; without it a sum of weights could round to 0


def _up_to_skip(conv: type[nn.Module], below: int, skip: int, stride: Size) -> nn.Module:
    return conv(below, skip, stride, stride)


_LEAKY = partial(nn.LeakyReLU, 0.01, inplace=True)
# Instance norm, because batches of two volumes have no useful statistics; strides in place of pooling.
VOLUME_PARTS = Parts(
    conv=nn.Conv3d,
    normalize=partial(nn.InstanceNorm3d, eps=1e-5, affine=True),
    activate=_LEAKY,
    pool=None,
    up=partial(_up_to_skip, nn.ConvTranspose3d),
)
SLICE_PARTS = Parts(
    axes=2,
    conv=nn.Conv2d,
    normalize=partial(nn.InstanceNorm2d, eps=1e-5, affine=True),
    activate=_LEAKY,
    pool=None,
    up=partial(_up_to_skip, nn.ConvTranspose2d),
)


def build_network(plan: Plan, parts: Parts | None = None) -> UNet3D:
    """The U-Net of a plan, two convolutions a level, padded.

    Paper: deep supervision on all levels but the two lowest.

    Args:
        plan: from `make_plan`.
        parts: what the levels are made of; None is instance norm and leaky ReLU, as in the paper.

    Returns:
        The net, with weights drawn after He as the paper does.

    Raises:
        ValueError: the plan's patch is so small that no axis is pooled: a U has two levels at least.
    """
    if len(plan.widths) < 2:
        raise ValueError(f"plan has a patch of {plan.patch_size}, expected two axes of 8 voxels or one of 12 to pool")
    if parts is None:
        parts = VOLUME_PARTS if len(plan.patch_size) == 3 else SLICE_PARTS
    net = UNet3D(
        in_channels=len(plan.ct),
        num_classes=plan.num_classes,
        widths=[(width, width) for width in plan.widths],
        kernels=plan.topology.kernels,
        strides=plan.topology.strides,
        padding=True,
        outputs=max(len(plan.widths) - 2, 1),
        parts=parts,
    )
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            nn.init.kaiming_normal_(module.weight, a=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return net


def nnunet_loss(outputs: Mapping[str, Any] | Tensor, target: Tensor, batch_dice: bool = False) -> dict[str, Tensor]:
    """Cross-entropy plus Dice of the foreground, on every level that gives logits.

    A level weighs half as much as the next finer one, and all weights sum to 1. The target of a coarser level is
    the nearest voxel's class.

    Args:
        outputs: of `forward_with_aux`, or logits (B, K, D, H, W) of the finest level alone.
        target: (B, D, H, W) int64; 255 is ignored.
        batch_dice: one Dice for all patches of a batch together, as the paper has it on slices.

    Returns:
        `cross_entropy`, `dice` and their sum `loss`, each over all levels.

    Raises:
        TypeError: `outputs` is neither a dict nor a tensor, or `target` not int64.
        ValueError: `out` or `aux` is missing, or the shape of `target` is not that of the finest logits.
    """
    _check_outputs(outputs, target)
    levels = [outputs] if isinstance(outputs, Tensor) else [outputs["out"], *outputs["aux"]]
    shares = torch.tensor([0.5**level for level in range(len(levels))])
    pixels = regions = 0.0
    for share, logits in zip((shares / shares.sum()).tolist(), levels, strict=True):
        coarse = F.interpolate(target[:, None].double(), logits.shape[2:], mode="nearest-exact")[:, 0].long()
        pixels = pixels + share * cross_entropy(logits, coarse)
        regions = regions + share * dice_loss(
            logits, coarse, smooth=1e-5, per_image=not batch_dice, include_background=False
        )
    return {"cross_entropy": pixels, "dice": regions, "loss": pixels + regions}


def preprocess(volume: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """Crop, normalise and resample one volume as the plan says.

    Normalisation comes before resampling, so that a mask of voxels that are not 0 still fits its image.

    Args:
        volume: dict of `image` (C, D, H, W), `spacing` (3,) in mm and, for training, `semantic` (D, H, W).
        plan: from `make_plan`.

    Returns:
        Dict of `image` (C, D', H', W') float32 and `semantic` int64 where it was given, at the plan's spacing, and
        `window`, the crop, and `thick`, the axis resampled slice by slice: what the way back needs.

    Raises:
        ValueError: the image has not the plan's channels, has an empty axis or a voxel that is no finite number, the
            spacing is not above 0, or the labels have another shape.
    """
    image = np.asarray(volume["image"], dtype=np.float64)
    if image.ndim != 4 or len(image) != len(plan.ct):
        raise ValueError(f"image has shape {image.shape}, expected ({len(plan.ct)}, D, H, W)")
    if not np.isfinite(image).all():  # a spline would spread one such voxel over all others
        raise ValueError(f"image has {(~np.isfinite(image)).sum()} voxels that are no number, expected finite ones")
    if "semantic" in volume and np.shape(volume["semantic"]) != image.shape[1:]:
        raise ValueError(f"semantic has shape {np.shape(volume['semantic'])}, expected {image.shape[1:]} as image has")
    window = crop_to_nonzero(image)
    image = image[(slice(None), *window)]
    mask = ndimage.binary_fill_holes((image != 0).any(axis=0)) if plan.masked else None
    channels = [
        normalize_ct(channel, **asdict(numbers)) if is_ct else normalize_z(channel, mask)
        for channel, is_ct, numbers in zip(image, plan.ct, plan.intensities, strict=True)
    ]
    old = np.asarray(volume["spacing"], dtype=float)
    check_spacing(old)
    new = list(plan.spacing)
    if plan.slice_axis is not None:
        new.insert(plan.slice_axis, old[plan.slice_axis])
    shape, thick = new_shape(image.shape[1:], old, new), thick_axis(old, new)
    done = {"window": window, "thick": thick}
    done["image"] = np.stack([resample(channel, shape, thick).astype(np.float32) for channel in channels])
    if "semantic" in volume:
        labels = np.asarray(volume["semantic"])[window]
        done["semantic"] = resample_labels(labels, shape, thick).astype(np.int64)
    return done


def importance(patch_size: Sequence[int]) -> Tensor:
    """How much a voxel of a patch counts: a Gaussian of sigma 1/8 of the patch, since nets err at borders.

    Args:
        patch_size: voxels along each axis.

    Returns:
        Weights of that shape, float64, 1e-3 at least.

    >>> importance((3,))
    tensor([0.0286, 1.0000, 0.0286], dtype=torch.float64)
    """
    weights = torch.ones((), dtype=torch.float64)
    for size in patch_size:
        place = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
        weights = weights[..., None] * torch.exp(-(place**2) / (2 * (size / 8) ** 2))
    return weights.clamp(min=MIN_WEIGHT)


def patch_starts(size: int, patch: int) -> list[int]:
    """Where patches begin along an axis: steps of half a patch at most, evenly spread.

    Args:
        size: voxels of the volume, at least those of the patch.
        patch: voxels of a patch.

    Returns:
        Starts, the first 0 and the last `size - patch`; [0] for a smaller volume.

    Raises:
        ValueError: a number is below 1.

    >>> patch_starts(110, 64), patch_starts(64, 64)
    ([0, 23, 46], [0])
    """
    if size < 1 or patch < 1:
        raise ValueError(f"size is {size} and patch {patch}, expected at least 1")
    steps = math.ceil((size - patch) / (patch / 2))
    return [round((size - patch) / steps * i) for i in range(steps + 1)] if steps > 0 else [0]


@torch.no_grad()
def predict_patches(
    model: Callable[[Tensor], Tensor], image: Tensor, patch_size: Sequence[int], mirror: bool = True
) -> Tensor:
    """Sliding window: overlapping patches, each mirrored along all axes, averaged with Gaussian weights.

    Args:
        model: maps (1, C, *patch_size) to (1, K, *patch_size). In eval mode.
        image: (C, D, H, W), or (C, H, W) for a model of slices; a volume smaller than a patch gets zeros around.
        patch_size: voxels along each axis.
        mirror: average over all mirrorings, 8 in a volume: eight times the work.

    Returns:
        Logits (K, D, H, W).

    Raises:
        ValueError: `image` and `patch_size` do not have the same axes, or the model gives another size.
    """
    if image.ndim != 1 + len(patch_size) or 0 in image.shape:
        axes = ", ".join("DHW"[-len(patch_size) :])
        raise ValueError(f"image has shape {tuple(image.shape)}, expected (C, {axes}) with no empty axis")
    size = image.shape[1:]
    missing = [max(patch - n, 0) for n, patch in zip(size, patch_size, strict=True)]
    image = F.pad(image, [n for m in reversed(missing) for n in (m // 2, m - m // 2)])
    weights = importance(patch_size).to(image)
    total, logits = torch.zeros(image.shape[1:]).to(image), None
    grid = [patch_starts(n, patch) for n, patch in zip(image.shape[1:], patch_size, strict=True)]
    for corner in itertools.product(*grid):
        place = tuple(slice(start, start + n) for start, n in zip(corner, patch_size, strict=True))
        here = _mirrored(model, image[(slice(None), *place)][None], mirror)[0]
        if tuple(here.shape[1:]) != tuple(patch_size):
            raise ValueError(f"model gives {tuple(here.shape)}, expected (K, ...) of patch_size {tuple(patch_size)}")
        if logits is None:
            logits = here.new_zeros((len(here), *image.shape[1:]))
        logits[(slice(None), *place)] += weights * here
        total[place] += weights
    inner = tuple(slice(m // 2, m // 2 + n) for m, n in zip(missing, size, strict=True))
    return (logits / total)[(slice(None), *inner)]


def _mirrored(model: Callable[[Tensor], Tensor], patch: Tensor, mirror: bool) -> Tensor:
    axes = range(2, patch.ndim) if mirror else ()
    flips = [chosen for n in range(len(axes) + 1) for chosen in itertools.combinations(axes, n)]
    return sum(model(patch.flip(flip)).flip(flip) for flip in flips) / len(flips)


def predict_volume(model: nn.Module, volume: Mapping[str, Any], plan: Plan, mirror: bool = True) -> np.ndarray:
    """The whole way: preprocess, predict, and back to the volume's own voxels.

    Args:
        model: the plan's net, put into eval mode here.
        volume: dict of `image` (C, D, H, W) and `spacing` (3,) in mm.
        plan: from `make_plan`.
        mirror: see `predict_patches`.

    Returns:
        Labels (D, H, W), int64; background outside the crop.
    """
    model.eval()
    done = preprocess({"image": volume["image"], "spacing": volume["spacing"]}, plan)
    image = torch.from_numpy(done["image"]).to(next(model.parameters()))
    if plan.slice_axis is None:
        logits = predict_patches(model, image, plan.patch_size, mirror)
    else:
        across = plan.slice_axis + 1
        slices = [predict_patches(model, one, plan.patch_size, mirror) for one in image.unbind(across)]
        logits = torch.stack(slices, dim=across)
    labels = np.zeros(np.asarray(volume["image"]).shape[1:], dtype=np.int64)
    inside = labels[done["window"]]
    inside[...] = resample_classes(_at_least_float32(logits).softmax(dim=0).cpu().numpy(), inside.shape, done["thick"])
    return labels


def _at_least_float32(logits: Tensor) -> Tensor:
    """NumPy knows no bfloat16, and splines no float16."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _check_outputs(outputs: Mapping[str, Any] | Tensor, target: Tensor) -> None:
    if not isinstance(outputs, Tensor | Mapping):
        raise TypeError(f"outputs has type {type(outputs).__name__}, expected logits or the dict of `forward_with_aux`")
    if isinstance(outputs, Mapping) and not {"out", "aux"} <= set(outputs):
        raise ValueError(f"outputs has the keys {sorted(outputs)}, expected out and aux")
    finest = outputs if isinstance(outputs, Tensor) else outputs["out"]
    expected = (len(finest), *finest.shape[2:])
    if target.shape != expected:  # coarser levels get theirs by resizing, which would make any size fit
        raise ValueError(f"target has shape {tuple(target.shape)}, expected {expected} as the finest logits have")
    if target.dtype != torch.int64:
        raise TypeError(f"target has dtype {target.dtype}, expected torch.int64 (use .long())")
