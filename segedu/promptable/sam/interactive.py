"""How SAM is trained: a simulated annotator clicks, and then clicks repeatedly where the predicted mask is wrong.

Paper: Kirillov, Mintun, Ravi et al., "Segment Anything", ICCV 2023, arXiv 2304.02643, section 3 and appendix A,
    "Losses" and "Training algorithm".
Idea: The first prompt is a point inside the object, or its box with noise. The network predicts three masks, and only
    the mask with the lowest loss is trained, so that each of the three can specialise in one meaning of the prompt.
    Eight further iterations each add a point sampled from the region where the mask is wrong. They also receive the
    logits of the previous mask, and predict one mask. Two iterations, one at a random position and the last one, add no
    point, so that the network learns to refine a mask by itself. The image is encoded once for all eleven iterations.
Simplified: in one batch, either all objects start with a point or all objects start with a box.
Shapes: images (B, 3, H, W), masks (B, N, H, W) bool -> dict of scalars.
Quality: the small SAM, `segedu/weights/own/shapes_sam.json`, was trained with this loss.
Course: 16-promptable
Lab: 16_promptable
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from segedu.layers.instance_targets import resize_masks
from segedu.losses.focal import sigmoid_focal_loss
from segedu.losses.overlap import ratio_or_one
from segedu.losses.reduction import full_precision
from segedu.ops.masks import boxes_from_masks
from segedu.promptable.sam.prompt_encoder import BACKGROUND, FOREGROUND
from segedu.promptable.sam.sam import SAM, check_outputs, full_size
from segedu.validation.numbers import check_number
from segedu.validation.tensors import check_dtype


def sam_loss(
    outputs: Mapping[str, Any],
    targets: Tensor,
    *,
    focal_weight: float = 20.0,
    dice_weight: float = 1.0,
    iou_weight: float = 1.0,
) -> dict[str, Tensor]:
    """Focal and Dice losses of the best of M masks, and the squared error of all M predicted IoUs.

    The best mask has the lowest weighted sum of focal and Dice loss. All losses are computed at the size of the logits.

    Args:
        outputs: outputs of `SAM`.
        targets: ground-truth masks at the size of the images, (B, H, W) or (B, N, H, W) bool; they may be empty.
        focal_weight: weight of the focal loss, which is a mean over the locations of a mask.
        dice_weight: weight of the Dice loss.
        iou_weight: weight of the squared error of `iou_scores`. Paper: does not specify whether only the best mask has
            this loss. Here all masks have it, because the scores could not rank the masks otherwise.

    Returns:
        Scalars `focal`, `dice` and `iou`, which are weighted means over the objects, and their sum `loss`.
    """
    for name, weight in (("focal", focal_weight), ("dice", dice_weight), ("iou", iou_weight)):
        check_number(f"{name}_weight", weight)
    check_outputs(outputs)
    logits, scores = full_precision(outputs["mask_logits"]), full_precision(outputs["iou_scores"])
    H, W = outputs["size"]
    if isinstance(targets, Tensor) and targets.shape[-2:] != (H, W):
        raise ValueError(f"targets has shape {tuple(targets.shape)}, expected (..., {H}, {W}), the size of the images")
    axes = {name: size for name, size in zip("BN", logits.shape[:-3], strict=False)}
    check_dtype("targets", targets, torch.bool, "B N H W" if logits.ndim == 5 else "B H W", axes)
    logits, scores = logits.flatten(0, -4), scores.flatten(0, -2)  # (G, M, h, w), (G, M)
    # the logits cover the padded image, a square whose side is the longer side of the image
    side = max(H, W)
    gt_masks = resize_masks(targets.flatten(0, -3), (side, side), logits.shape[-2:])[:, None].expand_as(logits)
    focal = sigmoid_focal_loss(logits, gt_masks, ignore_index=None, reduction="none").mean((2, 3))  # (G, M)
    dice = _dice(logits, gt_masks)
    iou_error = (scores - mask_iou(logits > outputs.get("mask_threshold", 0.0), gt_masks)) ** 2
    best = (focal_weight * focal + dice_weight * dice).argmin(dim=1, keepdim=True)
    parts = {
        "focal": focal_weight * focal.gather(1, best).mean(),
        "dice": dice_weight * dice.gather(1, best).mean(),
        "iou": iou_weight * iou_error.mean(),
    }
    return {**parts, "loss": sum(parts.values())}


def _dice(logits: Tensor, target: Tensor) -> Tensor:
    """Dice loss of each mask: 1 - (2 sum p y + 1) / (sum p + sum y + 1)."""
    p, y = logits.sigmoid().flatten(2), target.flatten(2).to(logits)
    return 1 - (2 * (p * y).sum(2) + 1) / (p.sum(2) + y.sum(2) + 1)


def mask_iou(preds: Tensor, target: Tensor) -> Tensor:
    """Intersection over union of pairs of masks.

    Args:
        preds: (..., H, W) bool.
        target: (..., H, W) bool.

    Returns:
        (...) float32; 1 if both are empty.

    >>> mask_iou(torch.tensor([[[True, True]], [[False, False]]]), torch.tensor([[[True, False]], [[False, False]]]))
    tensor([0.5000, 1.0000])
    """
    return ratio_or_one((preds & target).sum((-2, -1)).float(), (preds | target).sum((-2, -1)).float())


def interactive_loss(
    model: SAM, images: Tensor, masks: Tensor, *, num_points: int = 8, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Compute the loss of one training step: the means of the scalars of `sam_loss` over all iterations of appendix A.

    Args:
        model: the network, in training mode.
        images: (B, 3, H, W) in [0, 1].
        masks: (B, N, H, W) bool, N objects or parts per image, none empty.
        num_points: number of iterations that add a point from the region where the mask is wrong. There are three more
            iterations: the first one, and two that add no point.
        generator: random number generator.
    """
    check_dtype("masks", masks, torch.bool, "B N H W", {"B": len(images)})
    if not bool(masks.flatten(2).any(2).all()):
        raise ValueError("masks contains an empty mask, expected at least one pixel in each mask")
    image_embeddings, size = model.encode(images), images.shape[-2:]
    prompts = first_prompt(masks, generator)
    # Paper: predicts three masks for the first prompt, and a single mask afterwards. Here the single mask is also
    # trained on first prompts, so that it can be compared with the three masks.
    outputs = model.decode(image_embeddings, size, **prompts, multimask_output=None)
    single_mask, three_masks = (
        {**outputs, **{key: outputs[key][:, :, part] for key in ("mask_logits", "iou_scores")}}
        for part in (slice(0, 1), slice(1, None))
    )
    losses, mask_logits = [sam_loss(single_mask, masks), sam_loss(three_masks, masks)], best_logits(three_masks)
    for adds_point in click_schedule(num_points, generator):
        if adds_point:
            preds = full_size(mask_logits, model.image_size, size) > model.mask_threshold
            prompts = add_points(prompts, *sample_correction_points(preds, masks, generator))
        outputs = model.decode(image_embeddings, size, **prompts, mask_inputs=mask_logits, multimask_output=False)
        losses.append(sam_loss(outputs, masks))
        mask_logits = best_logits(outputs)
    return {name: torch.stack([loss[name] for loss in losses]).mean() for name in losses[0]}


def click_schedule(num_points: int, generator: torch.Generator | None = None) -> list[bool]:
    """Decide which iterations after the first add a point: `num_points` + 2 bools, two of them False."""
    steps = [True] * num_points
    steps.insert(int(torch.randint(num_points + 1, (), generator=generator)), False)
    return [*steps, False]


def first_prompt(masks: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """Sample the first prompts: a point inside each mask or, with probability 1/2, the box of each mask with noise.

    Args:
        masks: (B, N, H, W) bool, none empty.
        generator: random number generator.

    Returns:
        `point_coords` (B, N, 1, 2) and `point_labels` (B, N, 1), or `boxes` (B, N, 4).
    """
    if torch.rand((), generator=generator) < 0.5:
        return {"boxes": noisy_boxes(masks, generator)}
    points = sample_points(masks, generator)[:, :, None]
    return {"point_coords": points, "point_labels": torch.full(points.shape[:-1], FOREGROUND, device=masks.device)}


def noisy_boxes(masks: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Compute the boxes of masks and add noise.

    The noise of a coordinate has a standard deviation of a tenth of the box's side, and is at most 20 pixels in an
    image whose longer side has 1024 pixels.

    Args:
        masks: (B, N, H, W) bool, none empty.
        generator: random number generator.

    Returns:
        (B, N, 4), xyxy in pixels; boxes may extend beyond the image.
    """
    boxes = boxes_from_masks(masks.flatten(0, 1))  # (G, 4)
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    limit = 20 * max(masks.shape[-2:]) / 1024
    noise = 0.1 * sides * torch.randn(boxes.shape, generator=generator).to(sides)
    return (boxes + noise.clamp(-limit, limit)).unflatten(0, masks.shape[:2])


def sample_points(regions: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Sample one pixel of each region uniformly.

    Args:
        regions: (B, N, H, W) bool, none empty.
        generator: random number generator.

    Returns:
        (B, N, 2) float32, (x, y).
    """
    # take the pixel with the largest random number; torch.multinomial would compute cumulative sums over all pixels
    random = torch.rand(regions.shape, generator=generator).to(regions.device)
    indices = torch.where(regions, random, -1.0).flatten(2).argmax(dim=2)
    return torch.stack([indices % regions.shape[-1], indices // regions.shape[-1]], dim=-1).float()


def sample_correction_points(
    preds: Tensor, masks: Tensor, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Sample one wrong pixel of each mask: a foreground point if the pixel belongs to the object, else background.

    Args:
        preds: (B, N, H, W) bool, the previous predictions.
        masks: (B, N, H, W) bool, the ground truth, none empty.
        generator: random number generator.

    Returns:
        Points (B, N, 2) and their labels (B, N). If no pixel of a mask is wrong, its point lies inside the object.
    """
    errors = preds ^ masks
    is_correct = ~errors.flatten(2).any(2)[..., None, None]
    points = sample_points(errors | (is_correct & masks), generator)
    x, y = points.long().unbind(-1)
    inside = masks.flatten(2).gather(2, (y * masks.shape[-1] + x)[..., None])[..., 0]
    return points, torch.where(inside, FOREGROUND, BACKGROUND)


def add_points(prompts: Mapping[str, Tensor], points: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Add one point (B, N, 2) and its label (B, N) to each object's prompts, which are keywords of `SAM.decode`."""
    points, labels = points[:, :, None], labels[:, :, None]
    if "point_coords" in prompts:
        points = torch.cat([prompts["point_coords"], points], dim=2)
        labels = torch.cat([prompts["point_labels"], labels], dim=2)
    return {**prompts, "point_coords": points, "point_labels": labels}


def best_logits(outputs: Mapping[str, Any]) -> Tensor:
    """Logits (B, N, h, w) of the mask with the highest predicted IoU, which are an input of the next iteration."""
    logits = outputs["mask_logits"].detach()
    best = outputs["iou_scores"].argmax(dim=-1)[..., None, None, None].expand(-1, -1, 1, *logits.shape[-2:])
    return logits.gather(2, best)[:, :, 0]
