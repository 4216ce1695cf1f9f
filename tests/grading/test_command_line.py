"""The seed of the hidden cases is not in the list of processes, which a cell can read below level 3."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from segedu.cli import app
from segedu.grading.batch import command_line

SHOW = "from segedu.grading.batch.command_line import hide_value\n"
SHOW += "print(hide_value('--seed'), open('/proc/self/cmdline').read().split('\\0')[3:-1])"
linux = pytest.mark.skipif(sys.platform != "linux", reason="the list of processes is read in /proc")


@linux
@pytest.mark.parametrize(
    "given, shown",
    [
        (["grade", "--seed", "12345", "--out", "x"], ["grade", "--seed", "xxxxx", "--out", "x"]),
        (["--seed=77", "in --seed 3"], ["--seed=xx", "in --seed 3"]),
        (["--seed", "1", "--seed", "22"], ["--seed", "x", "--seed", "xx"]),
    ],
)
def test_the_value_is_overwritten(given, shown):
    done = subprocess.run([sys.executable, "-c", SHOW, *given], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"True {shown}"


@linux
def test_other_arguments_stay():
    done = subprocess.run([sys.executable, "-c", SHOW, "grade", "--seeds", "3"], capture_output=True, text=True)
    assert done.stdout.strip() == "False ['grade', '--seeds', '3']"


@pytest.mark.parametrize("command", ["grade", "gradescope", "nbgrader"])
def test_every_command_that_takes_the_seed_hides_it(command, monkeypatch):
    hidden = []
    monkeypatch.setattr(command_line, "hide_value", hidden.append)
    CliRunner().invoke(
        app, [command, "04_metrics", "--out", "/nonexistent/x", "--seed", "4", "--course", "/nonexistent"]
    )
    assert hidden == ["--seed"]


@linux
def test_the_value_is_gone_before_anything_is_graded(tmp_path):
    """The processes that a run starts are told the seed through a connection."""
    code = "import sys\nfrom segedu.grading.batch import command\n"
    code += "command.grade = lambda job, expect: print(job.seed, open('/proc/self/cmdline').read().split('\\0')[-3:])\n"
    code += "from segedu.cli import app\napp()"
    root = Path(__file__).resolve().parents[2]
    words = ["grade", str(tmp_path), "--lab", "04_metrics", "--out", str(tmp_path / "out"), "--seed", "4321"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=root)
    assert done.stdout.strip() == "4321 ['--seed', 'xxxx', '']", done.stderr
