"""InverseForm: how far is the predicted boundary from the true one, as a transformation that a network estimates?

Borse et al. 2021 (arXiv 2104.02745). Cross-entropy of boundary maps does not know how far off a wrong pixel is: a
boundary moved by two pixels is as wrong as one moved by twenty. A small network, trained beforehand on pairs of
tiles with known transformations and then frozen, looks at a tile of both maps and says which transformation leads
from one to the other; its distance to "none" is the loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.losses.reduction import full_precision
from segedu.validation.targets import check_soft_target

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)  # rows of a 3x3 matrix without its last 1; affine: the first 6


def inverse_form_loss(
    boundary_logits: Tensor,
    boundary: Tensor,
    inverse_net: Callable[[Tensor, Tensor], Tensor],
    *,
    tile: int = 32,
    ignore_index: int | None = 255,
) -> Tensor:
    """``mean |θ_j - I|``: distance from identity of the transformation between both maps, tile by tile.

    Borse et al. 2021 (the Euclidean distance). They add it to cross-entropy of classes and of
    boundaries.

    Paper: their distance is one of two; the other, geodesic one, is left out. The predicted boundary is a score of a
    boundary head, here before the sigmoid. Tiles without a true boundary count for nothing: there is no
    transformation to estimate. What is left of the image at the right and below, if it is no whole tile, is padded
    with 0.

    Args:
        boundary_logits: (B, H, W) scores of "here is a boundary", before the sigmoid.
        boundary: (B, H, W) true boundaries: 0 and 1 as bools or integers (``class_boundary`` makes them).
        inverse_net: takes tiles (N, 1, T, T) of the prediction and of the truth, in [0, 1], and gives (N, 6)
            parameters of an affine transformation, or (N, 8) of a homography: rows of the matrix, identity for equal
            tiles. ``InverseNet`` is a small one. Its parameters should need no gradient.
        tile: side T of a tile.
        ignore_index: pixels with this value in ``boundary`` are 0 in both maps.

    Returns:
        A scalar of at least 0, mean over tiles; 0 with no gradient if no tile has a boundary.

    Raises:
        TypeError: an argument is not of the right kind.
        ValueError: the shapes do not fit, ``tile`` is below 1, or the net gives neither 6 nor 8 parameters.

    Example:
        A net that answers "moved by 0.3 to the right", whatever it sees.

        >>> moved = lambda a, b: torch.tensor([[1.0, 0.0, 0.3, 0.0, 1.0, 0.0]]).expand(len(a), 6)
        >>> inverse_form_loss(torch.zeros(1, 4, 4), torch.ones(1, 4, 4), moved, tile=4)
        tensor(0.3000)
    """
    truth, counted = check_soft_target(boundary_logits, boundary, ignore_index)
    if boundary_logits.ndim != 3:
        raise ValueError(f"boundary_logits has shape {tuple(boundary_logits.shape)}, expected (B, H, W)")
    if isinstance(tile, bool) or not isinstance(tile, int):
        raise TypeError(f"tile has type {type(tile).__name__}, expected an int")
    if tile < 1:
        raise ValueError(f"tile is {tile}, expected at least 1")
    preds = torch.sigmoid(full_precision(boundary_logits)) * counted
    preds, truth = cut_tiles(preds, tile), cut_tiles(truth, tile)
    with_boundary = truth.flatten(1).any(1)
    if not with_boundary.any():
        return preds.sum() * 0
    theta = inverse_net(preds[with_boundary], truth[with_boundary])
    if theta.ndim != 2 or theta.shape[1] not in (6, 8):
        raise ValueError(f"inverse_net gives shape {tuple(theta.shape)}, expected (N, 6) or (N, 8)")
    squares = (theta - theta.new_tensor(IDENTITY[: theta.shape[1]])).square().sum(1)
    apart = squares > 0  # the root has no slope at 0
    return torch.where(apart, torch.where(apart, squares, 1.0).sqrt(), 0.0).mean()


def cut_tiles(maps: Tensor, tile: int) -> Tensor:
    """Maps cut into squares, padded with 0 at the right and below.

    Args:
        maps: (B, H, W).
        tile: side T of a square.

    Returns:
        (N, 1, T, T), image by image, row by row.

    Example:
        >>> cut_tiles(torch.arange(6.0).reshape(1, 2, 3), 2)[:, 0].tolist()
        [[[0.0, 1.0], [3.0, 4.0]], [[2.0, 0.0], [5.0, 0.0]]]
    """
    B, H, W = maps.shape
    padded = F.pad(maps, (0, -W % tile, 0, -H % tile))
    rows, columns = padded.shape[1] // tile, padded.shape[2] // tile
    return padded.reshape(B, rows, tile, columns, tile).transpose(2, 3).reshape(-1, 1, tile, tile)


def class_boundary(target: Tensor, ignore_index: int | None = 255) -> Tensor:
    """Pixels next to another class (4 neighbours), on both sides of the edge.

    Args:
        target: (B, H, W) int64 true classes.
        ignore_index: such pixels stay as they are, and make no boundary.

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
        differ = (first != second) & ~ignored.narrow(axis, 0, size) & ~ignored.narrow(axis, 1, size)
        boundary.narrow(axis, 0, size).masked_fill_(differ, 1)
        boundary.narrow(axis, 1, size).masked_fill_(differ, 1)
    return torch.where(ignored, target, boundary)


class InverseNet(nn.Module):
    """Estimates the affine transformation that leads from one boundary tile to another.

    Paper: theirs is a deep fully connected network on large tiles. Convolutions on small tiles learn the same from a
    few hundred synthetic pairs on a CPU, which is enough to show the idea, not to train on real boundaries.

    Args:
        tile: side of the tiles, a multiple of 8.
        width: channels of the first convolution.

    Raises:
        ValueError: ``tile`` is not a multiple of 8.

    Example:
        Untrained it answers "identity".

        >>> InverseNet(tile=16)(torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)).tolist()
        [[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]]
    """

    def __init__(self, tile: int = 32, width: int = 16) -> None:
        super().__init__()
        if tile < 8 or tile % 8:
            raise ValueError(f"tile is {tile}, expected a multiple of 8")
        layers: list[nn.Module] = []
        for before, after in ((2, width), (width, 2 * width), (2 * width, 4 * width)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)]
        self.features = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * width * (tile // 8) ** 2, 64), nn.ReLU())
        self.head = nn.Linear(64, 6)
        nn.init.zeros_(self.head.weight)
        self.head.bias.data = torch.tensor(IDENTITY[:6])

    def forward(self, preds: Tensor, target: Tensor) -> Tensor:
        """Parameters (N, 6) of two tiles (N, 1, T, T)."""
        return self.head(self.features(torch.cat([preds, target], dim=1)))


def synthetic_tiles(count: int, tile: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of boundary tiles with the transformation between them.

    A tile is the outline of a random ellipse; the other is the same outline, turned by up to 20 degrees, scaled by
    0.8 to 1.2 and moved by up to 0.3 of half a tile.

    Args:
        count: number of pairs N.
        tile: side T of a tile.
        generator: source of the random numbers.

    Returns:
        Moved tiles (N, 1, T, T), tiles (N, 1, T, T), both in [0, 1], and parameters (N, 6): a point of the moved tile
        comes from the place that the affine transformation gives it, in coordinates from -1 to 1.

    Raises:
        ValueError: there is no pair, or a tile is narrower than 2 pixels.

    Example:
        >>> moved, tiles, theta = synthetic_tiles(2, 16, torch.Generator().manual_seed(0))
        >>> moved.shape, theta.shape
        (torch.Size([2, 1, 16, 16]), torch.Size([2, 6]))
    """
    if count < 1:
        raise ValueError(f"count is {count}, expected at least 1")
    if tile < 2:
        raise ValueError(f"tile is {tile}, expected at least 2")

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, generator=generator)

    axis = torch.linspace(-1, 1, tile)
    y, x = axis[:, None] - uniform(-0.3, 0.3), axis[None] - uniform(-0.3, 0.3)  # (N, T, 1), (N, 1, T)
    turn, a, b = uniform(0, math.pi), uniform(0.3, 0.7), uniform(0.3, 0.7)
    radius = (((x * turn.cos() + y * turn.sin()) / a) ** 2 + ((y * turn.cos() - x * turn.sin()) / b) ** 2).sqrt()
    tiles = (1 - (radius - 1).abs() * torch.minimum(a, b) * tile / 4).clamp(min=0)[:, None]  # a line of ~4 pixels
    turn, scale = uniform(-math.pi / 9, math.pi / 9), uniform(0.8, 1.2)
    rows = (scale * turn.cos(), -scale * turn.sin(), uniform(-0.3, 0.3))
    rows += (scale * turn.sin(), scale * turn.cos(), uniform(-0.3, 0.3))
    theta = torch.cat(rows, dim=1)[:, :, 0]  # (N, 6)
    grid = F.affine_grid(theta.reshape(-1, 2, 3), [count, 1, tile, tile], align_corners=True)
    return F.grid_sample(tiles, grid, align_corners=True), tiles, theta


def train_inverse_net(net: InverseNet, *, steps: int = 300, batch: int = 64, tile: int = 32, seed: int = 0) -> float:
    """Train on synthetic pairs with known transformations, then freeze.

    Args:
        net: the network, changed in place; afterwards its parameters need no gradient.
        steps: number of steps of Adam.
        batch: pairs a step.
        tile: side of the tiles, that of the network.
        seed: of the pairs.

    Returns:
        Mean absolute error of the parameters over the last tenth of the steps.

    Raises:
        ValueError: ``steps`` is below 1.

    Example:
        >>> net = InverseNet(tile=8, width=2)
        >>> error = train_inverse_net(net, steps=1, batch=2, tile=8)
        >>> any(parameter.requires_grad for parameter in net.parameters())
        False
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}, expected at least 1")
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(net.parameters(), lr=2e-3)
    errors = []
    for _ in range(steps):
        moved, tiles, theta = synthetic_tiles(batch, tile, generator)
        loss = (net(moved, tiles) - theta).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        errors.append(loss.item())
    net.requires_grad_(False)
    last = errors[-max(1, steps // 10) :]
    return sum(last) / len(last)
