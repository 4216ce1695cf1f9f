"""InverseForm: measures how far boundaries are apart by the transformation that a network estimates between them.

Borse et al. 2021 (arXiv 2104.02745). Cross-entropy of boundary maps does not depend on how far a wrong pixel is off: a
boundary moved by two pixels is as wrong as one moved by twenty. A small network, trained beforehand on pairs of tiles
with known transformations and then frozen, receives a tile of both maps and predicts the transformation that maps one
to the other. The loss is the distance of this transformation from the identity.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.losses.reduction import full_precision
from segedu.validation.numbers import check_integer, check_multiple
from segedu.validation.targets import check_soft_target
from segedu.validation.tensors import check_floats, check_tensor

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)  # rows of a 3x3 matrix without its last 1; affine: the first 6


def inverse_form_loss(
    boundary_logits: Tensor,
    boundary: Tensor,
    inverse_net: Callable[[Tensor, Tensor], Tensor],
    *,
    tile: int = 32,
    ignore_index: int | None = 255,
) -> Tensor:
    """InverseForm loss ``mean |θ_j - I|``: distance from identity of the transformation between both boundary tiles.

    Borse et al. 2021 (the Euclidean distance). They add it to the cross-entropy of classes and of boundaries.

    Paper: it has a second, geodesic distance, which is left out. The predicted boundary comes from a boundary head,
    here before the sigmoid. Tiles without a ground-truth boundary are excluded: there is no transformation to estimate.
    If the sides of the image are not multiples of the tile, it is padded with 0 at the right and bottom.

    Args:
        boundary_logits: (B, H, W), before the sigmoid.
        boundary: (B, H, W) ground-truth boundaries: bools, or integers 0 and 1, for example from ``class_boundary``.
        inverse_net: maps tiles (N, 1, T, T) of prediction and ground truth, in [0, 1], to (N, 6) parameters of an
            affine transformation, or (N, 8) of a homography: rows of the matrix, identity for equal tiles.
            ``InverseNet`` is a small one. Its parameters should be frozen.
        tile: side T of a tile.
        ignore_index: pixels with this value in ``boundary`` are 0 in both maps.

    Returns:
        A scalar of at least 0, mean over tiles; 0 without a gradient if no tile has a boundary.

    Example:
        A network that always predicts "moved by 0.3 to the right".

        >>> net = lambda a, b: torch.tensor([[1.0, 0.0, 0.3, 0.0, 1.0, 0.0]]).expand(len(a), 6)
        >>> inverse_form_loss(torch.zeros(1, 4, 4), torch.ones(1, 4, 4), net, tile=4)
        tensor(0.3000)
    """
    check_floats("boundary_logits", boundary_logits, "B H W")
    target, valid = check_soft_target(boundary_logits, boundary, ignore_index)
    check_integer("tile", tile)
    preds = torch.sigmoid(full_precision(boundary_logits)) * valid
    preds, target = split_into_tiles(preds, tile), split_into_tiles(target, tile)
    has_boundary = target.flatten(1).any(1)
    if not has_boundary.any():
        return preds.sum() * 0
    theta = inverse_net(preds[has_boundary], target[has_boundary])
    check_tensor("the result of inverse_net", theta, "N 6|8")
    squares = (theta - theta.new_tensor(IDENTITY[: theta.shape[1]])).square().sum(1)
    positive = squares > 0  # the gradient of the square root is infinite at 0
    return torch.where(positive, torch.where(positive, squares, 1.0).sqrt(), 0.0).mean()


def split_into_tiles(maps: Tensor, tile: int) -> Tensor:
    """Divide maps into square tiles, padded with 0 at the right and bottom.

    Args:
        maps: (B, H, W).
        tile: side T of a tile.

    Returns:
        (N, 1, T, T), image by image, row by row.

    Example:
        >>> split_into_tiles(torch.arange(6.0).reshape(1, 2, 3), 2)[:, 0].tolist()
        [[[0.0, 1.0], [3.0, 4.0]], [[2.0, 0.0], [5.0, 0.0]]]
    """
    B, H, W = maps.shape
    padded = F.pad(maps, (0, -W % tile, 0, -H % tile))
    rows, columns = padded.shape[1] // tile, padded.shape[2] // tile
    return padded.reshape(B, rows, tile, columns, tile).transpose(2, 3).reshape(-1, 1, tile, tile)


def class_boundary(target: Tensor, ignore_index: int | None = 255) -> Tensor:
    """Pixels next to a pixel of another class (4 neighbours), on both sides of the boundary.

    Args:
        target: (B, H, W) int64 classes.
        ignore_index: pixels with this target keep it, and form no boundary.

    Returns:
        (B, H, W) int64: 1 on boundaries, 0 off them, ``ignore_index`` where ignored.

    Example:
        >>> class_boundary(torch.tensor([[[0, 0, 1, 255, 2]]]))
        tensor([[[  0,   1,   1, 255,   0]]])
    """
    ignored = torch.zeros_like(target, dtype=torch.bool) if ignore_index is None else target == ignore_index
    boundary = torch.zeros_like(target)
    for axis in (1, 2):
        size = target.shape[axis] - 1
        first, second = target.narrow(axis, 0, size), target.narrow(axis, 1, size)
        is_boundary = (first != second) & ~ignored.narrow(axis, 0, size) & ~ignored.narrow(axis, 1, size)
        boundary.narrow(axis, 0, size).masked_fill_(is_boundary, 1)
        boundary.narrow(axis, 1, size).masked_fill_(is_boundary, 1)
    return torch.where(ignored, target, boundary)


class InverseNet(nn.Module):
    """Estimates the affine transformation between two boundary tiles.

    Paper: theirs is a deep fully connected network on large tiles. Convolutions on small tiles learn the same from a
    few hundred synthetic pairs on a CPU, which is enough to show the idea, not to train on real boundaries.

    Args:
        tile: side of the tiles, a multiple of 8.
        width: channels of the first convolution.

    Example:
        An untrained network predicts the identity.

        >>> InverseNet(tile=16)(torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)).tolist()
        [[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]]
    """

    def __init__(self, tile: int = 32, width: int = 16) -> None:
        super().__init__()
        check_multiple("tile", tile, 8)
        layers: list[nn.Module] = []
        for in_channels, out_channels in ((2, width), (width, 2 * width), (2 * width, 4 * width)):
            layers += [nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)]
        self.features = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * width * (tile // 8) ** 2, 64), nn.ReLU())
        self.head = nn.Linear(64, 6)
        nn.init.zeros_(self.head.weight)
        self.head.bias.data = torch.tensor(IDENTITY[:6])

    def forward(self, preds: Tensor, target: Tensor) -> Tensor:
        """Parameters (N, 6) for two tiles (N, 1, T, T)."""
        return self.head(self.features(torch.cat([preds, target], dim=1)))


def synthetic_tiles(count: int, tile: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of boundary tiles with the transformation between them.

    A tile is the outline of a random ellipse. The other is the same outline, rotated by up to 20 degrees, scaled by 0.8
    to 1.2 and translated by up to 0.3 of half a tile.

    Args:
        count: number of pairs N, at least 1.
        tile: side T of a tile, at least 2.
        generator: source of the random numbers.

    Returns:
        Transformed tiles (N, 1, T, T), tiles (N, 1, T, T), both in [0, 1], and parameters (N, 6), which map a point of
        the transformed tile to its source position, in coordinates from -1 to 1.

    Example:
        >>> warped, tiles, theta = synthetic_tiles(2, 16, torch.Generator().manual_seed(0))
        >>> warped.shape, theta.shape
        (torch.Size([2, 1, 16, 16]), torch.Size([2, 6]))
    """
    check_integer("count", count)
    check_integer("tile", tile, minimum=2)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, generator=generator)

    axis = torch.linspace(-1, 1, tile)
    y, x = axis[:, None] - uniform(-0.3, 0.3), axis[None] - uniform(-0.3, 0.3)  # (N, T, 1), (N, 1, T)
    angle, a, b = uniform(0, math.pi), uniform(0.3, 0.7), uniform(0.3, 0.7)
    radius = (((x * angle.cos() + y * angle.sin()) / a) ** 2 + ((y * angle.cos() - x * angle.sin()) / b) ** 2).sqrt()
    tiles = (1 - (radius - 1).abs() * torch.minimum(a, b) * tile / 4).clamp(min=0)[:, None]  # a line of ~4 pixels
    angle, scale = uniform(-math.pi / 9, math.pi / 9), uniform(0.8, 1.2)
    rows = (scale * angle.cos(), -scale * angle.sin(), uniform(-0.3, 0.3))
    rows += (scale * angle.sin(), scale * angle.cos(), uniform(-0.3, 0.3))
    theta = torch.cat(rows, dim=1)[:, :, 0]  # (N, 6)
    grid = F.affine_grid(theta.reshape(-1, 2, 3), [count, 1, tile, tile], align_corners=True)
    return F.grid_sample(tiles, grid, align_corners=True), tiles, theta


def train_inverse_net(
    net: InverseNet, *, steps: int = 300, batch_size: int = 64, tile: int = 32, seed: int = 0
) -> float:
    """Train a network on synthetic pairs with known transformations, then freeze it.

    Args:
        net: changed in place; afterwards its parameters do not require gradients.
        steps: number of Adam steps.
        batch_size: pairs per step.
        tile: side of the network's tiles.
        seed: of the pairs.

    Returns:
        Mean absolute error of the parameters over the last tenth of the steps.

    Example:
        >>> net = InverseNet(tile=8, width=2)
        >>> error = train_inverse_net(net, steps=1, batch_size=2, tile=8)
        >>> any(parameter.requires_grad for parameter in net.parameters())
        False
    """
    check_integer("steps", steps)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(net.parameters(), lr=2e-3)
    errors = []
    for _ in range(steps):
        warped, tiles, theta = synthetic_tiles(batch_size, tile, generator)
        loss = (net(warped, tiles) - theta).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        errors.append(loss.item())
    net.requires_grad_(False)
    last = errors[-max(1, steps // 10) :]
    return sum(last) / len(last)
