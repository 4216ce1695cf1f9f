"""What the site knows about its chapters, read from `_toc.yml` and from the first lines of each chapter's first page.

The first page of a chapter has a list with its prerequisites, its difficulty and its reading times. A chapter builds on
those whose first page the prerequisites link to; links to a page within a chapter count as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
FIRST_LINES = re.compile(
    r"- \*\*Prerequisites\*\*: (?P<before>.*?)\n- \*\*Difficulty\*\*: (?P<difficulty>\w+)\.\n"
    r"- \*\*Time\*\*: (?P<pages>\d+) minutes for the pages(?:[^.]*?(?P<lab>\d+) for the lab)?",
    re.DOTALL,
)
LINK = re.compile(r"\]\(\.\./(\d\d-[\w-]+)/")


@dataclass(frozen=True)
class Chapter:
    """One numbered chapter: its folder, its title without the number, and what its first page says."""

    folder: str
    title: str
    difficulty: str
    minutes: int
    lab_minutes: int
    builds_on: tuple[str, ...]  # folders, in the order of the course
    pages: tuple[str, ...]  # docnames after the first page, without the lab
    lab: str  # docname

    @property
    def number(self) -> int:
        return int(self.folder[:2])

    @property
    def docname(self) -> str:
        return f"course/{self.folder}/index"


def files_below(entry: dict) -> Iterator[str]:
    """Docnames of the sections of an entry of `_toc.yml`, at any depth, in reading order."""
    for section in entry.get("sections", ()):
        yield section["file"]
        yield from files_below(section)


def read_chapter(entry: dict, root: Path) -> Chapter:
    """One chapter, from its entry in `_toc.yml` and its first page.

    Raises:
        ValueError: if the page lacks the list of prerequisites, difficulty and times.
    """
    path = root / f"{entry['file']}.md"
    text = path.read_text(encoding="utf-8")
    found = FIRST_LINES.search(text)
    title = re.search(r"^# \d+ (.+)$", text, re.MULTILINE)
    if not (found and title):
        raise ValueError(
            f"{path.relative_to(root)} has no title with a number, or no list of prerequisites, difficulty and time"
        )
    folder, below = path.parent.name, list(files_below(entry))
    before = sorted(set(LINK.findall(found["before"])) - {folder})
    return Chapter(
        folder,
        title[1],
        found["difficulty"],
        int(found["pages"]),
        int(found["lab"] or 0),
        tuple(before),
        tuple(name for name in below if name.startswith("course/")),
        next((name for name in below if name.startswith("labs/")), ""),
    )


@cache
def read_chapters(root: Path = ROOT) -> dict[str, Chapter]:
    """All numbered chapters by folder, in the order of the course."""
    parts = yaml.safe_load((root / "jupyter-book-config" / "_toc.yml").read_text(encoding="utf-8")).get("parts", ())
    entries = [
        entry for part in parts for entry in part["chapters"] if re.search(r"/\d\d-[\w-]+/index$", entry["file"])
    ]
    return {Path(entry["file"]).parent.name: read_chapter(entry, root) for entry in entries}


def direct(chapters: dict[str, Chapter]) -> dict[str, tuple[str, ...]]:
    """For each chapter, those that it builds on directly: without those that another prerequisite builds on.

    >>> one, two = (Chapter(name, "", "", 0, 0, before, (), "") for name, before in [("01-a", ()), ("02-b", ("01-a",))])
    >>> three = Chapter("03-c", "", "", 0, 0, ("01-a", "02-b"), (), "")
    >>> direct({c.folder: c for c in (one, two, three)})["03-c"]
    ('02-b',)
    """

    def all_before(folder: str) -> set[str]:
        before = chapters[folder].builds_on
        return set(before).union(*map(all_before, before))

    return {
        folder: tuple(name for name in chapter.builds_on if not any(name in all_before(o) for o in chapter.builds_on))
        for folder, chapter in chapters.items()
    }


def level(chapters: dict[str, Chapter], folder: str) -> int:
    """How many chapters have to be read one after the other before this one."""
    return max((1 + level(chapters, before) for before in chapters[folder].builds_on), default=0)
