"""Random changes of a photograph and its classes: views, colours, and hidden rectangles.

A few hundred photographs are enough to train a small network only if every access gives a different view of them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from segedu.datasets.sample import VOID
from segedu.recipes.data import Pair

GREY = (0.299, 0.587, 0.114)  # luma of red, green and blue


def _uniform(low: float, high: float) -> float:
    return float(torch.empty(()).uniform_(low, high))


def random_view(
    image: Tensor, target: Tensor, window: int, scales: tuple[float, float], degrees: float, upright: bool = True
) -> Pair:
    """A square view of the photograph: scaled, rotated, moved, and mirrored at random.

    Args:
        image: (3, H, W) in [0, 1].
        target: (H, W) int64.
        window: side of the view in pixels.
        scales: lowest and highest factor by which the photograph is resized; all ratios are equally likely.
        degrees: highest rotation in either direction.
        upright: whether the photograph has a top. If not, the view is also turned by a multiple of 90 degrees.

    Returns:
        (3, window, window) and (window, window). Pixels outside the photograph are black, with target 255.
    """
    height, width = image.shape[-2:]
    scale = math.exp(_uniform(math.log(scales[0]), math.log(scales[1])))
    angle = math.radians(_uniform(-degrees, degrees)) + (0 if upright else math.pi / 2 * int(torch.randint(4, ())))
    sign = -1 if torch.rand(()) < 0.5 else 1
    side = window / scale  # of the view in pixels of the photograph
    spare = [abs(size - side) / 2 for size in (width, height)]
    shift = [_uniform(-room, room) for room in spare]  # of the view's centre, in pixels of the photograph
    cos, sin = math.cos(angle) * side, math.sin(angle) * side
    theta = torch.tensor(  # from the view's coordinates in [-1, 1] to the photograph's
        [
            [sign * cos / width, -sin / width, 2 * shift[0] / width],
            [sign * sin / height, cos / height, 2 * shift[1] / height],
        ]
    )
    grid = affine_grid(theta[None], [1, 1, window, window], align_corners=False)
    view = grid_sample(image[None], grid, mode="bilinear", align_corners=False)[0]
    classes = grid_sample((target - VOID)[None, None].float(), grid, mode="nearest", align_corners=False)[0, 0]
    return view, classes.long() + VOID


def jitter_colours(image: Tensor, strength: float) -> Tensor:
    """Change brightness, contrast, saturation and hue of an image (3, H, W) in [0, 1] at random.

    `strength` is the highest relative change of the first three; the hue turns by up to 90 degrees times `strength`.
    """
    brightness, contrast, saturation = (1 + _uniform(-strength, strength) for _ in range(3))
    angle = math.pi / 2 * _uniform(-strength, strength)
    grey = torch.tensor(GREY).expand(3, 3)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)  # rotation about the grey axis
    third = torch.full((3, 3), 1 / 3)
    turn = math.cos(angle) * torch.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * third
    colours = grey + saturation * (turn - grey)
    mean = image.mean()
    mixed = (contrast * colours @ image.flatten(1)).view_as(image)
    return (brightness * (mixed + (1 - contrast) * mean)).clamp(0, 1)


def hide_rectangle(image: Tensor, largest: float) -> Tensor:
    """Fill a random rectangle of an image (3, H, W) with the image's mean colour.

    Each side of the rectangle is at most `largest` times that of the image.
    """
    height, width = image.shape[-2:]
    sides = [int(_uniform(0, largest) * size) for size in (height, width)]
    top, left = (int(torch.randint(size - side + 1, ())) for size, side in zip((height, width), sides, strict=True))
    hidden = image.clone()
    hidden[:, top : top + sides[0], left : left + sides[1]] = image.mean(dim=(1, 2))[:, None, None]
    return hidden
