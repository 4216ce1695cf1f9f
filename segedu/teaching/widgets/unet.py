"""The U-Net of chapter 6 as a drawing: depth, channels, padding and image size against shapes, weights and memory."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from segedu.semantic.unet import UNet, unet_out_size
from segedu.teaching.widgets.explore import explore_in_browser
from segedu.viz import show

INK, SKIP, POOL, UP, BOX = "#1b1b1b", "#767676", "#b04700", "#00704f", "#0072b2"


@dataclass(frozen=True)
class Level:
    """One double convolution: its channels, and the side length before, between and after the two convolutions."""

    channels: int
    before: int
    middle: int
    after: int


def level_sizes(size: int, base_channels: int, depth: int, padding: int) -> tuple[list[Level], list[Level]]:
    """Follow a square image through the U-Net; its size must be legal for this depth and padding (see `legal_size`).

    Returns:
        The levels of the encoder, the bottom last, and those of the decoder, the full resolution last.

    >>> [level.after for level in level_sizes(572, 64, 4, 0)[1]]
    [52, 100, 196, 388]
    """
    border = 0 if padding else 2
    encoder, decoder = [], []
    for step in range(depth + 1):
        encoder.append(Level(base_channels * 2**step, size, size - border, size - 2 * border))
        size = (size - 2 * border) // 2
    size = encoder[-1].after
    for step in reversed(range(depth)):
        size *= 2
        decoder.append(Level(base_channels * 2**step, size, size - border, size - 2 * border))
        size -= 2 * border
    return encoder, decoder


def legal_size(size: int, depth: int, padding: int) -> int:
    """Smallest size of at least `size` that a U-Net of this depth accepts.

    >>> legal_size(560, 4, 0), legal_size(560, 4, 1), legal_size(16, 1, 0)
    (572, 560, 18)
    """
    while not _is_legal(size, depth, padding):
        size += 1
    return size


def _is_legal(size: int, depth: int, padding: int) -> bool:
    if padding:
        return size % 2**depth == 0
    try:
        return unet_out_size(size, depth) > 0
    except ValueError:
        return False


def count_parameters(base_channels: int, depth: int, in_channels: int = 1, num_classes: int = 2) -> int:
    """Count weights and biases of a U-Net, on PyTorch's meta device, which allocates no memory for them.

    >>> count_parameters(64, 4)
    31030658
    """
    import torch

    with torch.device("meta"):
        net = UNet(in_channels, num_classes, base_channels, depth)
    return sum(parameter.numel() for parameter in net.parameters())


def count_activations(encoder: list[Level], decoder: list[Level], in_channels: int = 1, num_classes: int = 2) -> int:
    """Count the values in all feature maps of one image, which training keeps for the backward pass; see `level_sizes`.

    The sum includes the image, the outputs of each convolution (with an in-place ReLU), pooling, up-convolution and
    concatenation, and the logits. Multiply it by 4 for the memory in bytes in float32.
    """
    total = in_channels * encoder[0].before ** 2
    total += sum(level.channels * (level.middle**2 + level.after**2) for level in encoder + decoder)
    total += sum(level.channels * (level.after // 2) ** 2 for level in encoder[:-1])  # poolings
    total += sum(3 * level.channels * level.before**2 for level in decoder)  # up-convolution, concatenation
    return total + num_classes * decoder[-1].after ** 2


def draw_unet(depth: int = 4, base_channels: int = 64, padding: int = 0, size: int = 572) -> None:
    """Draw the U-Net with its sizes, for an image whose size is rounded up to the next legal one."""
    size = legal_size(size, depth, padding)
    encoder, decoder = level_sizes(size, base_channels, depth, padding)
    fig = figure_of(encoder, decoder)
    parameters = count_parameters(base_channels, depth)
    memory = 4 * count_activations(encoder, decoder) / 2**20
    cost = f"{parameters:,} parameters, {memory:,.{0 if memory > 20 else 2}f} MiB of feature maps per image"
    fig.suptitle(
        f"image {size} x {size}, logits {decoder[-1].after} x {decoder[-1].after}; {cost}", fontsize=10, color=INK
    )
    deepest, out_size = encoder[-1], decoder[-1].after
    alt = (
        f"A U-Net of {depth} poolings: {size} pixels per side and {base_channels} channels at the top left, "
        f"{deepest.after} pixels and {deepest.channels} channels at the bottom, "
        f"{out_size} pixels at the top right; {cost}."
    )
    show(fig, alt)


def figure_of(encoder: list[Level], decoder: list[Level]) -> Figure:
    """Draw the levels, from `level_sizes`, as boxes with arrows between them."""
    depth = len(decoder)
    fig = Figure(figsize=(7.6, 1.1 + 0.85 * (depth + 1)), layout="constrained")
    ax = fig.subplots()
    positions = {}
    for step, level in enumerate(encoder):
        positions["down", step] = _box(ax, step, -step, level, f"{level.before} to {level.after}")
    for level_number, level in enumerate(decoder):
        step = depth - 1 - level_number
        positions["up", step] = _box(ax, 2 * depth - step, -step, level, f"{level.before} to {level.after}")
    for step in range(depth):
        below = positions["up", step + 1] if step + 1 < depth else positions["down", depth]
        _arrow(ax, positions["down", step], positions["down", step + 1], POOL, "pool 2x2")
        _arrow(ax, below, positions["up", step], UP, "up 2x2")
        _arrow(
            ax, positions["down", step], positions["up", step], SKIP, _crop(encoder[step], decoder[depth - 1 - step])
        )
    ax.set(xlim=(-0.8, 2 * depth + 0.8), ylim=(-depth - 0.62, 0.72))
    ax.axis("off")
    return fig


def _crop(left: Level, right: Level) -> str:
    cropped = left.after - right.before
    return f"copy, crop {left.after} to {right.before}" if cropped else "copy"


def _box(ax: Axes, x: float, y: float, level: Level, text: str) -> tuple[float, float]:
    """Draw one double convolution as a box with its channels inside and its sizes below."""
    ax.add_patch(Rectangle((x - 0.34, y - 0.2), 0.68, 0.4, facecolor="white", edgecolor=BOX, linewidth=1.8))
    ax.text(x, y, f"{level.channels}", ha="center", va="center", fontsize=10.5, color=INK)
    ax.text(x, y - 0.3, text, ha="center", va="center", fontsize=8, color=INK)
    return x, y


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], colour: str, text: str) -> None:
    level = start[1] == end[1]
    offset = 0.36 if level else 0.0
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.3, "linestyle": "--" if level else "-"}
    gap = 0.0 if level else (0.42 if end[1] < start[1] else 0.24)
    a = (start[0] + offset, start[1] - gap if end[1] < start[1] else start[1] + gap)
    b = (end[0] - offset, end[1] + 0.22 if end[1] < start[1] else end[1] - 0.42 * (not level))
    ax.annotate("", xy=b, xytext=a, arrowprops=style)
    x, y = (a[0] + b[0]) / 2, (a[1] + b[1]) / 2
    if level:
        if b[0] - a[0] < 2:  # the deepest skip is shorter than its label
            text = text.replace(", ", ",\n")
        ax.text(x, y + 0.1, text, ha="center", fontsize=8, color=colour)
    else:
        # pooling labels are left of their arrow, the others right, because the arrows meet at the bottom of the U
        side = -1 if end[1] < start[1] else 1
        ax.text(x + 0.13 * side, y - 0.05, text, ha="right" if side < 0 else "left", va="top", fontsize=8, color=colour)


def explorer() -> None:
    """Show the chapter's widget: an explorer in a notebook, three static frames elsewhere."""
    explore_in_browser(
        draw_unet,
        "unet_sizes",
        static=[
            {"depth": 4, "base_channels": 64, "padding": 0, "size": 572},
            {"depth": 4, "base_channels": 64, "padding": 1, "size": 576},
            {"depth": 2, "base_channels": 8, "padding": 1, "size": 64},
        ],
    )
