"""Prompts that cannot be meant: outside of the image, corners in the wrong order, and normalised boxes."""

from __future__ import annotations

import pytest
import torch
from promptable.small_sam import generator, small
from torch import Tensor

from segedu.promptable.sam.prompt_encoder import check_prompts

H, W = 30, 50
PIXELS = r"expected corners \(x1, y1, x2, y2\) in pixels of an image with H, W = 30, 50"


def check(**prompts: Tensor) -> None:
    check_prompts(prompts, 1, 20, (H, W))


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((20, 10, 5, 25), r"^boxes has \[20.0, 10.0, 5.0, 25.0\], expected .*, x1 <= x2 and y1 <= y2"),
        ((5, 25, 20, 10), "x1 <= x2 and y1 <= y2"),
        ((0.1, 0.2, 0.7, 0.9), rf"^boxes has \[0.1.*\], which looks normalised, {PIXELS}: multiply by W, H, W, H"),
        ((0, 0.25, 1, 0.75), "which looks normalised"),
        ((51, 3, 60, 9), rf"^boxes has \[51.0, 3.0, 60.0, 9.0\], outside the image, {PIXELS}"),
        ((3, 31, 9, 40), "outside the image"),
        ((-9, 3, -1, 9), "outside the image"),
        ((3, -9, 9, -1), "outside the image"),
    ],
)
@pytest.mark.parametrize("many", [False, True])
def test_refused_boxes(box: tuple[float, ...], message: str, many: bool) -> None:
    boxes = torch.tensor([[box]] if many else [box], dtype=torch.float32)
    with pytest.raises(ValueError, match=message):
        check(boxes=boxes)


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 1, 1),  # an object of one pixel
        (0.2, 0.1, 3, 4),
        (-4, -3, 60, 40),  # moved a little in training, or not clipped by the detector
        (7, 8, 7, 8),
        (0, 0, 50, 30),
        (49.5, 29.5, 50, 30),
    ],
)
def test_accepted_boxes(box: tuple[float, ...]) -> None:
    check(boxes=torch.tensor([box], dtype=torch.float32))
    check(boxes=torch.tensor([[box, (0.1, 0.2, 0.7, 0.9)]], dtype=torch.float32)[:, :1])


def test_one_small_box_beside_others_is_not_normalised() -> None:
    check(boxes=torch.tensor([[[0.1, 0.2, 0.7, 0.9], [3.0, 4.0, 20.0, 15.0]]]))


@pytest.mark.parametrize("point", [(51, 3), (3, 31), (-1, 3), (3, -1), (500, 500)])
def test_refused_points(point: tuple[float, float]) -> None:
    coords = torch.tensor([[[5.0, 5.0], list(point)]], dtype=torch.float32)
    given = rf"^point_coords has the point \({point[0]}, {point[1]}\), expected \(x, y\) in pixels .* H, W = 30, 50"
    for label in (0, 1):
        with pytest.raises(ValueError, match=given):
            check(point_coords=coords, point_labels=torch.tensor([[1, label]]))
    check(point_coords=coords, point_labels=torch.tensor([[1, -1]]))  # no point at all: it fills a row up


def test_points_up_to_the_edge_are_accepted() -> None:
    corners = torch.tensor([[[-0.5, -0.5], [50.0, 30.0], [0.0, 29.0], [49.0, 0.0]]])
    check(point_coords=corners, point_labels=torch.ones(1, 4))


def test_the_model_checks_prompts_against_the_size_of_the_images() -> None:
    model = small()
    embeddings = model.encode(torch.rand(1, 3, H, W, generator=generator()))
    model.decode(embeddings, (H, W), boxes=torch.tensor([[40.0, 2.0, 48.0, 20.0]]))
    for size, box in (((H, W), [60.0, 2.0, 70.0, 20.0]), ((50, 30), [40.0, 2.0, 48.0, 20.0])):
        with pytest.raises(ValueError, match="outside the image"):
            model.decode(embeddings, size, boxes=torch.tensor([box]))
    with pytest.raises(ValueError, match="looks normalised"):
        model(torch.rand(1, 3, H, W, generator=generator()), boxes=torch.tensor([[0.1, 0.1, 0.8, 0.9]]))
