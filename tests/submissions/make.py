"""Make the example submissions of a lab, and `expected.csv` beside them: `python tests/submissions/make.py`.

Right answers come from the solution notebook, wrong ones from the exercise's own list. What each must earn is known
by construction; only for the wrong answers is the judge asked, in this process and with seeds of its own.
"""

from __future__ import annotations

import ast
import copy
import csv
import inspect
import io
import itertools
import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
COURSE = HERE.parents[1]
sys.path[:0] = [str(COURSE), str(HERE.parent / "attacks")]

from cells import ATTACKS  # noqa: E402

from segedu.teaching import exercises as all_exercises  # noqa: E402
from segedu.teaching.checks.judge import Answers, draw, judge, outcomes_of  # noqa: E402

LABS = ("04_metrics", "06_unet")
SEEDS = (101, 202)
# a student's own cell may use the library, though what the lab asks for is not in it
HELPERS = """from segedu.datasets import cells, shapes
from segedu.training import evaluate, fit, train_one_epoch
from segedu.viz import gallery, overlay, show

scene = shapes.draw_shapes(seed=1)
print(scene["image"].shape, cells.draw_cells(seed=1)["label_map"].max())"""


def solution_cells(lab: str) -> dict[str, str]:
    """Exercise -> source of the right answer."""
    book = json.loads((COURSE / "solutions" / f"{lab}.ipynb").read_text())
    ours = ((cell, cell["metadata"].get("segedu", {})) for cell in book["cells"])
    return {info["name"]: "".join(cell["source"]) for cell, info in ours if info.get("role") == "solution"}


def standalone(exercise, wrong, right: str) -> str | None:
    """The source of a wrong answer with what it needs, under the exercise's name; None if it needs the library.

    Only functions at the top level of a module have a source of their own; a variant of the reference gives None.
    Where the wrong answer calls the reference, the right answer stands in for it, under another name.
    """
    module = inspect.getmodule(wrong.function)
    nodes, imports = _top_level(ast.parse(inspect.getsource(module)))
    name = getattr(wrong.function, "__name__", "")
    if name not in nodes or getattr(module, name) is not wrong.function:
        return None
    wanted, queue, reference = [], [name], []
    while queue:
        here = queue.pop()
        if here in wanted:
            continue
        if getattr(module, here, None) is exercise.reference:
            reference.append(here)
        elif here in nodes:
            wanted.append(here)
            queue += [n.id for n in ast.walk(nodes[here]) if isinstance(n, ast.Name) and n.id in {*nodes, *imports}]
        elif "segedu" in ast.unparse(imports[here]):
            return None
        else:
            wanted.append(here)
    parts = [*dict.fromkeys(imports[n] for n in imports if n in wanted), *(nodes[n] for n in nodes if n in wanted)]
    text = "\n\n\n".join(ast.unparse(part) for part in parts)
    if reference:
        text = re.sub(rf"\b{re.escape(reference[0])}\b", "right_answer", text)
        text = re.sub(rf"\b{re.escape(exercise.name)}\b", "right_answer", right) + "\n\n\n" + text
    return "from __future__ import annotations\n\n" + re.sub(rf"\b{re.escape(name)}\b", exercise.name, text)


def _top_level(tree: ast.Module) -> tuple[dict[str, ast.stmt], dict[str, ast.stmt]]:
    nodes: dict[str, ast.stmt] = {}
    imports: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            nodes[node.name] = node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            nodes[node.targets[0].id] = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            imports |= {(alias.asname or alias.name): node for alias in node.names}
    return nodes, imports


def points_of(exercise, function, answers: list[Answers]) -> float:
    """What the judge gives, the same with every seed."""
    found = {judge(exercise, a.drawn, outcomes_of(exercise, function, a.drawn), a).points for a in answers}
    assert len(found) == 1, f"{exercise.name}: the points of a wrong answer depend on the draw: {found}"
    return found.pop()


def wrong_answer(exercise, right: str) -> tuple[str, float]:
    """Of three wrong answers the one that earns least, and its points; nothing at all, where none stands alone."""
    found = ((standalone(exercise, wrong, right), wrong.function) for wrong in exercise.wrong)
    texts = dict(itertools.islice(((text, wrong) for text, wrong in found if text), 3))
    texts = texts or {f"def {exercise.name}(*args):\n    return None": lambda *args: None}
    answers = [Answers(exercise, draw(exercise, seed)) for seed in SEEDS]
    points, text = min((points_of(exercise, function, answers), text) for text, function in texts.items())
    return text, points


class Maker:
    """Makes the notebooks of one lab."""

    def __init__(self, lab: str) -> None:
        self.lab = lab
        self.book = json.loads((COURSE / "labs" / f"{lab}.ipynb").read_text())
        self.exercises = all_exercises.load(lab).exercises
        self.names = [exercise.name for exercise in self.exercises]
        self.max = {exercise.name: exercise.points for exercise in self.exercises}
        self.right = solution_cells(lab)
        self.files: dict[str, str] = {}
        self.rows: list[dict] = []

    def cells(self, answers: dict[str, str], full: bool = False) -> list[dict]:
        """The lab with answers typed in; setup, solution and check cells only, unless `full`."""
        cells = copy.deepcopy(self.book["cells"])
        kept = [
            c for c in cells if full or c["metadata"].get("segedu", {}).get("role") in ("setup", "solution", "check")
        ]
        for cell in kept:
            info = cell["metadata"].get("segedu", {})
            if info.get("role") == "solution" and info["name"] in answers:
                cell["source"] = answers[info["name"]]
        return kept

    def add(self, student: str, cells: list[dict], points: dict[str, float], note: str = "") -> None:
        """One submission and its row."""
        book = {**self.book, "cells": cells}
        self.files[f"{student}.ipynb"] = json.dumps(book, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        got = {name: f"{points.get(name, 0):g}" for name in self.names}
        row = {"student": student, "points": f"{sum(points.values()):g}", "status": "graded", **got, "note": note}
        self.rows.append(row)

    def all(self) -> dict[str, str]:
        """Every file of the lab's folder."""
        self._honest()
        self._unlucky()
        self._attacks()
        stream = io.StringIO()
        self.rows.sort(key=lambda row: row["student"])
        writer = csv.DictWriter(stream, self.rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return {**self.files, "expected.csv": stream.getvalue()}

    def _honest(self) -> None:
        wrong = {exercise.name: wrong_answer(exercise, self.right[exercise.name]) for exercise in self.exercises}
        self.add("perfect", self.cells(self.right, full=True), self.max, "none")
        helped = self.cells(self.right)
        self.add("helpers", [helped[0], _cell(HELPERS), *helped[1:]], self.max, "none")
        self.add("blank", self.cells({}), {})
        self.add(
            "wrong", self.cells({n: text for n, (text, _) in wrong.items()}), {n: p for n, (_, p) in wrong.items()}
        )
        first = self.names[:2]
        answers = self.right | {name: wrong[name][0] for name in first}
        self.add("partial_two_wrong", self.cells(answers), self.max | {name: wrong[name][1] for name in first})
        half = self.names[: len(self.names) // 2]
        self.add(
            "partial_half",
            self.cells({name: self.right[name] for name in half}),
            {name: self.max[name] for name in half},
        )
        loud = {name: f"{self.right[name]}\n\n\n{_loud(name)}" for name in self.names}
        self.add("stderr", self.cells(loud), self.max, "none")
        checks = [c for c in self.cells(self.right) if c["metadata"]["segedu"]["role"] != "check"]
        self.add("no_checks", checks, self.max, "none")
        self.add("twice", self._twice(), self.max, f"{self.names[0]} appears twice, used the second")
        imported = {exercise.name: _import_line(exercise, self.lab) for exercise in self.exercises}
        self.add("imported", self.cells(imported), {}, "which this lab hides")

    def _twice(self) -> list[dict]:
        cells = []
        for stub, answer in zip(self.cells({}), self.cells(self.right), strict=True):
            cells += [stub, answer] if stub["metadata"]["segedu"]["role"] != "setup" else [stub]
        return cells

    def _unlucky(self) -> None:
        a, b, c, d = self.names[:4]
        crash = self.right | {a: f"def {a}(:\n    return 0", b: f"{self.right[b]}\n\nraise RuntimeError('boom')"}
        self.add("crash", [_cell("1 / 0"), *self.cells(crash)], self.max | {a: 0}, "stopped with ZeroDivisionError")
        endless = self.right | {c: f"def {c}(*args, **kwargs):\n    while True:\n        pass"}
        self.add("endless", self.cells(endless), self.max | {c: 0}, "was stopped at the limit of")
        exits = self.right | {b: "import os\n\nos._exit(0)", d: f"import os\n\n\ndef {d}(*args):\n    os._exit(1)"}
        self.add("exits", self.cells(exits), self.max | {b: 0, d: 0}, "ended the kernel")
        text = self.files["stderr.ipynb"]
        self.add("broken", [], {}, "is not valid JSON")
        self.files["broken.ipynb"] = text[: len(text) // 2]
        self.rows[-1]["status"] = "unreadable"

    def _attacks(self) -> None:
        for name, (attack, value, note) in ATTACKS.items():
            worthless = {n: f"def {n}(*args, **kwargs):\n    return {value}" for n in self.names}
            cells = self.cells(worthless)
            self.add(name, [cells[0], _cell(attack), *cells[1:]], {}, note)


def _cell(source: str) -> dict:
    return {"cell_type": "code", "execution_count": None, "id": "mine", "metadata": {}, "outputs": [], "source": source}


def _loud(name: str) -> str:
    return f"""import sys
import warnings

quiet_{name} = {name}


def {name}(*args, **kwargs):
    print("50%|=====     |", file=sys.stderr)
    warnings.warn("this is only a warning")
    return quiet_{name}(*args, **kwargs)"""


def _import_line(exercise, lab: str) -> str:
    module, name = exercise.reference.__module__, exercise.reference.__name__
    hides = exercise.hides or [hidden for other in all_exercises.load(lab).exercises for hidden in other.hides]
    hidden = module if module in hides else hides[0]
    if module == hidden:
        return f"from {module} import {name} as {exercise.name}"
    return f"import {hidden}\nfrom segedu.teaching.exercises.lab{lab}.{exercise.name} import {name} as {exercise.name}"


def main() -> None:
    """Write the folders of all labs that are there."""
    for lab in LABS:
        folder = HERE / lab
        files = Maker(lab).all()
        folder.mkdir(exist_ok=True)
        for old in folder.iterdir():
            if old.name not in files:
                old.unlink()
        for name, text in files.items():
            (folder / name).write_text(text)
        print(lab, len(files) - 1, "submissions")


if __name__ == "__main__":
    main()
