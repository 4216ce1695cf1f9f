"""Tables for looking things up: with a filter and sorting in the browser, and split over pages of a readable height.

- `{look-up}` around a Markdown table marks it; so do the tables of `{methods}`, `{claims}` and `{wrong-answers}`.
  `lookups.js` adds the filter and the sorting. Without JavaScript the whole table stays.
- `{wrong-answers} 04` writes one lab's section of `course/wrong-answers.md`. That file is written whole by
  `segedu mutants --write`; its own page becomes an overview, whose rows have the anchors of the sections.
"""

from __future__ import annotations

import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
PAGE = "course/wrong-answers"
RESULTS = "course/results"  # a page whose tables are all to be looked up
SECTION = re.compile(r"^## Lab (\d\d)$", re.MULTILINE)


def mark(found: list[nodes.Node], *more: str) -> list[nodes.Node]:
    """Mark the tables among parsed nodes as tables to look things up in, with more classes for style sheets."""
    for node in found:
        for table in node.findall(nodes.table):
            table["classes"] += ["look-up", *more]
    return found


class LookUp(SphinxDirective):
    """Marks the tables in its content."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        return mark(self.parse_content_to_nodes())


def split_wrong_answers(text: str) -> tuple[str, dict[str, str]]:
    """Introduction, and the tables of each lab by its two digits.

    Raises:
        ValueError: if there is no section of a lab.
    """
    parts = SECTION.split(text)
    if len(parts) < 3:
        raise ValueError("course/wrong-answers.md has no section '## Lab 01', expected one per lab")
    return parts[0], {lab: tables.strip() for lab, tables in zip(parts[1::2], parts[2::2], strict=True)}


def without_yes(tables: str) -> str:
    """Leave out the columns "refused" and "named" where every wrong answer is both.

    >>> without_yes("| a | b | refused | named |\\n| `f` | late | yes | yes |")
    '| a | b |\\n| `f` | late |'
    """
    if "| NO |" in tables:
        return tables
    tables = re.sub(r" (refused \| named|yes \| yes) \|$", "", tables, flags=re.MULTILINE)
    tables = tables.replace("|---|---|---|---|---|", "|---|---|---|")
    return re.sub(r"\| \| (\d+ of \d+ accepted) \| \|$", r"| \1 |", tables, flags=re.MULTILINE)


def count_rows(tables: str) -> tuple[int, int, int, int]:
    """Exercises, wrong answers, machine mutants and refused mutants in the tables of a lab.

    >>> count_rows("| `f` | late | You are late. | yes | yes |\\n| `f` | 7 | 6 | 1 |")
    (1, 1, 7, 6)
    """
    wrong = re.findall(r"^\| `(\w+)` \| (?!\*right)[^|]+ \| .* \| (?:yes|NO) \| (?:yes|NO) \|$", tables, re.MULTILINE)
    mutants = re.findall(r"^\| `\w+` \| (\d+) \| (\d+) \| \d+ \|$", tables, re.MULTILINE)
    return len(set(wrong)), len(wrong), sum(int(made) for made, _ in mutants), sum(int(done) for _, done in mutants)


def overview(text: str, pages: set[str]) -> str:
    """The page of wrong answers as a table with one row per lab.

    Args:
        text: of the file that `segedu mutants --write` writes.
        pages: docnames of the site; a lab without its own page keeps its section.
    """
    introduction, sections = split_wrong_answers(text)
    head = "| Lab | exercises | wrong answers | machine mutants | refused |\n|---|---:|---:|---:|---:|"
    lines, rest = [introduction, "Each lab has its own page, whose table you can filter and sort.", "", head], []
    for lab, tables in sections.items():
        if f"{PAGE}/lab-{lab}" in pages:
            counts = " | ".join(map(str, count_rows(tables)))
            lines.append(f'| <span id="lab-{lab}"></span>[Lab {int(lab)}](wrong-answers/lab-{lab}.md) | {counts} |')
        else:
            rest += ["", f"## Lab {lab}", "", tables]
    return "\n".join([*lines, *rest, ""])


def mark_results(app: Sphinx, doctree: nodes.document) -> None:
    if app.env.docname == RESULTS:
        mark([doctree])


def replace_page(app: Sphinx, docname: str, source: list[str]) -> None:
    if docname == PAGE:
        source[0] = overview(source[0], app.env.found_docs)


class WrongAnswers(SphinxDirective):
    """Writes the tables of one lab where it stands."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        path = ROOT / f"{PAGE}.md"
        self.env.note_dependency(str(path))
        _, sections = split_wrong_answers(path.read_text(encoding="utf-8"))
        if self.arguments[0] not in sections:
            raise self.error(f"wrong-answers has {self.arguments[0]!r}, expected one of {', '.join(sections)}")
        return mark(self.parse_text_to_nodes(without_yes(sections[self.arguments[0]])), "wrong-answers")


def setup(app: Sphinx) -> None:
    app.add_directive("look-up", LookUp)
    app.add_directive("wrong-answers", WrongAnswers)
    app.connect("source-read", replace_page)
    app.connect("doctree-read", mark_results)
    app.add_css_file("lookups.css")
    app.add_js_file("lookups.js")
