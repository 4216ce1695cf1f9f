"""Segments: what a network that classifies masks is asked to find, from the truth that data sets have."""

from __future__ import annotations

import pytest
import torch

from segedu.datasets.street import THINGS, draw_street
from segedu.layers.segments import (
    check_segments,
    instance_segments,
    pad_masks,
    panoptic_segments,
    semantic_segments,
)

SEGMENT = {"id": 1, "category_id": 2, "isthing": True}


def test_segments_of_a_street_are_its_truth() -> None:
    scene = draw_street(3, (64, 96))
    semantic = semantic_segments(scene["semantic"])
    rebuilt = torch.full((64, 96), 255)
    for label, mask in zip(semantic["labels"].tolist(), semantic["masks"], strict=True):
        rebuilt[mask] = label
    assert torch.equal(rebuilt, scene["semantic"])
    panoptic = panoptic_segments(scene["panoptic_seg"], scene["segments_info"])
    assert len(panoptic["labels"]) == len(scene["segments_info"]) and panoptic["masks"].sum(0).max() == 1
    things = instance_segments(scene["panoptic_seg"], scene["segments_info"])
    assert 1 < len(things["labels"]) < len(panoptic["labels"])
    assert set(things["labels"].tolist()) <= set(THINGS)
    assert torch.equal(things["masks"], scene["masks"]) and torch.equal(things["labels"], scene["labels"])
    for segments in (semantic, panoptic, things):
        check_segments([segments], [(64, 96)], num_classes=10)


def test_nothing_to_find() -> None:
    void = torch.zeros(3, 5, dtype=torch.int32)
    for segments in (semantic_segments(torch.full((3, 5), 255)), panoptic_segments(void, [])):
        assert segments["labels"].shape == (0,) and segments["labels"].dtype == torch.int64
        assert segments["masks"].shape == (0, 3, 5) and segments["masks"].dtype == torch.bool
        check_segments([segments], [(3, 5)], num_classes=1)
        assert pad_masks(segments["masks"], (4, 8)).shape == (0, 4, 8)


def test_crowds_are_left_out_and_one_pixel_is_a_segment() -> None:
    crowd = {"id": 9, "category_id": 2, "isthing": True, "iscrowd": 1}
    found = panoptic_segments(torch.tensor([[9, 9, 1]]), [crowd, SEGMENT])
    assert found["labels"].tolist() == [2] and found["masks"].tolist() == [[[False, False, True]]]


@pytest.mark.parametrize(
    ("error", "says", "panoptic_seg", "info"),
    [
        (TypeError, "panoptic_seg has dtype torch.float32", torch.zeros(2, 2), []),
        (TypeError, "panoptic_seg has type list", [[0]], []),
        (ValueError, r"panoptic_seg has shape \(2,\)", torch.zeros(2).int(), []),
        (TypeError, "segments_info has type dict", torch.ones(2, 2).int(), SEGMENT),
        (TypeError, r"segments_info\[0\] has type int", torch.ones(2, 2).int(), [1]),
        (
            ValueError,
            r"segments_info\[0\] has the keys \['id'\], expected id, category_id",
            torch.ones(2, 2).int(),
            [{"id": 1}],
        ),
        (ValueError, "has the id 1", torch.zeros(2, 2).int(), [SEGMENT]),
    ],
)
def test_bad_panoptic_maps(error, says, panoptic_seg, info) -> None:
    with pytest.raises(error, match=says):
        panoptic_segments(panoptic_seg, info)


def test_bad_semantic_maps() -> None:
    with pytest.raises(TypeError, match=r"semantic has dtype torch.int32, expected torch.int64"):
        semantic_segments(torch.zeros(2, 2).int())
    with pytest.raises(ValueError, match="class -1"):
        semantic_segments(torch.tensor([[-1, 0]]))


GOOD = {"labels": torch.tensor([1]), "masks": torch.ones(1, 2, 3).bool()}


@pytest.mark.parametrize(
    ("error", "says", "targets"),
    [
        (TypeError, "targets has type dict", GOOD),
        (ValueError, "targets has 2 entries", [GOOD, GOOD]),
        (TypeError, r"targets\[0\] has type list", [[]]),
        (ValueError, "has the keys", [{"labels": GOOD["labels"]}]),
        (TypeError, r"\['labels'\] has dtype torch.float32", [{**GOOD, "labels": torch.ones(1)}]),
        (TypeError, r"\['masks'\] has dtype torch.uint8", [{**GOOD, "masks": torch.ones(1, 2, 3).byte()}]),
        (TypeError, r"\['masks'\] has type NoneType", [{**GOOD, "masks": None}]),
        (ValueError, r"\['labels'\] has shape \(1, 1\)", [{**GOOD, "labels": torch.ones(1, 1).long()}]),
        (ValueError, r"\['masks'\] has shape \(1, 2, 2\), expected \(1, 2, 3\)", [{**GOOD, "masks": GOOD["masks"][..., 1:]}]),
        (ValueError, r"values \[4\], expected 0 to 3", [{**GOOD, "labels": torch.tensor([4])}]),
        (ValueError, r"values \[-1\]", [{**GOOD, "labels": torch.tensor([-1])}]),
    ],
)  # fmt: skip
def test_bad_segments(error, says, targets) -> None:
    check_segments([GOOD], [(2, 3)], num_classes=4)
    with pytest.raises(error, match=says):
        check_segments(targets, [(2, 3)], num_classes=4)
