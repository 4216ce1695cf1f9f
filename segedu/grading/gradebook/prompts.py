"""What each exercise asks, for feedback pages: the first line of its stub's docstring in the lab's notebook.

It is kept beside the records, so that everything derived can be made again where the course is not at hand.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path

from segedu.grading.gradebook.atomic_files import write_derived
from segedu.grading.judging.lab_source import read_lab
from segedu.grading.judging.student_code import parse


def exercise_prompts(out: Path, lab: str, course: Path | None) -> dict[str, str]:
    """What each exercise of a lab asks.

    Args:
        out: the instructor's `--out`.
        lab: `04_metrics`.
        course: the checkout, or None.

    Returns:
        Exercise -> one line; empty where neither the course nor an earlier run knows the lab.
    """
    kept = out / lab / "asked.json"
    if course is not None and (course / "labs" / f"{lab}.ipynb").is_file():
        cells = [cell for cell in read_lab(course, lab).cells if cell.role == "solution"]
        lines = {cell.name: line for cell in cells if (line := first_line(cell.source, cell.name))}
        write_derived(kept, json.dumps(lines, indent=1, ensure_ascii=False).encode())
        return lines
    try:
        lines = json.loads(kept.read_text(encoding="utf-8"))
        return {str(name): str(line) for name, line in lines.items()}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


def first_line(source: str, name: str) -> str:
    """The first line of a stub's docstring, or "".

    Args:
        source: of the solution cell.
        name: of the exercise; without a definition of that name, the last one counts.
    """
    tree = parse(source)
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    nodes = [node for node in (tree.body if tree else []) if isinstance(node, kinds)]
    nodes = [node for node in nodes if node.name == name] or nodes[-1:]
    text = ast.get_docstring(nodes[0]) if nodes else None
    return text.strip().splitlines()[0].strip() if text and text.strip() else ""
