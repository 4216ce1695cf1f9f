"""The explorer of the pixel metrics against the metrics of the library."""

from __future__ import annotations

import math
import random

import pytest
import torch
from explorers.browser import Browser, assert_equal

from segedu.metrics.confusion import confusion_matrix
from segedu.metrics.semantic import binary_dice, binary_iou, class_accuracy, pixel_accuracy
from segedu.teaching.explorers.notebook import FOLDER

pytestmark = pytest.mark.browser
HEIGHT, WIDTH = 14, 22


def shape(state: dict, x: torch.Tensor, y: torch.Tensor, grow: float) -> torch.Tensor:
    dx, dy = x + 0.5 - WIDTH / 2, y + 0.5 - HEIGHT / 2
    if state["object"] == "thin line":
        return (dx.abs() < 7 + grow) & (dy.abs() < 0.6 + grow)
    radius = max(grow + (4.5 if state["object"] == "disc" else 0), 0)
    return dx**2 + dy**2 < radius**2


def masks(state: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """Prediction and ground truth."""
    margin = int(state["margin"])
    y, x = torch.meshgrid(torch.arange(-margin, HEIGHT + margin), torch.arange(-margin, WIDTH + margin), indexing="ij")
    target = shape(state, x, y, 0) & (state["object"] != "no object")
    preds = shape(state, x - state["dx"], y - state["dy"], state["grow"])
    for column, row in state["painted"]:
        preds[row + margin, column + margin] ^= True
    return preds, target


def expected(state: dict) -> dict:
    preds, target = masks(state)
    (tn, fp), (fn, tp) = confusion_matrix(preds.long(), target.long(), 2).tolist()
    recall, precision = (
        class_accuracy(preds.long(), target.long(), 2)[1],
        class_accuracy(target.long(), preds.long(), 2)[1],
    )
    counts = {"TP": tp, "FP": fp, "FN": fn, "TN": tn}
    ratios = {"recall": float(recall), "precision": float(precision)}
    return {
        **counts,
        **{name: None if math.isnan(value) else value for name, value in ratios.items()},
        "iou": binary_iou(preds, target),
        "dice": binary_dice(preds, target),
        "accuracy": pixel_accuracy(preds.long(), target.long(), 2),
    }


def test_equals_python(explorers) -> None:
    states, draw = explorers.states("pixel_metrics", 80), random.Random(0)
    for state in states[10:]:
        pixels = [[x, y] for x in range(WIDTH) for y in range(HEIGHT)]
        state["painted"] = draw.sample(pixels, draw.randrange(9))
    states.append(states[0] | {"object": "no object", "grow": 0})
    targets = [expected(state) for state in states]
    assert {target["iou"] == 0 for target in targets} == {target["iou"] == 1 for target in targets} == {True, False}
    assert {target["precision"] is None for target in targets} == {target["recall"] is None for target in targets}
    assert None in {target["recall"] for target in targets}
    for state, target, result in zip(states, targets, explorers.compute("pixel_metrics", states), strict=True):
        assert_equal(result, target, f"{state}")


def test_click_and_keyboard_paint(explorers) -> None:
    page = explorers.page.context.browser.new_page()  # Chromium captures no pointer in a page that was replaced
    Browser(page).load("pixel_metrics")
    page.set_content("<div></div>")
    page.add_style_tag(path=str(FOLDER / "explorers.css"))
    page.evaluate("window.state = modules.host.mount(document.querySelector('div'), modules.pixel_metrics)")
    before = page.evaluate("state.result.FP")
    page.get_by_role("button", name="brush").press("Enter")
    assert page.evaluate("state.result.FP") == before + 1
    page.get_by_role("button", name="brush").press("ArrowRight")
    page.get_by_role("button", name="brush").press("Enter")
    assert page.evaluate("state.result.FP") == before + 2
    frame = page.locator(".ex-panel").first.bounding_box()
    page.mouse.move(frame["x"] + 30, frame["y"] + 60)
    page.mouse.down()
    for step in (15, 30, 45):
        page.mouse.move(frame["x"] + 30 + step, frame["y"] + 60)
        page.wait_for_timeout(60)  # a browser merges movements within one frame
    page.mouse.up()
    assert page.evaluate("state.result.FP") >= before + 4
    page.get_by_role("button", name="Reset").click()
    assert page.evaluate("state.result.FP") == before
    page.close()
