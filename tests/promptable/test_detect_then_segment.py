"""From boxes to labelled masks: SAM's own masks, overlaps, nothing found, files of them, and bad input."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from promptable.small_sam import SIZE, generator, small
from torch import Tensor

from segedu.datasets.coco import to_coco
from segedu.datasets.cvat import from_cvat, to_cvat
from segedu.datasets.shapes import CLASSES, draw_shapes
from segedu.metrics.coco_files import evaluate_coco
from segedu.ops.masks import rle_decode
from segedu.promptable.detect_then_segment import detect_then_segment
from segedu.promptable.sam.sam import postprocess
from segedu.weights import load
from segedu.weights.own import shapes_mask_rcnn

H, W = 31, 27  # smaller than the frame of the network


def image(seed: int = 0) -> Tensor:
    return torch.rand(2, 3, H, W, generator=generator(seed))


def detections(count: int = 5, seed: int = 0) -> dict[str, Tensor]:
    drawn = generator(seed)
    corners = torch.rand(count, 2, 2, generator=drawn).sort(dim=1).values * torch.tensor([W, H])
    scores = torch.rand(count, generator=drawn)
    return {"boxes": corners.flatten(1), "labels": torch.randint(1, 4, (count,), generator=drawn), "scores": scores}


def found(count: int = 5, **options: Any) -> list[dict[str, Tensor]]:
    return detect_then_segment(small(), image(), [detections(count), detections(3, seed=1)], **options)


@torch.no_grad()
@pytest.mark.parametrize("boxes_per_batch", [1, 2, 16])
def test_masks_are_those_of_sam_for_the_boxes(boxes_per_batch: int) -> None:
    """Box by box, each as a prompt of its own."""
    sam, given = small(), [detections(), detections(3, seed=1)]
    answers = detect_then_segment(sam, image(), given, boxes_per_batch=boxes_per_batch)
    for picture, asked, answer in zip(image(), given, answers, strict=True):
        expected = [sam(picture[None], boxes=box[None], multimask_output=False) for box in asked["boxes"]]
        masks = torch.stack([postprocess(one)[0, 0] for one in expected])
        left = masks.flatten(1).any(dim=1)
        assert 0 < masks.float().mean() < 1 and left.sum() >= 2
        assert torch.equal(answer["masks"], masks[left])
        scores = torch.stack([one["iou_scores"][0, 0] for one in expected])
        torch.testing.assert_close(answer["iou_scores"], scores[left])
        for key in ("boxes", "labels", "scores"):
            assert torch.equal(answer[key], asked[key][left])


def test_where_masks_overlap_the_higher_score_keeps_the_pixel() -> None:
    for several, one in zip(found(), found(disjoint=True), strict=True):
        assert int(several["masks"].sum(dim=0).max()) > 1 >= int(one["masks"].sum(dim=0).max())
        assert torch.equal(several["masks"].any(dim=0), one["masks"].any(dim=0))
        best = several["scores"][:, None, None].where(several["masks"], -1.0).amax(dim=0)
        for mask, score in zip(one["masks"], one["scores"], strict=True):
            assert mask.any() and (best[mask] == score).all()


def test_detections_below_the_threshold_are_left_out() -> None:
    threshold = float(detections()["scores"].median())
    answer, all_of_them = found(score_threshold=threshold)[0], found()[0]
    kept = all_of_them["scores"] >= threshold
    assert 0 < kept.sum() < len(kept)
    for key, value in answer.items():
        torch.testing.assert_close(value, all_of_them[key][kept])


def test_nothing_found(monkeypatch: pytest.MonkeyPatch) -> None:
    sam = small()
    monkeypatch.setattr(sam, "encode", None)  # nothing is encoded
    for disjoint in (False, True):
        for answer in detect_then_segment(sam, image(), [detections(0), detections(0)], disjoint=disjoint):
            shapes = {key: tuple(value.shape) for key, value in answer.items()}
            expected = {"boxes": (0, 4), "labels": (0,), "scores": (0,), "masks": (0, H, W), "iou_scores": (0,)}
            assert shapes == expected and answer["masks"].dtype == torch.bool
            assert answer["labels"].dtype == torch.int64


def test_a_box_beyond_the_image_and_one_without_area() -> None:
    asked = {
        "boxes": torch.tensor([[-9.0, -5.0, W + 20.0, H + 9.0], [3.0, 4.0, 3.0, 4.0]]),
        "labels": torch.tensor([1, 2]),
        "scores": torch.tensor([1.0, 0.0]),
    }
    answer = detect_then_segment(small(), image()[:1], [asked])[0]
    assert answer["masks"].shape[1:] == (H, W) and len(answer["masks"]) <= 2


@pytest.mark.parametrize("polygons", [False, True])
def test_answers_become_files_of_coco_and_cvat(polygons: bool) -> None:
    names = ["background", "cat", "dog", "owl"]
    annotated = {f"{i}.png": answer for i, answer in enumerate(found(disjoint=True))}
    got, _ = from_cvat(to_cvat(annotated, names, polygons=polygons))
    coco = to_coco(annotated, names)
    scores = torch.cat([answer["scores"] for answer in annotated.values()])
    assert [truth["score"] for truth in coco["annotations"]] == scores.tolist()
    for i, (name, answer) in enumerate(annotated.items(), start=1):
        assert torch.equal(got[name]["masks"], answer["masks"]) and torch.equal(got[name]["labels"], answer["labels"])
        runs = [truth["segmentation"] for truth in coco["annotations"] if truth["image_id"] == i]
        assert torch.equal(torch.stack([rle_decode(rle) for rle in runs]), answer["masks"])


def test_a_detector_of_ours_and_the_evaluation_of_coco() -> None:
    """The small Mask R-CNN finds boxes; what SAM without a training makes of them can be written and compared."""
    scene = draw_shapes((7, 0), (64, 64))
    boxes = shapes_mask_rcnn.detect(load("shapes_mask_rcnn"), scene["image"])
    answer = detect_then_segment(small(), scene["image"][None], [boxes], score_threshold=0.5)[0]
    assert len(answer["masks"]) >= 1 and set(answer["labels"].tolist()) <= set(range(1, len(CLASSES)))
    written = to_coco({"0.png": answer}, CLASSES)
    assert evaluate_coco(written, written["annotations"], "segm")["AP"] == 1.0
    truth = to_coco({"0.png": {key: scene[key] for key in ("labels", "masks")}}, CLASSES)
    assert 0 <= evaluate_coco(truth, written["annotations"], "segm")["AP"] < 1.0


GOOD = detections()
BAD: list[tuple[type[Exception], str, Callable[[], object]]] = [
    (ValueError, "images has shape", lambda: detect_then_segment(small(), image()[0], [GOOD])),
    (TypeError, "images has dtype", lambda: detect_then_segment(small(), image().byte(), [GOOD, GOOD])),
    (TypeError, "detections has type dict", lambda: detect_then_segment(small(), image(), GOOD)),
    (ValueError, "detections has 1 entries", lambda: detect_then_segment(small(), image(), [GOOD])),
    (ValueError, "score_threshold is 2", lambda: found(score_threshold=2)),
    (ValueError, "boxes_per_batch is 0", lambda: found(boxes_per_batch=0)),
]
BAD_DETECTIONS = [
    (TypeError, "detections[1] has type Tensor", lambda: GOOD["boxes"]),
    (ValueError, "detections[1] has the keys ['boxes', 'labels']", lambda: {k: GOOD[k] for k in ("boxes", "labels")}),
    (ValueError, "detections[1]['boxes']", lambda: {**GOOD, "boxes": GOOD["boxes"].flip(1)}),
    (ValueError, "detections[1]['boxes']", lambda: {**GOOD, "boxes": GOOD["boxes"][:, :3]}),
    (ValueError, "detections[1]['boxes']", lambda: {**GOOD, "boxes": GOOD["boxes"] * float("nan")}),
    (TypeError, "detections[1]['labels'] has dtype torch.float32", lambda: {**GOOD, "labels": GOOD["scores"]}),
    (TypeError, "detections[1]['labels'] has type list", lambda: {**GOOD, "labels": ["cat"] * 5}),
    (ValueError, "detections[1]['labels'] has shape (4,)", lambda: {**GOOD, "labels": GOOD["labels"][1:]}),
    (ValueError, "detections[1]['scores'] has shape (4,)", lambda: {**GOOD, "scores": GOOD["scores"][1:]}),
]


@pytest.mark.parametrize(("error", "words", "call"), BAD)
def test_bad_input(error: type[Exception], words: str, call: Callable[[], object]) -> None:
    with pytest.raises(error, match=f"^{re.escape(words)}.*, expected "):
        call()


@pytest.mark.parametrize(("error", "words", "bad"), BAD_DETECTIONS)
def test_bad_detections(error: type[Exception], words: str, bad: Callable[[], object]) -> None:
    with pytest.raises(error, match=f"^{re.escape(words)}.*, expected "):
        detect_then_segment(small(), image(), [GOOD, bad()])


def test_it_is_of_the_size_of_the_frame_too() -> None:
    picture = torch.rand(1, 3, SIZE, SIZE, generator=generator())
    assert detect_then_segment(small(), picture, [detections()])[0]["masks"].shape[1:] == (SIZE, SIZE)
