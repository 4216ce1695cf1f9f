"""The explorer of box losses against the library's losses, their automatic derivatives and gradient descent."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from explorers.browser import assert_equal

from segedu.losses.boxes import (
    complete_iou_loss,
    distance_iou_loss,
    generalized_iou_loss,
    iou_box_loss,
    lp_iou_loss,
)
from segedu.teaching.widgets.losses import race

pytestmark = pytest.mark.browser
LOSSES = (iou_box_loss, generalized_iou_loss, distance_iou_loss, complete_iou_loss, partial(lp_iou_loss, weight=1 / 40))
STEPS, RATE = 600, 12.0
WITHOUT_RACES = """([states]) => states.map((values) => {
    const { losses, gradients } = modules.box_losses.compute(values);
    return { losses, gradients };
})"""


def first_boxes(states: list[dict]) -> torch.Tensor:
    x, y, w, h = (
        torch.tensor([state[name] for state in states], dtype=torch.float64) for name in ("x", "y", "width", "height")
    )
    return torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], dim=1)


def value_and_gradient(loss, boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    boxes = boxes.detach().requires_grad_()
    values = loss(boxes, torch.tensor([[4.0, 4.0, 12.0, 10.0]]).to(boxes).expand(len(boxes), 4), reduction="none")
    (gradient,) = torch.autograd.grad(values.sum(), boxes)
    return values.detach(), gradient


def test_losses_and_gradients_equal_python(explorers) -> None:
    states = explorers.states("box_losses", 100)
    # a box that touches the target, boxes inside it and around it, and equal sides
    states += [
        states[0] | {"x": x, "y": y, "width": w, "height": h}
        for x, y, w, h in ((16, 7, 8, 6), (8, 7, 4, 4), (8, 7, 16, 12), (8, 7, 8, 6))
    ]
    boxes = first_boxes(states)
    ious = 1 - value_and_gradient(iou_box_loss, boxes)[0]
    assert {iou > 0 for iou in ious.tolist()} == {True, False} and float(ious.max()) == 1
    targets = [value_and_gradient(loss, boxes) for loss in LOSSES]
    results = explorers.page.evaluate(WITHOUT_RACES, [states])
    for i, (state, result) in enumerate(zip(states, results, strict=True)):
        values = {
            "losses": [value[i] for value, _ in targets],
            "gradients": [gradient[i].tolist() for _, gradient in targets],
        }
        assert_equal(result, values, f"{state}")


def test_every_step_of_the_races_is_a_gradient_step(explorers) -> None:
    """Whole paths of 600 steps are not compared, because rounding errors grow where a box oscillates."""
    states = explorers.states("box_losses", 50, seed=3)
    results = explorers.compute("box_losses", states)
    paths = torch.tensor([result["boxes"] for result in results], dtype=torch.float64)  # (N, 5, STEPS + 1, 4)
    assert torch.equal(paths[:, 0, 0], first_boxes(states))
    rate = RATE * (1 - torch.arange(STEPS, dtype=torch.float64) / STEPS)[:, None]
    for k, loss in enumerate(LOSSES):
        before, after = paths[:, k, :-1], paths[:, k, 1:]
        _, gradient = value_and_gradient(loss, before.reshape(-1, 4))
        assert_equal(after.tolist(), (before - rate * gradient.reshape(before.shape)).tolist(), f"loss {k}")
        ious = 1 - value_and_gradient(iou_box_loss, paths[:, k].reshape(-1, 4))[0].reshape(len(states), -1)
        assert_equal([result["best"][k] for result in results], ious.amax(dim=1).tolist(), f"loss {k}")


def test_race_of_the_page(explorers) -> None:
    first = explorers.states("box_losses", 3)[0]
    assert first_boxes([first]).tolist() == [[22, 12, 30, 20]]
    (result,) = explorers.compute("box_losses", [first])
    assert result["best"] == pytest.approx([max(race(loss)) for loss in LOSSES], abs=0.01)
