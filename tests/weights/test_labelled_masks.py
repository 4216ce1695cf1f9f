"""The small DETR's boxes and the small SAM: labelled masks of new scenes, though neither learnt a mask of a class."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from segedu.promptable.detect_then_segment import detect_then_segment
from segedu.recipes.data import Sets
from segedu.recipes.shapes import examples
from segedu.recipes.task import measure_detections
from segedu.weights import WEIGHTS, load

BOTH = {"shapes_detr", "shapes_sam"}


@pytest.mark.skipif(not set(WEIGHTS) >= BOTH, reason="the small DETR or the small SAM is not in the table")
@torch.no_grad()
def test_masks_of_the_small_detr_and_the_small_sam() -> None:
    from segedu.datasets.shapes import Shapes
    from segedu.weights.own import shapes_detr
    from segedu.weights.own.shapes_mask_rcnn import HELD_OUT

    detr, sam = load("shapes_detr"), load("shapes_sam")

    def find(image: Tensor) -> dict[str, Tensor]:
        return detect_then_segment(sam, image[None], [shapes_detr.detect(detr, image)])[0]

    scenes = examples(Shapes(HELD_OUT[1], seed=HELD_OUT[0]))
    measured = measure_detections(find, Sets(None, {"new": {"all": scenes}}))["new"]["all"]
    assert measured["mask_ap50"] >= 0.9, measured
