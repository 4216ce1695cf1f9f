"""Two boxes: IoU, Dice, GIoU, and where the gradient of IoU is zero (chapter 4)."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import Patch, Rectangle

from segedu.ops.boxes import box_iou, generalized_box_iou
from segedu.teaching.widgets.explore import explore_in_browser
from segedu.viz import show

FIXED_BOX = (8.0, 6.0, 16.0, 12.0)  # the fixed box, xyxy
CANVAS = (32.0, 20.0)  # width, height
FIXED_COLOUR, BOX_COLOUR, IOU_COLOUR, GIOU_COLOUR = "#000000", "#0072B2", "#E69F00", "#CC79A7"
ARROW_SCALE = 40.0  # pixels drawn for a gradient of 1 per pixel


def _box(x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def measures(x: float, y: float, width: float, height: float) -> dict[str, float | list[float]]:
    """Overlap of the fixed box with the box around (x, y), in pixels, and gradients with respect to the moving box.

    Returns:
        `iou`, `dice`, `giou`; `iou_gradient` and `giou_gradient`, each with respect to (x1, y1, x2, y2).
    """
    fixed = torch.tensor([FIXED_BOX], dtype=torch.float64)
    values: dict[str, float | list[float]] = {}
    for name, function in (("iou", box_iou), ("giou", generalized_box_iou)):
        box = torch.tensor([_box(x, y, width, height)], dtype=torch.float64, requires_grad=True)
        value = function(box, fixed).sum()
        (gradient,) = torch.autograd.grad(value, box)
        values |= {name: value.item(), f"{name}_gradient": gradient[0].tolist()}
    return values | {"dice": 2 * values["iou"] / (1 + values["iou"])}


def _draw_zone(axis: plt.Axes, width: float, height: float) -> None:
    """Hatch the centres at which the moving box does not touch the fixed one."""
    x1, y1, x2, y2 = FIXED_BOX
    left, top, right, bottom = x1 - width / 2, y1 - height / 2, x2 + width / 2, y2 + height / 2
    w, h = CANVAS
    for corner, size in (
        ((0, 0), (w, top)),
        ((0, bottom), (w, h - bottom)),
        ((0, top), (left, bottom - top)),
        ((right, top), (w - right, bottom - top)),
    ):
        if min(size) > 0:
            axis.add_patch(Rectangle(corner, *size, fc="#eeeeee", ec="#bbbbbb", hatch="//", lw=0, zorder=0))


def _draw_arrows(axis: plt.Axes, box: tuple, gradient: list[float], colour: str, sideways: float) -> None:
    """Draw one arrow at each of the two corners (x1, y1) and (x2, y2), shifted sideways so that none hides another."""
    for corner, step in ((box[:2], gradient[:2]), (box[2:], gradient[2:])):
        length = np.hypot(*step)
        if length > 1e-9:
            start = (corner[0] - sideways * step[1] / length, corner[1] + sideways * step[0] / length)
            end = (start[0] + ARROW_SCALE * step[0], start[1] + ARROW_SCALE * step[1])
            arrow = {"arrowstyle": "-|>", "color": colour, "lw": 2.2, "shrinkA": 0, "shrinkB": 0}
            axis.annotate("", xy=end, xytext=start, arrowprops=arrow, zorder=4)


def _draw_boxes(axis: plt.Axes, box: tuple, values: dict) -> None:
    corners = np.array([box, FIXED_BOX])
    x1, y1, x2, y2 = *corners[:, :2].min(0), *corners[:, 2:].max(0)
    axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec="#666666", ls=":", lw=1.5))
    for (a, b, c, d), colour, style in ((FIXED_BOX, FIXED_COLOUR, "-"), (box, BOX_COLOUR, "--")):
        axis.add_patch(Rectangle((a, b), c - a, d - b, fill=False, ec=colour, ls=style, lw=2.2))
    u1, v1, u2, v2 = *corners[:, :2].max(0), *corners[:, 2:].min(0)
    if u2 > u1 and v2 > v1:
        axis.add_patch(Rectangle((u1, v1), u2 - u1, v2 - v1, fc=BOX_COLOUR, alpha=0.25, lw=0))
    _draw_arrows(axis, box, values["giou_gradient"], GIOU_COLOUR, 0.3)
    _draw_arrows(axis, box, values["iou_gradient"], IOU_COLOUR, -0.3)
    axis.plot((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, "+", color=BOX_COLOUR, ms=10, mew=2)
    axis.set(xlim=(0, CANVAS[0]), ylim=(CANVAS[1], 0), aspect="equal", xlabel="x (pixels)", ylabel="y (pixels)")


def _draw_curves(axis: plt.Axes, x: float, y: float, width: float, height: float, current: dict) -> None:
    """Plot the three measures along x, at the current height."""
    xs = np.linspace(0, CANVAS[0], 129)
    boxes = torch.tensor([_box(u, y, width, height) for u in xs], dtype=torch.float64)
    fixed = torch.tensor([FIXED_BOX], dtype=torch.float64)
    iou, giou = box_iou(boxes, fixed)[:, 0].numpy(), generalized_box_iou(boxes, fixed)[:, 0].numpy()
    axis.fill_between(xs, -1, 1, where=iou == 0, fc="#eeeeee", ec="#bbbbbb", hatch="//", lw=0)
    curves = (("IoU", iou, "iou", IOU_COLOUR, "-"), ("Dice", 2 * iou / (1 + iou), "dice", "#009E73", "--"))
    for name, values, key, colour, style in (*curves, ("GIoU", giou, "giou", GIOU_COLOUR, "-.")):
        axis.plot(xs, values, style, color=colour, lw=2, label=f"{name} = {current[key]:.3f}")
        axis.plot(x, current[key], "o", color=colour, ms=7)
    axis.axvline(x, color=BOX_COLOUR, lw=1, ls=":")
    axis.set(xlim=(0, CANVAS[0]), ylim=(-1.02, 1.02), xlabel="x of the moving box's centre (pixels)", ylabel="value")
    axis.legend(loc="upper right", fontsize=9)


def draw_boxes(x: float = 24.0, y: float = 13.0, width: float = 8.0, height: float = 6.0) -> None:
    """Draw the two boxes with the arrows of both gradients, and the measures along x; see `measures`."""
    values = measures(x, y, width, height)
    fig, axes = plt.subplots(1, 2, figsize=(9.4, 4.2), width_ratios=(1.25, 1), layout="constrained")
    _draw_zone(axes[0], width, height)
    _draw_boxes(axes[0], _box(x, y, width, height), values)
    _draw_curves(axes[1], x, y, width, height, values)
    norms = {name: np.linalg.norm(values[f"{name}_gradient"]) for name in ("iou", "giou")}
    axes[0].set_title(f"gradient of IoU {norms['iou']:.3f}, of GIoU {norms['giou']:.3f} per pixel", fontsize=10)
    axes[1].set_title(f"IoU {values['iou']:.3f}, Dice {values['dice']:.3f}, GIoU {values['giou']:.3f}", fontsize=10)
    handles = [
        Patch(fill=False, ec=FIXED_COLOUR, lw=2, label="fixed box"),
        Patch(fill=False, ec=BOX_COLOUR, lw=2, ls="--", label="moving box"),
        Patch(fill=False, ec="#666666", ls=":", label="enclosing box"),
        Patch(fc=IOU_COLOUR, label="arrow: gradient of IoU"),
        Patch(fc=GIOU_COLOUR, label="arrow: gradient of GIoU"),
        Patch(fc="#eeeeee", ec="#bbbbbb", hatch="//", label="centre here: gradient of IoU is zero"),
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9)
    apart = "The boxes do not overlap, and only GIoU has arrows." if values["iou"] == 0 else "The boxes overlap."
    show(
        fig,
        alt=f"A fixed and a moving box with centre x {x:g}, y {y:g}, width {width:g}, height {height:g}. {apart} "
        f"IoU {values['iou']:.3f}, Dice {values['dice']:.3f}, GIoU {values['giou']:.3f}; gradient of IoU "
        f"{norms['iou']:.3f}, of GIoU {norms['giou']:.3f}. On the right, the three values along x.",
    )


def explorer() -> None:
    """Show the chapter's widget: an explorer in a notebook, three static frames elsewhere."""
    explore_in_browser(
        draw_boxes,
        "boxes",
        static=[
            {"x": 14.0, "y": 10.0, "width": 8.0, "height": 6.0},
            {"x": 12.0, "y": 9.0, "width": 4.0, "height": 3.0},
            {"x": 25.0, "y": 14.0, "width": 8.0, "height": 6.0},
        ],
        labels={"x": "x of the centre", "y": "y of the centre"},
    )
