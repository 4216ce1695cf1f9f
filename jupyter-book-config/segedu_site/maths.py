"""Formulas: typeset with MathJax while the book is built, or, without Node.js, by MathJax in the reader's browser.

MathJax's script has two megabytes, so a page with formulas should not load it. Where Node.js and the npm package
`mathjax` can be had, `typeset.cjs` makes an SVG of each formula, with MathML beside it for screen readers. The glyphs
of a page are written once, at the end of its text. A formula that MathJax does not understand is a warning.

Otherwise MathJax 3 comes from the pip package sphinx-mathjax-offline, is copied into the site, and runs in the page.

A browser may break a line before and after a formula, even if no space is there. So a formula is kept on one line with
the characters that are attached to it, such as a parenthesis, a comma, or the hyphen of "-dimensional".
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from importlib.metadata import files
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.ext import mathjax
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

from segedu_site import npm

logger = logging.getLogger(__name__)

SCRIPT = "mathjax/tex-svg.js"
TYPESET = Path(__file__).with_name("typeset.cjs")
PACKAGE = npm.Package(
    "mathjax",
    "3.2.2",
    "Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw==",
)
TEX = re.compile(r"\\\((.*?)\\\)|\\\[(.*?)\\\]", re.DOTALL)
GLYPH = re.compile(r'xlink:href="#(MJX-[^"]+)"')


class Typesetter:
    """MathJax in a process of its own, which answers one formula after the other.

    Args:
        package: the folder of the npm package.
    """

    def __init__(self, package: Path) -> None:
        command = [npm.node(), str(TYPESET), str(package)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.owner = os.getpid()  # a fork that writes other pages needs a process of its own
        self.glyphs: dict[str, str] = {}

    def typeset(self, tex: str, display: bool) -> str:
        """Return the HTML of one formula: an SVG, and MathML for screen readers.

        Raises:
            RuntimeError: if the process has ended.
        """
        print(json.dumps({"tex": tex, "display": display}), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{TYPESET.name} ended with status {self.process.wait()} at the formula {tex!r}")
        found = json.loads(answer)
        self.glyphs |= found["glyphs"]
        return found["html"].replace("<mjx-container ", f'<mjx-container data-tex="{html.escape(tex)}" ', 1)

    def glyphs_of(self, page: str) -> str:
        """Return a hidden SVG with the glyphs that the formulas of a page refer to."""
        names = sorted(set(GLYPH.findall(page)))
        if not names:
            return ""
        paths = "".join(f'<path id="{name}" d="{self.glyphs[name]}"></path>' for name in names)
        return f'<svg xmlns="http://www.w3.org/2000/svg" class="glyphs" aria-hidden="true"><defs>{paths}</defs></svg>'

    def stop(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def typesetter(app: Sphinx) -> Typesetter:
    """Return the typesetter of this process."""
    running = getattr(app, "segedu_typesetter", None)
    if running is None or running.owner != os.getpid():
        app.segedu_typesetter = running = Typesetter(npm.obtain(PACKAGE))
    return running


def typeset_instead(visit: Callable[[HTML5Translator, nodes.Element], None]) -> Callable:
    """Turn Sphinx's visitor for MathJax in the page into one that writes the typeset formula."""

    def visitor(self: HTML5Translator, node: nodes.Element) -> None:
        start = len(self.body)
        try:
            visit(self, node)
        except nodes.SkipNode:
            pass
        written = "".join(self.body[start:])
        del self.body[start:]
        self.body.append(TEX.sub(lambda found: _formula(self, node, found), written))
        raise nodes.SkipNode

    return visitor


def _formula(writer: HTML5Translator, node: nodes.Element, found: re.Match) -> str:
    display = found[1] is None
    tex = html.unescape(found[2] if display else found[1]).strip()
    drawn = typesetter(writer.builder.app).typeset(tex, display)
    if error := re.search(r'data-mjx-error="([^"]*)"', drawn):
        logger.warning("MathJax cannot typeset %r: %s", tex, error[1], location=node, type="segedu", subtype="formula")
    return drawn


def add_glyphs(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document | None) -> None:
    """Write the glyphs of a page once, at the end of its text."""
    if "<mjx-container" in context.get("body", ""):
        context["body"] += typesetter(app).glyphs_of(context["body"])


def stop(app: Sphinx, exception: Exception | None) -> None:
    running = getattr(app, "segedu_typesetter", None)
    if running is not None and running.owner == os.getpid():
        running.stop()


def script() -> Path:
    """Where pip put the script. The package's folder has hyphens in its name: it cannot be imported."""
    for file in files("sphinx-mathjax-offline") or ():
        if file.as_posix().endswith(f"static/{SCRIPT}"):
            return Path(file.locate())
    raise FileNotFoundError(f"sphinx-mathjax-offline holds no {SCRIPT}: install it anew")


def configure(app: Sphinx, config: Config) -> None:
    config.mathjax_path = SCRIPT
    config.mathjax3_config = {"svg": {"fontCache": "global"}, "options": {"enableMenu": False}}
    ready = npm.node() is not None and npm.obtain(PACKAGE) is not None
    config.html_math_renderer = "typeset" if ready else "mathjax"
    if not ready:
        logger.info("formulas: no Node.js or no npm package %s, so pages load MathJax (2 MB)", PACKAGE.name)


def copy(app: Sphinx) -> None:
    if app.builder.format == "html" and app.config.html_math_renderer == "mathjax":
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
    app.add_html_math_renderer(
        "typeset",
        inline_renderers=(typeset_instead(mathjax.html_visit_math), None),
        block_renderers=(typeset_instead(mathjax.html_visit_displaymath), None),
    )
    app.add_post_transform(KeepTogether)
    app.connect("config-inited", configure)
    app.connect("builder-inited", copy)
    app.connect("html-page-context", add_glyphs)
    app.connect("build-finished", stop)
