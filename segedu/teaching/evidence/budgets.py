"""The cost of a lab against its limits: CPU time, memory, and the time until its first figure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

LIMITS = {"cpu_seconds": 90.0, "peak_mb": 2048.0, "first_figure": 15.0}


@dataclass(frozen=True)
class Budget:
    """The cost of a solved lab, run from top to bottom in a fresh kernel.

    Attributes:
        lab: its name.
        cpu_seconds: of the kernel and its children.
        peak_mb: largest resident size of the kernel, MiB.
        first_figure: seconds from the kernel's start to the end of the first cell that shows a picture.
        slowest: `(cell, seconds)` of wall time.
    """

    lab: str
    cpu_seconds: float
    peak_mb: float
    first_figure: float
    slowest: tuple[str, float]

    @property
    def within(self) -> bool:
        """True if all three limits are met."""
        return all(getattr(self, name) <= limit for name, limit in LIMITS.items())


USAGE = """import json as _j, resource as _r
_s, _c = _r.getrusage(_r.RUSAGE_SELF), _r.getrusage(_r.RUSAGE_CHILDREN)
print(_j.dumps([_s.ru_utime + _s.ru_stime + _c.ru_utime + _c.ru_stime, _s.ru_maxrss]))"""


def measure_lab(course: Path, lab: str) -> Budget:
    """Run a solved lab, such as `04_metrics` in the checkout `course`, and measure its cost."""
    import nbformat

    from segedu.teaching.authoring.notebooks import execute, read_source

    notebook = read_source(course, lab)
    notebook.cells.append(nbformat.v4.new_code_cell(USAGE, metadata={"segedu": {"name": "usage", "role": "show"}}))
    start = datetime.now().astimezone()
    executed = execute(notebook, course, lab)
    cells = [cell for cell in executed.cells if cell.cell_type == "code"]
    cpu, rss_kb = json.loads(cells[-1].outputs[0]["text"])
    times = {cell.metadata["segedu"]["name"]: _span(cell) for cell in cells[:-1]}
    pictures = (
        times[cell.metadata["segedu"]["name"]][1] for cell in cells[:-1] if "image/png" in json.dumps(cell.outputs)
    )
    first = next(pictures, None)
    name, (started, ended) = max(times.items(), key=lambda item: item[1][1] - item[1][0])
    seconds = (first - start).total_seconds() if first else float("inf")
    return Budget(lab, cpu, rss_kb / 1024, seconds, (name, (ended - started).total_seconds()))


def _span(cell: Any) -> tuple[datetime, datetime]:
    stamps = cell.metadata["execution"]
    keys = ("iopub.execute_input", "shell.execute_reply")
    return tuple(datetime.fromisoformat(stamps[key].replace("Z", "+00:00")) for key in keys)


def print_budgets(course: Path, labs: Sequence[str]) -> None:
    """Measure labs one after the other and print the table; exit with status 1 if a limit is exceeded."""
    from rich.console import Console
    from rich.table import Column, Table

    budgets = [measure_lab(course, lab) for lab in labs]
    name = Column("lab", no_wrap=True, min_width=14)
    table = Table(name, "CPU-seconds", "peak MiB", "first figure, s", "slowest cell", "within limits")
    for budget in budgets:
        slowest = f"{budget.slowest[0]}, {budget.slowest[1]:.1f} s"
        numbers = (f"{budget.cpu_seconds:.1f}", f"{budget.peak_mb:.0f}", f"{budget.first_figure:.1f}")
        table.add_row(budget.lab, *numbers, slowest, "yes" if budget.within else "NO")
    Console().print(table)
    print("limits: " + ", ".join(f"{name} {limit:g}" for name, limit in LIMITS.items()))
    if not all(budget.within for budget in budgets):
        raise SystemExit(1)
