"""`{methods}`: the table of all methods, read from the headers of the method files without importing them.

The page can never disagree with the files: nothing is written by hand, and nothing derived lies in the repository.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
FIELDS = ("Paper", "Idea", "Simplified", "Shapes", "Quality", "Course", "Lab")
TASKS = {
    "unsupervised": "Segmentation without labels",
    "semantic": "Semantic segmentation",
    "detection": "Object detection",
    "instance": "Instance segmentation",
    "panoptic": "Panoptic segmentation",
    "promptable": "Promptable segmentation",
}


@dataclass(frozen=True)
class Method:
    """One method file: its name and path, and the fields of its header."""

    path: str
    name: str
    summary: str
    fields: dict[str, str]


def read_method(path: Path, root: Path = ROOT) -> Method | None:
    """The header of one file; None where the file has no line `Paper:`, because it is no method then."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    parts = re.split(rf"^({'|'.join(FIELDS)}):", docstring, flags=re.MULTILINE)
    fields = {field: " ".join(text.split()) for field, text in zip(parts[1::2], parts[2::2], strict=True)}
    if "Paper" not in fields:
        return None
    name, _, summary = " ".join(parts[0].split()).partition(":")
    return Method(path.relative_to(root).as_posix(), name, summary.strip(), fields)


def read_methods(root: Path = ROOT) -> dict[str, list[Method]]:
    """Methods by task folder, in the order of the course; folders without a method are left out."""
    tasks = {}
    for folder in TASKS:
        files = sorted((root / "segedu" / folder).rglob("*.py"))
        methods = [method for file in files if (method := read_method(file, root))]
        if methods:
            tasks[folder] = methods
    return tasks


def places(method: Method, root: Path = ROOT) -> list[str]:
    """Links to the chapter and the lab that the header names, where they exist."""
    chapter, lab = method.fields.get("Course", ""), method.fields.get("Lab", "")
    links = []
    if (root / "course" / chapter / "index.md").is_file():
        links.append(f"[Chapter {int(chapter[:2])}](/course/{chapter}/index.md)")
    if (root / "labs" / f"{lab}.ipynb").is_file():
        links.append(f"[Lab {int(lab[:2])}](/labs/{lab}.ipynb)")
    return links


def markdown(tasks: dict[str, list[Method]], root: Path = ROOT) -> str:
    """The page's text below its introduction: for each task a table, and an entry for each method."""
    lines = []
    for task, methods in tasks.items():
        lines += [f"## {TASKS[task]}", "", "| Method | Quality | Code | Taught in |", "|---|---|---|---|"]
        for method in methods:
            cells = [
                f"**{method.name}**",
                plain(method.fields.get("Quality", "")),
                f"{{segedu}}`{method.path}`",
                ", ".join(places(method, root)),
            ]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
        for method in methods:
            summary = method.summary[:1].upper() + method.summary[1:]
            lines += [f"### {method.name}", "", plain(summary), ""]
            for field in FIELDS[:4]:
                if field in method.fields:
                    lines += [field, f": {plain(method.fields[field])}", ""]
    return "\n".join(lines)


def plain(text: str) -> str:
    """Docstring text as Markdown: an asterisk outside of code is an asterisk.

    >>> plain("a multiple of 2**depth, `2**depth`")
    'a multiple of 2\\\\*\\\\*depth, `2**depth`'
    """
    parts = text.split("`")
    return "`".join(part if i % 2 else part.replace("*", "\\*") for i, part in enumerate(parts))


class Methods(SphinxDirective):
    """Writes the sections of all methods where it stands."""

    def run(self) -> list[nodes.Node]:
        tasks = read_methods()
        for method in sum(tasks.values(), []):
            self.env.note_dependency(str(ROOT / method.path))
        return self.parse_text_to_nodes(markdown(tasks), allow_section_headings=True)


def setup(app: Sphinx) -> None:
    app.add_directive("methods", Methods)
