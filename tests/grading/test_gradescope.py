"""Gradescope's autograder, really run: unpacked into a folder that stands for /autograder, by its own two scripts."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from segedu.cli import app
from segedu.grading.platforms import gradescope
from segedu.grading.platforms.gradescope import Settings, build_zip, main, memory_left, seed_of
from segedu.grading.sandbox.kernel_pool import probe_levels

COURSE = Path(__file__).resolve().parents[2]
LAB = "04_metrics"
EXAMPLES = COURSE / "tests" / "submissions" / LAB
SEED = 4_242_424_242_424
POINTS = {"perfect": 20, "partial_two_wrong": None, "blank": 0, "broken": 0, "a09_write_scores": 0}
METADATA = {
    "created_at": "2026-10-01T14:22:32.365935-07:00",
    "assignment": {"due_date": "2026-09-30T23:00:00.000000-07:00", "title": "Lab 4", "total_points": "20.0"},
    "users": [{"email": "anna@example.org", "id": 1234, "name": "Anna"}],
    "previous_submissions": [],
}
LEVELS = {level for level, works, _ in probe_levels() if works}
sandboxed = pytest.mark.skipif(not LEVELS & {2, 3}, reason="this machine offers no sandbox")
VISIBILITY = ("hidden", "after_due_date", "after_published", "visible")
FORMATS = ("text", "html", "simple_format", "md", "ansi")

# what a hostile notebook can read of the autograder decides whether its answer is right
SPY = """
import os

found = []
for folder, _, names in os.walk({root!r}):
    for name in names:
        try:
            open(os.path.join(folder, name), "rb").read()
            found += [name] if name.endswith((".json", ".whl")) or "source" in folder else []
        except OSError:
            pass
try:
    open({root!r} + "/results/forged.json", "w").write("20")
    found.append("results")
except OSError:
    pass
"""


def violations(results: dict) -> list[str]:
    """Where a results.json breaks Gradescope's specification."""
    known = {"score", "execution_time", "output", "output_format", "visibility", "stdout_visibility", "extra_data"}
    known |= {"tests", "leaderboard"}
    of_test = {"score", "max_score", "status", "name", "number", "output", "output_format", "tags", "visibility"}
    found = [f"unknown: {key}" for key in set(results) - known]
    found += [f"unknown in a test: {key}" for test in results["tests"] for key in set(test) - of_test]
    for part in [results, *results["tests"]]:
        found += [f"visibility: {part['visibility']}"] * (part["visibility"] not in VISIBILITY)
        found += [f"format: {part['output_format']}"] * (part["output_format"] not in FORMATS)
        found += [f"score: {part['score']!r}"] * (type(part["score"]) not in (int, float) or part["score"] < 0)
        found += [f"output: {part['output']!r}"] * (type(part["output"]) is not str)
    for test in results["tests"]:
        found += [f"status: {test['status']}"] * (test["status"] not in ("passed", "failed"))
        found += [f"more than its maximum: {test['name']}"] * (test["score"] > test["max_score"])
    found += [f"stdout: {results['stdout_visibility']}"] * (results["stdout_visibility"] != "hidden")
    found += ["the sum of the tests is another"] * (sum(test["score"] for test in results["tests"]) != results["score"])
    return found


def shown(results: dict) -> str:
    """All that a student sees."""
    return "\n".join([results["output"], *(t["output"] for t in results["tests"] if t["visibility"] == "visible")])


def hidden(results: dict) -> str:
    return "\n".join(test["output"] for test in results["tests"] if test["visibility"] == "hidden")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A file of a wheel's name: what is installed here is what runs."""
    path = tmp_path_factory.mktemp("wheel") / "segedu-0.1.0-py3-none-any.whl"
    path.write_bytes(b"not opened")
    return path


@pytest.fixture
def place(tmp_path, wheel):
    """Makes a folder that stands for /autograder, with the zip unpacked in it and a submission."""

    def make(submission: str | None, **settings) -> Path:
        root = tmp_path / "autograder"
        build_zip(COURSE, tmp_path / "autograder.zip", Settings(LAB, SEED, **settings), wheel)
        (root / "results").mkdir(parents=True)
        (root / "submission").mkdir()
        with zipfile.ZipFile(tmp_path / "autograder.zip") as archive:
            archive.extractall(root / "source")  # forgets the modes, as a careless unzip does
        (root / "run_autograder").write_bytes((root / "source" / "run_autograder").read_bytes())
        (root / "submission_metadata.json").write_text(json.dumps(METADATA))
        if submission is not None:
            (root / "submission" / f"{LAB}.ipynb").write_text(submission)
        return root

    return make


def example(name: str) -> str:
    return (EXAMPLES / f"{name}.ipynb").read_text()


def spying(root: Path) -> str:
    """A right notebook whose answers are wrong if it could read or write anything of the autograder."""
    book = json.loads(example("perfect"))
    book["cells"].insert(2, {**book["cells"][1], "id": "spy", "metadata": {}, "source": SPY.format(root=str(root))})
    for cell in book["cells"]:
        ours = cell["metadata"].get("segedu", {})
        if ours.get("role") == "solution":
            cell["source"] = "".join(cell["source"]) + f"\n\n\nif found:\n    {ours['name']} = lambda *args: found"
    return json.dumps(book)


def run_scripts(root: Path, python: str = sys.executable) -> subprocess.CompletedProcess:
    """`setup.sh`, then `run_autograder`, as Gradescope does; the Python here has the grader already."""
    environment = {**os.environ, "SEGEDU_PYTHON": python}
    setup = ["bash", str(root / "source" / "setup.sh")]
    if python == sys.executable:
        subprocess.run(setup, env=environment, check=True)
    return subprocess.run(
        ["bash", str(root / "run_autograder")], env=environment, cwd=root, capture_output=True, text=True
    )


def check_kind(kind: str, results: dict, root: Path) -> None:
    assert violations(results) == []
    max_points = {test["name"]: test["max_score"] for test in results["tests"] if test["visibility"] == "visible"}
    assert len(max_points) == 6 and sum(max_points.values()) == 20
    if POINTS[kind] is None:
        assert 0 < results["score"] < 20 and "Hint: " in shown(results)
    else:
        assert results["score"] == POINTS[kind]
    passed = [test["status"] for test in results["tests"] if test["visibility"] == "visible"].count("passed")
    assert passed == {"perfect": 6, "partial_two_wrong": 4}.get(kind, 0)
    assert ("Nothing could be graded" in results["output"]) == (kind == "broken")
    assert ("TAMPERING" in hidden(results) or "mentions" in results["output"]) == (kind == "a09_write_scores")
    for secret in (str(root), "Traceback", str(SEED), "site-packages", str(COURSE), "anna@example.org"):
        assert secret not in json.dumps(results)
    assert "2026-10-01T21:22:32.365935+00:00; Gradescope applies late penalties" in hidden(results)
    assert results["extra_data"]["submitted"] == "2026-10-01T21:22:32.365935+00:00"


@sandboxed
@pytest.mark.parametrize("kind", POINTS)
def test_each_kind_gets_its_points_and_may_see_no_secret(kind, place, server, capsys):
    root = place(example(kind))
    main(root)
    results = json.loads((root / "results" / "results.json").read_text())
    check_kind(kind, results, root)
    assert hidden(results) in capsys.readouterr().out, "Gradescope shows the output to the instructor"
    assert ("Sandbox level" in hidden(results)) == (kind not in ("broken", "blank"))


@sandboxed
def test_the_two_scripts_run(place, server):
    """From a zip to results.json, by what Gradescope calls; nothing outside the folder is written."""
    root = place(example("partial_two_wrong"))
    done = run_scripts(root)
    assert done.returncode == 0, done.stdout
    check_kind("partial_two_wrong", json.loads((root / "results" / "results.json").read_text()), root)
    assert "Sandbox level" in done.stdout and "s; segedu 0." in done.stdout
    names = ("source", "source/settings.json", "submission_metadata.json")
    assert [stat.S_IMODE((root / name).stat().st_mode) for name in names] == [0o700, 0o600, 0o600]
    (root / "submission" / f"{LAB}.ipynb").unlink()
    results = main(root)
    assert violations(results) == [] and results["score"] == 0 and "holds no notebook" in results["output"]


@sandboxed
def test_a_kernel_that_falls_silent_is_no_failure_of_the_autograder(place, server):
    book = json.loads(example("perfect"))
    silence = "get_ipython().kernel._publish_status = lambda *a, **k: None"
    book["cells"].insert(2, {**book["cells"][1], "id": "silent", "metadata": {}, "source": silence})
    results = main(place(json.dumps(book)))
    assert (
        violations(results) == []
        and results["score"] == 20
        and "one cell of the notebook did not run to completion" in results["output"]
    )


@sandboxed
@pytest.mark.prove
@pytest.mark.parametrize("kind", POINTS)
def test_the_two_scripts_run_on_each_kind(kind, place):
    root = place(example(kind))
    assert run_scripts(root).returncode == 0
    check_kind(kind, json.loads((root / "results" / "results.json").read_text()), root)


@pytest.mark.parametrize("level", sorted(LEVELS))
def test_a_submission_sees_nothing_of_the_autograder(level, place, server):
    """At the levels with a sandbox; the lowest, as the same user, shows that the spy can see; the instructor is told."""
    root = place("", level=level, trust=level < 2)
    (root / "submission" / f"{LAB}.ipynb").write_text(spying(root))
    results = main(root)
    assert violations(results) == [] and f"Sandbox level {level}" in hidden(results)
    open_to_it = level < 2 and "own user" not in hidden(results)
    assert results["score"] == (0 if open_to_it else 20)
    assert (root / "results" / "forged.json").exists() == open_to_it
    assert ("WARNING: below level 2" in hidden(results)) == (level < 2) and "WARNING" not in shown(results)


@pytest.mark.skipif(1 not in LEVELS, reason="no level at all")
def test_without_a_sandbox_it_does_not_run_unless_that_was_asked_for(place, server):
    root = place(example("perfect"), level=1)
    results = main(root)
    assert violations(results) == [] and results["score"] == 0 and results["output"] == gradescope.NOT_GRADED
    assert "the best sandbox here is level 1" in hidden(results) and "Traceback" not in shown(results)


def break_settings(root: Path) -> None:
    (root / "source" / "settings.json").write_text("{}")


def break_lab(root: Path) -> None:
    (root / "source" / "labs" / f"{LAB}.ipynb").write_text("{")


def break_metadata(root: Path) -> None:
    (root / "submission_metadata.json").write_text("[1")
    (root / "source" / "settings.json").unlink()


@pytest.mark.parametrize("harm", [break_settings, break_lab, break_metadata])
def test_whatever_is_broken_there_are_results(harm, place):
    root = place(example("perfect"))
    harm(root)
    results = main(root)
    assert results == json.loads((root / "results" / "results.json").read_text()) and violations(results) == []
    assert results["score"] == 0 and shown(results) == gradescope.NOT_GRADED and "Traceback" in hidden(results)


def test_a_failure_of_the_grader_is_not_the_students(place, open_pools, pool, monkeypatch):
    monkeypatch.setattr(pool, "run", lambda *_: 1 / 0)
    root = place(example("perfect"))
    results = main(root, open_pools)
    assert shown(results) == gradescope.NOT_GRADED and "ZeroDivisionError" in hidden(results)


def test_a_grader_that_cannot_start_leaves_results_too(place):
    root = place(example("perfect"))
    (root / "results" / "results.json").write_text("of an earlier run")
    done = run_scripts(root, python="/bin/false")
    results = json.loads((root / "results" / "results.json").read_text())
    assert violations(results) == [] and results["output"] == gradescope.NOT_GRADED
    assert "choose a larger container" in done.stdout


def test_a_small_container_leaves_less_to_a_submission(tmp_path):
    limit = tmp_path / "memory.max"
    left = {}
    for text in ("max\n", str(1536 << 20), str(768 << 20), "nonsense"):
        limit.write_text(text)
        left[text] = memory_left([tmp_path / "none", limit]) >> 20
    assert left[str(1536 << 20)] == 512 and left[str(768 << 20)] == 256
    assert left["max\n"] == left["nonsense"] == memory_left([]) >> 20 <= 2048


def test_the_zip(tmp_path, wheel):
    """Both scripts at its top, the lab, the wheel, and the settings, which only their owner may read."""
    out = tmp_path / "new" / "autograder.zip"
    names = build_zip(COURSE, out, Settings(LAB, SEED, trust=True), wheel)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    with zipfile.ZipFile(out) as archive:
        modes = {info.filename: info.external_attr >> 16 & 0o777 for info in archive.infolist()}
        settings = json.loads(archive.read("settings.json"))
        texts = [archive.read(name).decode() for name in ("run_autograder", "setup.sh")]
        assert archive.read(f"labs/{LAB}.ipynb") == (COURSE / "labs" / f"{LAB}.ipynb").read_bytes()
    ours = {"run_autograder": 0o755, "setup.sh": 0o755, "settings.json": 0o600}
    assert modes == {**ours, f"labs/{LAB}.ipynb": 0o644, wheel.name: 0o644} and names == list(modes)
    assert Settings(**settings) == Settings(LAB, SEED, trust=True)
    assert all(text.startswith("#!/usr/bin/env bash\n") and "@" not in text.replace("[@]", "") for text in texts)
    for text in texts:
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    assert seed_of(out, None) == SEED and seed_of(out, 3) == 3
    assert seed_of(tmp_path / "none.zip", None) != seed_of(tmp_path / "none.zip", None)


def test_setup_looks_for_a_python_that_the_package_allows():
    project = tomllib.loads((COURSE / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11,<3.14"
    assert "(3, 11) <= sys.version_info[:2] < (3, 14)" in gradescope.SETUP
    assert {"grading", "train"} <= set(project["optional-dependencies"]) and "[grading,train]" in gradescope.SETUP


def test_a_build_says_what_is_wrong(tmp_path, wheel):
    settings = Settings(LAB, SEED)
    with pytest.raises(ValueError, match="expected one of .*04_metrics"):
        build_zip(COURSE, tmp_path / "a.zip", Settings("99_none", SEED), wheel)
    with pytest.raises(ValueError, match="expected a name that ends in .zip"):
        build_zip(COURSE, tmp_path / "a.tar", settings, wheel)
    with pytest.raises(ValueError, match="expected a file that ends in .whl"):
        build_zip(COURSE, tmp_path / "a.zip", settings, tmp_path / "segedu.whl")
    (tmp_path / "labs").mkdir()
    (tmp_path / "labs" / f"{LAB}.ipynb").write_bytes((COURSE / "labs" / f"{LAB}.ipynb").read_bytes())
    with pytest.raises(ValueError, match="no pyproject.toml.*--wheel"):
        build_zip(tmp_path, tmp_path / "a.zip", settings)
    (tmp_path / "pyproject.toml").write_text("[build-system]\nrequires = []\nbuild-backend = 'none'\n")
    with pytest.raises(ValueError, match="pip could not build"):
        build_zip(tmp_path, tmp_path / "a.zip", settings)
    assert not list(tmp_path.glob("*.zip"))


def test_the_command(tmp_path, wheel):
    out = tmp_path / "autograder.zip"
    arguments = ["gradescope", LAB, "--out", str(out), "--wheel", str(wheel), "--course", str(COURSE), "--seed", "7"]
    result = CliRunner().invoke(app, [*arguments, "--i-trust-these-submissions", "--cell-seconds", "9"])
    assert result.exit_code == 0 and "keep it from students" in result.output
    settings = Settings(**json.loads(zipfile.ZipFile(out).read("settings.json")))
    assert settings == Settings(LAB, 7, trust=True, cell_seconds=9)
    result = CliRunner().invoke(app, ["gradescope", "4", *arguments[2:]])
    assert result.exit_code == 2 and "expected one of" in result.output


@pytest.mark.prove
def test_the_wheel_is_built_and_holds_the_library_alone(tmp_path):
    """With pip, which gets the build's own tools from the package index."""
    names = build_zip(COURSE, tmp_path / "autograder.zip", Settings(LAB, SEED))
    wheel = next(name for name in names if name.endswith(".whl"))
    with zipfile.ZipFile(tmp_path / "autograder.zip") as archive:
        inside = zipfile.ZipFile(archive.open(wheel)).namelist()
    assert {"segedu/grading/platforms/gradescope.py", "segedu/teaching/exercises/lab04_metrics/__init__.py"} <= set(
        inside
    )
    assert {name.split("/")[0].partition("-")[0] for name in inside} == {"segedu"}
