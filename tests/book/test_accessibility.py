"""Every page of the built site against the rules of WCAG 2.2, levels A and AA, in light and dark mode and on 320 pixels.

axe-core decides. It comes from npm and runs in the page. A page of 320 pixels is a page of 1280 pixels at 400 % zoom.

Two things are the same on many pages and are examined on the first page of each folder only: the table of contents
beside the page, and the colours of whole files of code under `source/`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from segedu_site import lint, npm

pytestmark = pytest.mark.browser
AXE = npm.Package(
    "axe-core",
    "4.14.1",
    "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
)
LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
COLOURS = ["color-contrast", "link-in-text-block"]  # the only rules whose result depends on the mode
SMALL_SCREEN = ["scrollable-region-focusable", "target-size"]  # those whose result depends on the width
SCREEN, ZOOMED = {"width": 1280, "height": 900}, {"width": 320, "height": 640}
RUN = """async ([kind, values, without]) => {
    const context = without.length ? {exclude: without.map((selector) => [selector])} : document;
    const found = await axe.run(context, {runOnly: {type: kind, values}, resultTypes: ["violations"]});
    return found.violations.flatMap((v) => v.nodes.map((n) => `${v.id}: ${n.target.join(" ")}`));
}"""
SET_MODE = "(mode) => { document.documentElement.dataset.mode = document.documentElement.dataset.theme = mode; }"
CUT_OFF = "() => document.documentElement.scrollWidth > window.innerWidth + 1"
SEEN_FOCUS = """() => {
    const style = getComputedStyle(document.activeElement);
    return (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0) || style.boxShadow !== 'none';
}"""


@pytest.fixture(scope="session")
def axe() -> str:
    """The script, or a skipped test where npm cannot fetch it."""
    folder = npm.obtain(AXE)
    if folder is None:
        pytest.skip("npm is not installed, or cannot fetch axe-core")
    return (folder / "axe.min.js").read_text(encoding="utf-8")


def violations(tab, axe: str) -> Iterator[tuple[str, str]]:
    """Examine the page that a tab shows: (mode, rule and element) of each violation."""
    yield from _violations(tab, axe, [])


def _violations(tab, axe: str, without: list[str]) -> Iterator[tuple[str, str]]:
    tab.evaluate(axe)
    for mode, kind, values in (("light", "tag", LEVELS), ("dark", "rule", COLOURS)):
        tab.evaluate(SET_MODE, mode)
        for found in tab.evaluate(RUN, [kind, values, without]):
            yield mode, found
    tab.set_viewport_size(ZOOMED)
    if tab.evaluate(CUT_OFF):
        yield "320 pixels", "the page scrolls sideways"
    for found in tab.evaluate(RUN, ["rule", SMALL_SCREEN, without]):
        yield "320 pixels", found
    tab.set_viewport_size(SCREEN)


def _left_out(name: str, known: set[str]) -> list[str]:
    """What need not be examined on this page, since the first page of its folder had the same."""
    folder = str(Path(name).parent)
    if folder not in known:
        known.add(folder)
        return []
    return ["#pst-primary-sidebar", *([".highlight pre"] if name.startswith("source/") else [])]


@pytest.fixture(scope="module")
def tab(browser):
    """A tab whose styles change at once: a colour in the middle of a transition is none of the page's colours."""
    context = browser.new_context(viewport=SCREEN, reduced_motion="reduce", bypass_csp=True)
    page = context.new_page()
    page.add_init_script(
        """addEventListener("DOMContentLoaded", () => document.head.insertAdjacentHTML("beforeend",
            "<style>*, ::before, ::after { transition: none !important; animation: none !important; }</style>"))"""
    )
    yield page
    context.close()


@pytest.mark.prove
def test_no_page_violates_a_rule(tab, address, site, axe):
    known: set[str] = set()
    found: dict[str, list[tuple[str, str]]] = {}
    for path in lint.pages(site):
        name = path.relative_to(site).as_posix()
        tab.goto(f"{address}/{name}", wait_until="load")
        if broken := list(_violations(tab, axe, _left_out(name, known))):
            found[name] = broken
    assert found == {}
    print(f"{len(lint.pages(site))} pages without a violation")


@pytest.mark.parametrize(
    ("html", "rule"),
    [
        ('<p style="color: #bbb; background: #fff">pale</p>', "color-contrast"),
        ("<button></button>", "button-name"),
        ('<div style="width: 900px">wide</div>', "scrolls sideways"),
        (
            '<div style="overflow: auto; width: 100px; height: 20px"><p style="width: 800px">long</p></div>',
            "scrollable-region-focusable",
        ),
    ],
)
def test_a_violation_is_found(tab, axe, html, rule):
    tab.set_content(f'<html lang="en"><title>A page</title><main><h1>Title</h1>{html}</main></html>')
    assert rule in " ".join(found for _, found in violations(tab, axe))


def test_a_good_page_has_no_violation(tab, axe):
    tab.set_content('<html lang="en"><title>A page</title><main><h1>Title</h1><p>Text.</p></main></html>')
    assert list(violations(tab, axe)) == []


def test_the_first_key_leads_past_the_navigation(tab, address):
    tab.goto(f"{address}/course/notation.html", wait_until="load")
    tab.keyboard.press("Tab")
    assert tab.evaluate("() => document.activeElement.textContent.trim()") == "Skip to main content"
    assert tab.evaluate("() => document.activeElement.getBoundingClientRect().top >= 0")
    tab.keyboard.press("Enter")
    tab.keyboard.press("Tab")
    assert tab.evaluate("() => document.querySelector('#main-content').contains(document.activeElement)")


def test_the_focus_is_always_visible(tab, address):
    tab.goto(f"{address}/course/05-fcn/fcn.html", wait_until="load")
    unseen = []
    for _ in range(120):
        tab.keyboard.press("Tab")
        if tab.evaluate("() => document.activeElement === document.body"):
            break
        if not tab.evaluate(SEEN_FOCUS):
            unseen.append(tab.evaluate("() => document.activeElement.outerHTML.slice(0, 120)"))
    assert unseen == []
