"""The home page, SAM in the page, an explorer and a quiz can be reached and used with a keyboard alone."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.browser
SAM = """async () => {
    const page = document.querySelector('.network').demonstration;
    await page.busy;
    return { points: page.state.points.length, masks: page.state.results.length };
}"""


@pytest.fixture
def tab(browser):
    context = browser.new_context(viewport={"width": 1300, "height": 900}, reduced_motion="reduce")
    yield context.new_page()
    context.close()


def press_tab_until(tab, selector: str, limit: int = 150) -> None:
    """Press the tabulator until the focus is on an element that matches, as often as a reader would have to."""
    for _ in range(limit):
        tab.keyboard.press("Tab")
        if tab.evaluate("(wanted) => document.activeElement.matches(wanted)", selector):
            return
    pytest.fail(f"{limit} times Tab do not lead to {selector}")


def begin(tab, address: str, page: str) -> None:
    """Open a page, and skip its navigation as its first link offers."""
    tab.goto(f"{address}/{page}", wait_until="load")
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")


def test_from_the_home_page_to_the_first_chapter(tab, address):
    begin(tab, address, "course/index.html")
    press_tab_until(tab, ".lab-buttons a", limit=6)  # after the five buttons above every page
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/course/01-tasks/index.html")
    assert tab.inner_text("article h1").startswith("1 What is segmentation?")


def test_sam_on_the_home_page(tab, address):
    begin(tab, address, "course/index.html")
    press_tab_until(tab, ".network button")
    tab.keyboard.press("Enter")
    tab.wait_for_function("() => document.querySelector('.network').dataset.state === 'ready'", timeout=120_000)
    assert tab.evaluate("() => document.activeElement.matches('.network-stage')")  # not lost with the button
    for key in ("ArrowRight", "ArrowDown", "Enter"):
        tab.keyboard.press(key)
    found = tab.evaluate(SAM)
    assert found["points"] == 1 and found["masks"] >= 3
    tab.keyboard.press("Backspace")
    assert tab.evaluate(SAM)["points"] == 0


def test_an_explorer(tab, address):
    begin(tab, address, "course/04-metrics/boxes.html")
    tab.wait_for_selector(".live-explorer", state="attached")
    press_tab_until(tab, ".live-explorer input[type=range]")
    tab.wait_for_function("() => window.segeduExplorers?.shown.size")
    value, before = tab.evaluate("() => document.activeElement.value"), tab.inner_html(".live-explorer .ex-panel")
    tab.keyboard.press("ArrowLeft")
    changed = """([value, before]) => document.activeElement.value !== value
        && document.querySelector('.live-explorer .ex-panel').innerHTML !== before"""
    tab.wait_for_function(changed, arg=[value, before])  # a panel is drawn in the next frame


def test_a_quiz(tab, address):
    begin(tab, address, "course/04-metrics/index.html")
    press_tab_until(tab, "#quiz textarea")
    tab.keyboard.type("one half")
    press_tab_until(tab, "#quiz button", limit=3)
    total = tab.inner_text(".quiz-total")
    tab.keyboard.press("Enter")
    if tab.inner_text(".quiz-total") == total:  # no numbers to compare: the reader compares, and marks the answer
        press_tab_until(tab, "#quiz button", limit=8)
        tab.keyboard.press("Enter")
    assert "still open" in tab.inner_text(".quiz-total") and tab.inner_text(".quiz-total") != total
