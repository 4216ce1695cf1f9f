"""Mask2Former in a page of the book, in Chromium without a network: its maps and segments are those of the library."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from book.network_visit import Visit, as_mask, iou
from PIL import Image
from segedu_site.mask2former_demonstration import STREETS, pixels, predictions

from segedu.datasets.street import CLASSES, THINGS
from segedu.panoptic.inference import panoptic_inference, semantic_inference
from segedu.panoptic.mask2former.mask2former import attention_mask
from segedu.weights.own.street_mask2former import SURE

STATE = """async () => {
    const page = document.querySelector('.network').demonstration;
    await page.busy;
    return {
        query: page.query, layer: page.layer, order: page.order, status: page.status.textContent,
        crosshair: page.crosshair, owners: Array.from(page.panoptic.owners),
        best: page.order.map((_, query) => page.prediction.best(3, query)),
        titles: page.maps.map((map) => map.getAttribute('aria-label')),
        list: [...page.list.children].map((label) => label.textContent.trim()),
    };
}"""
PREDICTIONS = """() => {
    const { prediction, panoptic, semantic, picture } = document.querySelector('.network').demonstration;
    const queries = Array.from({ length: prediction.queries }, (_, i) => i), layers = [1, 2, 3];
    return {
        rgb: Array.from(picture.rgb), size: prediction.size,
        masks: [0, ...layers].map((l) => queries.map((q) => Array.from(prediction.mask(l, q)))),
        weights: layers.map((l) => queries.map((q) => Array.from(prediction.attention(l, q).weights))),
        hidden: layers.map((l) => queries.map((q) => Array.from(prediction.attention(l, q).hidden))),
        ids: Array.from(panoptic.ids), semantic: Array.from(semantic),
        segments: panoptic.segments.map(({ id, category, isThing }) => ({ id, category_id: category, isthing: isThing })),
    };
}"""


@pytest.fixture(scope="module", params=["http", "file"])
def visit(request: pytest.FixtureRequest, browser: Any, networks_roots: dict[str, str]) -> Iterator[Visit]:
    """The page from a server, and from a folder."""
    visit = Visit(browser, networks_roots[request.param], "mask2former").started()
    yield visit
    visit.context.close()


def check(visit: Visit) -> dict[str, Any]:
    """All masks, weights and read-outs of the image that is shown are those of the library."""
    state = visit.tab.evaluate(STATE) | visit.tab.evaluate(PREDICTIONS)
    image = np.array(state["rgb"], dtype=np.uint8).reshape(*state["size"], 3)
    class_logits, mask_logits, *attention = predictions(image)
    large = torch.nn.functional.interpolate(mask_logits, image.shape[:2], mode="bilinear")
    for layer, masks in enumerate(state["masks"]):
        for query, found in enumerate(masks):
            logits = large[layer, query]
            assert iou(logits >= 0, as_mask(found, logits.shape), logits.abs() > 1e-3) >= 0.999
    for layer, weights in enumerate(attention):
        found = torch.tensor(state["weights"][layer]).reshape(weights.shape)
        torch.testing.assert_close(found, weights, rtol=0, atol=1e-4)
        hidden = attention_mask(mask_logits[layer, None], weights.shape[1:], num_heads=1)[0]
        assert (torch.tensor(state["hidden"][layer], dtype=torch.bool) == hidden).float().mean() >= 0.999
    outputs = {"class_logits": class_logits[-1:], "mask_logits": mask_logits[-1:]}
    outputs |= {"sizes": [image.shape[:2]], "image_size": image.shape[:2]}
    ((seg, info),) = panoptic_inference(outputs, THINGS, score_threshold=SURE)
    assert (torch.tensor(state["ids"]).reshape(seg.shape) == seg).float().mean() >= 0.999
    assert state["segments"] == [{key: one[key] for key in ("id", "category_id", "isthing")} for one in info]
    classes = semantic_inference(outputs)[0].argmax(dim=0)
    assert (torch.tensor(state["semantic"]).reshape(classes.shape) == classes).float().mean() >= 0.999
    scores = class_logits[-1].softmax(dim=1)[:, :-1].amax(dim=1)
    assert torch.all(scores[state["order"]].diff() <= 1e-5)
    return state


@pytest.mark.parametrize("street", STREETS, ids=lambda street: street.name)
def test_all_that_is_predicted_for_a_street(visit: Visit, street: Any) -> None:
    visit.show(street.name)
    state = check(visit)
    np.testing.assert_array_equal(np.array(state["rgb"]).reshape(*state["size"], 3), pixels(street))
    assert (state["query"], state["layer"]) == (street.query, street.layer)
    assert len(state["list"]) == 20 and f"{len(state['segments'])} segments" in state["status"]
    assert not visit.tab.locator(".network > figure").is_visible()
    # the text links to the figure by its number, so the demonstration that replaces it has both
    assert re.match(r"Figure [\d.]*\d\. Try it", visit.tab.inner_text(".network-summary"))
    assert visit.tab.locator(".network-summary[id^=fig-]").count() == 1


def test_a_click_selects_the_query_of_the_pixel(visit: Visit) -> None:
    visit.show("buses")
    state = visit.tab.evaluate(STATE)
    owners = np.array(state["owners"]).reshape(64, 96)
    for category in ("bus", "car"):
        query = next(
            q for q, best in enumerate(state["best"]) if best["category"] == CLASSES.index(category) and q in owners
        )
        rows, columns = (owners == query).nonzero()
        middle = len(rows) // 2
        visit.tab.mouse.click(*visit.at(columns[middle], rows[middle]))
        chosen = visit.tab.evaluate(STATE)
        assert chosen["query"] == query and f"Query {query}: its final class is {category}" in chosen["status"]
        assert all(f"Query {query}." in title for title in chosen["titles"])


def test_without_a_segment_a_click_selects_nothing(visit: Visit) -> None:
    visit.show("crowd")
    before = visit.tab.evaluate(STATE)
    rows, columns = (np.array(before["owners"]).reshape(64, 96) < 0).nonzero()
    visit.tab.mouse.click(*visit.at(columns[0], rows[0]))
    after = visit.tab.evaluate(STATE)
    assert after["query"] == before["query"] and "No segment covers" in after["status"]


def test_by_keyboard_alone(visit: Visit) -> None:
    visit.show("cars").tab.locator(".network-stage").focus()
    press = visit.tab.keyboard.press
    for key in ("2", "ArrowRight", "ArrowDown", "Shift+ArrowDown"):
        press(key)
    state = visit.tab.evaluate(STATE)
    assert state["layer"] == 2 and state["crosshair"] == {"x": 51, "y": 36}
    visit.tab.wait_for_function(
        "() => document.querySelector('.network-status').textContent.includes('Crosshair at x 51')"
    )
    press("Enter")
    chosen = visit.tab.evaluate(STATE)
    assert chosen["query"] == state["owners"][36 * 96 + 51] and "In layer 2" in chosen["status"]
    visit.tab.focus(".network-list :checked")  # a group of radio buttons, in which the arrow keys go on
    press("ArrowDown")
    following = visit.tab.evaluate(STATE)
    assert following["order"].index(following["query"]) == chosen["order"].index(chosen["query"]) + 1


def test_the_result_can_be_chosen(visit: Visit) -> None:
    visit.show("cars")
    legends = {}
    for name in ("panoptic", "semantic", "image"):
        visit.tab.check(f"input[value={name}]")
        legends[name] = [text.strip() for text in visit.tab.locator(".network-legend li").all_inner_texts()]
    visit.tab.check("input[value=panoptic]")
    assert legends["panoptic"].count("car") == 2 and legends["semantic"].count("car") == 1 and legends["image"] == []


def test_an_image_of_the_readers_own(visit: Visit, tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (157, 131, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "mine.png")
    visit.tab.set_input_files(".network-upload input", tmp_path / "mine.png")
    visit.tab.wait_for_function("() => document.querySelector('.network').demonstration.picture.name === 'own'")
    state = check(visit)
    cropped = Image.fromarray(array[35:122])  # 131 x 87 pixels from the middle
    expected = np.asarray(cropped.resize((96, 64), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(np.array(state["rgb"]).reshape(64, 96, 3), expected, rtol=0, atol=1)


def test_on_a_telephone(browser: Any, networks_roots: dict[str, str]) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    visit = Visit(browser, networks_roots["file"], "mask2former", **phone).started()
    try:
        visit.tab.locator(".network-stage").scroll_into_view_if_needed()
        visit.tab.touchscreen.tap(*visit.at(50, 5))
        assert "its final class is sky" in visit.tab.evaluate(STATE)["status"]
        assert visit.tab.evaluate("() => document.documentElement.scrollWidth") <= 390
        assert visit.errors == []
    finally:
        visit.context.close()


def test_nothing_is_asked_of_another_host_and_nothing_fails(visit: Visit) -> None:
    assert visit.outside == [] and visit.errors == []
