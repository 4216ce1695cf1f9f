"""The `segedu` command. Every Makefile target is one of its sub-commands, which import what they need when they run."""

from __future__ import annotations

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    # `python -m` puts the working directory there, which may hold submissions. A folder `segedu` in it was imported
    # before this line: in such a folder, only the command `segedu` is safe
    del sys.path[0]

import io
import os
import subprocess
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from segedu.command_errors import SentenceGroup
from segedu.grading import notebook_commands
from segedu.recipes import commands, data_command

app = typer.Typer(cls=SentenceGroup, no_args_is_help=True, add_completion=False)


def _hide_seed(seed: int | None) -> int | None:
    """Overwrite the seed of the hidden cases in the list of processes, which every user can read."""
    from segedu.grading.batch.command_line import hide_value

    if seed is not None:
        hide_value("--seed")
    return seed


Course = Annotated[Path, typer.Option(help="Checkout of the course, the folder that holds labs/ and solutions/.")]
Labs = Annotated[list[str] | None, typer.Argument(help="Names of labs, such as 06_unet. Default: all labs.")]
LabName = Annotated[str, typer.Argument(help="Name of the lab, such as 06_unet.")]
HiddenSeed = typer.Option(
    callback=_hide_seed, help="Seed of the hidden cases. Default: the seed stored in --out, or a new random seed."
)
Level = Annotated[int | None, typer.Option(help="Sandbox level: 3, 2 or 1. Default: the best level that works.")]
CellSeconds = Annotated[float, typer.Option(min=0.5, help="Time limit per cell, in seconds.")]
TotalSeconds = Annotated[float, typer.Option(min=1.0, help="Time limit per submission, in seconds.")]
Trust = Annotated[
    bool,
    typer.Option(
        "--i-trust-these-submissions",
        help="Grade even if no sandbox of level 2 or 3 works. Submissions can then read and write your files.",
    ),
]
Layout = typer.Option(help="Layout of the folder of submissions: auto, students, nbgrader, moodle or canvas.")


def _course(course: Path, needed: str = "") -> Path:
    """Resolve the checkout, or raise an error that names what it lacks."""
    if not (course / "labs").is_dir() and not (course / "solutions").is_dir():
        raise typer.BadParameter(f"{course} contains neither labs/ nor solutions/: give the checkout of the course")
    if needed and not (course / needed).exists():
        raise typer.BadParameter(f"{course} has no {needed}, which this command reads: give the checkout of the course")
    return course.resolve()


def _require(package: str, extra: str) -> None:
    """Raise an error that says how to install a package; the error of the sub-process would not."""
    if find_spec(package) is None:
        raise ImportError(f"{package} is not installed: pip install 'segedu[{extra}]'")


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"segedu {version('segedu')}")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Image segmentation: a course with labs, a library and an autograder."""
    for stream in (sys.stdout, sys.stderr):  # a character that the terminal cannot encode must not end a command
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


@app.command()
def lab(
    course: Course = Path("."),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the JupyterLab server.")] = 8888,
    browser: Annotated[bool, typer.Option(help="Open a browser window, if the machine has a display.")] = True,
) -> None:
    """Open JupyterLab on the folder of labs and print its address. It also runs as root and without a display."""
    checkout = _course(course, "labs")
    _require("jupyterlab", "lab")
    places = [f"--notebook-dir={checkout}", "--LabApp.default_url=/lab/tree/labs"]  # the labs link to chapters
    command = [sys.executable, "-m", "jupyterlab", *places, f"--port={port}"]
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform in ("darwin", "win32")
    if not (browser and display):
        command.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    raise SystemExit(subprocess.call([*command, "--LabApp.news_url="]))


@app.command()
def labs(
    course: Course = Path("."),
    execute: Annotated[bool, typer.Option(help="Run the solution notebooks whose source has changed.")] = True,
    force: Annotated[bool, typer.Option(help="Run all solution notebooks, even if nothing has changed.")] = False,
) -> None:
    """Generate the notebooks in labs/ and solutions/ from the lab sources."""
    from segedu.teaching.authoring.notebooks import build_labs
    from segedu.teaching.capstone.template import build_capstone

    build_labs(_course(course, "solutions"), execute=execute, force=force)
    build_capstone(_course(course), run=execute, force=force)


@app.command()
def address(
    url: Annotated[str, typer.Argument(help="Address of the repository, such as https://github.com/someone/course.")],
    course: Course = Path("."),
) -> None:
    """Set the repository's address everywhere; Colab installs the course from it."""
    from segedu.teaching.authoring.address import print_address

    print_address(_course(course, "pyproject.toml"), url)


@app.command()
def budget(
    labs: Annotated[list[str], typer.Argument(help="Names of labs, such as 06_unet.")], course: Course = Path(".")
) -> None:
    """Measure solved labs: CPU seconds, peak memory, time to the first figure, slowest cell."""
    from segedu.teaching.evidence.budgets import print_budgets

    print_budgets(_course(course), labs)


@app.command()
def mutants(
    labs: Labs = None,
    course: Course = Path("."),
    write: Annotated[bool, typer.Option("--write", help="Also write course/wrong-answers.md, for all labs.")] = False,
    machine: Annotated[bool, typer.Option("--machine", help="Test machine-made mutants instead; slow.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Count how answers written blind are diagnosed.")] = False,
    seeds: Annotated[
        int,
        typer.Option(min=0, help="Instead, compare verdicts across this many random draws, with 1 and 2 threads."),
    ] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Number of machine-made mutants to test in parallel.")] = 2,
) -> None:
    """Check that the checks reject and name every wrong answer, and accept every correct alternative."""
    from segedu.teaching.mutants.wrong_answers import SEEDS, print_mutants, print_steady

    if machine:
        from segedu.teaching.mutants.runs import print_machine

        print_machine(_course(course), labs or [], SEEDS, jobs)
    elif fresh:
        from segedu.teaching.mutants.fresh_table import print_fresh

        print_fresh(_course(course, "tests"), labs or [])
    elif seeds:
        print_steady(_course(course), labs or [], seeds)
    else:
        print_mutants(_course(course), labs or [], write)


@app.command()
def quizzes(
    course: Course = Path("."),
    moodle: Annotated[
        Path | None, typer.Option(help="Write the questions in Moodle's XML format to this file.")
    ] = None,
    anki: Annotated[Path | None, typer.Option(help="Write a deck for Anki to this file, which ends in .apkg.")] = None,
) -> None:
    """Export the quizzes of the chapters to Moodle and Anki."""
    from segedu.teaching.quizzes import export_quizzes

    export_quizzes(_course(course, "course"), moodle, anki)


for command in (
    commands.train,
    commands.inspect,
    commands.predict,
    commands.evaluate,
    commands.export,
    data_command.data,
    notebook_commands.check,
    notebook_commands.capstone,
):
    app.command()(command)


@app.command()
def prove(
    claims: Annotated[
        list[str] | None, typer.Argument(help="Names of claims. Default: all whose sources have changed.")
    ] = None,
    course: Course = Path("."),
) -> None:
    """Measure the claims of tests/claims.toml again if their sources have changed. A stopped run can be resumed."""
    from segedu.teaching.evidence.proofs import prove

    prove(_course(course, "tests/claims.toml"), claims or [])


def _sphinx(course: Path, builder: str) -> None:
    """Build the book with one of Sphinx's builders, into the folder of _build that has its name."""
    sphinx = [sys.executable, "-m", "sphinx", "-b", builder, "-W", "--keep-going", "-d", "_build/doctrees"]
    folders = ["-c", "jupyter-book-config", ".", f"_build/{builder}"]
    checkout = _course(course, "jupyter-book-config/conf.py")
    _require("sphinx", "docs")
    raise SystemExit(subprocess.call([*sphinx, *folders], cwd=checkout))


@app.command()
def book(course: Course = Path(".")) -> None:
    """Build the site in _build/html. A warning, a failed cell, a dead link or a missing alt text is an error."""
    _sphinx(course, "html")


@app.command()
def epub(course: Course = Path(".")) -> None:
    """Write the whole book as an EPUB into _build/epub."""
    _sphinx(course, "epub")


@app.command()
def pdf(course: Course = Path(".")) -> None:
    """Print the whole book into _build/book.pdf, with Chromium."""
    _require("sphinx", "docs")
    _run_script(course, "jupyter-book-config/pdf.py")


def _run_script(course: Path, script: str, *arguments: str) -> None:
    raise SystemExit(subprocess.call([sys.executable, str(_course(course, script) / script), *arguments]))


@app.command()
def bench(course: Course = Path(".")) -> None:
    """Time functions of the library against other packages, in interleaved runs."""
    _run_script(course, "tests/benchmarks/run.py")


@app.command()
def attacks(
    course: Course = Path("."),
    level: Annotated[
        str, typer.Option(help="Sandbox level: 3, 3u (in a user namespace), 2 or 1. Default: all that work here.")
    ] = "",
    only: Annotated[str, typer.Option(help="Patterns of attacks or boundaries, such as a0*,codec. Default: all.")] = "",
    jobs: Annotated[int, typer.Option(min=1, help="Number of submissions to grade in parallel.")] = 1,
) -> None:
    """Attack the grader at every sandbox level of this machine, each time beside an honest submission."""
    _run_script(course, "tests/attacks/run.py", f"--level={level}", f"--only={only}", f"--jobs={jobs}")


@app.command()
def grade(
    submissions: Annotated[
        Path | None, typer.Argument(help="A notebook, or a folder of notebooks, archives or student folders.")
    ] = None,
    lab: Annotated[str, typer.Option(help="Name of the lab, such as 06_unet.")] = "",
    out: Annotated[
        Path, typer.Option(help="Output folder of records and reports. A repeated run continues there.")
    ] = Path("graded"),
    course: Course = Path("."),
    jobs: Annotated[int, typer.Option(min=1, help="Number of submissions to grade in parallel.")] = 1,
    seed: Annotated[int | None, HiddenSeed] = None,
    level: Level = None,
    cell_seconds: CellSeconds = 30.0,
    total_seconds: TotalSeconds = 300.0,
    expect: Annotated[
        Path | None, typer.Option(help="CSV file of expected points. The command fails if any points differ.")
    ] = None,
    trust: Trust = False,
    exercise: Annotated[
        str, typer.Option(help="Grade only this exercise again; the other exercises keep their points.")
    ] = "",
    dask: Annotated[
        str, typer.Option(help="Address of a Dask scheduler whose workers grade, such as tcp://host:8786.")
    ] = "",
    layout: Annotated[str, Layout] = "auto",
    doctor: Annotated[bool, typer.Option("--doctor", help="Print which sandbox levels work here, and stop.")] = False,
) -> None:
    """Grade a folder of submissions in a sandbox. An interrupted or repeated run continues where it stopped."""
    from segedu.grading.batch import command
    from segedu.grading.batch.batch import Job

    if doctor:
        from segedu.grading.doctor import doctor as examine_machine

        raise typer.Exit(examine_machine())
    if lab == "capstone":
        raise typer.BadParameter("a person grades capstones: `segedu capstone FOLDER` prints what each one reports")
    if submissions is None or not lab:
        raise typer.BadParameter(
            "give SUBMISSIONS and --lab, such as: segedu grade handed_in --lab 04_metrics --out graded"
        )
    limits = (level, trust, cell_seconds, total_seconds)
    job = Job(submissions, lab, out, _course(course), jobs, seed, *limits, exercise, dask, layout)
    raise typer.Exit(command.grade(job, expect))


@app.command()
def gradebook(
    out: Annotated[Path, typer.Argument(help="The output folder of `segedu grade` (its --out).")],
    lab: Annotated[str, typer.Option(help="Update only this lab. Default: all labs with records in OUT.")] = "",
    canvas: Annotated[Path | None, typer.Option(help="Gradebook export of Canvas to fill with points.")] = None,
    moodle: Annotated[Path | None, typer.Option(help="Offline grading worksheet of Moodle to fill.")] = None,
    similarity: Annotated[
        Path | None,
        typer.Option(help="Folder of submissions whose answers are exported for JPlag, Dolos and MOSS."),
    ] = None,
    layout: Annotated[str, Layout] = "auto",
    course: Course = Path("."),
) -> None:
    """Compute points, pages and tables again from the records, without grading.

    Four optional files beside seed.json in OUT decide what counts.

    roster.csv lists the students: student, name, email, section, alias, canvas_id, moodle_id.

    policy.toml sets due times, late penalties and extensions.

    manual.csv changes points manually: lab, student, exercise, points, comment. Points replace those of the
    exercise; points with a sign are added after the late factor. To undo a change, delete its row.

    submitted.csv gives submission times: student, attempt, submitted, lab.

    The first lines of late.py and roster.py in segedu/grading/gradebook show an example of each.
    """
    from segedu.grading.gradebook import command as gradebook_command

    options = gradebook_command.GradebookOptions(out, lab, canvas, moodle, similarity, course, layout)
    raise typer.Exit(gradebook_command.gradebook(options))


@app.command()
def nbgrader(
    lab: LabName,
    out: Annotated[Path, typer.Option(help="nbgrader's course folder.")],
    grades: Annotated[
        Path | None, typer.Option(help="Output folder of `segedu grade`: copy its points into nbgrader's gradebook.")
    ] = None,
    seed: Annotated[int | None, HiddenSeed] = None,
    course: Course = Path("."),
) -> None:
    """Write a lab as an nbgrader source; with --grades, copy points into nbgrader's gradebook instead."""
    from segedu.grading.platforms.nbgrader import export_grades, make_source, next_steps

    if grades is None:
        files = make_source(_course(course), lab, out, seed)
        typer.echo("Written: " + ", ".join(map(str, files)) + "\n" + next_steps(lab, out))
    else:
        typer.echo(export_grades(grades, lab, out).report())


@app.command()
def gradescope(
    lab: LabName,
    out: Annotated[Path, typer.Option(help="Zip file to write. It holds the seed of the hidden cases.")],
    seed: Annotated[int | None, HiddenSeed] = None,
    wheel: Annotated[
        Path | None, typer.Option(help="Wheel of segedu to include. Default: built from the checkout.")
    ] = None,
    level: Level = None,
    cell_seconds: CellSeconds = 30.0,
    total_seconds: TotalSeconds = 300.0,
    trust: Trust = False,
    course: Course = Path("."),
) -> None:
    """Build the zip file of a Gradescope autograder."""
    from segedu.grading.platforms.gradescope import Settings, build_zip, seed_of

    settings = Settings(lab, seed_of(out, seed), trust, level, cell_seconds, total_seconds)
    names = build_zip(_course(course), out, settings, wheel)
    typer.echo(f"Written: {out} with {', '.join(names)}. Upload it as the autograder; keep it from students.")


if __name__ == "__main__":
    app()
