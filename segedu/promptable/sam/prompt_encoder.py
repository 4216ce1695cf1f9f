"""SAM's prompt encoder: points, boxes and masks as embeddings of the same width as the image embedding.

Paper: Kirillov, Mintun, Ravi et al., "Segment Anything", ICCV 2023, arXiv 2304.02643, section 3 and appendix A.
    Random frequencies: Tancik et al., "Fourier Features Let Networks Learn High Frequency Functions in Low
    Dimensional Domains", NeurIPS 2020, arXiv 2006.10739.
Idea: A point becomes one vector: sines and cosines of its position, at frequencies sampled once at random, plus a
    learned vector for foreground or background. A box is two such points, with a learned vector for each corner. A mask
    is downsampled by small convolutions to the size of the image embedding, and added to it location by location.
Simplified: no text.
Shapes: points (N, P, 2), labels (N, P), boxes (N, 4), masks (N, 4 h, 4 w) -> sparse embeddings (N, T, D), T = P + 1 or
    P + 2, or 2 without points; and dense embeddings (N, D, h, w), or (1, D, 1, 1) without masks.
Quality: equal to Meta's segment-anything at the same weights (tests/promptable).
Course: 16-promptable
Lab: 16_promptable
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from segedu.layers.instance_targets import Size
from segedu.layers.layer_norm import LayerNorm2d
from segedu.validation.exporting import is_exporting
from segedu.validation.numbers import check_multiple
from segedu.validation.tensors import check_finite, check_floats, check_tensor

FOREGROUND, BACKGROUND, PADDING = 1, 0, -1  # labels of points
AXES = {"point_coords": "P 2", "point_labels": "P", "boxes": "4", "mask_inputs": "h w"}  # after B, or B and N


class PromptEncoder(nn.Module):
    """Embed points, boxes and masks; state dict keys as in the authors' files.

    Args:
        embed_dim: D of the image embedding, a multiple of 2.
        embedding_size: h and w of the image embedding, which are equal.
        image_size: height and width of the encoder's image in pixels; prompts are in these pixels.
        mask_channels: number of channels between the convolutions on masks, a multiple of 4.
    """

    def __init__(
        self, embed_dim: int = 256, embedding_size: int = 64, image_size: int = 1024, mask_channels: int = 16
    ) -> None:
        super().__init__()
        check_multiple("embed_dim", embed_dim, 2)
        check_multiple("mask_channels", mask_channels, 4)
        self.embed_dim, self.embedding_size, self.image_size = embed_dim, embedding_size, image_size
        self.mask_size = 4 * embedding_size
        self.pe_layer = FourierPosition(embed_dim)
        # background, foreground, upper left corner, lower right corner
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, embed_dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, embed_dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_channels // 4, kernel_size=2, stride=2),
            LayerNorm2d(mask_channels // 4),
            nn.GELU(),
            nn.Conv2d(mask_channels // 4, mask_channels, kernel_size=2, stride=2),
            LayerNorm2d(mask_channels),
            nn.GELU(),
            nn.Conv2d(mask_channels, embed_dim, kernel_size=1),
        )
        self.no_mask_embed = nn.Embedding(1, embed_dim)

    def forward(
        self,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        sparse_embeddings = []
        if points is not None:
            sparse_embeddings.append(self.embed_points(points, labels))
            if boxes is None:  # a padding point, so that a prompt of points has at least two vectors, like a box
                sparse_embeddings.append(self.not_a_point_embed.weight.expand(len(points), 1, -1))
        if boxes is not None:
            sparse_embeddings.append(self.embed_boxes(boxes))
        count = next((len(prompt) for prompt in (points, boxes, masks) if prompt is not None), 1)
        empty = self.no_mask_embed.weight.new_zeros(count, 0, self.embed_dim)
        return torch.cat([empty, *sparse_embeddings], dim=1), self.embed_masks(masks)

    def embed_points(self, points: Tensor, labels: Tensor) -> Tensor:
        """Embed the position and the label of each point as (N, P, D).

        Args:
            points: (N, P, 2), (x, y) in pixels; integers are pixel centres.
            labels: (N, P), 1 foreground, 0 background, -1 padding, for different numbers of points in a batch.
        """
        tables = (self.not_a_point_embed, self.point_embeddings[0], self.point_embeddings[1])  # -1, 0, 1
        label_embeddings = torch.cat([table.weight for table in tables])[labels.long() + 1]  # (N, P, D)
        return label_embeddings + self.pe_layer((points + 0.5) / self.image_size) * (labels != PADDING)[..., None]

    def embed_boxes(self, boxes: Tensor) -> Tensor:
        """Embed the two corners of boxes (N, 4), xyxy in pixels, as (N, 2, D)."""
        corners = torch.cat([table.weight for table in list(self.point_embeddings)[2:]])  # (2, D)
        # Paper: does not mention half pixels; in the authors' code corners, too, are pixel centres.
        return self.pe_layer((boxes.unflatten(-1, (2, 2)) + 0.5) / self.image_size) + corners

    def embed_masks(self, masks: Tensor | None) -> Tensor:
        """Embed masks, to be added to the image embedding.

        Args:
            masks: (N, 4 h, 4 w), logits of an earlier prediction; or None.

        Returns:
            (N, D, h, w); without masks one learned vector for all locations, (1, D, 1, 1).
        """
        if masks is None:
            return self.no_mask_embed.weight[..., None, None]
        return self.mask_downscaling(masks[:, None])

    def dense_positions(self) -> Tensor:
        """Position encoding (D, h, w) of the locations of the image embedding."""
        size, like = self.embedding_size, self.no_mask_embed.weight
        line = (torch.arange(size, dtype=like.dtype, device=like.device) + 0.5) / size
        y, x = torch.meshgrid(line, line, indexing="ij")
        return self.pe_layer(torch.stack([x, y], dim=-1)).permute(2, 0, 1)


class FourierPosition(nn.Module):
    """Sines and cosines of 2 pi (a x + b y), for D / 2 pairs (a, b) sampled once from a normal distribution."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        # not trained, but in the state dict: the weights only work with the frequencies that they were trained with
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, embed_dim // 2))

    def forward(self, coords: Tensor) -> Tensor:
        frequencies = self.positional_encoding_gaussian_matrix
        angles = 2 * math.pi * (2 * coords.to(frequencies) - 1) @ frequencies  # (..., 2) in [0, 1] -> (..., D / 2)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


def check_prompts(prompts: Mapping[str, Tensor], batch: int, mask_size: int, size: Size) -> tuple[bool, int]:
    """Check prompts for one object of each image, or for N.

    Points and boxes must lie in the image, and boxes must not look normalised: with all boxes between 0 and 1 and
    smaller than a pixel. Values are not checked while a network is exported.

    Args:
        prompts: some of `point_coords`, `point_labels`, `boxes` and `mask_inputs`.
        batch: B, number of images.
        mask_size: h and w of `mask_inputs`.
        size: (H, W) of the images; points and boxes are in their pixels.

    Returns:
        Whether there is an axis for the objects of an image, and how many there are.

    >>> check_prompts({"boxes": torch.zeros(2, 5, 4)}, 2, 256, (480, 640))
    (True, 5)
    """
    if not prompts:
        raise ValueError("no prompt was given, expected point_coords with point_labels, boxes or mask_inputs")
    if ("point_coords" in prompts) != ("point_labels" in prompts):
        raise ValueError(f"prompts has {', '.join(prompts)}, expected point_coords and point_labels together")
    first = next(iter(prompts))
    has_object_axis = isinstance(prompts[first], Tensor) and prompts[first].ndim == 2 + len(AXES[first].split())
    lengths = {"B": batch, "h": mask_size, "w": mask_size}
    for name, prompt in prompts.items():
        axes = f"B N {AXES[name]}" if has_object_axis else f"B {AXES[name]}"
        lengths = (check_tensor if name == "point_labels" else check_floats)(name, prompt, axes, lengths)
        check_finite(name, prompt)
    if not is_exporting() and "point_labels" in prompts:
        _check_points(prompts["point_coords"], prompts["point_labels"], size)
    if not is_exporting() and "boxes" in prompts:
        _check_boxes(prompts["boxes"].flatten(0, -2), size)
    return has_object_axis, lengths.get("N", 1)


def _check_points(points: Tensor, labels: Tensor, size: Size) -> None:
    if not bool(torch.isin(labels.long(), labels.new_tensor([-1, 0, 1]).long()).all()):
        raise ValueError(f"point_labels has the values {labels.unique().tolist()}, expected 1, 0 and -1 only")
    H, W = size
    # from the outer edge of the first pixel, -0.5, to W and H, where grids of points end
    outside = ((points < -0.5) | (points > points.new_tensor([W, H]))).any(-1) & (labels != PADDING)
    if bool(outside.any()):
        x, y = points[outside][0].tolist()
        raise ValueError(
            f"point_coords has the point ({x:.6g}, {y:.6g}), expected (x, y) in pixels of an image with H, W = {H}, {W}"
        )


def _check_boxes(boxes: Tensor, size: Size) -> None:
    H, W = size
    corners = f"corners (x1, y1, x2, y2) in pixels of an image with H, W = {H}, {W}"
    inverted = (boxes[:, 2:] < boxes[:, :2]).any(1)
    if bool(inverted.any()):
        raise ValueError(f"boxes has {boxes[inverted][0].tolist()}, expected {corners}, x1 <= x2 and y1 <= y2")
    outside = (boxes[:, 2:] < 0).any(1) | (boxes[:, :2] > boxes.new_tensor([W, H])).any(1)
    if bool(outside.any()):
        raise ValueError(f"boxes has {boxes[outside][0].tolist()}, outside the image, expected {corners}")
    sides = boxes[:, 2:] - boxes[:, :2]
    below_a_pixel = bool(((sides > 0) & (sides < 1)).any(1).all())  # detectors also return boxes without an area
    if len(boxes) and max(size) > 1 and below_a_pixel and bool(((boxes >= 0) & (boxes <= 1)).all()):
        first = boxes[0].tolist()
        raise ValueError(f"boxes has {first}, which looks normalised, expected {corners}: multiply by W, H, W, H")
