"""Conversion of sRGB images to the colour spaces Lab, where equal distances look about equally different, and HSV.

Course: course/02-clustering. Lab: labs/02_clustering.ipynb.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segedu.validation.images import check_image

# The matrix from linear sRGB (ITU-R BT.709 primaries, rounded to six digits) to CIE XYZ.
_XYZ_OF_RGB = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_D65 = (0.95047, 1.0, 1.08883)  # XYZ of daylight for the 2 degree observer: the white point


def rgb_to_lab(image: Tensor) -> Tensor:
    """Convert an sRGB image to CIE 1976 L*a*b*: lightness, green to red, blue to yellow.

    Undo the gamma of sRGB, convert linear colours to XYZ, divide by daylight (D65), and apply a cube root, with a
    linear segment near black. This approximates the human perception of lightness. A difference of about 2.3 is just
    noticeable.

    Args:
        image: (..., 3, H, W), floats from 0 to 1.

    Returns:
        The same shape, dtype and device: L from 0 to 100, a and b from about -128 to 128.

    >>> pixels = torch.tensor([[0.0, 1.0, 0.2], [0.0, 0.0, 0.4], [0.0, 0.0, 0.6]]).reshape(3, 1, 3)
    >>> [[round(v, 1) for v in colour] for colour in rgb_to_lab(pixels)[:, 0].T.tolist()]  # black, red, dull blue
    [[0.0, 0.0, 0.0], [53.2, 80.1, 67.2], [42.0, -0.2, -32.8]]
    """
    check_image(image, batch=True)
    rgb = image.double()
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    matrix = rgb.new_tensor(_XYZ_OF_RGB) / rgb.new_tensor(_D65)[:, None]
    xyz = torch.einsum("ij,...jhw->...ihw", matrix, linear)
    # Below (6 / 29)^3 the cube root is too steep; CIE 1976 continues it with this line.
    x, y, z = torch.where(xyz > 0.008856, xyz.clamp(min=0) ** (1 / 3), 7.787 * xyz + 16 / 116).unbind(dim=-3)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-3).to(image.dtype)


def rgb_to_hsv(image: Tensor) -> Tensor:
    """Convert an sRGB image to hue, saturation and value (Smith 1978), all from 0 to 1.

    Args:
        image: (..., 3, H, W), floats from 0 to 1.

    Returns:
        The same shape, dtype and device. Hue 0 is red, 1/3 green, 2/3 blue; greys have hue and saturation 0.

    >>> pixels = torch.tensor([[0.0, 0.5], [1.0, 0.5], [0.0, 0.5]]).reshape(3, 1, 2)
    >>> rgb_to_hsv(pixels)[:, 0].T  # green, grey
    tensor([[0.3333, 1.0000, 1.0000],
            [0.0000, 0.0000, 0.5000]])
    """
    check_image(image, batch=True)
    red, green, blue = image.unbind(dim=-3)
    value, strongest = image.max(dim=-3)  # the first of equal channels
    spread = value - image.min(dim=-3).values
    divisor = torch.where(spread > 0, spread, 1)
    sixths = torch.stack([(green - blue) / divisor, 2 + (blue - red) / divisor, 4 + (red - green) / divisor], dim=-3)
    hue = sixths.gather(-3, strongest.unsqueeze(-3)).squeeze(-3) / 6 % 1
    hue = torch.where(spread > 0, hue, 0)
    return torch.stack([hue, spread / torch.where(value > 0, value, 1), value], dim=-3)
