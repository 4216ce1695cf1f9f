"""Progress marks, quizzes, look-up tables and the search, in a browser, on a small book that is opened from a disk."""

from __future__ import annotations

import pytest
from small_book import FRONT, build

pytestmark = pytest.mark.browser
HOME = """# Home

This page names the transposed convolution, the transposed convolution and the transposed convolution.

```python
zebracode = 1
```

```{look-up}
| Method | Score |
|---|---:|
| U-Net | 9 |
| FCN | 10.5 |
| SegNet | 1,200 |
```
"""
CHAPTER = """# 6 U-Net

Words about nothing.

## Pages

1. [Sizes](sizes.md): of maps.

## Quiz

**1. What is the Dice of an IoU of 1/2?**

```{dropdown} Answer
% key: 2/3
It is 2/3.
```

**2. Why?**

```{dropdown} Answer
Because.
```
"""
TOC = """parts:
  - chapters:
      - file: course/06-unet/index
        sections:
          - file: course/06-unet/sizes
      - file: course/03-convolution/transposed
"""


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> str:
    """The address of the small book."""
    folder = tmp_path_factory.mktemp("live")
    pages = {
        "06-unet/index": CHAPTER,
        "06-unet/sizes": "# 6.2 Sizes\n\nThe transposed convolution of a U-Net.\n",
        "03-convolution/transposed": "# 3.3 Transposed convolution\n\nOne sentence.\n",
    }
    for name, text in pages.items():
        path = folder / "course" / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(FRONT + text)
    status, said = build(folder, HOME, TOC)
    assert status == 0, said
    return (folder / "_build" / "html").as_uri()


@pytest.fixture
def tab(browser):
    context = browser.new_context()
    yield context.new_page()
    context.close()


def results(tab, book: str, query: str) -> list[str]:
    tab.goto(f"{book}/search.html?q={query}")
    tab.wait_for_function(
        "() => /found|did not match/.test(document.querySelector('.search-summary')?.innerText ?? '')"
    )
    return tab.evaluate("() => [...document.querySelectorAll('#search-results li > a')].map(a => a.innerText)")


def test_search_ranks_the_page_of_that_title_first(tab, book):
    found = results(tab, book, "transposed+convolution")
    assert found[0] == "3.3 Transposed convolution" and "Home" in found


@pytest.mark.parametrize("query", ["unet", "u-net", "U-Net"])
def test_search_finds_a_compound_in_every_spelling(tab, book, query):
    assert results(tab, book, query)[0] == "6 U-Net"


def test_search_leaves_out_code(tab, book):
    assert results(tab, book, "zebracode") == []


def test_a_table_is_filtered_and_sorted(tab, book):
    tab.goto(f"{book}/course/index.html")
    shown = (
        "() => [...document.querySelectorAll('table.look-up tbody tr:not([hidden])')].map(r => r.cells[0].innerText)"
    )
    tab.click("table.look-up th:nth-child(2) button")
    assert tab.evaluate(shown) == ["U-Net", "FCN", "SegNet"]
    tab.click("table.look-up th:nth-child(2) button")
    assert tab.evaluate(shown) == ["SegNet", "FCN", "U-Net"]
    tab.fill("#look-up-filter", "unet")
    assert tab.evaluate(shown) == ["U-Net"] and tab.inner_text(".look-up-tools output") == "1 of 3 rows"


def test_a_page_that_was_marked_as_read_has_a_tick_until_it_is_unmarked(tab, book):
    tab.goto(f"{book}/course/06-unet/sizes.html")
    tab.click(".page-progress button")
    assert "marked this page as read" in tab.inner_text(".page-progress")
    tab.goto(f"{book}/course/06-unet/index.html")
    assert tab.locator("#pages .read-mark").count() == 1
    tab.goto(f"{book}/course/06-unet/sizes.html")
    assert tab.get_attribute(".page-progress button", "aria-pressed") == "true"
    tab.click(".page-progress button")
    tab.goto(f"{book}/course/06-unet/index.html")
    assert tab.locator("#pages .read-mark").count() == 0


def test_an_answer_with_numbers_is_marked_and_kept(tab, book):
    tab.goto(f"{book}/course/06-unet/index.html")
    form = tab.locator(".quiz-form").first
    form.locator("textarea").fill("about 0.5")
    form.locator("button", has_text="Check").click()
    assert "Not yet" in form.inner_text()
    form.locator("textarea").fill("Dice = 2 / 3")
    form.locator("button", has_text="Check").click()
    assert "Right" in form.locator(".quiz-state").inner_text()
    tab.reload()
    assert tab.locator(".quiz-form textarea").first.input_value() == "Dice = 2 / 3"
    assert "1 of 2 right, 1 still open" in tab.inner_text(".quiz-total")


def test_another_answer_is_compared_with_the_model_answer(tab, book):
    tab.goto(f"{book}/course/06-unet/index.html")
    form, answer = tab.locator(".quiz-form").nth(1), tab.locator("#quiz details").nth(1)
    assert answer.get_attribute("open") is None
    form.locator("button", has_text="Compare").click()
    assert answer.get_attribute("open") is not None
    form.locator("button", has_text="Partly right").click()
    assert "0 of 2 right, 1 still open" in tab.inner_text(".quiz-total")


def test_without_javascript_the_quiz_has_folded_answers_and_no_form(browser, book):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{book}/course/06-unet/index.html")
    assert page.locator("#quiz details").count() == 2 and page.locator(".quiz-form").count() == 0
    assert not page.locator("#quiz details").first.evaluate("d => d.open")
    context.close()
