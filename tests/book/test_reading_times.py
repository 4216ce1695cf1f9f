"""Each chapter prints its prerequisites, its difficulty and a reading time, which is estimated from its pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

COURSE = Path(__file__).resolve().parents[2] / "course"
CHAPTERS = sorted(COURSE.glob("[0-9]*-*"))
WORDS_PER_MINUTE, MINUTES_PER_FIGURE, TOLERANCE = 200, 1, 0.2
FENCE = re.compile(r"^(```+)\{([\w-]+)\}.*?^\1 *$", re.M | re.S)
NOT_PROSE = {"code-cell", "literalinclude", "lab", "bibliography", "clone"}
PICTURE = re.compile(r"^```+\{(?:figure|image)\}|^!\[", re.M)
SHOWN = re.compile(r"^ +figure:|\bshow\(|explorer\(", re.M)  # a figure, or a widget
CAPTION = re.compile(r"^ +caption: \|\n((?: {6}.*\n)+)", re.M)


def words_and_figures(page: str) -> tuple[int, int]:
    """What a reader reads on a page: prose, tables, quizzes and captions; code and displayed formulas do not count."""
    page = re.sub(r"\A---\n.*?\n---\n", "", page, flags=re.S)
    cells = [fence[0] for fence in FENCE.finditer(page) if fence[2] == "code-cell"]
    figures = sum(bool(SHOWN.search(cell)) for cell in cells) + len(PICTURE.findall(page))
    captions = " ".join(caption for cell in cells for caption in CAPTION.findall(cell))
    prose = FENCE.sub(lambda fence: "" if fence[2] in NOT_PROSE else fence[0], page)
    prose = re.sub(r"^\$\$.*?^\$\$.*?$", "", prose, flags=re.M | re.S)
    prose = re.sub(r"\]\([^)]*\)|\{[\w:]+\}| ?<[^>\s][^>]*>(?=`)", " ", f"{prose} {captions}")
    return len(re.findall(r"\S*\w\S*", prose)), figures


def estimate(pages: list[Path]) -> float:
    """Minutes to read these pages."""
    counts = [words_and_figures(page.read_text(encoding="utf-8")) for page in pages]
    return sum(words / WORDS_PER_MINUTE + figures * MINUTES_PER_FIGURE for words, figures in counts)


def printed(page: Path) -> int:
    """Minutes that a page prints."""
    return int(re.search(r"^(?:- )?\*\*Time\*\*: (\d+) minutes\b", page.read_text(encoding="utf-8"), re.M)[1])


def is_near(minutes: int, expected: float) -> bool:
    return abs(minutes - expected) <= TOLERANCE * expected


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda folder: folder.name)
def test_the_printed_time_of_a_chapter_is_that_of_its_pages(chapter: Path) -> None:
    expected, minutes = estimate(sorted(chapter.glob("*.md"))), printed(chapter / "index.md")
    assert minutes % 5 == 0
    assert is_near(minutes, expected), f"{minutes} minutes are printed, expected about {5 * round(expected / 5)}"


@pytest.mark.parametrize("page", sorted((COURSE / "background").glob("*.md")), ids=lambda page: page.stem)
def test_the_printed_time_of_a_background_page(page: Path) -> None:
    expected, minutes = estimate([page]), printed(page)
    assert is_near(minutes, expected), f"{minutes} minutes are printed, expected about {5 * round(expected / 5)}"


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda folder: folder.name)
def test_a_chapter_names_its_prerequisites_and_its_difficulty(chapter: Path) -> None:
    text = (chapter / "index.md").read_text(encoding="utf-8")
    assert len(re.findall(r"^- \*\*Prerequisites\*\*: \S.*", text, re.M)) == 1
    assert len(re.findall(r"^- \*\*Difficulty\*\*: (?:introductory|intermediate|advanced)\.$", text, re.M)) == 1


def test_the_range_of_times_for_all_chapters() -> None:
    text = (COURSE / "how-to-use.md").read_text(encoding="utf-8")
    limits = re.search(r"Reading a chapter takes (\d+) to (\d+) minutes", text)
    times = [printed(chapter / "index.md") for chapter in CHAPTERS]
    assert [int(limit) for limit in limits.groups()] == [min(times), max(times)]


def test_what_counts_on_a_page() -> None:
    page = """---
kernelspec: python3
---
# Two words

A {term}`mask <mask>` and a [link of four words](page.md).

$$
x = 1
$$

```{code-cell} ipython3
---
mystnb:
  figure:
    caption: |
      Three more words.
---
show(fig, "not counted")
```

```{dropdown} Answer
Yes.
```
"""
    # the heading, the sentence, the caption, and the dropdown with its title
    assert words_and_figures(page) == (2 + 8 + 3 + 2, 1)
