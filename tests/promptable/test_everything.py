"""Automatic masks: the same set as Meta's segment-anything at the same weights; and its steps, one by one."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from promptable.small_sam import small
from torch import Tensor, nn

from segedu.datasets.shapes import draw_shapes
from segedu.ops.boxes import xywh_to_xyxy
from segedu.promptable.everything import (
    Settings,
    crop_boxes,
    near_crop_edge,
    point_grid,
    postprocess_small_regions,
    remove_small_regions,
    segment_everything,
    stability_score,
)
from segedu.promptable.sam.sam import SAM
from segedu.weights import pretrained

LOOSE = Settings(8, 25, iou_threshold=0.3, stability_threshold=0.5, crop_edge=2.0)
CASES = {
    "one image": ((96, 96), LOOSE),
    "odd size": ((57, 83), LOOSE),
    "all masks": ((64, 64), replace(LOOSE, iou_threshold=0.0, stability_threshold=0.0, nms_threshold=0.9)),
    "crops": ((90, 120), replace(LOOSE, crop_layers=2, crop_nms_threshold=0.5, crop_points_divisor=2)),
    "small regions": ((96, 130), replace(LOOSE, stability_threshold=0.3, min_region_area=60)),
    # at (120, 81) one of 476,280 pixels has a logit 2e-6 from the threshold: two orders of sums do not agree on it
    "crops, small regions": ((120, 83), replace(LOOSE, crop_layers=1, stability_threshold=0.3, min_region_area=30)),
}


def picture(size: tuple[int, int]) -> Tensor:
    """A drawn scene in bytes (3, H, W)."""
    return (255 * draw_shapes((12_000_000, size[0]), size)["image"]).round().byte()


def trained() -> tuple[SAM, nn.Module]:
    """The small SAM, and segment-anything's code around its image encoder, with its weights."""
    modeling = pytest.importorskip("segment_anything.modeling")
    ours = pretrained.load("shapes_sam")
    ours.image_encoder.img_size = S = ours.image_size
    prompts = modeling.PromptEncoder(64, (S // 8, S // 8), (S, S), 8)
    decoder = modeling.MaskDecoder(
        transformer_dim=64, transformer=modeling.TwoWayTransformer(2, 64, 4, 128), iou_head_hidden_dim=64
    )
    reference = modeling.Sam(ours.image_encoder, prompts, decoder).eval()
    reference.load_state_dict(ours.state_dict(), strict=True)
    reference.mask_threshold = ours.mask_threshold
    return ours, reference


def theirs_on(reference: Any, image: Tensor, settings: Settings) -> list[dict[str, Any]]:
    module = pytest.importorskip("segment_anything")
    generator_ = module.SamAutomaticMaskGenerator(
        reference,
        points_per_side=settings.points_per_side,
        points_per_batch=settings.points_per_batch,
        pred_iou_thresh=settings.iou_threshold,
        stability_score_thresh=settings.stability_threshold,
        stability_score_offset=settings.stability_offset,
        box_nms_thresh=settings.nms_threshold,
        crop_n_layers=settings.crop_layers,
        crop_nms_thresh=settings.crop_nms_threshold,
        crop_overlap_ratio=settings.crop_overlap,
        crop_n_points_downscale_factor=settings.crop_points_divisor,
        min_mask_region_area=settings.min_region_area,
    )
    return generator_.generate(image.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("case", CASES)
def test_same_masks_as_segment_anything(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (size, settings), (ours, reference) = CASES[case], trained()
    if settings.min_region_area:
        pytest.importorskip("cv2")
    theirs = pytest.importorskip("segment_anything.automatic_mask_generator")
    near = partial(theirs.is_box_near_crop_edge, atol=settings.crop_edge)  # theirs are 20 pixels: half of these images
    monkeypatch.setattr(theirs, "is_box_near_crop_edge", near)
    image = picture(size)
    expected = theirs_on(reference, image, settings)
    found = segment_everything(ours, image.float() / 255, settings)
    assert len(expected) == len(found["masks"]) > 3
    order = lambda key: torch.as_tensor(np.array([record[key] for record in expected]))  # noqa: E731
    assert torch.equal(found["masks"], order("segmentation"))
    torch.testing.assert_close(found["scores"].double(), order("predicted_iou"), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["stability"].double(), order("stability_score").nan_to_num(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["point_coords"], order("point_coords")[:, 0], rtol=0, atol=1e-9)
    assert torch.equal(found["crop_boxes"], xywh_to_xyxy(order("crop_box")).long())
    ends = (found["boxes"] - torch.tensor([0, 0, 1, 1])).clamp(min=0)
    assert torch.equal(ends, xywh_to_xyxy(order("bbox")).float())
    if settings.crop_layers:
        assert len(found["crop_boxes"].unique(dim=0)) > 2


def test_steps_by_hand() -> None:
    assert point_grid(3)[5].tolist() == pytest.approx([5 / 6, 1 / 2])
    boxes = crop_boxes((100, 60), 2, 0.5)
    assert [layer for _, layer in boxes] == [0] + [1] * 4 + [2] * 16
    assert all(x2 <= 60 and y2 <= 100 for (_, _, x2, y2), _ in boxes) and boxes[4][0][2:] == (60, 100)
    logits = torch.tensor([[2.0, 0.5, -0.5, -2.0]])  # 1 above 1, 3 above -1
    assert stability_score(logits).item() == pytest.approx(1 / 3) and stability_score(logits, 3.0).item() == 0
    assert stability_score(-9 * torch.ones(2, 3, 3)).tolist() == [0, 0]
    ends = torch.tensor([[40.0, 5.0, 58.0, 60.0], [50.0, 5.0, 58.0, 60.0]])
    assert near_crop_edge(ends, (40, 0, 100, 80), (80, 100), 5.0).tolist() == [True, False]
    assert near_crop_edge(ends, (0, 0, 100, 60), (60, 100), 5.0).tolist() == [False, False]  # edges of the image


def test_small_regions() -> None:
    mask = torch.zeros(9, 9, dtype=torch.bool)
    mask[1:6, 1:6] = True
    mask[3, 3] = mask[8, 8] = False
    mask[7, 7:9] = True
    clean, changed = remove_small_regions(mask, 3)
    assert changed and clean[3, 3] and not clean[7].any() and clean.sum() == 25
    assert remove_small_regions(mask, 1)[1] is False
    kept, changed = remove_small_regions(mask, 50)  # all are small: the largest stays
    assert changed and kept.sum() > 20
    nothing = torch.zeros(4, 4, dtype=torch.bool)
    assert not remove_small_regions(nothing, 5)[0].any()
    masks, which = postprocess_small_regions(torch.stack([mask, clean]), 3, 0.7)
    assert which.tolist() == [1] and torch.equal(masks[0], clean)  # alike now: the one that was not changed stays
    assert postprocess_small_regions(mask[:0].reshape(0, 9, 9), 3, 0.7)[1].tolist() == []


def test_nothing_to_find() -> None:
    found = segment_everything(small(), torch.zeros(3, 5, 7), Settings(2, iou_threshold=1.0, crop_layers=1))
    shapes = {"boxes": (0, 4), "labels": (0,), "scores": (0,), "masks": (0, 5, 7), "stability": (0,)}
    shapes |= {"point_coords": (0, 2), "crop_boxes": (0, 4)}
    assert {name: tuple(value.shape) for name, value in found.items()} == shapes
    assert found["masks"].dtype == torch.bool and found["labels"].dtype == torch.int64


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"points_per_side": 0}, ValueError, "points_per_side is 0, expected an integer of at least 1"),
        ({"points_per_side": 2.5}, TypeError, "points_per_side is 2.5, expected an integer"),
        ({"crop_layers": -1}, ValueError, "crop_layers is -1, expected an integer of at least 0"),
        ({"stability_threshold": 2.0}, ValueError, "stability_threshold is 2.0, expected a number"),
        ({"points_per_side": 4, "crop_layers": 3, "crop_points_divisor": 2}, ValueError, "points_per_side is 4, expe"),
    ],
)
def test_bad_settings(settings: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        Settings(**settings)
    assert str(caught.value).startswith(words)


def test_bad_images() -> None:
    with pytest.raises(ValueError, match=r"images has shape \(1, 1, 8, 8\), expected"):
        segment_everything(small(), torch.zeros(1, 8, 8))
    with pytest.raises(TypeError, match="images has dtype torch.uint8"):
        segment_everything(small(), torch.zeros(3, 8, 8, dtype=torch.uint8))
