"""The site as a reader sees it who has no internet: a headless browser that can reach only the site's own server."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.browser
SCREEN, TELEPHONE = {"width": 1300, "height": 900}, {"width": 390, "height": 800}
TYPESET = (
    "() => window.MathJax && MathJax.startup && MathJax.startup.promise ? MathJax.startup.promise.then(() => 1) : 1"
)
SEEN = """() => ({
    formulas: document.querySelectorAll('.math').length,
    rendered: [...document.querySelectorAll('.math mjx-container')].filter(c => c.querySelector('svg')).length,
    raw: [...document.querySelectorAll('.math')].filter(m => /\\\\[\\[(]/.test(m.innerText)).length,
    cut: [...document.querySelectorAll('div.math mjx-container')].filter(m => {
        const drawn = m.querySelector('svg').getBoundingClientRect(), room = m.parentElement.getBoundingClientRect();
        return drawn.right > room.right + 1 || m.parentElement.scrollWidth > m.parentElement.clientWidth + 1;
    }).map(m => m.parentElement.id),
    pictures: [...document.querySelectorAll('article img')].map(i => [i.src, i.naturalWidth]),
    code: [...document.querySelectorAll('article .highlight pre')].map(p => p.textContent.trim().length),
    title: document.querySelector('article h1')?.innerText ?? '',
    font: getComputedStyle(document.body).fontFamily,
})"""


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
        tab.evaluate("() => document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
        found[name] = tab.evaluate(SEEN) | {"errors": list(errors), "outside": list(outside)}
        tab.set_viewport_size(TELEPHONE)  # the page is not loaded again for this: that takes a minute for all of them
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


def test_search_finds_a_page_without_the_network(browser, address):
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(f"{address}/search.html?q=notation", wait_until="load")
    tab.wait_for_selector("#search-results li a", timeout=20_000)
    assert "Notation" in tab.inner_text("#search-results")
    context.close()
