"""The site as a reader sees it who has no internet: a headless browser that can reach only the site's own server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser
LOOK_UP, TALLEST = r"course/(methods|wrong-answers|results|measured)\b", 15_000  # pixels on a laptop
SCREEN, TELEPHONE = {"width": 1300, "height": 900}, {"width": 390, "height": 800}
TYPESET = (
    "() => window.MathJax && MathJax.startup && MathJax.startup.promise ? MathJax.startup.promise.then(() => 1) : 1"
)
# pictures load when a reader comes near; those of a live explorer are tested with it
LOADED = """() => Promise.all([...document.querySelectorAll('article img')].filter(i => !i.closest('.ex')).map((i) => {
    i.loading = 'eager';
    return i.complete || new Promise((done) => { i.onload = i.onerror = done; });
})).then(() => 1)"""
SEEN = """() => ({
    formulas: document.querySelectorAll('.math').length,
    rendered: [...document.querySelectorAll('.math mjx-container')].filter(c => c.querySelector('svg')).length,
    raw: [...document.querySelectorAll('.math')].filter(m => /\\\\[\\[(]/.test(m.innerText)).length,
    cut: [...document.querySelectorAll('div.math mjx-container')].filter(m => {
        const drawn = m.querySelector('svg').getBoundingClientRect(), room = m.parentElement.getBoundingClientRect();
        return drawn.right > room.right + 1 || m.parentElement.scrollWidth > m.parentElement.clientWidth + 1;
    }).map(m => m.parentElement.id),
    pictures: [...document.querySelectorAll('article img')].filter(i => !i.closest('.ex')).map(i => [i.src, i.naturalWidth]),
    code: [...document.querySelectorAll('article .highlight pre')].map(p => p.textContent.trim().length),
    title: document.querySelector('article h1')?.innerText ?? '',
    font: getComputedStyle(document.body).fontFamily,
    captions: [...document.querySelectorAll('article figure figcaption .caption-number')].map(c => c.innerText.trim()),
    bare: [...document.querySelectorAll('article img:not(.chapter-picture)')]
        .filter(i => !i.closest('.ex') && !i.closest('figure')?.querySelector('figcaption'))
        .map(i => i.alt),
})"""
# Where a figure is wider than its frame, the frame scrolls, keyboards can reach it, and a line says so.
FRAMES = """() => [...document.querySelectorAll('.figure-frame')].filter(f => f.checkVisibility()).map(f => ({
    scrolls: f.scrollWidth > f.clientWidth + 1,
    focus: f.tabIndex === 0,
    label: f.getAttribute('aria-label') ?? '',
    hint: f.nextElementSibling?.matches('.figure-hint') ?? false,
}))"""
# So do tables, whose line stands above them, and formulas.
HINTED = """() => [...document.querySelectorAll('.pst-scrollable-table-container, .bd-article mjx-container[display]')]
    .filter(f => f.checkVisibility() && f.scrollWidth > f.clientWidth + 1)
    .map(f => f.querySelector('table') ? f.previousElementSibling : (f.closest('div.math') ?? f).nextElementSibling)
    .map(line => line?.textContent ?? '')"""
# For each formula whether it is set smaller, whether it scrolls, and whether it would fit at the smallest size.
SIZES = """() => [...document.querySelectorAll('.bd-article mjx-container[display]')].map(f => {
    const size = f.style.fontSize, seen = [size !== '', f.scrollWidth > f.clientWidth];
    f.style.fontSize = '80%';
    seen.push(f.scrollWidth <= f.clientWidth);
    f.style.fontSize = size;
    return seen;
})"""
# matplotlib writes the text of an SVG as outlines of 100 units per em: their scale is the size of the text.
SMALLEST = """async (name) => {
    const image = document.querySelector(`#${name} img`);
    const text = await (await fetch(image.src)).text();
    const points = Math.min(...[...text.matchAll(/<g [^>]*scale\\(([\\d.]+) -/g)].map(found => 100 * found[1]));
    const [, , width] = text.match(/viewBox="([^"]+)"/)[1].split(' ').map(Number);
    return points * image.getBoundingClientRect().width / width;
}"""
DIAGRAMS = {
    "course/05-fcn/fcn.html": "fig-fcn-architecture",
    "course/06-unet/architecture.html": "fig-unet-architecture",
    "course/12-one-stage/detr.html": "fig-detr-architecture",
}
WITH_WIDE_TABLES = "course/12-one-stage/detr.html"


TOC = Path(__file__).resolve().parents[2] / "jupyter-book-config" / "_toc.yml"


def in_order(visited: dict) -> Iterator[str]:
    """Visited pages of the course in the order of the table of contents."""
    for name in re.findall(r"(?:file|root): (\S+)", TOC.read_text()):
        if f"{name}.html" in visited:
            yield f"{name}.html"


@pytest.fixture(scope="module")
def visited(browser, address, site):
    """What each page shows, and everything it asked for or complained of, by its address in the site."""
    found = {}
    context = browser.new_context(viewport=SCREEN)
    outside: list[str] = []

    def only_this_machine(route):
        if route.request.url.startswith((address, "data:", "blob:")):
            route.continue_()
        else:
            outside.append(route.request.url)
            route.abort()

    context.route("**/*", only_this_machine)
    tab = context.new_page()
    errors: list[str] = []
    tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("response", lambda answer: errors.append(answer.url) if answer.status >= 400 else None)
    for path in sorted(site.rglob("*.html")):
        name = path.relative_to(site).as_posix()
        if name.startswith("_") or name in ("index.html", "genindex.html", "search.html"):
            continue
        errors.clear(), outside.clear()
        tab.goto(f"{address}/{name}", wait_until="load")
        tab.evaluate(TYPESET)
        tab.evaluate(LOADED)
        found[name] = tab.evaluate(SEEN) | {"errors": list(errors), "outside": list(outside)}
        tall = tab.evaluate("() => document.documentElement.scrollHeight")
        tab.set_viewport_size(TELEPHONE)  # the page is not loaded again for this: that takes a minute for all of them
        found[name]["height"] = tall
        found[name]["too wide"] = tab.evaluate("() => document.documentElement.scrollWidth > window.innerWidth + 2")
        tab.set_viewport_size(SCREEN)
    context.close()
    return found


def test_nothing_is_asked_of_another_machine(visited):
    assert {name: page["outside"] for name, page in visited.items() if page["outside"]} == {}


def test_no_console_error_and_nothing_missing(visited):
    assert {name: page["errors"] for name, page in visited.items() if page["errors"]} == {}


def test_every_formula_is_rendered(visited):
    assert sum(page["formulas"] for page in visited.values()) > 0
    for name, page in visited.items():
        assert page["rendered"] == page["formulas"], name
        assert page["raw"] == 0, f"{name}: raw TeX is on the page"


def test_no_formula_is_cut_off_on_a_wide_screen(visited):
    assert {name: page["cut"] for name, page in visited.items() if page["cut"]} == {}


def test_every_picture_is_there(visited):
    pictures = [(name, *picture) for name, page in visited.items() for picture in page["pictures"]]
    assert pictures
    assert [picture for picture in pictures if picture[2] < 32] == []


def test_code_is_shown(visited):
    assert sum(len(page["code"]) for page in visited.values()) > 0
    assert [name for name, page in visited.items() if 0 in page["code"]] == []


def test_pages_fit_a_narrow_screen(visited):
    assert [name for name, page in visited.items() if page["too wide"]] == []


def test_no_page_for_looking_up_is_too_tall_to_find_anything(visited):
    pages = {name: page["height"] for name, page in visited.items() if re.match(LOOK_UP, name)}
    assert len(pages) > 20
    assert {name: height for name, height in pages.items() if height > TALLEST} == {}


def test_every_figure_has_a_caption(visited):
    course = {name: page["bare"] for name, page in visited.items() if name.startswith("course/")}
    assert {name: bare for name, bare in course.items() if bare} == {}


def test_figures_are_numbered_within_their_chapters(visited):
    """Figure 5.1, 5.2 and so on, through all pages of a chapter, in the order in which they are read."""
    last: dict[str, int] = {}
    for name in in_order(visited):
        page = visited[name]
        shown = re.match(r"[A-Z]?\d+", page["title"])
        for caption in page["captions"]:
            chapter, number = re.fullmatch(r"Figure (?:(\w+)\.)?(\d+)", caption).groups("")
            assert not shown or chapter == shown[0], f"{name}: {caption} on page {page['title']!r}"
            assert int(number) == last.get(chapter, 0) + 1, f"{name}: {caption}"
            last[chapter] = int(number)
    assert {str(number) for number in range(1, 17)} <= set(last)


@pytest.mark.parametrize("page", DIAGRAMS)
def test_text_of_diagrams_is_legible_on_a_telephone(browser, address, page):
    context = browser.new_context(viewport=TELEPHONE)
    tab = context.new_page()
    tab.goto(f"{address}/{page}", wait_until="load")
    tab.evaluate("() => document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
    tab.wait_for_function("() => [...document.images].every(i => i.complete)")
    smallest = tab.evaluate(SMALLEST, DIAGRAMS[page])
    frames, hinted = tab.evaluate(FRAMES), tab.evaluate(HINTED)
    too_wide = tab.evaluate("() => document.documentElement.scrollWidth > window.innerWidth")
    tab.set_viewport_size(SCREEN)
    tab.wait_for_function(
        "() => ![...document.querySelectorAll('.figure-frame + .figure-hint')].some(h => h.checkVisibility())"
    )
    context.close()
    assert smallest >= 9.99
    assert not too_wide
    assert frames and any(frame["scrolls"] for frame in frames)
    assert all("Scroll sideways" in line for line in hinted)
    assert hinted or page != WITH_WIDE_TABLES
    for frame in frames:
        assert frame["scrolls"] == frame["focus"] == frame["hint"] == bool(frame["label"])


def test_a_formula_that_fits_at_four_fifths_of_its_size_does_not_scroll_on_a_telephone(browser, address):
    context = browser.new_context(viewport=TELEPHONE)
    tab = context.new_page()
    formulas = []
    for page in ("course/05-fcn/fcn.html", "course/12-one-stage/ssd.html", "course/14-top-down/yolo11.html"):
        tab.goto(f"{address}/{page}", wait_until="load")
        tab.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        formulas += tab.evaluate(SIZES)
    context.close()
    assert any(smaller for smaller, _, _ in formulas)
    assert not [formula for formula in formulas if formula[1] and formula[2]]


def test_search_finds_a_page_without_the_network(browser, address):
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(f"{address}/search.html?q=notation", wait_until="load")
    tab.wait_for_selector("#search-results li a", timeout=20_000)
    assert "Notation" in tab.inner_text("#search-results")
    context.close()
