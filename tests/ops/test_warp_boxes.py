"""Warped boxes against a loop over their pixels, and torchvision's resized crop."""

from __future__ import annotations

import math

import pytest
import torch
from torchvision.transforms.v2.functional import resized_crop

from segedu.ops.warp_boxes import warp_boxes

FILL = [0.1, 0.2]


def at(image: torch.Tensor, y: float, x: float) -> list[float]:
    """The value at a place, from the four pixels around it; the fill where there are none."""
    value = torch.zeros(len(image), dtype=torch.float64)
    for j in (math.floor(y), math.floor(y) + 1):
        for i in (math.floor(x), math.floor(x) + 1):
            inside = 0 <= j < image.shape[1] and 0 <= i < image.shape[2]
            pixel = image[:, j, i] if inside else torch.tensor(FILL, dtype=torch.float64)
            value += (1 - abs(y - j)) * (1 - abs(x - i)) * pixel
    return value.tolist()


@pytest.mark.parametrize("context", [0, 2])
def test_every_pixel(context: int) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 7, 9, generator=generator, dtype=torch.float64)
    boxes = torch.tensor([[0.0, 0.0, 9.0, 7.0], [2.3, 1.1, 4.0, 6.2], [-3.0, 2.0, 5.5, 11.0]], dtype=torch.float64)
    size = 8
    crops = warp_boxes(image, boxes, size, context, FILL)
    assert crops.shape == (3, 2, size, size)
    for crop, (x1, y1, x2, y2) in zip(crops, boxes.tolist(), strict=True):
        for row in range(size):
            for column in range(size):
                v, u = ((k + 0.5 - context) / (size - 2 * context) for k in (row, column))
                expected = at(image, y1 + v * (y2 - y1) - 0.5, x1 + u * (x2 - x1) - 0.5)
                assert crop[:, row, column].tolist() == pytest.approx(expected, abs=1e-12)


def test_inside_of_the_image_it_is_a_resized_crop() -> None:
    image = torch.rand(2, 20, 30, dtype=torch.float64)
    crop = warp_boxes(image, torch.tensor([[4, 5, 24, 15]]), 40, 0, FILL)[0]
    expected = resized_crop(image, 5, 4, 10, 20, [40, 40], antialias=False)
    # their crop repeats its edge, ours sees what is beyond it
    torch.testing.assert_close(crop[:, 2:-2, 1:-1], expected[:, 2:-2, 1:-1], rtol=0, atol=1e-12)


def test_gradient_and_no_boxes() -> None:
    image = torch.rand(2, 5, 6, dtype=torch.float64, requires_grad=True)
    boxes = torch.tensor([[0.5, 0.5, 5.0, 4.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: warp_boxes(x, boxes, 4, 1, FILL), image)
    assert warp_boxes(image, boxes[:0], 4, 1, FILL).shape == (0, 2, 4, 4)
