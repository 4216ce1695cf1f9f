"""A class of any size: `python tests/submissions/crowd.py 04_metrics 250 FOLDER` makes mixed submissions of a lab.

Honest, partly right, blank, crashing, endless and hostile notebooks, some in archives, folders and attempts. What each
must earn is known by construction and stands in `expected.csv` beside them.
"""

from __future__ import annotations

import csv
import io
import json
import random
import sys
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from make import Maker, wrong_answer

# of a hundred; "some" has right, wrong and blank answers in one notebook
SHARES = {
    "perfect": 34, "helpers": 6, "stderr": 5, "no_checks": 4, "twice": 3, "some": 25, "blank": 6, "wrong": 3,
    "imported": 2, "crash": 3, "exits": 2, "endless": 1, "broken": 2, "a01_silence": 1, "a02_drop_asserts": 1,
    "a04_always_equal": 1, "a09_write_scores": 1,
}  # fmt: skip


class Crowd:
    """Makes the submissions of one lab.

    Args:
        lab: `04_metrics`.
        seed: decides everything.
    """

    def __init__(self, lab: str, seed: int = 0) -> None:
        self.rng = random.Random(f"{lab} {seed}")
        self.maker = Maker(lab)
        self.base = self.maker.all()
        self.points = {row["student"]: row["points"] for row in self.maker.rows}
        right = self.maker.right
        self.wrong = {e.name: wrong_answer(e, right[e.name]) for e in self.maker.exercises}

    def notebook(self, kind: str, number: int) -> tuple[str, str]:
        """The text of a notebook and its points; each is a little different from every other."""
        if kind == "broken":
            return self.base["broken.ipynb"] + " " * number, "0"
        if kind == "some":
            text, points = self._some()
        else:
            text, points = self.base[f"{kind}.ipynb"], self.points[kind]
        book = json.loads(text)
        book["cells"].append({"cell_type": "markdown", "id": "mine-too", "metadata": {}, "source": f"I am {number}."})
        return json.dumps(book, ensure_ascii=False), points

    def _some(self) -> tuple[str, str]:
        answers, points = {}, {}
        for name in self.maker.names:
            kind = self.rng.choice(("right", "right", "wrong", "blank"))
            if kind == "right":
                answers[name], points[name] = self.maker.right[name], self.maker.max[name]
            elif kind == "wrong":
                answers[name], points[name] = self.wrong[name]
        book = {**self.maker.book, "cells": self.maker.cells(answers)}
        return json.dumps(book), f"{sum(points.values()):g}"

    def write(self, folder: Path, count: int) -> Path:
        """Write the submissions.

        Args:
            folder: made where it does not exist.
            count: of students.

        Returns:
            `expected.csv`: student, points, status.
        """
        folder.mkdir(parents=True, exist_ok=True)
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["student", "points", "status"])
        kinds = [kind for kind, share in SHARES.items() for _ in range(share)]
        for number in range(count):
            kind = kinds[number] if number < len(kinds) and count < len(kinds) else self.rng.choice(kinds)
            student = f"s{number:05}"
            text, points = self.notebook(kind, number)
            self._put(folder, student, text, number)
            writer.writerow([student, points, "unreadable" if kind == "broken" else "graded"])
        (folder / "expected.csv").write_text(stream.getvalue())
        return folder / "expected.csv"

    def _put(self, folder: Path, student: str, text: str, number: int) -> None:
        name = f"{self.maker.lab}.ipynb"
        if number % 10 == 3:
            with zipfile.ZipFile(folder / f"{student}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(name, text)
        elif number % 10 == 7:
            (folder / student).mkdir(exist_ok=True)
            (folder / student / name).write_text(text)
        else:
            (folder / f"{student}.ipynb").write_text(text)


if __name__ == "__main__":
    print(Crowd(sys.argv[1]).write(Path(sys.argv[3]), int(sys.argv[2])))
