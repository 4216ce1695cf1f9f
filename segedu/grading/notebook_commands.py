"""Commands of `segedu` that read saved notebooks: `check` for students, `capstone` for instructors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def check(
    notebook: Annotated[Path, typer.Argument(help="Your saved notebook, such as labs/04_metrics.ipynb.")],
    lab: Annotated[str, typer.Option(help="Name of the lab, such as 04_metrics. Default: the notebook decides.")] = "",
    course: Annotated[
        Path | None, typer.Option(help="Checkout of the course. Default: the one around you or the notebook.")
    ] = None,
) -> None:
    """Run your saved notebook as the grader will, and print points and feedback. The notebook is only read."""
    from segedu.grading.check_notebook import check_notebook, find_course

    raise typer.Exit(check_notebook(notebook, course.resolve() if course else find_course(notebook), lab))


def capstone(
    handed_in: Annotated[list[Path], typer.Argument(help="Saved notebooks, or folders of saved notebooks.")],
) -> None:
    """Print the reports in saved capstone notebooks and what each one lacks, without running the notebooks."""
    from segedu.grading.capstone_reports import print_reports

    raise typer.Exit(print_reports(handed_in))
