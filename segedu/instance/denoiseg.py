"""DenoiSeg: one U-Net that denoises, trained on all images, and segments, trained on the few that have labels.

Paper: Buchholz, Prakash, Schmidt, Krull, Jug, "DenoiSeg: Joint Denoising and Segmentation", ECCV workshops 2020, arXiv
    2005.02987. Denoising as in Krull, Buchholz, Jug, "Noise2Void - Learning Denoising from Single Noisy Images", CVPR
    2019, arXiv 1811.10980.
Idea: Some pixels of a noisy image are replaced by neighbours, and the network has to predict their original values. It
    cannot predict their noise, only the signal, so it learns to denoise without a single clean image. The same network
    predicts background, foreground and border of cells. What it learns from all images helps with the few labelled
    ones.
Simplified: the border separates cells from each other and from the background, and is not assigned to cells after
    the connected components of the foreground are taken. Images are not normalised; instead the squared error is
    divided by the variance of the image. All channels of a pixel are replaced together.
Shapes: images (B, C, H, W) -> {"denoised": (B, C, H, W), "logits": (B, 3, H, W)}, classes background, foreground,
    border. `postprocess`: outputs -> B label maps (H, W) int32.
Quality: on ideal classes of `cells` every cell comes back, less its border with others; see the tests. `noisy_cells`,
    one labelled window: instance accuracy 0.384 at IoU 0.5, the lowest of three seeds (watershed 0.184; without
    denoising 0.327), 18.9 CPU-s (`segedu train denoiseg --data noisy_cells --seeds 3`).
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
from segedu.validation.numbers import check_integers, check_number
from segedu.validation.tensors import (
    check_dtype,
    check_keys,
    check_no_nan,
    check_shape,
    check_tensor,
    check_tensor_dict,
)

BACKGROUND, FOREGROUND, BORDER = 0, 1, 2
UNKNOWN = 255  # the class of pixels without a label, which are ignored


def blind_spots(
    images: Tensor, side: int = 8, radius: int = 2, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Replace one random pixel of each square by a random neighbour: the training input of Noise2Void.

    Squares spread the blind spots evenly (the paper's stratified sampling). A square that crosses the border of the
    image has a blind spot only if the sampled pixel lies in the image, so every pixel is equally likely. The neighbour
    is any other pixel of the image up to `radius` rows and columns away. It is never the pixel itself, because the
    network would then learn to copy its noise.

    Args:
        images: (B, C, H, W) floats, at least two pixels each.
        side: pixels of a square's side; 8 selects one pixel of 64, the paper's share.
        radius: pixels.
        generator: of the random numbers, on the device of `images`. None: torch's own.

    Returns:
        The changed images (B, C, H, W), a copy, and the blind spots (B, H, W) bool.

    >>> images = torch.arange(6.0).reshape(1, 1, 1, 6)
    >>> changed, blind = blind_spots(images, side=3, generator=torch.Generator().manual_seed(0))
    >>> (changed != images)[0].equal(blind)
    True
    """
    check_images(images, images.shape[1] if isinstance(images, Tensor) and images.ndim == 4 else 1)
    batch, _, height, width = images.shape
    if height * width < 2:
        raise ValueError(f"images has shape {tuple(images.shape)}, expected at least two pixels per image")
    check_integers(side=side, radius=radius)

    def random_integers(upper: Tensor) -> Tensor:
        """Random integers from 0 to upper - 1."""
        random = torch.rand(upper.shape, generator=generator, device=images.device, dtype=torch.float64)
        return (random * upper).long()

    squares = torch.full((2, batch, -(-height // side), -(-width // side)), side, device=images.device)
    inner = random_integers(squares)  # (2, B, rows, columns): position in the square
    rows, columns = (torch.arange(n, device=images.device) * side for n in squares.shape[2:])
    y, x = inner[0] + rows[:, None], inner[1] + columns
    within = (y < height) & (x < width)
    b, y, x = within.nonzero()[:, 0], y[within], x[within]  # (P,)

    top, left = (y - radius).clamp(min=0), (x - radius).clamp(min=0)
    height_range, width_range = (
        (y + radius).clamp(max=height - 1) - top + 1,
        (x + radius).clamp(max=width - 1) - left + 1,
    )
    pick = random_integers(height_range * width_range - 1)
    pick += pick >= (y - top) * width_range + x - left  # skips the pixel itself
    changed, blind = images.clone(), torch.zeros(batch, height, width, dtype=torch.bool, device=images.device)
    changed[b, :, y, x] = images[b, :, top + pick // width_range, left + pick % width_range]
    blind[b, y, x] = True
    return changed, blind


def three_classes(label_map: Tensor) -> Tensor:
    """Background 0, foreground 1 and border 2 of a label map.

    The border is the background that shares an edge with a cell, and the pixels of a cell that have another cell in
    their 3x3 neighbourhood. So foreground pixels that touch, even at a corner, belong to one cell, and an isolated cell
    keeps all its pixels. A thin cell between others may be all border. The border of the image does not count.

    Args:
        label_map: (H, W) integers, 0 is background.

    Returns:
        (H, W) int64.

    >>> three_classes(torch.tensor([[0, 0, 7, 7, 7, 4, 4]]))
    tensor([[0, 2, 1, 1, 2, 2, 1]])
    """
    label_map = check_label_map("label_map", label_map, (2,))
    labels = label_map.double()[None, None]  # exact for every int32, and max_pool2d takes it
    cells = (labels > 0).double()
    touches_cell = (
        torch.maximum(F.max_pool2d(cells, (3, 1), 1, (1, 0)), F.max_pool2d(cells, (1, 3), 1, (0, 1)))[0, 0] > 0
    )
    highest = F.max_pool2d(labels, 3, 1, 1)[0, 0]
    lowest = -F.max_pool2d(torch.where(labels > 0, -labels, -torch.inf), 3, 1, 1)[0, 0]  # of cells only
    inside = label_map > 0
    border = torch.where(inside, highest != lowest, touches_cell)
    return torch.where(border, BORDER, inside.long())


def denoiseg_targets(label_map: Tensor, labelled: bool = True) -> dict[str, Tensor]:
    """The segmentation targets of one image.

    Args:
        label_map: (H, W) integers, 0 is background.
        labelled: False for an image without labels: its pixels are ignored in segmentation.

    Returns:
        `classes` (H, W) int64: `three_classes`, or 255 everywhere.
    """
    classes = three_classes(label_map)
    return {"classes": classes if labelled else torch.full_like(classes, UNKNOWN)}


class DenoiSeg(nn.Module):
    """A network whose first output channels are the denoised image and whose last three are classes.

    Args:
        network: maps images (B, C, H, W) to (B, C + 3, H, W), such as `UNet(1, 4, 32, padding=1)`, the paper's but
            for its batch normalisation.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Map images (B, C, H, W) to `denoised` (B, C, H, W) and `logits` (B, 3, H, W)."""
        maps = self.network(images)
        check_shape("network(images)", maps.shape, f"B? {images.shape[1] + 3} H W")
        return {"denoised": maps[:, :-3], "logits": maps[:, -3:]}


def denoiseg_loss(
    outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], alpha: float = 0.5
) -> dict[str, Tensor]:
    """alpha times the squared error at the blind spots, plus 1 - alpha times the cross-entropy of the classes.

    Args:
        outputs: `denoised` (B, C, H, W) and `logits` (B, 3, H, W) of the network for the images of `blind_spots`.
        targets: `images` (B, C, H, W), the original noisy images; `blind` (B, H, W) bool, of `blind_spots`;
            `classes` (B, H, W) int64, of `denoiseg_targets`. Pixels of class 255 are ignored.
        alpha: weight of denoising, 0 to 1; the paper's is 0.5.

    Returns:
        `denoising`, `segmentation`, both with their weights, and their sum `loss`, scalars. The squared error of an
        image is divided by its variance (at least 1e-4). Without a blind spot, or a pixel with a class, a term is 0.
    """
    check_number("alpha", alpha, maximum=1)
    check_keys("targets", targets, ("images", "blind", "classes"))
    sizes = check_tensor_dict("outputs", outputs, denoised="B C H W", logits="B 3 H W")
    check_tensor_dict("targets", targets, sizes, images="B C H W")
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
    """Label maps: the connected components of the pixels whose foreground probability is above a threshold.

    Args:
        outputs: `logits` (B, 3, H, W) of the network.
        foreground_threshold: of the probability. The paper chooses it on validation images; higher ones separate more
            cells.
        min_size: pixels; smaller components become background.

    Returns:
        B label maps (H, W) int32, on the device of the outputs. Components are 8-connected, as in `three_classes`.
    """
    check_tensor_dict("outputs", outputs, logits="B 3 H W")
    check_no_nan("outputs", outputs, ("logits",))
    check_number("foreground_threshold", foreground_threshold, maximum=1)
    inside = outputs["logits"].detach().softmax(dim=1)[:, FOREGROUND] > foreground_threshold
    return [drop_small_objects(connected_components(image, connectivity=8)[0], min_size) for image in inside]
