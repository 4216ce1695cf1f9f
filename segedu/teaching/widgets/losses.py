"""One probability and four losses: cross-entropy, focal, L2 and Dice, value and gradient (chapter 7)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from segedu.losses.boxes import distance_iou_loss, iou_box_loss, lp_iou_loss
from segedu.losses.cross_entropy import binary_cross_entropy
from segedu.losses.focal import sigmoid_focal_loss
from segedu.teaching.widgets.explore import explore_in_browser
from segedu.viz import show

STYLES = {
    "cross-entropy": ("#0072B2", "-"),
    "focal": ("#CC79A7", "-."),
    "L2": ("#E69F00", "--"),
    "Dice": ("#009E73", ":"),
}


def four_losses(z: Tensor, target: str, gamma: float, pixels: int, smooth: float) -> dict[str, Tensor]:
    """Losses of a group of pixels with the same logit z; the rest of the image is predicted correctly with certainty.

    If the target is "object", the group is the object. If it is "background", the image has no object.

    Args:
        z: logits, any shape; the probability of "object" is sigmoid(z).
        target: "object" or "background".
        gamma: exponent of the focal loss, which has no alpha here.
        pixels: number of pixels in the group.
        smooth: s of the Dice loss.

    Returns:
        Name -> values with the shape of z. The first three are means over the group.
    """
    p, y = torch.sigmoid(z), float(target == "object")
    targets = torch.full_like(z, y)
    return {
        "cross-entropy": binary_cross_entropy(z, targets, reduction="none"),
        "focal": sigmoid_focal_loss(z, targets, alpha=None, gamma=gamma, reduction="none"),
        "L2": (p - y).square(),
        "Dice": 1 - (2 * pixels * y * p + smooth) / (pixels * y + pixels * p + smooth),
    }


def values_and_slopes(p: np.ndarray, target: str, gamma: float, pixels: int, smooth: float) -> dict[str, np.ndarray]:
    """Each loss at the probabilities p, and its derivative with respect to the common logit; see `four_losses`.

    Args:
        p: (N,) probabilities of "object", between 0 and 1.

    Returns:
        Name -> array (2, N): values, derivatives.
    """
    z = torch.logit(torch.as_tensor(p, dtype=torch.float64)).requires_grad_()
    curves = {}
    for name, value in four_losses(z, target, gamma, pixels, smooth).items():
        (derivative,) = torch.autograd.grad(value.sum(), z, retain_graph=True)
        curves[name] = np.stack([value.detach().numpy(), derivative.numpy()])
    return curves


def draw_losses(
    p: float = 0.05, target: str = "object", gamma: float = 2.0, pixels: int = 10, smooth: float = 1.0
) -> None:
    """Plot value and gradient of the four losses over p, with a mark at the given p; see `four_losses`."""
    at = values_and_slopes(np.array([p]), target, gamma, pixels, smooth)
    ps = np.linspace(0.005, 0.995, 199)
    curves = values_and_slopes(ps, target, gamma, pixels, smooth)
    fig, axes = plt.subplots(1, 2, figsize=(8.8, 4.2), layout="constrained")
    for row, (ax, title) in enumerate(
        zip(axes, ("loss", "size of the gradient with respect to the logit"), strict=True)
    ):
        for name, (colour, style) in STYLES.items():
            mark = abs(at[name][row, 0])
            ax.plot(ps, np.abs(curves[name][row]), style, color=colour, lw=2, label=f"{name} {mark:.3f}")
            ax.plot(p, mark, "o", color=colour, ms=7)
        ax.axvline(p, color="#666666", lw=1)
        top = 3.2 if row == 0 else max(1.05, *(1.05 * np.abs(curve[1]).max() for curve in curves.values()))
        ax.set(xlim=(0, 1), ylim=(-0.03, top), xlabel="probability of 'object', p", title=title)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=10, frameon=False)
    values = "; ".join(f"{name}: loss {v[0, 0]:.3f}, gradient {v[1, 0]:.3f}" for name, v in at.items())
    show(
        fig,
        alt=f"Target {target}, p {p:g}, gamma {gamma:g}, {pixels} pixels, s {smooth:g}. {values}. Left: losses over p; "
        "right: the sizes of their gradients.",
    )


BoxLoss = Callable[[Tensor, Tensor], Tensor]


def race(loss: BoxLoss, steps: int = 600, rate: float = 12.0) -> list[float]:
    """Minimise a box loss from a distant box by gradient descent with decreasing step size; returns the IoU per step.

    Args:
        loss: maps a box and its target, (1, 4) each, to a scalar.
        steps: number of steps.
        rate: length of the first step for a gradient of 1.
    """
    box, target = torch.tensor([[22.0, 12.0, 30.0, 20.0]]), torch.tensor([[4.0, 4.0, 12.0, 10.0]])
    ious = []
    for k in range(steps):
        box = box.detach().requires_grad_()
        ious.append(1 - iou_box_loss(box.detach(), target).item())
        (gradient,) = torch.autograd.grad(loss(box, target), box)
        box = box - rate * (1 - k / steps) * gradient
    return ious


# As in the chapter's other figure of these losses and in its explorer
RACE_STYLES = {
    "1 - IoU": ("#000000", "-"),
    "DIoU (distance IoU)": ("#0072B2", "--"),
    "L1 / 40 + (1 - IoU)": ("#009E73", (0, (5, 1, 1, 1, 1, 1))),
}
FURTHER_RACE_STYLES = (("#CC79A7", "-."), ("#D55E00", ":"))  # the first one for GIoU


def draw_race(others: dict[str, BoxLoss]) -> None:
    """Plot the best IoU so far per iteration for 1 - IoU, the given losses, DIoU and L1 + (1 - IoU)."""
    losses = {"1 - IoU": iou_box_loss, **others, "DIoU (distance IoU)": distance_iou_loss}
    losses["L1 / 40 + (1 - IoU)"] = lambda box, target: lp_iou_loss(box, target, weight=1 / 40)
    fig, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
    best_ious, further = {}, cycle(FURTHER_RACE_STYLES)
    for name, loss in losses.items():
        colour, style = RACE_STYLES.get(name) or next(further)
        ious = race(loss)
        best_ious[name] = round(max(ious), 2)
        ax.plot(
            np.maximum.accumulate(ious),
            linestyle=style,
            color=colour,
            lw=2,
            label=f"{name}: {max(ious):.2f}",
        )
    ax.set(xlabel="step", ylabel="best IoU so far", ylim=(-0.03, 1.03))
    ax.legend(loc="center right", fontsize=9)
    show(
        fig, alt=f"Best IoU by step when one box minimises several losses; 1 - IoU stays at 0. At the end: {best_ious}."
    )


def explorer() -> None:
    """Show the chapter's widget: an explorer in a notebook, three static frames elsewhere."""
    explore_in_browser(
        draw_losses,
        "losses",
        static=[
            {"p": 0.05, "target": "object"},
            {"p": 0.9, "target": "object", "gamma": 5.0},
            {"p": 0.3, "target": "background", "pixels": 1, "smooth": 100.0},
        ],
        labels={"p": "probability p", "pixels": "pixels in the group", "smooth": "s of Dice"},
    )
