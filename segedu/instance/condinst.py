"""CondInst: every object found gets a mask network of its own, with 169 weights that the detector writes for it.

Paper: Tian, Shen, Chen, "Conditional Convolutions for Instance Segmentation", ECCV 2020, arXiv 2003.05664.
Idea: Mask R-CNN cuts each object out of the features and then applies one network to all. Here nothing is cut out:
    the features stay whole, and the network is another for each object. It is tiny, three 1x1 convolutions of 8
    channels, because it has one thing to tell apart: this object from all the rest. To know which one it is about, it
    is given where each place lies relative to the object's.
Simplified: the paper's mask branch on P3 alone; no auxiliary semantic loss.
Shapes: images (B, 3, H, W) -> the dict of FCOS (`logits`, `distances`, `centreness`, `anchors`, `sizes`), and
    `weights` (B, A, 169), `mask_features` (B, 8, H / 8, W / 8) and `image_size`. `postprocess`: the dict -> B dicts of
    `boxes` (N, 4), `labels`, `scores` and `masks` (N, h, w).
Quality: mask heads equal those of mmdet 3.3.0 (a record), losses numbers worked by hand; outputs made from drawn
    objects give the objects back; one batch of drawn scenes is learnt (its tests). Not compared as a whole network.
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
from segedu.detection.fcos import postprocess as find_boxes
from segedu.layers.conv import conv_bn_relu
from segedu.layers.instance_targets import Size, check_targets
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize
from segedu.layers.onnx_outputs import onnx_outputs
from segedu.losses.dice import dice_loss
from segedu.validation.images import check_images, check_sizes
from segedu.validation.tensors import check_keys, check_no_nan

WIDTH = 8  # channels of the mask features and inside a mask head
WIDTHS = (2 + WIDTH, WIDTH, WIDTH, 1)  # two coordinates and the features go in, a logit comes out
COUNT = sum((before + 1) * after for before, after in zip(WIDTHS, WIDTHS[1:], strict=False))  # 169
STRIDE, FACTOR = 8, 2  # of P3, on which the mask features lie; masks are twice as fine, a place for 4 pixels
REACH = 8  # strides of an object's level in the unit of its coordinates: 64 pixels for P3
KEYS = ("logits", "weights", "mask_features", "anchors", "image_size", "sizes")


class CondInst(nn.Module):
    """FCOS, a controller beside its boxes, and mask features (figure 3).

    Args:
        detector: whose finest level has a stride of 8, and whose places lie in the middle (`offset=0.5`).
        width: channels inside the mask branch.
        depth: convolutions of the mask branch.
    """

    def __init__(self, detector: FCOS, width: int = 128, depth: int = 4) -> None:
        super().__init__()
        channels, stride = detector.backbone.channels[0], detector.backbone.strides[0]
        if stride != STRIDE:
            raise ValueError(f"detector has a finest stride of {stride}, expected {STRIDE}")
        if depth < 1:
            raise ValueError(f"depth is {depth}, expected at least 1")
        self.detector = detector
        branch = [conv_bn_relu(before, width) for before in (channels, *[width] * (depth - 1))]
        self.mask_branch = nn.Sequential(*branch, nn.Conv2d(width, WIDTH, kernel_size=1))
        self.controller = nn.Conv2d(channels, COUNT, kernel_size=3, padding=1)
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
    """The paper's network with 50 layers.

    Args:
        num_classes: K, the background counted; COCO has 80 kinds of things.
        **options: of `CondInst`.

    Returns:
        The network with random weights.
    """
    body = resnet50(normalize=Normalize(IMAGENET_MEAN, IMAGENET_STD))
    fpn = FPN(body, levels=(2, 3, 4), extra=LevelsP6P7(256, 256, from_features=False))
    return CondInst(FCOS(fpn, num_classes, offset=0.5), **options)


def relative_coordinates(squares: Tensor, size: Size) -> Tensor:
    """How far each object's place is from each place of the mask features, to the right and downwards.

    Args:
        squares: (N, 4), the objects' places: of FCOS, about the place and a stride wide.
        size: (h, w) of the mask features.

    Returns:
        (N, 2, h, w), x and y, in 8 strides of the object's level: that is about its size.

    >>> relative_coordinates(torch.tensor([[12.0, 0.0, 20.0, 8.0]]), (1, 2))
    tensor([[[[0.1875, 0.0625]],
    <BLANKLINE>
             [[0.0000, 0.0000]]]])
    """
    place, side = (squares[:, :2] + squares[:, 2:]) / 2, squares[:, 2] - squares[:, 0]
    y, x = (STRIDE * (torch.arange(n, dtype=squares.dtype, device=squares.device) + 0.5) for n in size)
    right = (place[:, 0, None, None] - x).expand(-1, *size)
    down = (place[:, 1, None, None] - y[:, None]).expand(-1, *size)
    return torch.stack([right, down], dim=1) / (REACH * side)[:, None, None, None]


def split_weights(weights: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The numbers of a controller as kernels and biases: first all kernels, layer by layer, then all biases.

    Args:
        weights: (N, 169).

    Returns:
        For each of three layers the kernel (N, C', C) and the bias (N, C').

    Raises:
        ValueError: not 169 numbers each.

    >>> [(tuple(kernel.shape), tuple(bias.shape)) for kernel, bias in split_weights(torch.zeros(5, 169))]
    [((5, 8, 10), (5, 8)), ((5, 8, 8), (5, 8)), ((5, 1, 8), (5, 1))]
    """
    if weights.ndim != 2 or weights.shape[1] != COUNT:
        raise ValueError(f"weights has shape {tuple(weights.shape)}, expected (N, {COUNT})")
    shapes = list(zip(WIDTHS[1:], WIDTHS[:-1], strict=True))
    kernels = weights[:, : sum(a * b for a, b in shapes)].split([a * b for a, b in shapes], dim=1)
    biases = weights[:, -sum(WIDTHS[1:]) :].split(WIDTHS[1:], dim=1)
    return [(kernel.unflatten(1, shape), bias) for kernel, shape, bias in zip(kernels, shapes, biases, strict=True)]


def mask_heads(features: Tensor, squares: Tensor, weights: Tensor) -> Tensor:
    """Apply each object's own network to the coordinates relative to it and the features of all (equation 1).

    Args:
        features: (8, h, w).
        squares: (N, 4), the objects' places.
        weights: (N, 169).

    Returns:
        (N, 2h, 2w) logits of masks; row i of the features is met in row 2 i + 1.
    """
    size = tuple(features.shape[-2:])
    coordinates = relative_coordinates(squares.to(features), size)
    x = torch.cat([coordinates, features.expand(len(squares), -1, -1, -1)], dim=1).flatten(2)  # (N, 10, P)
    for layer, (kernel, bias) in enumerate(split_weights(weights)):
        x = torch.baddbmm(bias[:, :, None], kernel, x.relu() if layer else x)  # one 1x1 convolution for each object
    return aligned_upsample(x.unflatten(2, size), FACTOR)[:, 0]


def aligned_upsample(maps: Tensor, factor: int) -> Tensor:
    """Bilinear enlarging in which every place of the small map is met exactly: it lies in row factor i + factor // 2.

    With half-pixel centres, the other rule, places fall between those of the result where the factor is even.

    Args:
        maps: (B, C, h, w).
        factor: at least 1.

    Returns:
        (B, C, factor h, factor w); before the first place and behind the last one their value is repeated.

    >>> aligned_upsample(torch.tensor([[[[0.0, 4.0]]]]), 2)[0, 0, 0]
    tensor([0., 0., 2., 4.])
    """
    if not len(maps):
        return maps.new_zeros(0, maps.shape[1], *(factor * n for n in maps.shape[-2:]))
    h, w = maps.shape[-2:]
    whole = (factor * h + 1, factor * w + 1)
    fine = F.interpolate(F.pad(maps, (0, 1, 0, 1), mode="replicate"), size=whole, mode="bilinear", align_corners=True)
    shift = factor // 2
    return F.pad(fine, (shift, 0, shift, 0), mode="replicate")[..., : factor * h, : factor * w]


def condinst_loss(
    outputs: Mapping[str, Any],
    targets: Sequence[Mapping[str, Tensor]],
    *,
    max_positives: int = 500,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """The loss of FCOS, and the Dice loss of the masks of all places that answer for an object.

    Args:
        outputs: of `CondInst`.
        targets: B dicts of `boxes` (N, 4), `labels` (N,) from 1 to K - 1 and `masks` (N, h, w); N may be 0.
        max_positives: if more places of the batch answer for an object, so many are drawn: memory.
        generator: what draws; None for torch's own.

    Returns:
        Scalars `classification`, `boxes` and `centreness` of FCOS, `mask`, the mean over places that answer for an
        object (0 where there is none), and `loss`, their sum.

    Raises:
        TypeError: outputs or targets are of the wrong kind.
        ValueError: a key is missing, a shape does not fit, a label is out of range, or `max_positives` is below 1.
    """
    check_keys("outputs", outputs, KEYS)
    if max_positives < 1:
        raise ValueError(f"max_positives is {max_positives}, expected at least 1")
    losses = fcos_loss(outputs, targets)
    targets = check_targets(targets, outputs["sizes"], outputs["logits"].shape[-1], masks=True)
    squares, features = torch.cat(list(outputs["anchors"])), outputs["mask_features"]
    matches = torch.stack([match_locations(target["boxes"].to(squares), outputs["anchors"]) for target in targets])
    image, place = (matches >= 0).nonzero().unbind(1)  # of all positives of the batch
    if len(place) > max_positives:
        chosen = torch.randperm(len(place), generator=generator)[:max_positives].sort().values.to(place.device)
        image, place = image[chosen], place[chosen]
    total = 0 * features.sum()
    for b, target in enumerate(targets):
        own = place[image == b]
        if len(own):
            logits = mask_heads(features[b], squares[own], outputs["weights"][b, own])
            true_masks = _sampled(target["masks"], tuple(logits.shape[-2:]))[matches[b, own]]
            total = total + len(own) * _dice(logits, true_masks)
    losses = {**losses, "mask": total / max(len(place), 1)}
    return {**losses, "loss": losses["loss"] + losses["mask"]}


def _sampled(masks: Tensor, size: Size) -> Tensor:
    """(N, *size): a pixel of every 4 x 4, the one that `aligned_upsample` puts a place of `size` on."""
    step = STRIDE // FACTOR
    padded = F.pad(masks, (0, step * size[1] - masks.shape[-1], 0, step * size[0] - masks.shape[-2]))
    return padded[:, step // 2 :: step, step // 2 :: step]


def _dice(logits: Tensor, masks: Tensor) -> Tensor:
    """1 - 2 sum(p y) / (sum(p^2) + sum(y^2)), mean over masks: softmax over (0, z) is the sigmoid of z."""
    both, options = torch.stack([torch.zeros_like(logits), logits], dim=1), {"smooth": 0.0, "squared": True}
    return dice_loss(both, masks.long(), ignore_index=None, include_background=False, **options)


@torch.no_grad()
def postprocess(outputs: Mapping[str, Any], mask_threshold: float = 0.5, **options: Any) -> list[dict[str, Tensor]]:
    """Objects of each image: boxes of FCOS, and the mask network of the place that each comes from.

    Args:
        outputs: of `CondInst`.
        mask_threshold: of the pixels of a mask.
        **options: of FCOS's `postprocess`.

    Returns:
        B dicts of `boxes` (N, 4), `labels` (N,), `scores` (N,) and `masks` (N, h, w), best first; (h, w) as in `sizes`.
        A mask may reach over its box: nothing is cut.

    Raises:
        TypeError: outputs are of the wrong kind.
        ValueError: a key is missing, a shape does not fit, or a number is NaN.
    """
    check_keys("outputs", outputs, KEYS)
    check_no_nan("outputs", outputs, ("weights", "mask_features"))
    squares, results = torch.cat(list(outputs["anchors"])), []
    for b, found in enumerate(find_boxes(outputs, **options)):
        locations, (h, w) = found.pop("locations"), outputs["sizes"][b]
        logits = mask_heads(outputs["mask_features"][b], squares[locations], outputs["weights"][b, locations])
        whole = aligned_upsample(logits.sigmoid()[:, None], STRIDE // FACTOR)[:, 0]
        results.append({**found, "masks": whole[:, :h, :w] > mask_threshold})
    return results
