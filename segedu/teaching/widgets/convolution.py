"""The grids of chapter 3: the input pixels of one output pixel, or the output pixels of one input pixel."""

from __future__ import annotations

from collections import Counter

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from segedu.ops.convolution import conv_output_size, transposed_conv_output_size
from segedu.teaching.widgets.explore import explore_in_browser
from segedu.viz import show

INK, TAP, CHOSEN, PLAIN, FRAME = "#1b1b1b", "#e69f00", "#56b4e9", "#ffffff", "#d55e00"
CONVOLUTION, TRANSPOSED = "convolution", "transposed convolution"
LABELS = {"size": "size H", "kernel_size": "kernel K", "stride": "stride S", "padding": "padding P"}
LABELS |= {"dilation": "dilation D", "output_padding": "output padding OP"}
HOMEWORK = {"kernel_size": 3, "stride": 2, "padding": 1, "pixel": 5}
FRAMES = [
    {"operation": CONVOLUTION, "size": 7, **HOMEWORK},
    {"operation": CONVOLUTION, "size": 8, **HOMEWORK},
    {"operation": CONVOLUTION, "size": 7, "stride": 1, "padding": 2, "dilation": 2, "pixel": 24},
    {"operation": TRANSPOSED, "size": 4, **HOMEWORK, "output_padding": 1},
]


def formula(
    operation: str, size: int, kernel_size: int, stride: int, padding: int, dilation: int, output_padding: int
) -> tuple[str, int]:
    """Write the formula of the output size with the values H, K, S, P, D and OP; returns the text and the size.

    Raises:
        ValueError: if there is no output for these values.

    >>> formula("convolution", 8, 3, 2, 1, 1, 0)
    ('floor((8 + 2*1 - 1*(3 - 1) - 1) / 2) + 1 = floor(7/2) + 1 = 4', 4)
    >>> formula("transposed convolution", 4, 3, 2, 1, 1, 1)
    ('(4 - 1)*2 - 2*1 + 1*(3 - 1) + 1 + 1 = 8', 8)
    """
    if operation == CONVOLUTION:
        out = conv_output_size(size, kernel_size, stride, padding, dilation)
        room = size + 2 * padding - dilation * (kernel_size - 1) - 1
        text = f"floor(({size} + 2*{padding} - {dilation}*({kernel_size} - 1) - 1) / {stride}) + 1"
        return f"{text} = floor({room}/{stride}) + 1 = {out}", out
    out = transposed_conv_output_size(size, kernel_size, stride, padding, output_padding, dilation)
    text = f"({size} - 1)*{stride} - 2*{padding} + {dilation}*({kernel_size} - 1) + 1 + {output_padding}"
    return f"{text} = {out}", out


def taps(index: int, kernel_size: int, stride: int, dilation: int) -> list[int]:
    """Indices of one kernel's taps along one axis, counted from the first padded (or cropped) pixel.

    >>> taps(2, 3, stride=2, dilation=3)
    [4, 7, 10]
    """
    return [index * stride + dilation * i for i in range(kernel_size)]


def draw_grids(
    operation: str = CONVOLUTION,
    size: int = 7,
    kernel_size: int = 3,
    stride: int = 2,
    padding: int = 1,
    dilation: int = 1,
    output_padding: int = 0,
    pixel: int = 0,
) -> None:
    """Show input and output as grids, with one window or one patch marked.

    Args:
        operation: "convolution" or "transposed convolution"; only the latter uses `output_padding`.
        size: H = W of the input.
        pixel: number of the marked output pixel (convolution) or input pixel (transposed); wraps around.
    """
    hyperparameters = (operation, size, kernel_size, stride, padding, dilation, output_padding)
    try:
        text, out = formula(*hyperparameters)
    except ValueError as error:
        fig = Figure(figsize=(7.2, 1.2))
        fig.text(0.02, 0.5, f"This {operation} has no output: {error}.", color=INK, wrap=True)
        show(fig, f"No picture, because this {operation} has no output: {error}.")
        return
    fig = Figure(figsize=(8.4, 4.4), layout="constrained")
    axes = fig.subplots(1, 2)
    draw = _convolution if operation == CONVOLUTION else _transposed
    description = draw(axes, size, out, (kernel_size, stride, padding, dilation, output_padding), pixel)
    fig.suptitle(f"{operation}, {size} x {size} to {out} x {out}\n{text}", fontsize=11, color=INK)
    show(fig, f"Two grids: input of {size} x {size} pixels, output of {out} x {out}. {description} Formula: {text}.")


def _convolution(axes: list[Axes], size: int, out: int, hyperparameters: tuple, pixel: int) -> str:
    kernel_size, stride, padding, dilation, _ = hyperparameters
    y, x = divmod(pixel % out**2, out)
    rows, columns = (taps(index, kernel_size, stride, dilation) for index in (y, x))
    padded = size + 2 * padding
    reached = {t for index in range(out) for t in taps(index, kernel_size, stride, dilation)}
    for i in range(padded):
        for j in range(padded):
            outside = not all(padding <= t < padding + size for t in (i, j))
            unused = i not in reached or j not in reached
            hatch = "xx" if unused else "...." if outside else None
            colour = TAP if i in rows and j in columns else PLAIN
            _cell(axes[0], i, j, colour, "0" if outside and padded <= 16 else "", hatch)
    span = dilation * (kernel_size - 1) + 1
    axes[0].add_patch(Rectangle((columns[0], rows[0]), span, span, fill=False, ec=FRAME, lw=2.5))
    _grid(axes[1], out, {(y, x): CHOSEN})
    _frame(axes[0], padded, max(padded, out), "input, with padding (dotted)" if padding else "input")
    _frame(axes[1], out, max(padded, out), "output")
    text = f"Output pixel ({y}, {x}) depends on {kernel_size} x {kernel_size} marked pixels within {span} x {span}."
    if unseen := padded - len(reached):
        axes[0].set_xlabel(f"crossed: not used, {unseen} of {padded} rows and columns", fontsize=9)
        text += f" {unseen} of {padded} rows and columns are not used."
    return text


def _transposed(axes: list[Axes], size: int, out: int, hyperparameters: tuple, pixel: int) -> str:
    kernel_size, stride, padding, dilation, _ = hyperparameters
    y, x = divmod(pixel % size**2, size)
    rows, columns = (taps(index, kernel_size, stride, dilation) for index in (y, x))
    count = Counter(t for index in range(size) for t in taps(index, kernel_size, stride, dilation))
    padded = out + 2 * padding
    for i in range(padded):
        for j in range(padded):
            cropped = not all(padding <= t < padding + out for t in (i, j))
            colour = TAP if i in rows and j in columns else PLAIN
            _cell(axes[1], i, j, colour, str(count[i] * count[j]) if padded <= 16 else "", "//" if cropped else None)
    span = dilation * (kernel_size - 1) + 1
    axes[1].add_patch(Rectangle((columns[0], rows[0]), span, span, fill=False, ec=FRAME, lw=2.5))
    _grid(axes[0], size, {(y, x): CHOSEN})
    _frame(axes[0], size, max(size, padded), "input")
    _frame(axes[1], padded, max(size, padded), "output, with the cropped border (hatched)" if padding else "output")
    inside = [count[t] for t in range(padding, padding + out)]
    low, high = min(inside) ** 2, max(inside) ** 2
    axes[1].set_xlabel(f"overlapping patches per pixel: {low} to {high}", fontsize=9)
    return (
        f"Input pixel ({y}, {x}) adds {kernel_size} x {kernel_size} values within {span} x {span} pixels; "
        f"from {low} to {high} patches overlap at an output pixel."
    )


def _grid(ax: Axes, size: int, marked: dict[tuple[int, int], str]) -> None:
    for i in range(size):
        for j in range(size):
            _cell(ax, i, j, marked.get((i, j), PLAIN))


def _cell(ax: Axes, row: int, column: int, colour: str, text: str = "", hatch: str | None = None) -> None:
    ax.add_patch(Rectangle((column, row), 1, 1, facecolor=colour, edgecolor="#8a8a8a", linewidth=0.7, hatch=hatch))
    if text:
        plain = {"facecolor": colour, "linewidth": 0, "pad": 1.2} if hatch else None  # no hatching crosses the number
        ax.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=9, color=INK, bbox=plain)


def _frame(ax: Axes, size: int, scale: int, title: str) -> None:
    """Draw both grids at the same scale, each in the middle of its panel."""
    low, high = (size - scale) / 2 - 0.1, (size + scale) / 2 + 0.1
    ax.set(xlim=(low, high), ylim=(high, low), aspect="equal", xticks=[], yticks=[])
    ax.set_title(title, fontsize=10, color=INK)
    for side in ax.spines.values():
        side.set_visible(False)


def explorer() -> None:
    """Show the chapter's widget: an explorer in a notebook, four static frames elsewhere."""
    explore_in_browser(draw_grids, "convolution", "transposed_convolution", static=FRAMES, labels=LABELS)
