"""MathJax 3 from the pip package sphinx-mathjax-offline, copied into the site: one file, no font folder.

A browser may break a line before and after a formula, even if no space is there. So a formula is kept on one line with
the characters that are attached to it, such as a parenthesis, a comma, or the hyphen of "-dimensional".
"""

from __future__ import annotations

import re
import shutil
from importlib.metadata import files
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.transforms.post_transforms import SphinxPostTransform

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


ATTACHED = r"\S{0,2}"  # two characters are enough: a browser does not break a line within a word


class KeepTogether(SphinxPostTransform):
    """Puts a formula and the characters that are attached to it into an element whose lines do not break."""

    default_priority = 900
    formats = ("html",)

    def run(self, **options: object) -> None:
        for formula in list(self.document.findall(nodes.math)):
            _keep_together(formula)


def _keep_together(formula: nodes.math) -> None:
    parent = formula.parent
    here = parent.index(formula)
    before = parent[here - 1] if here else None
    after = parent[here + 1] if here + 1 < len(parent) else None
    opening = re.search(ATTACHED + "$", before).group() if isinstance(before, nodes.Text) else ""
    closing = re.match(ATTACHED, after).group() if isinstance(after, nodes.Text) else ""
    if not opening and not closing:
        return
    group = nodes.inline(classes=["one-line"])
    if closing:
        parent[here + 1] = nodes.Text(after[len(closing) :])
    parent[here] = group
    if opening:
        parent[here - 1] = nodes.Text(before[: -len(opening)])
    group += [nodes.Text(opening), formula, nodes.Text(closing)]


def setup(app: Sphinx) -> None:
    app.add_post_transform(KeepTogether)
    app.connect("config-inited", configure)
    app.connect("builder-inited", copy)
