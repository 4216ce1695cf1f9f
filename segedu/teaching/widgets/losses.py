"""One probability and four losses: cross-entropy, focal, L2 and Dice, value and gradient (chapter 7)."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from segedu.losses.boxes import distance_iou_loss, iou_box_loss, lp_iou_loss
from segedu.losses.cross_entropy import binary_cross_entropy
from segedu.losses.focal import sigmoid_focal_loss
from segedu.teaching.widgets.explore import explore
from segedu.viz import show

STYLES = {
    "cross-entropy": ("#0072B2", "-"),
    "focal": ("#CC79A7", "-."),
    "L2": ("#E69F00", "--"),
    "Dice": ("#009E73", ":"),
}
TRUTHS = ("object", "background")


def four_losses(z: Tensor, truth: str, gamma: float, pixels: int, smooth: float) -> dict[str, Tensor]:
    """The losses of a group of pixels that all have the score z; the rest of the image is right and sure.

    If the truth is "object", the group is the object. If it is "background", the image has no object.

    Args:
        z: scores, any shape; the probability of "object" is sigmoid(z).
        truth: "object" or "background".
        gamma: of the focal loss, whose alpha is left out.
        pixels: in the group.
        smooth: s of the Dice loss.

    Returns:
        Name to values of the shape of z. The first three are means over the group.
    """
    p, y = torch.sigmoid(z), float(truth == "object")
    target = torch.full_like(z, y)
    return {
        "cross-entropy": binary_cross_entropy(z, target, reduction="none"),
        "focal": sigmoid_focal_loss(z, target, alpha=None, gamma=gamma, reduction="none"),
        "L2": (p - y).square(),
        "Dice": 1 - (2 * pixels * y * p + smooth) / (pixels * y + pixels * p + smooth),
    }


def values_and_slopes(p: np.ndarray, truth: str, gamma: float, pixels: int, smooth: float) -> dict[str, np.ndarray]:
    """Each loss at the probabilities p, and its derivative by the common score of the group.

    Args:
        p: (N,) probabilities of "object", between 0 and 1.
        truth: as in `four_losses`.
        gamma: as in `four_losses`.
        pixels: as in `four_losses`.
        smooth: as in `four_losses`.

    Returns:
        Name to an array (2, N): values, derivatives.
    """
    z = torch.logit(torch.as_tensor(p, dtype=torch.float64)).requires_grad_()
    found = {}
    for name, value in four_losses(z, truth, gamma, pixels, smooth).items():
        (slope,) = torch.autograd.grad(value.sum(), z, retain_graph=True)
        found[name] = np.stack([value.detach().numpy(), slope.numpy()])
    return found


def draw_losses(
    p: float = 0.05, truth: str = "object", gamma: float = 2.0, pixels: int = 10, smooth: float = 1.0
) -> None:
    """Draw value and gradient of the four losses over p, with a mark at the chosen one.

    Args:
        p: probability of "object", between 0 and 1.
        truth: "object" or "background".
        gamma: of the focal loss.
        pixels: in the group.
        smooth: s of the Dice loss.
    """
    at = values_and_slopes(np.array([p]), truth, gamma, pixels, smooth)
    ps = np.linspace(0.005, 0.995, 199)
    curves = values_and_slopes(ps, truth, gamma, pixels, smooth)
    fig, axes = plt.subplots(1, 2, figsize=(9.6, 3.6), layout="constrained")
    for row, (ax, title) in enumerate(zip(axes, ("loss", "pull at the score: size of the gradient"), strict=True)):
        for name, (colour, style) in STYLES.items():
            mark = abs(at[name][row, 0])
            ax.plot(ps, np.abs(curves[name][row]), style, color=colour, lw=2, label=f"{name} {mark:.3f}")
            ax.plot(p, mark, "o", color=colour, ms=7)
        ax.axvline(p, color="#666666", lw=1)
        top = 3.2 if row == 0 else max(1.05, *(1.05 * np.abs(curve[1]).max() for curve in curves.values()))
        ax.set(xlim=(0, 1), ylim=(-0.03, top), xlabel="probability of 'object', p", title=title)
        ax.legend(loc="upper right" if truth == "object" else "upper left", fontsize=9)
    said = "; ".join(f"{name}: loss {v[0, 0]:.3f}, gradient {v[1, 0]:.3f}" for name, v in at.items())
    show(
        fig,
        alt=f"Truth {truth}, p {p:g}, gamma {gamma:g}, {pixels} pixels, s {smooth:g}. {said}. Left the losses over p, "
        "right the sizes of their gradients.",
    )


BoxLoss = Callable[[Tensor, Tensor], Tensor]


def race(loss: BoxLoss, steps: int = 600, rate: float = 12.0) -> list[float]:
    """IoU after each step of gradient descent with shrinking steps, from a box far away.

    Args:
        loss: maps a box and its target, (1, 4) each, to one number.
        steps: of the descent.
        rate: length of the first step for a gradient of 1.

    Returns:
        One IoU a step.
    """
    box, goal = torch.tensor([[22.0, 12.0, 30.0, 20.0]]), torch.tensor([[4.0, 4.0, 12.0, 10.0]])
    reached = []
    for k in range(steps):
        box = box.detach().requires_grad_()
        reached.append(1 - iou_box_loss(box.detach(), goal).item())
        (slope,) = torch.autograd.grad(loss(box, goal), box)
        box = box - rate * (1 - k / steps) * slope
    return reached


def draw_race(others: dict[str, BoxLoss]) -> None:
    """Draw how far the same box comes by several losses.

    Args:
        others: name to loss, drawn beside 1 - IoU, distance IoU and L1 + (1 - IoU).
    """
    runners = {"1 - IoU": iou_box_loss, **others, "distance IoU": distance_iou_loss}
    runners["L1 / 40 + (1 - IoU)"] = lambda box, goal: lp_iou_loss(box, goal, weight=1 / 40)
    fig, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
    ends, styles = {}, ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
    colours = ("#000000", "#0072B2", "#E69F00", "#009E73", "#CC79A7")
    for i, (name, loss) in enumerate(runners.items()):
        reached = race(loss)
        ends[name] = round(max(reached), 2)
        ax.plot(
            np.maximum.accumulate(reached),
            linestyle=styles[i % 5],
            color=colours[i % 5],
            lw=2,
            label=f"{name}: {max(reached):.2f}",
        )
    ax.set(xlabel="step", ylabel="best IoU so far", ylim=(-0.03, 1.03))
    ax.legend(loc="center right", fontsize=9)
    show(
        fig, alt=f"Best IoU by step of one box that walks down several losses; 1 - IoU stays at 0. At the end: {ends}."
    )


def explorer() -> None:
    """The widget of chapter 7: move the probability; without a live notebook, three frames."""
    explore(
        draw_losses,
        static=[
            {"p": 0.05, "truth": "object"},
            {"p": 0.9, "truth": "object", "gamma": 5.0},
            {"p": 0.3, "truth": "background", "pixels": 1, "smooth": 100.0},
        ],
        labels={"p": "probability p", "pixels": "pixels in the group", "smooth": "s of Dice"},
        p=(0.01, 0.99, 0.01),
        truth=list(TRUTHS),
        gamma=(0.0, 5.0, 0.5),
        pixels=[1, 10, 100, 1000],
        smooth=[0.01, 1.0, 100.0],
    )
