"""nnU-Net: a standard U-Net, with rules that configure everything around it from the data.

Paper: Isensee, Jaeger, Kohl, Petersen, Maier-Hein, "nnU-Net: a self-configuring method for deep learning-based
    biomedical image segmentation", Nature Methods 2021, arXiv 1904.08128, with its supplement.
Idea: The choice of network matters less than spacing, patch size, normalisation and sampling. These are computed from
    a fingerprint of the training set (`nnunet_plan`). The rest is fixed: Dice and cross-entropy on several levels,
    a third of the patches centred on foreground, and prediction on overlapping, mirrored patches that are averaged with
    Gaussian weights.
Simplified: the only augmentations are mirroring, brightness, contrast and noise. There is no cross-validation, no
    ensemble and no removal of small components. All other defaults are the paper's.
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
from segedu.validation.numbers import check_integers
from segedu.validation.tensors import check_dtype, check_keys

MIN_WEIGHT = 1e-3  # of a voxel in a corner of a patch; without it, a sum of weights could round to 0


def _up_to_skip(conv: type[nn.Module], in_channels: int, skip_channels: int, stride: Size) -> nn.Module:
    return conv(in_channels, skip_channels, stride, stride)


_LEAKY = partial(nn.LeakyReLU, 0.01, inplace=True)
# Instance normalisation, because batches of two volumes have no useful statistics; strides instead of pooling.
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
    """Build the U-Net of a plan, with two padded convolutions per level and weights initialised after He.

    As in the paper, all levels but the two lowest have deep supervision.

    Args:
        plan: a plan from `make_plan`.
        parts: the layers; None is instance normalisation and leaky ReLU, as in the paper.
    """
    if len(plan.widths) < 2:
        raise ValueError(f"plan has patch_size {plan.patch_size}, expected two axes of 8 voxels or one of 12 to pool")
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
    """Cross-entropy plus Dice of the foreground, on every level that outputs logits.

    The weight of a level is half that of the next finer level, and all weights sum to 1. The target of a coarser level
    is the class of the nearest voxel.

    Args:
        outputs: output of the network's `forward_with_aux`, or only the logits (B, K, D, H, W) of the finest level.
        target: (B, D, H, W) int64; 255 is ignored.
        batch_dice: whether to compute one Dice for all patches of a batch together, as the paper does for slices.

    Returns:
        `cross_entropy`, `dice` and their sum `loss`, each over all levels.
    """
    _check_outputs(outputs, target)
    levels = [outputs] if isinstance(outputs, Tensor) else [outputs["out"], *outputs["aux"]]
    weights = torch.tensor([0.5**level for level in range(len(levels))])
    pixel_loss = region_loss = 0.0
    for weight, logits in zip((weights / weights.sum()).tolist(), levels, strict=True):
        resized = F.interpolate(target[:, None].double(), logits.shape[2:], mode="nearest-exact")[:, 0].long()
        pixel_loss = pixel_loss + weight * cross_entropy(logits, resized)
        region_loss = region_loss + weight * dice_loss(
            logits, resized, smooth=1e-5, per_image=not batch_dice, include_background=False
        )
    return {"cross_entropy": pixel_loss, "dice": region_loss, "loss": pixel_loss + region_loss}


def preprocess(volume: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """Crop, normalise and resample one volume according to the plan.

    Normalisation precedes resampling, so that a mask of the nonzero voxels still fits its image.

    Args:
        volume: dict of `image` (C, D, H, W), `spacing` (3,) in mm and, for training, `semantic` (D, H, W).
        plan: a plan from `make_plan`.

    Returns:
        Dict of `image` (C, D', H', W') float32 and, if the volume has it, `semantic` int64, both at the plan's spacing;
        and `window`, the crop, and `thick`, the axis resampled slice by slice, to undo the steps.
    """
    image = np.asarray(volume["image"], dtype=np.float64)
    if image.ndim != 4 or len(image) != len(plan.ct):
        raise ValueError(f"image has shape {image.shape}, expected ({len(plan.ct)}, D, H, W)")
    if not np.isfinite(image).all():  # a spline would spread one such voxel over all others
        raise ValueError(f"image has {(~np.isfinite(image)).sum()} NaN or infinite voxels, expected finite voxels")
    if "semantic" in volume and np.shape(volume["semantic"]) != image.shape[1:]:
        raise ValueError(f"semantic has shape {np.shape(volume['semantic'])}, expected {image.shape[1:]} as image has")
    window = crop_to_nonzero(image)
    image = image[(slice(None), *window)]
    mask = ndimage.binary_fill_holes((image != 0).any(axis=0)) if plan.masked else None
    channels = [
        normalize_ct(channel, **asdict(intensities)) if is_ct else normalize_z(channel, mask)
        for channel, is_ct, intensities in zip(image, plan.ct, plan.intensities, strict=True)
    ]
    old = np.asarray(volume["spacing"], dtype=float)
    check_spacing(old)
    new = list(plan.spacing)
    if plan.slice_axis is not None:
        new.insert(plan.slice_axis, old[plan.slice_axis])
    shape, thick = new_shape(image.shape[1:], old, new), thick_axis(old, new)
    result = {"window": window, "thick": thick}
    result["image"] = np.stack([resample(channel, shape, thick).astype(np.float32) for channel in channels])
    if "semantic" in volume:
        labels = np.asarray(volume["semantic"])[window]
        result["semantic"] = resample_labels(labels, shape, thick).astype(np.int64)
    return result


def importance(patch_size: Sequence[int]) -> Tensor:
    """Weight of each voxel of a patch: a Gaussian with a sigma of 1/8 of the patch size.

    It gives a low weight to voxels near the border of a patch, where networks make more errors.

    Args:
        patch_size: voxels along each axis.

    Returns:
        Weights of that shape, float64, 1e-3 at least.

    >>> importance((3,))
    tensor([0.0286, 1.0000, 0.0286], dtype=torch.float64)
    """
    weights = torch.ones((), dtype=torch.float64)
    for size in patch_size:
        offset = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
        weights = weights[..., None] * torch.exp(-(offset**2) / (2 * (size / 8) ** 2))
    return weights.clamp(min=MIN_WEIGHT)


def patch_starts(size: int, patch: int) -> list[int]:
    """Start indices of patches along an axis, evenly spaced, at most half a patch apart.

    Args:
        size: voxels of the volume.
        patch: voxels of a patch.

    Returns:
        Starts, the first 0 and the last `size - patch`; [0] for a smaller volume.

    >>> patch_starts(110, 64), patch_starts(64, 64)
    ([0, 23, 46], [0])
    """
    check_integers(size=size, patch=patch)
    steps = math.ceil((size - patch) / (patch / 2))
    return [round((size - patch) / steps * i) for i in range(steps + 1)] if steps > 0 else [0]


@torch.no_grad()
def predict_patches(
    model: Callable[[Tensor], Tensor], image: Tensor, patch_size: Sequence[int], mirror: bool = True
) -> Tensor:
    """Sliding-window prediction: overlapping patches, each mirrored along all axes, averaged with Gaussian weights.

    Args:
        model: maps (1, C, *patch_size) to (1, K, *patch_size). In eval mode.
        image: (C, D, H, W), or (C, H, W) for a model of slices; a volume smaller than a patch is padded with zeros.
        patch_size: voxels along each axis.
        mirror: whether to average over all mirrorings, 8 in a volume, which takes eight times as long.

    Returns:
        Logits (K, D, H, W).
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
        window = tuple(slice(start, start + n) for start, n in zip(corner, patch_size, strict=True))
        patch = _average_mirrored(model, image[(slice(None), *window)][None], mirror)[0]
        if tuple(patch.shape[1:]) != tuple(patch_size):
            raise ValueError(f"model returns {tuple(patch.shape)}, expected (K, *{tuple(patch_size)})")
        if logits is None:
            logits = patch.new_zeros((len(patch), *image.shape[1:]))
        logits[(slice(None), *window)] += weights * patch
        total[window] += weights
    inner = tuple(slice(m // 2, m // 2 + n) for m, n in zip(missing, size, strict=True))
    return (logits / total)[(slice(None), *inner)]


def _average_mirrored(model: Callable[[Tensor], Tensor], patch: Tensor, mirror: bool) -> Tensor:
    axes = range(2, patch.ndim) if mirror else ()
    flips = [flip_axes for n in range(len(axes) + 1) for flip_axes in itertools.combinations(axes, n)]
    return sum(model(patch.flip(flip)).flip(flip) for flip in flips) / len(flips)


def predict_volume(model: nn.Module, volume: Mapping[str, Any], plan: Plan, mirror: bool = True) -> np.ndarray:
    """Preprocess a volume, predict, and resample the prediction to the volume's own voxels.

    Args:
        model: the plan's network. It is put into eval mode.
        volume: dict of `image` (C, D, H, W) and `spacing` (3,) in mm.
        plan: a plan from `make_plan`.
        mirror: see `predict_patches`.

    Returns:
        Labels (D, H, W), int64; background outside the crop.
    """
    model.eval()
    prepared = preprocess({"image": volume["image"], "spacing": volume["spacing"]}, plan)
    image = torch.from_numpy(prepared["image"]).to(next(model.parameters()))
    if plan.slice_axis is None:
        logits = predict_patches(model, image, plan.patch_size, mirror)
    else:
        slice_dim = plan.slice_axis + 1
        slices = [predict_patches(model, x, plan.patch_size, mirror) for x in image.unbind(slice_dim)]
        logits = torch.stack(slices, dim=slice_dim)
    labels = np.zeros(np.asarray(volume["image"]).shape[1:], dtype=np.int64)
    inside = labels[prepared["window"]]
    probabilities = _at_least_float32(logits).softmax(dim=0).cpu().numpy()
    inside[...] = resample_classes(probabilities, inside.shape, prepared["thick"])
    return labels


def _at_least_float32(logits: Tensor) -> Tensor:
    """NumPy has no bfloat16, and SciPy's splines do not support float16."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _check_outputs(outputs: Mapping[str, Any] | Tensor, target: Tensor) -> None:
    if not isinstance(outputs, Tensor | Mapping):
        raise TypeError(f"outputs has type {type(outputs).__name__}, expected logits or the dict of `forward_with_aux`")
    if isinstance(outputs, Mapping):
        check_keys("outputs", outputs, ("out", "aux"))
    finest = outputs if isinstance(outputs, Tensor) else outputs["out"]
    expected = (len(finest), *finest.shape[2:])
    check_dtype("target", target, torch.int64)
    if target.shape != expected:  # targets of coarser levels are resized, so that any size would fit
        raise ValueError(f"target has shape {tuple(target.shape)}, expected {expected} as the finest logits have")
