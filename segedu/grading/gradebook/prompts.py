"""One-line task descriptions for feedback pages: the first docstring line of each exercise's stub in the notebook.

They are stored beside the records, so that reports can be computed without a checkout of the course.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path

from segedu.grading.gradebook.atomic_files import write_derived
from segedu.grading.judging.lab_source import read_lab
from segedu.grading.judging.student_code import parse


def stored_prompts(out: Path, lab: str) -> Path:
    """The file in which the task descriptions of a lab are stored."""
    return out / lab / "asked.json"


def exercise_prompts(out: Path, lab: str, course: Path | None) -> dict[str, str]:
    """The task description of each exercise of a lab; empty if neither `course` nor an earlier run knows the lab."""
    stored = stored_prompts(out, lab)
    if course is not None and (course / "labs" / f"{lab}.ipynb").is_file():
        cells = [cell for cell in read_lab(course, lab).cells if cell.role == "solution"]
        lines = {cell.name: line for cell in cells if (line := first_line(cell.source, cell.name))}
        write_derived(stored, json.dumps(lines, indent=1, ensure_ascii=False).encode())
        return lines
    try:
        lines = json.loads(stored.read_text(encoding="utf-8"))
        return {str(name): str(line) for name, line in lines.items()}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


def first_line(source: str, name: str) -> str:
    """The first docstring line of the definition `name` in a cell, or else of its last definition; may be ""."""
    tree = parse(source)
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    nodes = [node for node in (tree.body if tree else []) if isinstance(node, definitions)]
    nodes = [node for node in nodes if node.name == name] or nodes[-1:]
    text = ast.get_docstring(nodes[0]) if nodes else None
    return text.strip().splitlines()[0].strip() if text and text.strip() else ""
