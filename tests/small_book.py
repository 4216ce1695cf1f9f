"""A book of a few pages with the course's own configuration."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "jupyter-book-config"
FRONT = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  name: python3
  display_name: Python 3
---
"""


def build(folder: Path, page: str, toc: str = "", environment: dict | None = None) -> tuple[int, str]:
    """Builds a book of one page with our configuration; exit status and everything it said."""
    shutil.copytree(CONFIG, folder / CONFIG.name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / CONFIG.name / "_toc.yml").write_text("format: jb-book\nroot: course/index\n" + toc)
    (folder / "course").mkdir(exist_ok=True)
    (folder / "course" / "index.md").write_text(FRONT + page)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", CONFIG.name, ".", "_build/html"]
    env = {**os.environ, "SEGEDU_NPM": str(ROOT / "_build" / "npm"), **(environment or {})}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr
