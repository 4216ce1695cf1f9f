"""Colour spaces against scikit-image and hand-worked colours."""

import colorsys

import numpy as np
import pytest
import torch
from skimage import color, data

from segedu.ops import colour
from segedu.ops.colour import rgb_to_hsv, rgb_to_lab

PAIRS = [(rgb_to_lab, color.rgb2lab), (rgb_to_hsv, color.rgb2hsv)]


def corners():
    """Every colour of a cube of 18 levels: black, white, greys, ties, and both sides of each threshold."""
    levels = torch.cat([torch.linspace(0, 1, 13), torch.tensor([0.002, 0.0404, 0.0405, 0.09, 0.999])]).double()
    return torch.cartesian_prod(levels, levels, levels).T.reshape(3, 18, -1)


def photograph():
    return torch.from_numpy(data.astronaut()[:97, :151].copy()).permute(2, 0, 1).double() / 255


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize("image", [corners(), photograph(), torch.rand(3, 1, 1, dtype=torch.float64)])
def test_equals_scikit_image(ours, theirs, image):
    right = torch.from_numpy(theirs(image.permute(1, 2, 0).numpy())).permute(2, 0, 1)
    torch.testing.assert_close(ours(image), right, rtol=0, atol=1e-9)
    single = ours(image.float())
    assert single.dtype == torch.float32
    right = torch.from_numpy(theirs(image.float().double().permute(1, 2, 0).numpy())).permute(2, 0, 1)
    torch.testing.assert_close(single.double(), right, rtol=0, atol=1e-5)


@pytest.mark.parametrize("entry", [(0, 0), (1, 1), (2, 2)])
def test_parity_notices_another_matrix(monkeypatch, entry):
    matrix = np.array(colour._XYZ_OF_RGB)
    matrix[entry] *= 1.001
    monkeypatch.setattr(colour, "_XYZ_OF_RGB", matrix.tolist())
    image = photograph()
    right = torch.from_numpy(color.rgb2lab(image.permute(1, 2, 0).numpy())).permute(2, 0, 1)
    assert (rgb_to_lab(image) - right).abs().max() > 1e-3


def test_primary_colours_in_lab():
    right = torch.tensor([[53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86]])  # CIE tables
    torch.testing.assert_close(rgb_to_lab(torch.eye(3)[:, None])[:, 0].T, right, rtol=0, atol=0.03)


def test_hsv_equals_the_standard_library():
    image = corners()
    right = [colorsys.rgb_to_hsv(*pixel) for pixel in image.flatten(1).T.tolist()]
    torch.testing.assert_close(
        rgb_to_hsv(image).flatten(1).T, torch.tensor(right, dtype=torch.float64), rtol=0, atol=1e-12
    )


def test_a_batch_is_converted_image_by_image():
    images = torch.rand(2, 4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    for convert in (rgb_to_lab, rgb_to_hsv):
        torch.testing.assert_close(convert(images)[1, 2], convert(images[1, 2]))
