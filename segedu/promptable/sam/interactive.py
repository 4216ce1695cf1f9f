"""How SAM learns: somebody who clicks, looks, and clicks again where the mask is wrong, is simulated.

Paper: Kirillov, Mintun, Ravi et al., "Segment Anything", ICCV 2023, arXiv 2304.02643, section 3 and appendix A,
    "Losses" and "Training algorithm".
Idea: First a point inside the object, or its box, a little wrong; three masks, of which the best learns, so that each
    can stand for another reading of the click. Then eight times a point drawn from where the mask is wrong, together
    with the logits of the mask so far; one mask. Twice, once somewhere in between and once at the end, no new point:
    then the mask alone has to become better. The image is encoded once for all eleven.
Simplified: all objects of a batch begin with a point, or all with a box.
Shapes: images (B, 3, H, W), masks (B, N, H, W) bool -> dict of scalars.
Quality: the small SAM, `segedu/weights/own/shapes_sam.json`, was trained by it.
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
    """Focal and Dice loss of the best of M masks, and the squared error of all M guesses of their own IoU.

    The best is that with the least weighted sum of focal and Dice loss. All is computed at the size of the logits.

    Args:
        outputs: of `SAM`.
        targets: true masks at the size of the images, (B, H, W) or (B, N, H, W) bool; one may be empty.
        focal_weight: of the mean focal loss of a mask's places.
        dice_weight: of the Dice loss.
        iou_weight: of the squared error of `iou_scores`. Paper: does not say whether those of masks that are not the
            best learn too; they do here, or they could not be told apart.

    Returns:
        Scalars `focal`, `dice` and `iou`, weighted means over the objects, and `loss`, their sum.

    Raises:
        TypeError: outputs, targets or a weight are of the wrong kind.
        ValueError: a key is missing, shapes do not fit, or a weight is negative.
    """
    for name, weight in (("focal", focal_weight), ("dice", dice_weight), ("iou", iou_weight)):
        check_number(f"{name}_weight", weight)
    check_outputs(outputs)
    logits, scores = full_precision(outputs["mask_logits"]), full_precision(outputs["iou_scores"])
    H, W = outputs["size"]
    if isinstance(targets, Tensor) and targets.shape[-2:] != (H, W):
        raise ValueError(f"targets has shape {tuple(targets.shape)}, expected (..., {H}, {W}) as the images")
    axes = {name: size for name, size in zip("BN", logits.shape[:-3], strict=False)}
    check_dtype("targets", targets, torch.bool, "B N H W" if logits.ndim == 5 else "B H W", axes)
    logits, scores = logits.flatten(0, -4), scores.flatten(0, -2)  # (G, M, h, w), (G, M)
    # the square that the image was filled up to, in the image's own pixels, becomes h x w
    truth = resize_masks(targets.flatten(0, -3), (max(H, W), max(H, W)), logits.shape[-2:])[:, None].expand_as(logits)
    focal = sigmoid_focal_loss(logits, truth, ignore_index=None, reduction="none").mean((2, 3))  # (G, M)
    dice = _dice(logits, truth)
    wrong = (scores - mask_iou(logits > outputs.get("mask_threshold", 0.0), truth)) ** 2
    best = (focal_weight * focal + dice_weight * dice).argmin(dim=1, keepdim=True)
    parts = {
        "focal": focal_weight * focal.gather(1, best).mean(),
        "dice": dice_weight * dice.gather(1, best).mean(),
        "iou": iou_weight * wrong.mean(),
    }
    return {**parts, "loss": sum(parts.values())}


def _dice(logits: Tensor, truth: Tensor) -> Tensor:
    """1 - (2 sum p y + 1) / (sum p + sum y + 1), of each mask."""
    p, y = logits.sigmoid().flatten(2), truth.flatten(2).to(logits)
    return 1 - (2 * (p * y).sum(2) + 1) / (p.sum(2) + y.sum(2) + 1)


def mask_iou(preds: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union of masks, one by one.

    Args:
        preds: (..., H, W) bool.
        truth: likewise.

    Returns:
        (...) float32; 1 where both are empty.

    >>> mask_iou(torch.tensor([[[True, True]], [[False, False]]]), torch.tensor([[[True, False]], [[False, False]]]))
    tensor([0.5000, 1.0000])
    """
    return ratio_or_one((preds & truth).sum((-2, -1)).float(), (preds | truth).sum((-2, -1)).float())


def interactive_loss(
    model: SAM, images: Tensor, masks: Tensor, *, num_points: int = 8, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """One step of training: appendix A's eleven iterations, and the mean of their losses.

    Args:
        model: in training.
        images: (B, 3, H, W) in [0, 1].
        masks: (B, N, H, W) bool, of each image N objects or parts, none empty.
        num_points: that are drawn from where the mask is wrong; two iterations more have no new point, and the first
            has the first prompt.
        generator: of all that is drawn.

    Returns:
        The scalars of `sam_loss`.

    Raises:
        TypeError: masks are no tensor of bools.
        ValueError: shapes do not fit, or a mask is empty.
    """
    check_dtype("masks", masks, torch.bool, "B N H W", {"B": len(images)})
    if not bool(masks.flatten(2).any(2).all()):
        raise ValueError("masks has an empty mask, expected at least one pixel in each")
    embeddings, size = model.encode(images), images.shape[-2:]
    prompts = first_prompt(masks, generator)
    # Paper: three masks for the first prompt and one for all others. Here the one also learns from first prompts,
    # so that it can be compared with the three.
    outputs = model.decode(embeddings, size, **prompts, multimask_output=None)
    one, three = (
        {**outputs, **{key: outputs[key][:, :, part] for key in ("mask_logits", "iou_scores")}}
        for part in (slice(0, 1), slice(1, None))
    )
    losses, answer = [sam_loss(one, masks), sam_loss(three, masks)], best_logits(three)
    for adds_a_point in clicking(num_points, generator):
        if adds_a_point:
            preds = full_size(answer, model.image_size, size) > model.mask_threshold
            prompts = add_points(prompts, *correcting_points(preds, masks, generator))
        outputs = model.decode(embeddings, size, **prompts, mask_inputs=answer, multimask_output=False)
        losses.append(sam_loss(outputs, masks))
        answer = best_logits(outputs)
    return {name: torch.stack([loss[name] for loss in losses]).mean() for name in losses[0]}


def clicking(num_points: int, generator: torch.Generator | None = None) -> list[bool]:
    """In which of the iterations behind the first there is a new point: in all but a random one and the last.

    Args:
        num_points: of new points.
        generator: of what is drawn.

    Returns:
        num_points + 2 bools.
    """
    steps = [True] * num_points
    steps.insert(int(torch.randint(num_points + 1, (), generator=generator)), False)
    return [*steps, False]


def first_prompt(masks: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """A point inside each mask or, as likely, its box, moved a little.

    Args:
        masks: (B, N, H, W) bool, none empty.
        generator: of what is drawn.

    Returns:
        `point_coords` (B, N, 1, 2) and `point_labels` (B, N, 1), or `boxes` (B, N, 4).
    """
    if torch.rand((), generator=generator) < 0.5:
        return {"boxes": noisy_boxes(masks, generator)}
    points = draw_points(masks, generator)[:, :, None]
    return {"point_coords": points, "point_labels": torch.full(points.shape[:-1], FOREGROUND, device=masks.device)}


def noisy_boxes(masks: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Boxes of masks whose sides are moved by a tenth of the box, about, and never by more than 20 of 1024 pixels.

    Args:
        masks: (B, N, H, W) bool, none empty.
        generator: of what is drawn.

    Returns:
        (B, N, 4), xyxy in pixels; they may reach beyond the image.
    """
    boxes = boxes_from_masks(masks.flatten(0, 1))  # (G, 4)
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    most = 20 * max(masks.shape[-2:]) / 1024
    noise = 0.1 * sides * torch.randn(boxes.shape, generator=generator).to(sides)
    return (boxes + noise.clamp(-most, most)).unflatten(0, masks.shape[:2])


def draw_points(regions: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """A pixel of each region, all pixels as likely.

    Args:
        regions: (B, N, H, W) bool, none empty.
        generator: of what is drawn.

    Returns:
        (B, N, 2) float32, (x, y).
    """
    # the pixel whose random number is the largest; of a million pixels, multinomial would make a million sums
    numbers = torch.rand(regions.shape, generator=generator).to(regions.device)
    places = torch.where(regions, numbers, -1.0).flatten(2).argmax(dim=2)
    return torch.stack([places % regions.shape[-1], places // regions.shape[-1]], dim=-1).float()


def correcting_points(preds: Tensor, masks: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """A pixel from where each mask is wrong: foreground where the object was missed, background where there is none.

    Args:
        preds: (B, N, H, W) bool, the answer so far.
        masks: (B, N, H, W) bool, the truth, none empty.
        generator: of what is drawn.

    Returns:
        (B, N, 2) and labels (B, N). Where nothing is wrong, a pixel of the object.
    """
    wrong = preds ^ masks
    right = ~wrong.flatten(2).any(2)[..., None, None]
    points = draw_points(wrong | (right & masks), generator)
    x, y = points.long().unbind(-1)
    inside = masks.flatten(2).gather(2, (y * masks.shape[-1] + x)[..., None])[..., 0]
    return points, torch.where(inside, FOREGROUND, BACKGROUND)


def add_points(prompts: Mapping[str, Tensor], points: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Prompts and one point more for each object.

    Args:
        prompts: keywords of `SAM.decode`.
        points: (B, N, 2).
        labels: (B, N).

    Returns:
        New keywords.
    """
    points, labels = points[:, :, None], labels[:, :, None]
    if "point_coords" in prompts:
        points = torch.cat([prompts["point_coords"], points], dim=2)
        labels = torch.cat([prompts["point_labels"], labels], dim=2)
    return {**prompts, "point_coords": points, "point_labels": labels}


def best_logits(outputs: Mapping[str, Any]) -> Tensor:
    """Of each object the mask that thinks best of itself, without a gradient: what the next iteration is given.

    Args:
        outputs: of `SAM`, for N objects of each image.

    Returns:
        (B, N, h, w).
    """
    logits = outputs["mask_logits"].detach()
    best = outputs["iou_scores"].argmax(dim=-1)[..., None, None, None].expand(-1, -1, 1, *logits.shape[-2:])
    return logits.gather(2, best)[:, :, 0]
