"""The `segedu` command. Every verb of the Makefile is one of these; each imports what it needs when it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Image segmentation: a course, its labs, its grader."
)

Course = Annotated[Path, typer.Option(help="The checkout of the course that holds labs/ and solutions/.")]


def _course(course: Path) -> Path:
    """A checkout, or an error that says what is missing."""
    if not (course / "labs").is_dir() and not (course / "solutions").is_dir():
        raise typer.BadParameter(f"{course} holds neither labs/ nor solutions/: give the checkout of the course")
    return course.resolve()


@app.command()
def lab(course: Course = Path("."), port: int = 8888, browser: bool = True) -> None:
    """Open JupyterLab on the labs, headless and as root too; it prints its address."""
    command = [sys.executable, "-m", "jupyterlab", f"--notebook-dir={_course(course) / 'labs'}", f"--port={port}"]
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform in ("darwin", "win32")
    if not (browser and screen):
        command.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    raise SystemExit(subprocess.call([*command, "--LabApp.news_url="]))


@app.command()
def labs(course: Course = Path("."), execute: bool = True, force: bool = False) -> None:
    """Derive labs/ and solutions/*.ipynb from the lab sources."""
    from segedu.authoring import build_labs

    build_labs(_course(course), execute=execute, force=force)


@app.command()
def budget(labs: list[str], course: Course = Path(".")) -> None:
    """Measure a solved lab: CPU-seconds, peak memory, time to the first figure, slowest cell."""
    from segedu.measure import print_budgets

    print_budgets(_course(course), labs)


@app.command()
def mutants(
    labs: Annotated[list[str] | None, typer.Argument()] = None,
    course: Course = Path("."),
    write: bool = False,
) -> None:
    """Print the table of wrong answers: refused, named, and right alternatives accepted."""
    from segedu.measure import print_mutants

    print_mutants(_course(course), labs or [], write)


if __name__ == "__main__":
    app()
