"""Detect then segment: a detector provides classes and boxes, SAM the masks, without training on masks of a class.

Paper: Kirillov, Mintun, Ravi et al., "Segment Anything", ICCV 2023, arXiv 2304.02643, section 7.4: zero-shot instance
    segmentation. With a detector that takes words: Ren et al., "Grounded SAM", 2024, arXiv 2401.14159.
Idea: SAM finds the boundary of any prompted object, but knows no classes. A detector knows classes, and was trained
    with boxes, which are faster to annotate than masks. So the boxes of the detector are the prompts of SAM: the image
    is encoded once, and each box is decoded to one mask, which takes the label and the score of its box.
Simplified: boxes are the only prompts. The detector is not part of it: any that predicts boxes, labels and scores
    works.
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
from segedu.validation.boxes import check_boxes, check_labels, check_scores
from segedu.validation.images import check_images
from segedu.validation.numbers import check_integer, check_number
from segedu.validation.tensors import check_keys, check_list

KEYS = ("boxes", "labels", "scores")


@torch.no_grad()
def detect_then_segment(
    sam: SAM,
    images: Tensor,
    detections: Sequence[Mapping[str, Tensor]],
    *,
    score_threshold: float = 0.0,
    disjoint: bool = False,
    boxes_per_batch: int = 16,
) -> list[dict[str, Tensor]]:
    """Predict masks for the boxes of a detector.

    Args:
        sam: a `SAM`, a MobileSAM or the small one.
        images: (B, 3, H, W) in [0, 1].
        detections: for each image `boxes` (N, 4), `labels` (N,) and `scores` (N,); N may be 0, then the image is not
            encoded.
        score_threshold: detections with a lower score are dropped.
        disjoint: assign each pixel only to the object with the highest score; otherwise masks may overlap.
        boxes_per_batch: boxes that are decoded together; more are faster and take more memory.

    Returns:
        For each image `boxes`, `labels` and `scores` of the detections, `masks` (M, H, W) bool and `iou_scores` (M,),
        the predicted IoU of the masks. Objects with an empty mask are dropped: M is at most N.
    """
    check_images(images, 3)
    check_number("score_threshold", score_threshold, maximum=1)
    check_integer("boxes_per_batch", boxes_per_batch)
    check_list("detections", detections, len(images))
    for i, detection in enumerate(detections):
        _check_detection(f"detections[{i}]", detection)
    results = []
    for image, detection in zip(images, detections, strict=True):
        keep = detection["scores"] >= score_threshold
        objects = {key: detection[key][keep].to(images.device) for key in KEYS}
        objects["masks"], objects["iou_scores"] = _masks(sam, image[None], objects["boxes"], boxes_per_batch)
        if disjoint:
            owner = label_map_from_masks(objects["masks"], objects["scores"])  # (H, W), i + 1 for object i
            ids = torch.arange(1, len(objects["masks"]) + 1, device=owner.device)
            objects["masks"] = owner == ids[:, None, None]
        visible = objects["masks"].flatten(1).any(dim=1)
        results.append({key: value[visible] for key, value in objects.items()})
    return results


def _masks(sam: SAM, image: Tensor, boxes: Tensor, boxes_per_batch: int) -> tuple[Tensor, Tensor]:
    """Masks (N, H, W) and predicted IoUs (N,): one mask per box, because boxes are less ambiguous than clicks."""
    masks = [torch.zeros(0, *image.shape[-2:], dtype=torch.bool, device=image.device)]
    scores = [image.new_zeros(0)]
    if len(boxes):
        image_embeddings = sam.encode(image)
        for batch in boxes.to(image_embeddings).split(boxes_per_batch):
            outputs = sam.decode(image_embeddings, image.shape[-2:], boxes=batch[None], multimask_output=False)
            masks.append(postprocess(outputs)[0, :, 0])
            scores.append(outputs["iou_scores"][0, :, 0])
    return torch.cat(masks), torch.cat(scores)


def _check_detection(name: str, detection: Mapping[str, Tensor]) -> None:
    check_keys(name, detection, KEYS)
    count = len(check_boxes(f"{name}['boxes']", detection["boxes"]))
    check_labels(f"{name}['labels']", detection["labels"], count)
    check_scores(f"{name}['scores']", detection["scores"], count)
