"""Detect then segment: a detector says what and roughly where, SAM says which pixels; nobody drew a mask of a class.

Paper: Kirillov, Mintun, Ravi et al., "Segment Anything", ICCV 2023, arXiv 2304.02643, section 7.4: zero-shot instance
    segmentation. With a detector that takes words: Ren et al., "Grounded SAM", 2024, arXiv 2401.14159.
Idea: SAM finds the edge of whatever it is pointed at, and knows no names. A detector knows names, and has learnt from
    boxes, which are drawn faster than masks. So the boxes of the one are the prompts of the other: the image
    is encoded once, and each box is decoded to one mask, which takes the label and the score of its box.
Simplified: boxes are the only prompts. The detector is not part of it: any that gives boxes, labels and scores will do.
Shapes: images (B, 3, H, W) in [0, 1] and, for each, `boxes` (N, 4) xyxy in pixels, `labels` (N,), `scores` (N,) -> for
    each the same and `masks` (N, H, W) bool.
Quality: the masks are SAM's own for these boxes, one by one (tests/promptable/test_detect_then_segment.py). The small
    DETR's boxes and the small SAM: mask AP50 of at least 0.5 on 64 new scenes (tests/weights/test_labelled_masks.py);
    the chapter measures it on 40 others.
Course: 16-promptable
Lab: 16_promptable
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from segedu.ops.masks import label_map_from_masks
from segedu.promptable.sam.sam import SAM, postprocess
from segedu.validation.boxes import check_boxes, check_scores
from segedu.validation.images import check_images
from segedu.validation.tensors import check_keys

KEYS = ("boxes", "labels", "scores")


@torch.no_grad()
def detect_then_segment(
    sam: SAM,
    images: Tensor,
    detections: Sequence[Mapping[str, Tensor]],
    *,
    score_threshold: float = 0.0,
    disjoint: bool = False,
    at_once: int = 16,
) -> list[dict[str, Tensor]]:
    """Labelled masks from a detector's boxes.

    Args:
        sam: a `SAM`, a MobileSAM or the small one.
        images: (B, 3, H, W) in [0, 1].
        detections: for each image what a detector found: `boxes` (N, 4), `labels` (N,) and `scores` (N,); N may be 0,
            and then the image is not even encoded.
        score_threshold: detections with a lower score are left out.
        disjoint: where masks overlap, the pixel stays with the object of the highest score. Otherwise it has several.
        at_once: boxes that are decoded together; more are faster and take more memory.

    Returns:
        For each image `boxes`, `labels` and `scores` as they came, `masks` (M, H, W) bool and `iou_scores` (M,): what
        IoU SAM thinks that its mask has. An object of which no pixel is left is absent: M is at most N.

    Raises:
        TypeError: images or detections are of the wrong kind.
        ValueError: a key is missing, a shape does not fit, a box is not ordered, or a number is out of range.
    """
    check_images(images, 3)
    _check_numbers(score_threshold, at_once)
    if isinstance(detections, Mapping) or not isinstance(detections, Sequence):
        raise TypeError(
            f"detections has type {type(detections).__name__}, expected a list of dicts, one for each image"
        )
    if len(detections) != len(images):
        raise ValueError(
            f"detections has {len(detections)} entries, expected one dict for each of {len(images)} images"
        )
    for i, found in enumerate(detections):
        _check_detections(f"detections[{i}]", found)
    answers = []
    for image, found in zip(images, detections, strict=True):
        kept = found["scores"] >= score_threshold
        objects = {key: found[key][kept].to(images.device) for key in KEYS}
        objects["masks"], objects["iou_scores"] = _masks(sam, image[None], objects["boxes"], at_once)
        if disjoint:
            owner = label_map_from_masks(objects["masks"], objects["scores"])  # (H, W), i + 1 for object i
            numbers = torch.arange(1, len(objects["masks"]) + 1, device=owner.device)
            objects["masks"] = owner == numbers[:, None, None]
        left = objects["masks"].flatten(1).any(dim=1)
        answers.append({key: value[left] for key, value in objects.items()})
    return answers


def _masks(sam: SAM, image: Tensor, boxes: Tensor, at_once: int) -> tuple[Tensor, Tensor]:
    """(N, H, W) bool and (N,): for each box the one mask of SAM, since a box leaves no choice as a click does."""
    masks = [torch.zeros(0, *image.shape[-2:], dtype=torch.bool, device=image.device)]
    scores = [image.new_zeros(0)]
    if len(boxes):
        embedding = sam.encode(image)
        for some in boxes.to(embedding).split(at_once):
            outputs = sam.decode(embedding, image.shape[-2:], boxes=some[None], multimask_output=False)
            masks.append(postprocess(outputs)[0, :, 0])
            scores.append(outputs["iou_scores"][0, :, 0])
    return torch.cat(masks), torch.cat(scores)


def _check_numbers(score_threshold: float, at_once: int) -> None:
    if not 0 <= score_threshold <= 1:
        raise ValueError(f"score_threshold is {score_threshold}, expected 0 to 1")
    if at_once < 1:
        raise ValueError(f"at_once is {at_once}, expected at least 1")


def _check_detections(name: str, found: Mapping[str, Tensor]) -> None:
    check_keys(name, found, KEYS)
    boxes = check_boxes(f"{name}['boxes']", found["boxes"])
    labels, count = found["labels"], len(boxes)
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dtype == torch.bool:
        kind = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"{name}['labels'] is of the kind {kind}, expected a tensor of whole numbers")
    if labels.shape != (count,):
        raise ValueError(f"{name}['labels'] has shape {tuple(labels.shape)}, expected ({count},): one for each box")
    check_scores("scores", found["scores"], count)
