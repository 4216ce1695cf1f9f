"""Figures on pages: numbers within chapters, folded code below, and frames in which wide pictures scroll."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from segedu_site import figures, lint, numbers
from small_book import FRONT, build

ROOT = Path(__file__).resolve().parents[2]
FIGURE = """
```{code-cell} ipython3
---
tags: [hide-input]
mystnb:
  figure:
    name: NAME
    caption: Red on the left, blue on the right.
---
import io
from IPython.display import Image, display
from PIL import Image as Picture

png = io.BytesIO()
Picture.new("RGB", (2 * WIDTH, 80)).save(png, format="png")
display(Image(data=png.getvalue(), format="png", width=WIDTH, metadata={"alt": "Two fields, side by side"}))
```
"""
TOC = """chapters:
  - file: course/background
  - file: course/05/index
    sections:
      - file: course/05/page
      - file: course/05/further
  - file: course/06
"""
CAPTION = re.compile(r'<span class="caption-number">([^<]*?)\s*</span>')


def figure(name: str, width: int = 900) -> str:
    return FIGURE.replace("NAME", name).replace("WIDTH", str(width))


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    """A small book with a background page, a chapter of three pages, one of them without a number, and a chapter."""
    folder = tmp_path_factory.mktemp("figures")
    pages = {
        "background": "# B1 Before\n" + figure("fig-before"),
        "05/index": "# 5 Chapter\n\n$$\na = b\n$$ (eq-a)\n" + figure("fig-one"),
        "05/page": "# 5.1 Page\n\n{numref}`fig-one`, [its twin](#fig-three), {eq}`eq-a`\n" + figure("fig-two", 300),
        "05/further": "# Further reading\n" + figure("fig-three"),
        "06": "# 6 Next\n" + figure("fig-next"),
    }
    for name, text in pages.items():
        path = folder / "course" / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(FRONT + text)
    status, said = build(folder, "# A book\n", TOC)
    assert status == 0, said
    return folder / "_build" / "html" / "course"


def test_figures_have_the_number_of_their_chapter(book):
    found = {
        page.relative_to(book).with_suffix("").as_posix(): CAPTION.findall(page.read_text())
        for page in lint.pages(book)
    }
    assert found == {
        "background": ["Figure B1.1"],
        "index": [],
        "05/index": ["Figure 5.1"],
        "05/page": ["Figure 5.2"],
        "05/further": ["Figure 5.3"],
        "06": ["Figure 6.1"],
    }


def test_references_have_the_same_numbers(book):
    links = {(text, href) for href, text in lint.Page((book / "05" / "page.html").read_text()).links}
    assert {("Figure 5.1", "index.html#fig-one"), ("(5.1)", "index.html#equation-eq-a")} <= links
    assert ("its twin", "further.html#fig-three") in links


def test_titles_have_no_second_number(book):
    assert "section-number" not in (book / "05" / "page.html").read_text()


@pytest.mark.parametrize(
    ("title", "number"),
    [("12.5 DETR", "12"), ("16.4 3D U-Net", "16"), ("B2 Attention", "B2"), ("Lab 5: FCN", None), ("Twenty", None)],
)
def test_the_number_of_a_chapter_stands_in_the_title(title, number):
    assert numbers.chapter(title) == number


def test_folded_code_is_below_its_figure(book):
    page = (book / "05" / "index.html").read_text()
    assert 0 < page.index("<figcaption") < page.index("above-input") < page.index("highlight-ipython3")


def test_only_wide_pictures_have_a_frame(book):
    assert "--full-width: 900px" in (book / "05" / "index.html").read_text()
    assert "figure-frame" not in (book / "05" / "page.html").read_text()


def test_the_width_of_a_diagram_is_read_from_its_first_line(tmp_path):
    path = tmp_path / "diagram.svg"
    path.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="600pt" height="90pt" viewBox="0 0 600 90"></svg>')
    assert figures.full_width(path) == 800


def test_chapters_of_the_course_are_numbered_like_their_folders():
    for path in sorted((ROOT / "course").glob("[0-9]*-*/*.md")):
        title = re.search(r"^# (.+)$", path.read_text(), re.MULTILINE)[1]
        assert numbers.chapter(title) in (str(int(path.parent.name[:2])), None), path
