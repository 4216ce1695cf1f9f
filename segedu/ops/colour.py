"""Colour spaces: from sRGB to Lab, where equal distances look about equally different, and to HSV.

Course: course/02-clustering. Lab: labs/02_clustering.ipynb.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segedu.validation.images import check_image

# Of linear sRGB (ITU-R BT.709 primaries, rounded to six digits) to CIE XYZ.
_XYZ_OF_RGB = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_D65 = (0.95047, 1.0, 1.08883)  # XYZ of daylight seen by the 2 degree observer: what counts as white


def rgb_to_lab(image: Tensor) -> Tensor:
    """CIE 1976 L*a*b* of an sRGB image: lightness, green to red, blue to yellow.

    The gamma of sRGB is undone, the linear colours are turned to XYZ and divided by daylight's (D65), and a cube
    root (with a straight piece near black) does what the eye does. About 2.3 units are a just noticeable difference.

    Args:
        image: (..., 3, H, W), floats from 0 to 1.

    Returns:
        The same shape, dtype and device: L from 0 to 100, a and b from about -128 to 128.

    Raises:
        TypeError: not a tensor of floats.
        ValueError: a shape without three channels, or values outside 0 to 1.

    Example:
        >>> pixels = torch.tensor([[0.0, 1.0, 0.2], [0.0, 0.0, 0.4], [0.0, 0.0, 0.6]]).reshape(3, 1, 3)
        >>> [[round(v, 1) for v in colour] for colour in rgb_to_lab(pixels)[:, 0].T.tolist()]  # black, red, dull blue
        [[0.0, 0.0, 0.0], [53.2, 80.1, 67.2], [42.0, -0.2, -32.8]]
    """
    check_image(image, batch=True)
    rgb = image.double()
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    matrix = rgb.new_tensor(_XYZ_OF_RGB) / rgb.new_tensor(_D65)[:, None]
    xyz = torch.einsum("ij,...jhw->...ihw", matrix, linear)
    # Below (6 / 29)^3 the cube root is too steep: a straight line, whose slope and place are CIE's of 1976.
    x, y, z = torch.where(xyz > 0.008856, xyz.clamp(min=0) ** (1 / 3), 7.787 * xyz + 16 / 116).unbind(dim=-3)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-3).to(image.dtype)


def rgb_to_hsv(image: Tensor) -> Tensor:
    """Hue, saturation and value of an sRGB image (Smith 1978), all from 0 to 1.

    Args:
        image: (..., 3, H, W), floats from 0 to 1.

    Returns:
        The same shape, dtype and device. Hue 0 is red, 1/3 green, 2/3 blue; of greys hue and saturation are 0.

    Raises:
        TypeError: not a tensor of floats.
        ValueError: a shape without three channels, or values outside 0 to 1.

    Example:
        >>> pixels = torch.tensor([[0.0, 0.5], [1.0, 0.5], [0.0, 0.5]]).reshape(3, 1, 2)
        >>> rgb_to_hsv(pixels)[:, 0].T  # green, grey
        tensor([[0.3333, 1.0000, 1.0000],
                [0.0000, 0.0000, 0.5000]])
    """
    check_image(image, batch=True)
    red, green, blue = image.unbind(dim=-3)
    value, strongest = image.max(dim=-3)  # of equal channels the first counts
    spread = value - image.min(dim=-3).values
    divisor = torch.where(spread > 0, spread, 1)
    sixths = torch.stack([(green - blue) / divisor, 2 + (blue - red) / divisor, 4 + (red - green) / divisor], dim=-3)
    hue = sixths.gather(-3, strongest.unsqueeze(-3)).squeeze(-3) / 6 % 1
    hue = torch.where(spread > 0, hue, 0)
    return torch.stack([hue, spread / torch.where(value > 0, value, 1), value], dim=-3)
