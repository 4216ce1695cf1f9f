"""MathJax 3 from the pip package sphinx-mathjax-offline, copied into the site: one file, no font folder."""

from __future__ import annotations

import shutil
from importlib.metadata import files
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

SCRIPT = "mathjax/tex-svg.js"


def script() -> Path:
    """Where pip put the script. The package's folder has hyphens in its name: it cannot be imported."""
    for file in files("sphinx-mathjax-offline") or ():
        if file.as_posix().endswith(f"static/{SCRIPT}"):
            return Path(file.locate())
    raise FileNotFoundError(f"sphinx-mathjax-offline holds no {SCRIPT}: install it anew")


def configure(app: Sphinx, config: Config) -> None:
    config.mathjax_path = SCRIPT
    config.mathjax3_config = {"svg": {"fontCache": "global"}, "options": {"enableMenu": False}}


def copy(app: Sphinx) -> None:
    if app.builder.format == "html":
        target = Path(app.outdir) / "_static" / SCRIPT
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(script(), target)


def setup(app: Sphinx) -> None:
    app.connect("config-inited", configure)
    app.connect("builder-inited", copy)
