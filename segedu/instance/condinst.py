"""CondInst: each detected object gets its own mask network, whose 169 weights are predicted by the detector.

Paper: Tian, Shen, Chen, "Conditional Convolutions for Instance Segmentation", ECCV 2020, arXiv 2003.05664.
Idea: Mask R-CNN crops each object from the features and then applies one network to all. Here nothing is cropped: the
    network runs on the features of the whole image, with different weights for each object. It is tiny, three 1x1
    convolutions of 8 channels, because it only separates one object from the rest. To identify the object, it receives
    the coordinates of each pixel relative to the object's location.
Simplified: the paper's mask branch on P3 alone; no auxiliary semantic loss.
Shapes: images (B, 3, H, W) -> the dict of FCOS (`logits`, `distances`, `centreness`, `anchors`, `sizes`), and
    `weights` (B, A, 169), `mask_features` (B, 8, H / 8, W / 8) and `image_size`. `postprocess`: the dict -> B dicts of
    `boxes` (N, 4), `labels`, `scores` and `masks` (N, h, w).
Quality: mask heads equal those of mmdet 3.3.0 (a record), losses equal worked examples; outputs made from synthetic
    objects give the objects back; one batch of synthetic scenes is learnt (its tests). Not compared as a whole network.
    From scratch on `shapes`: mask AP50 at least 0.81 over three seeds, 37 CPU-s.
Course: 14-top-down
Lab: 14_top_down
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.backbones.fpn import FPN, LevelsP6P7
from segedu.backbones.resnet import resnet50
from segedu.detection.fcos import FCOS, concat_levels, fcos_loss, match_locations
from segedu.detection.fcos import postprocess as fcos_postprocess
from segedu.layers.conv import conv_bn_relu
from segedu.layers.instance_targets import Size, check_targets
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize
from segedu.layers.onnx_outputs import onnx_outputs
from segedu.losses.masks import mask_dice_loss
from segedu.validation.images import check_images, check_sizes
from segedu.validation.numbers import check_integer
from segedu.validation.tensors import check_keys, check_no_nan, check_tensor

WIDTH = 8  # channels of the mask features and inside a mask head
WIDTHS = (2 + WIDTH, WIDTH, WIDTH, 1)  # two coordinates and the features go in, a logit comes out
NUM_WEIGHTS = sum((c_in + 1) * c_out for c_in, c_out in zip(WIDTHS, WIDTHS[1:], strict=False))  # 169
STRIDE, FACTOR = 8, 2  # the mask features have the stride of P3; masks are upsampled by 2, to stride 4
COORDINATE_SCALE = 8  # relative coordinates are in units of 8 strides of the object's level: 64 pixels for P3
KEYS = ("logits", "weights", "mask_features", "anchors", "image_size", "sizes")


class CondInst(nn.Module):
    """FCOS, a controller beside its box branch, and mask features (figure 3).

    Args:
        detector: its finest level has a stride of 8, and its locations are the centres of grid cells (`offset=0.5`).
        width: channels inside the mask branch.
        depth: number of convolutions of the mask branch.
    """

    def __init__(self, detector: FCOS, width: int = 128, depth: int = 4) -> None:
        super().__init__()
        channels, stride = detector.backbone.channels[0], detector.backbone.strides[0]
        if stride != STRIDE:
            raise ValueError(f"detector has a finest stride of {stride}, expected {STRIDE}")
        check_integer("depth", depth)
        self.detector = detector
        branch = [conv_bn_relu(c_in, width) for c_in in (channels, *[width] * (depth - 1))]
        self.mask_branch = nn.Sequential(*branch, nn.Conv2d(width, WIDTH, kernel_size=1))
        self.controller = nn.Conv2d(channels, NUM_WEIGHTS, kernel_size=3, padding=1)
        nn.init.normal_(self.controller.weight, std=0.01)
        nn.init.zeros_(self.controller.bias)

    def forward(self, images: Tensor, sizes: Sequence[Size] | None = None) -> dict[str, Any]:
        check_images(images, self.detector.backbone.body.in_channels)
        sizes = check_sizes(sizes, images)
        features = self.detector.backbone(images)
        outputs, towers = self.detector.detect(features, images, sizes)
        weights = concat_levels([self.controller(tower) for tower in towers])
        masks = {"weights": weights, "mask_features": self.mask_branch(features[0])}
        return onnx_outputs({**outputs, **masks, "image_size": tuple(images.shape[-2:])})


def condinst_resnet50(num_classes: int = 81, **options: Any) -> CondInst:
    """The paper's network with 50 layers, with random weights.

    Args:
        num_classes: K, with the background; COCO has 80 classes of objects.
        **options: of `CondInst`.
    """
    body = resnet50(normalize=Normalize(IMAGENET_MEAN, IMAGENET_STD))
    fpn = FPN(body, levels=(2, 3, 4), extra=LevelsP6P7(256, 256, from_features=False))
    return CondInst(FCOS(fpn, num_classes, offset=0.5), **options)


def relative_coordinates(squares: Tensor, size: Size) -> Tensor:
    """Offset from each pixel of the mask features to each object's location, to the right and downwards.

    Args:
        squares: (N, 4), the anchors of FCOS: squares one stride wide, centred on the objects' locations.
        size: (h, w) of the mask features.

    Returns:
        (N, 2, h, w), x and y, in units of 8 strides of the object's level, which is about its size.

    >>> relative_coordinates(torch.tensor([[12.0, 0.0, 20.0, 8.0]]), (1, 2))
    tensor([[[[0.1875, 0.0625]],
    <BLANKLINE>
             [[0.0000, 0.0000]]]])
    """
    location, side = (squares[:, :2] + squares[:, 2:]) / 2, squares[:, 2] - squares[:, 0]
    y, x = (STRIDE * (torch.arange(n, dtype=squares.dtype, device=squares.device) + 0.5) for n in size)
    right = (location[:, 0, None, None] - x).expand(-1, *size)
    down = (location[:, 1, None, None] - y[:, None]).expand(-1, *size)
    return torch.stack([right, down], dim=1) / (COORDINATE_SCALE * side)[:, None, None, None]


def split_weights(weights: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Split the output of a controller into kernels and biases: first all kernels, layer by layer, then all biases.

    Args:
        weights: (N, 169).

    Returns:
        For each of three layers the kernel (N, C', C) and the bias (N, C').

    >>> [(tuple(kernel.shape), tuple(bias.shape)) for kernel, bias in split_weights(torch.zeros(5, 169))]
    [((5, 8, 10), (5, 8)), ((5, 8, 8), (5, 8)), ((5, 1, 8), (5, 1))]
    """
    check_tensor("weights", weights, f"N? {NUM_WEIGHTS}")
    shapes = list(zip(WIDTHS[1:], WIDTHS[:-1], strict=True))
    kernels = weights[:, : sum(a * b for a, b in shapes)].split([a * b for a, b in shapes], dim=1)
    biases = weights[:, -sum(WIDTHS[1:]) :].split(WIDTHS[1:], dim=1)
    return [(kernel.unflatten(1, shape), bias) for kernel, shape, bias in zip(kernels, shapes, biases, strict=True)]


def mask_heads(features: Tensor, squares: Tensor, weights: Tensor) -> Tensor:
    """Apply each object's own network to its relative coordinates and the shared features (equation 1).

    Args:
        features: (8, h, w).
        squares: (N, 4), the anchors of the objects, as in `relative_coordinates`.
        weights: (N, 169).

    Returns:
        (N, 2h, 2w) logits of masks; row i of the features corresponds to row 2 i + 1.
    """
    size = tuple(features.shape[-2:])
    coordinates = relative_coordinates(squares.to(features), size)
    x = torch.cat([coordinates, features.expand(len(squares), -1, -1, -1)], dim=1).flatten(2)  # (N, 10, P)
    for layer, (kernel, bias) in enumerate(split_weights(weights)):
        x = torch.baddbmm(bias[:, :, None], kernel, x.relu() if layer else x)  # one 1x1 convolution for each object
    return aligned_upsample(x.unflatten(2, size), FACTOR)[:, 0]


def aligned_upsample(maps: Tensor, factor: int) -> Tensor:
    """Bilinear upsampling that keeps the values of the input pixels: row i becomes row factor i + factor // 2.

    With half-pixel centres, the other convention, input pixels lie between output pixels if the factor is even.

    Args:
        maps: (B, C, h, w).
        factor: at least 1.

    Returns:
        (B, C, factor h, factor w); values are repeated before the first and after the last input pixel.

    >>> aligned_upsample(torch.tensor([[[[0.0, 4.0]]]]), 2)[0, 0, 0]
    tensor([0., 0., 2., 4.])
    """
    if not len(maps):
        return maps.new_zeros(0, maps.shape[1], *(factor * n for n in maps.shape[-2:]))
    h, w = maps.shape[-2:]
    size = (factor * h + 1, factor * w + 1)
    fine = F.interpolate(F.pad(maps, (0, 1, 0, 1), mode="replicate"), size=size, mode="bilinear", align_corners=True)
    shift = factor // 2
    return F.pad(fine, (shift, 0, shift, 0), mode="replicate")[..., : factor * h, : factor * w]


def condinst_loss(
    outputs: Mapping[str, Any],
    targets: Sequence[Mapping[str, Tensor]],
    *,
    max_positives: int = 500,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """The loss of FCOS, and the Dice loss of the masks of all positive locations.

    Args:
        outputs: of `CondInst`.
        targets: B dicts of `boxes` (N, 4), `labels` (N,) from 1 to K - 1 and `masks` (N, h, w); N may be 0.
        max_positives: at most so many positive locations of the batch are sampled for the mask loss, to limit memory.
        generator: for the sampling; None for torch's own.

    Returns:
        Scalars `classification`, `boxes` and `centreness` of FCOS, `mask`, the mean over positive locations (0 if there
        is none), and `loss`, their sum.
    """
    check_keys("outputs", outputs, KEYS)
    check_integer("max_positives", max_positives)
    losses = fcos_loss(outputs, targets)
    targets = check_targets(targets, outputs["sizes"], outputs["logits"].shape[-1], masks=True)
    squares, features = torch.cat(list(outputs["anchors"])), outputs["mask_features"]
    matches = torch.stack([match_locations(target["boxes"].to(squares), outputs["anchors"]) for target in targets])
    image, location = (matches >= 0).nonzero().unbind(1)  # of all positives of the batch
    if len(location) > max_positives:
        sampled = torch.randperm(len(location), generator=generator)[:max_positives].sort().values.to(location.device)
        image, location = image[sampled], location[sampled]
    total = 0 * features.sum()
    for b, target in enumerate(targets):
        image_locations = location[image == b]
        if len(image_locations):
            logits = mask_heads(features[b], squares[image_locations], outputs["weights"][b, image_locations])
            gt_masks = _downsample_masks(target["masks"], tuple(logits.shape[-2:]))[matches[b, image_locations]]
            total = total + len(image_locations) * mask_dice_loss(logits, gt_masks)
    losses = {**losses, "mask": total / max(len(location), 1)}
    return {**losses, "loss": losses["loss"] + losses["mask"]}


def _downsample_masks(masks: Tensor, size: Size) -> Tensor:
    """Masks (N, *size): of every 4 x 4 pixels the one to which `aligned_upsample` maps a pixel of `size`."""
    step = STRIDE // FACTOR
    padded = F.pad(masks, (0, step * size[1] - masks.shape[-1], 0, step * size[0] - masks.shape[-2]))
    return padded[:, step // 2 :: step, step // 2 :: step]


@torch.no_grad()
def postprocess(outputs: Mapping[str, Any], mask_threshold: float = 0.5, **options: Any) -> list[dict[str, Tensor]]:
    """Objects of each image: boxes of FCOS, and the mask network predicted at the location of each box.

    Args:
        outputs: of `CondInst`.
        mask_threshold: of the pixels of a mask.
        **options: of FCOS's `postprocess`.

    Returns:
        B dicts of `boxes` (N, 4), `labels` (N,), `scores` (N,) and `masks` (N, h, w), best first; (h, w) as in `sizes`.
        A mask may extend beyond its box, because masks are not cropped.
    """
    check_keys("outputs", outputs, KEYS)
    check_no_nan("outputs", outputs, ("weights", "mask_features"))
    squares, results = torch.cat(list(outputs["anchors"])), []
    for b, detections in enumerate(fcos_postprocess(outputs, **options)):
        locations, (h, w) = detections.pop("locations"), outputs["sizes"][b]
        logits = mask_heads(outputs["mask_features"][b], squares[locations], outputs["weights"][b, locations])
        resized = aligned_upsample(logits.sigmoid()[:, None], STRIDE // FACTOR)
        # A backbone that rounds down at odd sizes has no features of the last rows and columns.
        missing = (0, max(0, w - resized.shape[-1]), 0, max(0, h - resized.shape[-2]))
        masks = F.pad(resized, missing, mode="replicate")[:, 0, :h, :w]
        results.append({**detections, "masks": masks > mask_threshold})
    return results
