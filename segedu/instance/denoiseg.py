"""DenoiSeg: one U-Net that removes noise, for which every image is a teacher, and segments, for which few are.

Paper: Buchholz, Prakash, Schmidt, Krull, Jug, "DenoiSeg: Joint Denoising and Segmentation", ECCV workshops 2020, arXiv
    2005.02987. Denoising as in Krull, Buchholz, Jug, "Noise2Void - Learning Denoising from Single Noisy Images", CVPR
    2019, arXiv 1811.10980.
Idea: Some pixels of a noisy image are replaced by neighbours, and the network is to give their true values. It cannot
    guess their noise, only what is below, so it learns to remove noise without one clean image. The same network gives
    background, foreground and border of cells. What it learns from all images serves the few that have labels.
Simplified: the border separates cells from each other and from the background, and is not given back to cells after
    the foreground's connected pieces are taken. Images are not normalised; instead the squared error is divided by
    the variance of the image. All channels of a pixel are replaced together.
Shapes: images (B, C, H, W) -> {"denoised": (B, C, H, W), "logits": (B, 3, H, W)}, classes background, foreground,
    border. `postprocess`: outputs -> B label maps (H, W) int32.
Quality: on ideal classes of `cells` every cell comes back, less its border with others; see the tests.
Course: 09-distances
Lab: 09_distances
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.losses.cross_entropy import cross_entropy
from segedu.losses.regression import l2_loss
from segedu.ops.label_maps import drop_small_objects
from segedu.ops.masks import connected_components
from segedu.validation.images import check_images
from segedu.validation.label_maps import check_label_map
from segedu.validation.numbers import check_number
from segedu.validation.tensors import check_dtype, check_keys, check_maps, check_no_nan, check_tensor

BACKGROUND, FOREGROUND, BORDER = 0, 1, 2
UNKNOWN = 255  # the class of pixels without label: they do not count


def blind_spots(
    images: Tensor, side: int = 8, radius: int = 2, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Replace one random pixel of each square by a random neighbour: what Noise2Void shows to its network.

    Squares, rather than pixels anywhere, spread the blind spots evenly (the paper's stratified sampling). A square
    that the image cuts has one only if the place drawn lies in the image, so every pixel is as likely as any other.
    The neighbour is any pixel of the image up to `radius` rows and columns away, but never the pixel itself: else the
    network would learn to copy its noise.

    Args:
        images: (B, C, H, W) floats, at least two pixels each.
        side: pixels of a square's side; 8 chooses one pixel of 64, the paper's share.
        radius: pixels.
        generator: of the random numbers, on the device of `images`. None: torch's own.

    Returns:
        The changed images (B, C, H, W), a copy, and the blind spots (B, H, W) bool.

    Raises:
        TypeError: `images` is not a tensor of floats.
        ValueError: a wrong shape, images of one pixel, or `side` or `radius` below 1.

    >>> images = torch.arange(6.0).reshape(1, 1, 1, 6)
    >>> changed, chosen = blind_spots(images, side=3, generator=torch.Generator().manual_seed(0))
    >>> (changed != images)[0].equal(chosen)
    True
    """
    check_images(images, images.shape[1] if isinstance(images, Tensor) and images.ndim == 4 else 1)
    batch, _, height, width = images.shape
    if height * width < 2:
        raise ValueError(f"images has shape {tuple(images.shape)}, expected at least two pixels: a pixel's neighbour")
    for name, value in (("side", side), ("radius", radius)):
        if value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1 pixel")

    def draw(below: Tensor) -> Tensor:
        """Whole numbers from 0 to below - 1."""
        random = torch.rand(below.shape, generator=generator, device=images.device, dtype=torch.float64)
        return (random * below).long()

    squares = torch.full((2, batch, -(-height // side), -(-width // side)), side, device=images.device)
    inner = draw(squares)  # (2, B, rows, columns): where in the square
    rows, columns = (torch.arange(n, device=images.device) * side for n in squares.shape[2:])
    y, x = inner[0] + rows[:, None], inner[1] + columns
    within = (y < height) & (x < width)
    b, y, x = within.nonzero()[:, 0], y[within], x[within]  # (P,)

    top, left = (y - radius).clamp(min=0), (x - radius).clamp(min=0)
    tall, wide = (y + radius).clamp(max=height - 1) - top + 1, (x + radius).clamp(max=width - 1) - left + 1
    pick = draw(tall * wide - 1)
    pick += pick >= (y - top) * wide + x - left  # skips the pixel itself
    changed, chosen = images.clone(), torch.zeros(batch, height, width, dtype=torch.bool, device=images.device)
    changed[b, :, y, x] = images[b, :, top + pick // wide, left + pick % wide]
    chosen[b, y, x] = True
    return changed, chosen


def three_classes(label_map: Tensor) -> Tensor:
    """Background 0, foreground 1 and border 2 of a label map.

    The border is background beside a cell (sharing an edge), and pixels of a cell in whose 3x3 neighbourhood is
    another cell. So pieces of foreground that touch, be it at a corner, are one cell, and a cell that touches none
    keeps all its pixels. A thin cell between others may be all border. The border of the image is none.

    Args:
        label_map: (H, W) integers, 0 is background.

    Returns:
        (H, W) int64.

    Raises:
        TypeError: `label_map` is not a tensor of integers.
        ValueError: it is not (H, W), is empty, or has a negative label.

    >>> three_classes(torch.tensor([[0, 0, 7, 7, 7, 4, 4]]))
    tensor([[0, 2, 1, 1, 2, 2, 1]])
    """
    label_map = check_label_map("label_map", label_map, (2,))
    labels = label_map.double()[None, None]  # exact for every int32, and max_pool2d takes it
    cells = (labels > 0).double()
    beside = torch.maximum(F.max_pool2d(cells, (3, 1), 1, (1, 0)), F.max_pool2d(cells, (1, 3), 1, (0, 1)))[0, 0] > 0
    highest = F.max_pool2d(labels, 3, 1, 1)[0, 0]
    lowest = -F.max_pool2d(torch.where(labels > 0, -labels, -torch.inf), 3, 1, 1)[0, 0]  # of cells only
    inside = label_map > 0
    border = torch.where(inside, highest != lowest, beside)
    return torch.where(border, BORDER, inside.long())


def denoiseg_targets(label_map: Tensor, labelled: bool = True) -> dict[str, Tensor]:
    """What the network is to predict for one image, besides its own pixels.

    Args:
        label_map: (H, W) integers, 0 is background.
        labelled: whether the map holds labels. False, for an image without any: no pixel counts in segmentation.

    Returns:
        `classes` (H, W) int64: `three_classes`, or 255 everywhere.

    Raises:
        TypeError: as `three_classes`.
        ValueError: as `three_classes`.
    """
    classes = three_classes(label_map)
    return {"classes": classes if labelled else torch.full_like(classes, UNKNOWN)}


class DenoiSeg(nn.Module):
    """A network whose first channels are the image without noise and whose last three are classes.

    Args:
        network: maps images (B, C, H, W) to (B, C + 3, H, W), such as `UNet(1, 4, 32, padding=1)`, the paper's but
            for its batch normalisation.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Map images (B, C, H, W) to `denoised` (B, C, H, W) and `logits` (B, 3, H, W).

        Raises:
            ValueError: the network has not three output channels more than the images have channels.
        """
        maps = self.network(images)
        if maps.ndim != 4 or maps.shape[1] != images.shape[1] + 3:
            given = f"{maps.shape[1]} channels for images of {images.shape[1]}"
            raise ValueError(f"network gives {given}, expected {images.shape[1] + 3}: those of the image and 3 classes")
        return {"denoised": maps[:, :-3], "logits": maps[:, -3:]}


def denoiseg_loss(
    outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], alpha: float = 0.5
) -> dict[str, Tensor]:
    """alpha times the squared error at the blind spots, plus 1 - alpha times the cross-entropy of the classes.

    Args:
        outputs: `denoised` (B, C, H, W) and `logits` (B, 3, H, W) of the network for the images of `blind_spots`.
        targets: `images` (B, C, H, W), the noisy images as they were; `blind` (B, H, W) bool, of `blind_spots`;
            `classes` (B, H, W) int64, of `denoiseg_targets`. Pixels of class 255 do not count, nor do images that
            have no other.
        alpha: weight of denoising, 0 to 1; the paper's is 0.5.

    Returns:
        `denoising`, `segmentation`, both with their weights, and their sum `loss`, scalars. The squared error of an
        image is divided by its variance (at least 1e-4). Without a blind spot, or a pixel with a class, a term is 0.

    Raises:
        TypeError: a tensor has the wrong dtype.
        ValueError: a tensor is missing, a shape does not fit, a class is not one of three, or `alpha` is not in
            [0, 1].
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}, expected a number from 0 to 1")
    check_keys("targets", targets, ("images", "blind", "classes"))
    sizes = check_maps("outputs", outputs, denoised="B C H W", logits="B 3 H W")
    check_maps("targets", targets, sizes, images="B C H W")
    check_dtype("targets['blind']", targets["blind"], torch.bool, "B H W", sizes)
    check_tensor("targets['classes']", targets["classes"], "B H W", sizes)
    denoised, images, blind = outputs["denoised"], targets["images"], targets["blind"]
    # Paper: images are normalised to mean 0 and deviation 1, which makes the error relative in the same way.
    deviation = images.var(dim=(1, 2, 3), correction=0, keepdim=True).clamp(min=1e-4).sqrt()
    counts = blind[:, None].expand_as(images).to(denoised.dtype)
    denoising = alpha * l2_loss(denoised / deviation, images.to(denoised) / deviation, weights=counts)
    segmentation = (1 - alpha) * cross_entropy(outputs["logits"], targets["classes"], ignore_index=UNKNOWN)
    return {"denoising": denoising, "segmentation": segmentation, "loss": denoising + segmentation}


def postprocess(outputs: Mapping[str, Tensor], foreground_threshold: float = 0.5, min_size: int = 0) -> list[Tensor]:
    """Cells are the connected pieces of what is foreground with more than a given probability.

    Args:
        outputs: `logits` (B, 3, H, W) of the network.
        foreground_threshold: of the probability. The paper takes the best one on validation images; higher ones part
            more cells.
        min_size: pixels; smaller pieces become background.

    Returns:
        B label maps (H, W) int32, on the device of the outputs. Pieces that touch at a corner only are one, as in
        `three_classes`.

    Raises:
        TypeError: `outputs` is no dict, or `logits` no floating-point numbers.
        ValueError: `logits` is missing, is not (B, 3, H, W), or has a NaN; `foreground_threshold` is not in [0, 1].
    """
    check_maps("outputs", outputs, logits="B 3 H W")
    check_no_nan("outputs", outputs, ("logits",))
    check_number("foreground_threshold", foreground_threshold, maximum=1)
    inside = outputs["logits"].detach().softmax(dim=1)[:, FOREGROUND] > foreground_threshold
    return [drop_small_objects(connected_components(image, connectivity=8)[0], min_size) for image in inside]
