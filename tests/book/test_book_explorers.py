"""Live explorers on a page of a book: from a server and from a folder, with nothing else to load, and without JavaScript."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from firefox import FirefoxError, firefox
from folder_server import served
from small_book import build

from segedu.teaching.widgets.metrics import measures

pytestmark = pytest.mark.browser
PAGE = """# Boxes

```{explorer} boxes
```

```{code-cell}
---
mystnb:
  figure:
    name: fig-still
    caption: Two boxes.
---
import matplotlib.pyplot as plt
from segedu.viz import show

fig, ax = plt.subplots()
ax.plot([1, 2])
show(fig, "A line that stands for the still picture of an explorer.")
```
"""
FAR, NEAR = measures(24, 13, 8, 6)["giou"], measures(20, 13, 8, 6)["giou"]
GIOU = "() => segeduExplorers.shown.get('boxes').state.result.giou"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Addresses of the page: on a server, and in a folder."""
    folder = tmp_path_factory.mktemp("book")
    status, said = build(folder, PAGE)
    assert status == 0, said
    site = folder / "_build" / "html"

    with served(site) as address:
        yield f"{address}/course/index.html", (site / "course" / "index.html").as_uri()


@pytest.mark.parametrize("where", [0, 1], ids=["server", "folder"])
def test_keys_move_the_explorer(browser, pages, where: int) -> None:
    page = browser.new_page()
    problems, elsewhere = [], []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    start = pages[where].rpartition("/course/")[0]
    page.on("request", lambda r: elsewhere.append(r.url) if not r.url.startswith((start, "blob:", "data:")) else None)
    page.goto(pages[where])
    slider = page.get_by_label("x of the centre", exact=True)
    slider.wait_for()
    assert page.evaluate(GIOU) == pytest.approx(FAR, abs=1e-6)
    slider.focus()
    for _ in range(8):  # four pixels to the left: still apart, but closer
        page.keyboard.press("ArrowLeft")
    assert page.evaluate(GIOU) == pytest.approx(NEAR, abs=1e-6)
    page.locator(".ex-handle").first.focus()
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    assert page.evaluate(GIOU) == pytest.approx(FAR, abs=1e-6)
    assert "only GIoU has arrows" in page.locator(".ex-sentence").inner_text()
    assert (problems, elsewhere) == ([], [])
    page.close()


def test_firefox(pages) -> None:
    try:
        with firefox() as browser:
            for address in pages:
                browser.open(address)
                browser.wait_for("window.segeduExplorers?.shown.size")
                assert browser.evaluate(f"({GIOU})()") == pytest.approx(FAR, abs=1e-6)
                browser.evaluate("document.querySelector('.ex-controls input').focus()")
                browser.press("ArrowLeft", times=8)
                assert browser.evaluate(f"({GIOU})()") == pytest.approx(NEAR, abs=1e-6)
                assert browser.evaluate("document.querySelectorAll('.ex-panel polyline').length") >= 4
            assert browser.problems == []
    except FirefoxError as error:
        if "no Firefox is installed" not in str(error):
            raise
        pytest.skip(str(error))


def test_a_handle_follows_the_mouse(browser, pages) -> None:
    page = browser.new_page()
    page.goto(pages[0])
    handle = page.locator(".ex-handle").first
    handle.wait_for()
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] - 60, box["y"], steps=5)
    page.mouse.up()
    assert page.evaluate(GIOU) > NEAR - 0.05
    assert page.evaluate("() => segeduExplorers.shown.get('boxes').state.values.x") < 22
    page.close()


def test_stills_are_folded_and_their_caption_stays(browser, pages) -> None:
    page = browser.new_page()
    page.goto(pages[1])
    page.get_by_label("x of the centre", exact=True).wait_for()
    assert page.locator("figcaption").is_visible() and not page.locator("figure img").is_visible()
    page.get_by_text("Still pictures of some states").click()
    assert page.locator("figure img").is_visible()
    page.close()


def test_without_javascript_the_stills_are_seen(browser, pages) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(pages[0])
    assert page.locator("figure img").is_visible() and page.locator("input[type=range]").count() == 0
    context.close()


def test_unknown_explorer_fails_the_build(tmp_path: Path) -> None:
    status, said = build(tmp_path, "# Boxes\n\n```{explorer} boxen\n```\n")
    assert status != 0 and "explorer 'boxen' is not in" in said and "boxes" in said
