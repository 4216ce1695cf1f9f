"""The U-Net in a page of the book, in Chromium without a network: its masks are those of the library, for any painting."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from book.network_visit import Visit, as_mask, iou
from scipy import ndimage
from segedu_site.unet_demonstration import LEVELS, WEIGHTS, Stroke, grey, painted

from segedu.weights import load

MODEL = functools.cache(functools.partial(load, WEIGHTS))
STATE = """async () => {
    const page = document.querySelector('.network').demonstration;
    await page.busy;
    const { mask, probability } = page.prediction;
    return {
        grey: Array.from(page.grey), mask: Array.from(mask), probability: Array.from(probability),
        strokes: page.strokes.map(({ points, radius, level }) => [points, radius, level]),
        status: page.status.textContent, crosshair: page.crosshair, ms: page.predictMs,
        label: page.map.getAttribute('aria-label'), diameter: page.slider.value,
    };
}"""


@pytest.fixture(scope="module", params=["http", "file"])
def visit(request: pytest.FixtureRequest, browser: Any, networks_roots: dict[str, str]) -> Iterator[Visit]:
    """The page from a server, and from a folder."""
    visit = Visit(browser, networks_roots[request.param], "unet").started()
    yield visit
    visit.context.close()


@pytest.fixture
def tab(visit: Visit) -> Any:
    """The page with an image of a few nuclei, and the brush as it is at the start."""
    visit.tab.evaluate("() => Object.assign(document.querySelector('.network input[type=range]'), { value: 7 })")
    visit.tab.check(".network input[type=radio] >> nth=0")
    visit.show("few")
    return visit.tab


def check(visit: Visit, ground: str) -> dict[str, Any]:
    """The image is the ground with all strokes, exactly; its mask is that of the library; and the page counts it."""
    state = visit.tab.evaluate(STATE)
    expected = grey(ground)
    for points, radius, level in state["strokes"]:
        expected = painted(expected, Stroke(points, radius, level))
    np.testing.assert_array_equal(np.array(state["grey"]).reshape(expected.shape), expected)
    with torch.no_grad():
        logits = MODEL()(torch.from_numpy(expected)[None, None].expand(1, 3, -1, -1).float() / 255)[0]
    difference = logits[1] - logits[0]
    probability = torch.tensor(state["probability"]).reshape(difference.shape)
    torch.testing.assert_close(probability, difference.sigmoid(), rtol=0, atol=1e-4)
    mask = as_mask(state["mask"], difference.shape)
    assert iou(difference > 0, mask, difference.abs() > 1e-4) >= 0.999
    regions = ndimage.label(mask.numpy())[1]
    if "Foreground" in state["status"]:
        assert f"Foreground: {int(mask.sum())} pixels" in state["status"] and f"in {regions} region" in state["status"]
    assert f"above one half at {int(mask.sum())} pixels" in state["label"]
    return state


def drag(visit: Visit, *points: tuple[float, float]) -> None:
    start, *others = (visit.at(*point) for point in points)
    visit.tab.mouse.move(*start)
    visit.tab.mouse.down()
    for point in others:
        visit.tab.mouse.move(*point, steps=5)
    visit.tab.mouse.up()


@pytest.mark.parametrize("ground", ["few", "many", "empty"])
def test_the_mask_of_each_image(visit: Visit, ground: str) -> None:
    visit.show(ground)
    assert check(visit, ground)["strokes"] == []
    assert not visit.tab.locator(".network > figure").is_visible()


def test_a_stroke_by_mouse_and_undo(visit: Visit, tab: Any) -> None:
    before = check(visit, "few")
    drag(visit, (64, 17), (88, 17))
    after = check(visit, "few")
    ((points, radius, level),) = after["strokes"]
    assert len(points) == 6 and radius == 3.5 and level == LEVELS["bright"]
    assert "in 11 regions" in before["status"] and "in 10 regions" in after["status"]
    assert f"{sum(after['mask']) - sum(before['mask'])} more than before" in after["status"]
    tab.click("[data-do=undo]")
    restored = check(visit, "few")
    assert all(restored[key] == before[key] for key in ("grey", "mask", "strokes"))
    tab.click("[data-do=undo]")
    assert "no stroke" in check(visit, "few")["status"]


def test_strokes_of_all_brushes_and_sizes(visit: Visit, tab: Any) -> None:
    sizes = (1, 12, 60)
    for i, size in enumerate(sizes):
        tab.check(f".network input[type=radio] >> nth={i}")
        tab.locator(".network input[type=range]").fill(str(size))
        drag(visit, (30 + 20 * i, 30), (60.3, 70.8), (127, 90 + 10 * i))
    state = check(visit, "few")
    assert [(radius, level) for _, radius, level in state["strokes"]] == list(
        zip((0.5, 6, 30), LEVELS.values(), strict=True)
    )
    tab.click("[data-do=clear]")
    assert check(visit, "few")["strokes"] == []


def test_by_keyboard_alone(visit: Visit, tab: Any) -> None:
    tab.locator(".network-stage").focus()
    press = tab.keyboard.press
    for key in ("ArrowLeft", "ArrowUp", "Shift+ArrowRight", "Enter", "b", "+", "+", "-", "ArrowDown", "Space"):
        press(key)
    state = check(visit, "few")
    assert state["strokes"] == [[[[61, 60]], 3.5, LEVELS["bright"]], [[[61, 64]], 4.0, LEVELS["dim"]]]
    press("ArrowDown")
    tab.wait_for_function("() => document.querySelector('.network-status').textContent.includes('Brush at x 61, y 68')")
    press("Backspace")
    assert len(check(visit, "few")["strokes"]) == 1
    press("Control+z")
    assert check(visit, "few")["strokes"] == []
    press("Enter")
    press("Escape")
    assert check(visit, "few")["strokes"] == []
    assert tab.get_attribute(".network-app .network-status", "aria-live") == "polite"


def test_by_finger(browser: Any, networks_roots: dict[str, str]) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    visit = Visit(browser, networks_roots["file"], "unet", **phone).started()
    try:
        visit.tab.locator(".network-stage").scroll_into_view_if_needed()
        visit.tab.touchscreen.tap(*visit.at(20, 100))
        (((points, _, _),),) = [check(visit, "few")["strokes"]]
        assert np.abs(np.array(points[0]) - (20, 100)).max() < 0.5
        assert visit.tab.evaluate("() => document.documentElement.scrollWidth") <= 390
        assert visit.errors == []
    finally:
        visit.context.close()


def test_random_strokes_are_those_of_python(visit: Visit) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        image = rng.integers(0, 256, (40, 56), dtype=np.uint8)
        points = rng.uniform(-5, 60, (int(rng.integers(1, 6)), 2)).tolist()
        stroke = Stroke(points, float(rng.integers(1, 60)) / 2, int(rng.choice(list(LEVELS.values()))))
        found = visit.tab.evaluate(
            "([grey, size, stroke]) => Array.from(segeduNetworks.painted(grey, size, stroke))",
            [image.ravel().tolist(), list(image.shape), stroke._asdict()],
        )
        np.testing.assert_array_equal(np.array(found).reshape(image.shape), painted(image, stroke))


def test_nothing_is_asked_of_another_host_and_nothing_fails(visit: Visit) -> None:
    assert visit.outside == [] and visit.errors == []
