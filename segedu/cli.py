"""The `segedu` command. Every verb of the Makefile is one of these; each imports what it needs when it runs."""

from __future__ import annotations

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[0]  # `python -m` puts the working directory there, which may hold submissions

import io
import os
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from segedu.command_errors import SentenceGroup

app = typer.Typer(cls=SentenceGroup, no_args_is_help=True, add_completion=False)

Course = Annotated[Path, typer.Option(help="The checkout of the course that holds labs/ and solutions/.")]


def _course(course: Path, needed: str = "") -> Path:
    """A checkout, or an error that says what is missing."""
    if not (course / "labs").is_dir() and not (course / "solutions").is_dir():
        raise typer.BadParameter(f"{course} holds neither labs/ nor solutions/: give the checkout of the course")
    if needed and not (course / needed).exists():
        raise typer.BadParameter(f"{course} has no {needed}, which this command reads: give the checkout of the course")
    return course.resolve()


def _hidden_seed(seed: int | None) -> int | None:
    """The seed of the hidden cases, which is in the list of processes no longer."""
    from segedu.grading.batch.command_line import hide_value

    if seed is not None:
        hide_value("--seed")
    return seed


def _installed(package: str, extra: str) -> None:
    """An error in place of Python's own words in another process, which name no remedy."""
    if find_spec(package) is None:
        raise ImportError(f"{package} is not installed: pip install 'segedu[{extra}]'")


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Image segmentation: a course, its labs, its grader."""
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal's encoding lacks must not end a command
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


@app.command()
def lab(
    course: Course = Path("."), port: Annotated[int, typer.Option(min=1, max=65535)] = 8888, browser: bool = True
) -> None:
    """Open JupyterLab on the labs, headless and as root too; it prints its address."""
    folder = _course(course, "labs") / "labs"
    _installed("jupyterlab", "lab")
    command = [sys.executable, "-m", "jupyterlab", f"--notebook-dir={folder}", f"--port={port}"]
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform in ("darwin", "win32")
    if not (browser and screen):
        command.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    raise SystemExit(subprocess.call([*command, "--LabApp.news_url="]))


@app.command()
def labs(course: Course = Path("."), execute: bool = True, force: bool = False) -> None:
    """Derive labs/ and solutions/*.ipynb from the lab sources."""
    from segedu.teaching.authoring.notebooks import build_labs
    from segedu.teaching.capstone.template import build_capstone

    build_labs(_course(course, "solutions"), execute=execute, force=force)
    build_capstone(_course(course), run=execute, force=force)


@app.command()
def budget(labs: list[str], course: Course = Path(".")) -> None:
    """Measure a solved lab: CPU-seconds, peak memory, time to the first figure, slowest cell."""
    from segedu.teaching.evidence.budgets import print_budgets

    print_budgets(_course(course), labs)


@app.command()
def mutants(
    labs: Annotated[list[str] | None, typer.Argument()] = None,
    course: Course = Path("."),
    write: Annotated[bool, typer.Option("--write", help="Write course/wrong-answers.md too; of all labs.")] = False,
    machine: Annotated[bool, typer.Option("--machine", help="Mistakes made by machine; some minutes a lab.")] = False,
    seeds: Annotated[int, typer.Option(min=0, help="The same verdicts under so many draws, 1 and 2 threads?")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Machine mutants at a time.")] = 2,
) -> None:
    """Print the table of wrong answers: refused, named, and right alternatives accepted."""
    from segedu.teaching.mutants.wrong_answers import SEEDS, print_mutants, print_steady

    if machine:
        from segedu.teaching.mutants.runs import print_machine

        print_machine(_course(course), labs or [], SEEDS, jobs)
    elif seeds:
        print_steady(_course(course), labs or [], seeds)
    else:
        print_mutants(_course(course), labs or [], write)


@app.command()
def train(
    method: Annotated[str, typer.Argument(help="Name of the method, as its file: unet.")],
    data: Annotated[str, typer.Option(help="street, shapes, cells, volume, prostate, or a folder.")] = "shapes",
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; a run that was stopped or is to be longer goes on from it.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="So many runs, from --seed on, and a table of them.")] = 1,
    steps: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    minutes: Annotated[float | None, typer.Option(help="CPU time for training, instead of steps.")] = None,
    devices: Annotated[int, typer.Option(min=1)] = 1,
    accelerator: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")] = "auto",
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew: delete the run in --out.")] = False,
) -> None:
    """Train a method by its recipe and print its score beside a plain baseline."""
    from segedu.recipes.recipe import find_recipe
    from segedu.recipes.run import run_recipe
    from segedu.recipes.run_table import print_result, print_seeds

    try:
        recipe, folder = find_recipe(method, data)
    except ValueError as error:
        given, _, rest = str(error).partition(", expected")
        raise typer.BadParameter(f"{given}. {_instead_of_a_recipe(method)}Expected{rest}") from None
    options = {"steps": steps, "minutes": minutes, "devices": devices, "accelerator": accelerator, "fresh": fresh}
    first_of_all = devices == 1 or int(os.environ.get("LOCAL_RANK", 0)) == 0
    where = recipe.data if folder is None else folder.resolve().name
    results = []
    for number in range(seed, seed + seeds):
        run = (out or Path("runs")) / f"{method}-{where}-{number}" if out is None or seeds > 1 else out
        results.append(run_recipe(recipe, run, folder=folder, seed=number, **options))
        if first_of_all:
            print_result(results[-1], run)
    if first_of_all and seeds > 1:
        print_seeds(results)


def _instead_of_a_recipe(method: str) -> str:
    """What is there of a method in place of the recipe that was asked for, in sentences, or nothing."""
    from difflib import get_close_matches

    from segedu.recipes.recipe import NAMES
    from segedu.weights.catalogue import WEIGHTS

    if data := [data for name, data in NAMES if name == method]:
        first = "FOLDER" if data[0] == "nuclei" else data[0]
        return f"There is one for {' and '.join(data)}: segedu train {method} --data {first}. "
    ours = [n for n, w in WEIGHTS.items() if w.url == w.file_name and n.partition("_")[2] == method]
    official = [n for n, w in WEIGHTS.items() if w.build.partition(":")[0].endswith(f".{method}") and n not in ours]
    said = ""
    if ours:
        said += f'It comes with small weights that we trained: segedu.weights.load("{ours[0]}"); '
        said += f"python -m segedu.weights.own.{ours[0]} trains them anew. "
    if official:
        said += f"Official weights are in segedu.weights.load({' or '.join(repr(n) for n in official)}). "
    if not said and method.isidentifier() and (files := _files_of(method)):
        said = f"{files[0]} is there, but no recipe trains it. "
    if not said and (near := get_close_matches(method, {name for name, _ in NAMES}, 1)):
        said = f"Did you mean {near[0]}? "
    return said


def _files_of(method: str) -> list[str]:
    """Files of the library with a method's name; the paper may have a folder of the same name."""
    package = Path(__file__).parent
    found = sorted([*package.glob(f"*/{method}.py"), *package.glob(f"*/{method}/{method}.py")])
    return [path.relative_to(package.parent).as_posix() for path in found]


@app.command()
def prove(claims: Annotated[list[str] | None, typer.Argument()] = None, course: Course = Path(".")) -> None:
    """Measure the claims of tests/claims.toml whose sources have changed; resumes after a kill."""
    from segedu.teaching.evidence.proofs import prove

    prove(_course(course, "tests/claims.toml"), claims or [])


@app.command()
def book(course: Course = Path(".")) -> None:
    """Build the site into _build/html; a warning, a failed cell, a dead link or a missing alt text fails."""
    sphinx = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-d", "_build/doctrees"]
    folders = ["-c", "jupyter-book-config", ".", "_build/html"]
    where = _course(course, "jupyter-book-config/conf.py")
    _installed("sphinx", "docs")
    raise SystemExit(subprocess.call([*sphinx, *folders], cwd=where))


@app.command()
def bench(course: Course = Path(".")) -> None:
    """Time ours beside the peers, interleaved."""
    run = "tests/benchmarks/run.py"
    raise SystemExit(subprocess.call([sys.executable, str(_course(course, run) / run)]))


@app.command()
def attacks(
    course: Course = Path("."),
    level: Annotated[
        str, typer.Option(help="3, 3u (with a user namespace), 2 or 1; all that work here if empty.")
    ] = "",
    only: Annotated[str, typer.Option(help="Names or boundaries, such as a0*,codec.")] = "",
    jobs: Annotated[int, typer.Option(min=1, help="Submissions at a time.")] = 1,
) -> None:
    """Attack the grader, each attack beside an honest twin, at every sandbox level of this machine."""
    options = [f"--level={level}", f"--only={only}", f"--jobs={jobs}"]
    run = "tests/attacks/run.py"
    raise SystemExit(subprocess.call([sys.executable, str(_course(course, run) / run), *options]))


@app.command()
def grade(
    submissions: Annotated[
        Path | None, typer.Argument(help="A folder of notebooks, archives or student folders; or one notebook.")
    ] = None,
    lab: Annotated[str, typer.Option(help="Such as 06_unet.")] = "",
    out: Annotated[Path, typer.Option(help="Where records and reports go; a second run goes on there.")] = Path(
        "graded"
    ),
    course: Course = Path("."),
    jobs: Annotated[int, typer.Option(min=1, help="Submissions at a time.")] = 1,
    seed: Annotated[
        int | None,
        typer.Option(callback=_hidden_seed, help="Of the hidden cases; drawn and kept in --out where not given."),
    ] = None,
    level: Annotated[int | None, typer.Option(help="Sandbox level; the best that works here where not given.")] = None,
    cell_seconds: Annotated[float, typer.Option(min=0.5, help="Limit of each cell.")] = 30.0,
    total_seconds: Annotated[float, typer.Option(min=1.0, help="Limit of each submission.")] = 300.0,
    expect: Annotated[Path | None, typer.Option(help="A CSV of expected points; a difference is an error.")] = None,
    trust: Annotated[bool, typer.Option("--i-trust-these-submissions", help="Grade without a sandbox.")] = False,
    exercise: Annotated[str, typer.Option(help="Grade this one anew; the others keep their points.")] = "",
    dask: Annotated[str, typer.Option(help="A Dask scheduler, tcp://host:8786, whose workers grade.")] = "",
    layout: Annotated[str, typer.Option(help="Of SUBMISSIONS: students, nbgrader, moodle or canvas.")] = "auto",
    doctor: Annotated[bool, typer.Option("--doctor", help="Print which sandbox levels work here.")] = False,
) -> None:
    """Grade a folder of submissions in a sandbox; killed or repeated, it goes on where it stopped."""
    from segedu.grading.batch import command
    from segedu.grading.batch.batch import Job

    if doctor:
        from segedu.grading.doctor import doctor as examine_machine

        raise typer.Exit(examine_machine())
    if lab == "capstone":
        raise typer.BadParameter("a capstone is read by a person: `segedu capstone FOLDER` prints what each reports")
    if submissions is None or not lab:
        raise typer.BadParameter(
            "give SUBMISSIONS and --lab, such as: segedu grade handed_in --lab 04_metrics --out graded"
        )
    limits = (level, trust, cell_seconds, total_seconds)
    job = Job(submissions, lab, out, _course(course), jobs, seed, *limits, exercise, dask, layout)
    raise typer.Exit(command.grade(job, expect))


@app.command()
def capstone(
    handed_in: Annotated[list[Path], typer.Argument(help="Saved notebooks, or folders of them.")],
) -> None:
    """Read the reports of capstones out of saved notebooks and say what each lacks; nothing of theirs is run."""
    from segedu.grading.capstone_reports import print_reports

    raise typer.Exit(print_reports(handed_in))


@app.command()
def gradebook(
    out: Annotated[Path, typer.Argument(help="What `segedu grade` had as --out.")],
    lab: Annotated[str, typer.Option(help="Only this one; all of the folder where not given.")] = "",
    canvas: Annotated[Path | None, typer.Option(help="Canvas's gradebook export, to fill.")] = None,
    moodle: Annotated[Path | None, typer.Option(help="Moodle's offline grading worksheet, to fill.")] = None,
    similarity: Annotated[
        Path | None, typer.Option(help="The submissions: lay out answers for JPlag, Dolos and MOSS.")
    ] = None,
    layout: Annotated[str, typer.Option(help="Of those submissions, as `segedu grade` had it.")] = "auto",
    course: Course = Path("."),
) -> None:
    """Make points, pages and tables anew from the records, without grading.

    Beside seed.json in OUT may lie roster.csv (student, name, email, section, alias, canvas_id, moodle_id),
    policy.toml (due times, lateness, extensions), manual.csv (lab, student, exercise, points, comment: points
    replace, with a sign they are added after the late factor; delete a row to undo it) and submitted.csv
    (student, attempt, submitted, lab). segedu/grading/gradebook/roster.py and late.py show one of each.
    """
    from segedu.grading.gradebook import command as gradebook_command

    options = gradebook_command.GradebookOptions(out, lab, canvas, moodle, similarity, course, layout)
    raise typer.Exit(gradebook_command.gradebook(options))


@app.command()
def nbgrader(
    lab: Annotated[str, typer.Argument(help="Such as 06_unet.")],
    out: Annotated[Path, typer.Option(help="nbgrader's course folder.")],
    grades: Annotated[
        Path | None, typer.Option(help="The --out of `segedu grade`: put its points into nbgrader's gradebook.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(callback=_hidden_seed, help="Of the hidden cases; drawn and kept in --out else.")
    ] = None,
    course: Course = Path("."),
) -> None:
    """Make nbgrader's source of a lab; with --grades, put points into its gradebook."""
    from segedu.grading.platforms.nbgrader import export_grades, make_source, next_steps

    if grades is None:
        files = make_source(_course(course), lab, out, seed)
        typer.echo("Written: " + ", ".join(map(str, files)) + "\n" + next_steps(lab, out))
    else:
        typer.echo(export_grades(grades, lab, out).report())


@app.command()
def gradescope(
    lab: Annotated[str, typer.Argument(help="Such as 06_unet.")],
    out: Annotated[Path, typer.Option(help="The zip to upload; it holds the seed of the hidden cases.")],
    seed: Annotated[
        int | None, typer.Option(callback=_hidden_seed, help="That of the zip in --out, or a new one, else.")
    ] = None,
    wheel: Annotated[Path | None, typer.Option(help="Of segedu; built from the checkout else.")] = None,
    level: Annotated[int | None, typer.Option(help="Sandbox level; the best that works there else.")] = None,
    cell_seconds: Annotated[float, typer.Option(min=0.5, help="Limit of each cell.")] = 30.0,
    total_seconds: Annotated[float, typer.Option(min=1.0, help="Limit of each submission.")] = 300.0,
    trust: Annotated[bool, typer.Option("--i-trust-these-submissions", help="Grade without a sandbox.")] = False,
    course: Course = Path("."),
) -> None:
    """Build the zip of a Gradescope autograder."""
    from segedu.grading.platforms.gradescope import Settings, build_zip, seed_of

    settings = Settings(lab, seed_of(out, seed), trust, level, cell_seconds, total_seconds)
    names = build_zip(_course(course), out, settings, wheel)
    typer.echo(f"Written: {out} with {', '.join(names)}. Upload it as the autograder; keep it from students.")


if __name__ == "__main__":
    app()
