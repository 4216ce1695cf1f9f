"""`jupyter-book build` 1.x builds the same book from the same two files, in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from segedu_site import lint

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "jupyter-book-config"


@pytest.fixture(scope="module")
def jupyter_book(tmp_path_factory) -> Path:
    """The command, installed from the package index. Page code runs in this environment, not in that one."""
    folder = tmp_path_factory.mktemp("jupyter-book-1") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install = [folder / "bin" / "pip", "install", "--quiet", "jupyter-book<2", "sphinx-mathjax-offline"]
    subprocess.run(install, check=True)
    kernel = folder / "share" / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))
    return folder / "bin" / "jupyter-book"


@pytest.mark.prove
def test_jupyter_book_1_builds_the_same_pages_without_a_warning(jupyter_book, site, tmp_path):
    command = [jupyter_book, "build", ".", "--config", CONFIG / "_config.yml", "--toc", CONFIG / "_toc.yml"]
    command += ["--path-output", tmp_path, "-W", "--keep-going"]
    environment = {**os.environ, "PATH": f"{jupyter_book.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    theirs = tmp_path / "_build" / "html"

    def pages(folder: Path) -> set[str]:
        names = {path.relative_to(folder).as_posix() for path in lint.pages(folder)}
        return {name for name in names if not name.startswith("solutions/")}  # not in the table of contents

    assert pages(theirs) == pages(site)
    assert [complaint for page in lint.pages(theirs) for complaint in lint.complaints(page, theirs)] == []
