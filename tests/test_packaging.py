"""One list of dependencies, one repository address, Makefile verbs that are sub-commands."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CARD = ["jupyterlab", "torch", "torchvision", "matplotlib", "ipywidgets", "nbval", "scikit-learn", "pycocotools"]


def names(requirements):
    return [re.match(r"[A-Za-z0-9_.-]+", requirement)[0] for requirement in requirements]


def test_environment_is_thin_and_agrees_with_pyproject():
    import yaml

    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, under_pip = environment["dependencies"]
    assert python == "python" + PROJECT["requires-python"] and pip == "pip"
    assert under_pip["pip"] == [*CARD, "-e .[lab]"]
    ours = names(PROJECT["dependencies"]) + names(PROJECT["optional-dependencies"]["lab"])
    assert set(CARD) <= set(ours)


def test_lower_bounds_only():
    every = [*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)]
    others = [r for r in every if not r.startswith("segedu[")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+>=[0-9.]+", r) for r in others), others
    assert set(PROJECT["optional-dependencies"]) == {"lab", "test", "author", "grading", "docs", "train", "cluster"}


COLAB = {"torch": "2.11.0", "torchvision": "0.26.0", "numpy": "2.1.3", "scipy": "1.16.3", "matplotlib": "3.10.0",
         "ipywidgets": "7.7.1", "scikit-learn": "1.6.1", "scikit-image": "0.25.2", "pycocotools": "2.0.11",
         "pillow": "11.3.0", "tqdm": "4.67.3"}  # fmt: skip


def test_colab_keeps_its_own_packages():
    """Versions of Colab's image of 2026-08-19 (googlecolab/backend-info): each satisfies our lower bound."""
    from packaging.requirements import Requirement

    bounds = {r.name: r.specifier for r in map(Requirement, PROJECT["dependencies"])}
    assert all(version in bounds[name] for name, version in COLAB.items())


def test_every_address_of_the_repository_is_the_one_in_pyproject():
    address = PROJECT["urls"]["Repository"]
    owner = address.removeprefix("https://github.com/")
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    wrong = []
    for file in filter(re.compile(r"\.(py|md|ipynb|toml|yml|yaml|cff|bib)$").search, files):
        text = re.sub(r"segedu address \S+", "", (ROOT / file).read_text(errors="replace"))  # an example of the command
        for found in re.findall(r"github(?:\.com|/)/?([\w-]+/segedu)\b", text):
            known = {owner, *(["OWNER/segedu"] if file == "segedu/teaching/authoring/address.py" else [])}
            wrong += [(file, found)] if found not in known else []
    assert wrong == []


def test_every_verb_is_a_sub_command():
    makefile = (ROOT / "Makefile").read_text()
    verbs = set(re.findall(r"^([a-z]+):", makefile, re.M)) - {"help"}
    assert verbs == {"lab", "test", "prove", "grade", "book", "labs", "fix", "bench", "clean"}
    from segedu.cli import app

    commands = {c.name or c.callback.__name__ for c in app.registered_commands}
    assert verbs - {"test", "fix", "clean"} <= commands
    workflows = "".join(p.read_text() for p in (ROOT / ".github" / "workflows").glob("*.yml"))
    assert {"make test", "make book"} <= set(re.findall(r"run: (make \w+)", workflows))


@pytest.mark.parametrize("arguments", [[], ["--help"], ["labs", "--help"], ["grade", "--help"], ["train", "--help"]])
def test_help_is_quick_to_import(arguments):
    code = f"import sys; sys.argv = {['segedu', *arguments]!r}\ntry:\n from segedu.cli import app; app()\n"
    code += "except SystemExit: pass\nassert 'torch' not in sys.modules and 'nbval' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_small_weights_stay_small():
    files = list((ROOT / "segedu" / "weights").glob("*"))
    sizes = [f.stat().st_size for f in files if f.suffix == ".safetensors"]
    assert all(size <= 2 * 10**6 for size in sizes) and sum(sizes) <= 20 * 10**6


@pytest.mark.parametrize(
    "arguments", [["budget", "4_metrics"], ["mutants", "99_x"], ["prove", "nope"], ["labs", "--course", "segedu"]]
)
def test_a_typo_gets_a_sentence_and_no_traceback(arguments, monkeypatch):
    from typer.testing import CliRunner

    from segedu.cli import app

    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit)
    output = " ".join(result.output.replace("│", " ").split())  # the box breaks lines
    assert "expected one of" in output or "give the checkout" in output
