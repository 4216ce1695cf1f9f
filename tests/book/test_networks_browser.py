"""SAM in a page of the book, in Chromium without a network: its masks are those of the library, by mouse and keyboard.

Where the runtime is missing, the figures of all networks stay.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_book
import torch
from book.network_visit import Visit, as_mask, iou
from PIL import Image
from segedu_site import npm, onnxruntime_web, sam_demonstration
from segedu_site.networks import DEMONSTRATIONS, Files
from torch import Tensor

from segedu.promptable.sam.sam import fit_images, full_size
from segedu.weights import load

STATE = """async () => {
    const page = document.querySelector('.network').demonstration;
    await page.busy;
    const { points, box, results, chosen, corrects } = page.state;
    return {
        points, box, chosen, corrects, status: page.status.textContent, crosshair: page.crosshair,
        picture: { name: page.picture.name, width: page.picture.width, height: page.picture.height },
        shown: [...page.masks.children].map((button) => [button.textContent, button.getAttribute('aria-pressed')]),
        masks: results.map(({ mask }) => Array.from(mask)), scores: results.map(({ score }) => score),
    };
}"""
PAGES = pytest.mark.parametrize("page", ["index", "unet", "mask2former"])
MODEL = functools.cache(functools.partial(load, sam_demonstration.WEIGHTS))


@pytest.fixture(scope="module", params=["http", "file"])
def visit(request: pytest.FixtureRequest, browser: Any, networks_roots: dict[str, str]) -> Iterator[Visit]:
    """The page from a server, and from a folder."""
    visit = Visit(browser, networks_roots[request.param], "index").started()
    yield visit
    visit.context.close()


def state_of(visit: Visit) -> dict[str, Any]:
    return visit.tab.evaluate(STATE)


def image_of(name: str) -> Tensor:
    picture = next(picture for picture in sam_demonstration.PICTURES if picture.name == name)
    return torch.from_numpy(sam_demonstration.pixels(picture).copy()).permute(2, 0, 1).float() / 255


def decode(image: Tensor, previous: Tensor | None = None, **prompts: Any) -> dict[str, Tensor]:
    """The library's four masks for one prompt, as logits at the size of the image; the low logits and the scores."""
    model, given = MODEL(), {}
    if prompts.get("points"):
        given["point_coords"] = torch.tensor([[[p["x"], p["y"]] for p in prompts["points"]]]).float()
        given["point_labels"] = torch.tensor([[p["label"] for p in prompts["points"]]])
    if prompts.get("box"):
        given["boxes"] = torch.tensor([prompts["box"]]).float()
    if previous is not None:
        given["mask_inputs"] = previous
    with torch.no_grad():
        outputs = model(image[None], **given, multimask_output=None)
    logits = full_size(outputs["mask_logits"], model.image_size, outputs["size"])[0]
    return {"logits": logits, "low": outputs["mask_logits"], "scores": outputs["iou_scores"][0]}


def check_masks(state: dict[str, Any], expected: dict[str, Tensor]) -> None:
    """All four masks and scores are the library's, but for pixels at which the rounding of float32 decides."""
    threshold = MODEL().mask_threshold
    torch.testing.assert_close(torch.tensor(state["scores"]), expected["scores"], rtol=0, atol=1e-3)
    for pixels, logits in zip(state["masks"], expected["logits"], strict=True):
        decided = (logits - threshold).abs() > 1e-4
        assert iou(logits > threshold, as_mask(pixels, logits.shape), decided) >= 0.999


def test_the_example_has_three_masks_and_the_best_is_shown(visit: Visit) -> None:
    state = state_of(visit.show("shapes"))
    check_masks(state, decode(image_of("shapes"), points=state["points"]))
    assert state["chosen"] == 1 + int(np.argmax(state["scores"][1:]))
    assert [pressed for _, pressed in state["shown"]] == [str(i == state["chosen"] - 1).lower() for i in range(3)]
    assert "example" in state["status"] and not visit.tab.locator(".network > figure").is_visible()


def test_clicks_by_mouse_and_undo(visit: Visit) -> None:
    visit.show("shapes").tab.mouse.click(*visit.at(40, 46))
    first = state_of(visit)
    assert first["points"] == [{"x": 40, "y": 46, "label": 1}]
    image = image_of("shapes")
    expected = decode(image, points=first["points"])
    check_masks(first, expected)
    visit.tab.keyboard.down("Shift")
    visit.tab.mouse.click(*visit.at(55, 70))
    visit.tab.keyboard.up("Shift")
    second = state_of(visit)
    assert second["points"][1:] == [{"x": 55, "y": 70, "label": 0}] and second["chosen"] == 0
    check_masks(second, decode(image, expected["low"][:, first["chosen"]], points=second["points"]))
    assert "1 foreground point, 1 background point" in second["status"]
    visit.tab.click("[data-do=undo]")
    restored = state_of(visit)
    assert all(restored[key] == first[key] for key in ("points", "box", "chosen", "shown", "scores", "masks"))
    visit.tab.click("[data-do=clear]")
    assert state_of(visit)["points"] == [] and state_of(visit)["shown"] == []


def test_a_box_by_dragging(visit: Visit) -> None:
    visit.show("street").tab.click("[data-do=clear]")
    visit.tab.mouse.move(*visit.at(65.5, 39.5))
    visit.tab.mouse.down()
    visit.tab.mouse.move(*visit.at(93.5, 59.5), steps=4)
    visit.tab.mouse.up()
    state = state_of(visit)
    assert state["box"] == [66, 40, 94, 60] and state["points"] == []
    check_masks(state, decode(image_of("street"), box=state["box"]))


def test_by_keyboard_alone(visit: Visit) -> None:
    visit.show("cells").tab.locator(".network-stage").focus()
    press = visit.tab.keyboard.press
    press("Escape")
    for key in ("ArrowLeft", "ArrowUp", "Shift+ArrowRight", "Enter"):
        press(key)
    first = state_of(visit)
    assert first["points"] == [{"x": 31, "y": 30, "label": 1}]
    expected = decode(image_of("cells"), points=first["points"])
    check_masks(first, expected)
    for key in ("3", "ArrowDown", "Shift+Enter"):
        press(key)
    second = state_of(visit)
    assert second["points"][1:] == [{"x": 31, "y": 32, "label": 0}]
    check_masks(second, decode(image_of("cells"), expected["low"][:, 3], points=second["points"]))
    press("Backspace")
    assert state_of(visit)["points"] == first["points"] and state_of(visit)["chosen"] == 3
    press("Control+z")
    assert state_of(visit)["points"] == []
    for key in ("b", "ArrowRight", "ArrowDown", "b"):
        press(key)
    assert state_of(visit)["box"] == [31, 32, 34, 35]
    visit.tab.wait_for_function("() => document.querySelector('.network-status').textContent.includes('a box')")
    assert visit.tab.get_attribute(".network-app .network-status", "aria-live") == "polite"


def test_an_image_of_the_readers_own(visit: Visit, tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (57, 131, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "mine.png")
    visit.tab.set_input_files(".network-upload input", tmp_path / "mine.png")
    visit.tab.wait_for_function("() => document.querySelector('.network').demonstration.picture.name === 'own'")
    visit.tab.mouse.click(*visit.at(60, 20))
    state = state_of(visit)
    check_masks(state, decode(torch.from_numpy(array).permute(2, 0, 1).float() / 255, points=state["points"]))


@pytest.mark.parametrize("size", [(57, 131), (300, 40), (96, 96), (411, 333)])
def test_resizing_equals_pillows(visit: Visit, size: tuple[int, int]) -> None:
    array = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    script = "([rgb, size]) => Array.from(segeduNetworks.image.samInput(rgb, size, 96, [0.25, 0.5, 0.75]))"
    found = np.array(visit.tab.evaluate(script, [array.ravel().tolist(), list(size)])).reshape(3, 96, 96)
    expected = np.broadcast_to(np.array([0.25, 0.5, 0.75])[:, None, None], (3, 96, 96)).copy()
    fitted = fit_images(torch.from_numpy(array).permute(2, 0, 1)[None].float() / 255, 96)[0].numpy()
    expected[:, : fitted.shape[1], : fitted.shape[2]] = fitted
    # Versions of Pillow differ in the order of the axes for tall images, and so in the rounding of some bytes.
    tolerance = 1.01 / 255 if size[0] > 2 * size[1] else 1e-7
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


def test_nothing_is_asked_of_another_host_and_nothing_fails(visit: Visit) -> None:
    assert visit.outside == [] and visit.errors == []


@PAGES
def test_without_webassembly_the_figure_stays_and_the_page_says_why(
    browser: Any, networks_roots: dict[str, str], page: str
) -> None:
    visit = Visit(browser, networks_roots["http"], page).open("delete window.WebAssembly").start()
    try:
        assert "no WebAssembly" in visit.tab.inner_text(".network")
        visit.tab.locator(".network > figure img").wait_for(state="visible")
    finally:
        visit.context.close()


@PAGES
def test_without_javascript_the_figure_is_there(browser: Any, networks_roots: dict[str, str], page: str) -> None:
    visit = Visit(browser, networks_roots["http"], page, java_script_enabled=False).open()
    try:
        assert visit.tab.locator(".network > figure img").is_visible()
        assert visit.tab.locator(".network button").count() == 0
    finally:
        visit.context.close()


FIGURES = {"sam": "three masks", "unet": "a bright ring", "mask2former": "attention in layer 2"}


@pytest.mark.parametrize("name", DEMONSTRATIONS)
def test_a_build_without_node_says_so_and_keeps_the_figure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setenv("SEGEDU_NPM", str(tmp_path / "npm"))
    monkeypatch.setattr(npm, "command", lambda: None)
    made = Files(name, tmp_path).make()
    assert made.reason == "npm is not installed, or could not fetch onnxruntime-web 1.30.0"
    assert Path(made.figure).is_file() and FIGURES[name] in made.alt


def test_only_the_published_package_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEGEDU_NPM", str(tmp_path))
    monkeypatch.setattr(npm, "command", lambda: ["sh", "-c", "echo not the package > onnxruntime-web-1.30.0.tgz"])
    with pytest.raises(ValueError, match="has sha512 .*, expected"):
        npm.obtain(onnxruntime_web.PACKAGE)
    monkeypatch.setattr(npm, "command", lambda: ["sh", "-c", "exit 1"])
    assert npm.obtain(onnxruntime_web.PACKAGE) is None
    assert list(tmp_path.iterdir()) == []


def test_every_script_of_the_demonstrations_exists() -> None:
    missing: Callable[[str], bool] = lambda name: not (small_book.CONFIG / "static" / name).is_file()  # noqa: E731
    assert [name for each in DEMONSTRATIONS.values() for name in each.scripts if missing(name)] == []
