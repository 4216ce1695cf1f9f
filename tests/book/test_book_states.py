"""Pictures of states that the build computes become one picture with controls; without JavaScript a few remain."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from small_book import build

pytestmark = pytest.mark.browser
PAGE = """# States

```{states}
:stills: 2
```

```{code-cell}
---
mystnb:
  figure:
    name: fig-states
    caption: Lines of several lengths.
---
import matplotlib.pyplot as plt
from segedu.teaching.widgets.explore import explore
from segedu.viz import show

def draw(length=1, kind="solid"):
    fig, ax = plt.subplots(figsize=(3, 1))
    ax.plot(range(length), linestyle=kind)
    show(fig, f"A line of kind {kind} through {length} points.")

explore(draw, static=[{"length": length, "kind": kind} for kind in ("solid", "dotted") for length in (2, 3, 10)])
```

After the figure.
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("book")
    status, said = build(folder, PAGE)
    assert status == 0, said
    return folder / "_build" / "html"


def test_page_holds_two_pictures_and_a_template_of_the_others(site: Path) -> None:
    text = (site / "course" / "index.html").read_text()
    figure, template = (
        re.search(r"<figure.*?</figure>", text, re.S)[0],
        re.search(r"<template>.*?</template>", text, re.S)[0],
    )
    assert (figure.count("<img"), template.count("<img")) == (2, 4)
    assert template.count("length = ") == 4 and "Lines of several lengths" in figure
    assert all(
        (site / "course" / source).resolve().is_file() for source in re.findall(r'<img[^>]* src="([^"]+)"', text)
    )


def test_controls_choose_a_picture(browser, site: Path) -> None:
    page = browser.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto((site / "course" / "index.html").as_uri())
    slider, kinds = page.get_by_label("length", exact=True), page.get_by_label("kind", exact=True)
    slider.wait_for()
    picture = page.locator(".ex-state img")
    assert picture.get_attribute("alt") == "A line of kind solid through 2 points."
    slider.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert picture.get_attribute("alt") == "A line of kind solid through 10 points."
    assert slider.get_attribute("aria-valuetext") == "10"
    kinds.select_option("dotted")
    assert picture.get_attribute("alt") == "A line of kind dotted through 10 points."
    assert page.evaluate(
        "async () => { const i = document.querySelector('.ex-state img'); await i.decode(); return i.naturalWidth; }"
    )
    assert page.locator("figcaption").is_visible() and not page.locator("figure img").first.is_visible()
    assert problems == []
    page.close()


def test_without_javascript_two_pictures_are_seen(browser, site: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((site / "course" / "index.html").as_uri())
    assert [image.is_visible() for image in page.locator("figure img").all()] == [True, True]
    assert page.locator("img").count() == 2 + page.locator("header img, nav img, .sidebar-primary-item img").count()
    context.close()


def test_a_directive_without_a_figure_fails_the_build(tmp_path: Path) -> None:
    status, said = build(tmp_path, "# States\n\n```{states}\n```\n\nNo figure.\n")
    assert status != 0 and "no code cell with a figure follows" in said
