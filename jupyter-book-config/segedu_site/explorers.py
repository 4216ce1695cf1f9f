"""Live explorers: `{explorer} NAME` before the code cell with the still pictures, and the scripts that a page loads.

An explorer is an ES module in `segedu/teaching/explorers`, which a notebook uses too. On a page that is opened from a
folder, a browser loads no modules, so each module is written into the site as a text within a classic script.
"""

from __future__ import annotations

import json
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import segedu.teaching.explorers

EXPLORERS = Path(segedu.teaching.explorers.__file__).parent
STYLE = "explorers.css"
STILLS_FIRST = 400  # the script that explorers.js and states.js use is loaded before them


class Explorer(SphinxDirective):
    """`{explorer} boxes`: where a live explorer appears. Without JavaScript, only the cell below it is seen."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        path = EXPLORERS / f"{name}.js"
        if name == "host" or not path.is_file():
            known = ", ".join(sorted(each.stem for each in EXPLORERS.glob("*.js") if each.stem != "host"))
            raise self.error(f"explorer {name!r} is not in segedu/teaching/explorers, expected one of {known}")
        self.env.note_dependency(str(path))
        return [nodes.raw("", f'<div class="live-explorer" data-explorer="{name}"></div>', format="html")]


def add_scripts(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    """Load the script and the style only where a page has an explorer."""
    if doctree and any('class="live-explorer"' in node.astext() for node in doctree.findall(nodes.raw)):
        app.add_js_file("stills.js", priority=STILLS_FIRST)
        app.add_js_file("explorers.js")
        app.add_css_file(f"explorers/{STYLE}")


def write_scripts(app: Sphinx, exception: Exception | None) -> None:
    """Write every module of the folder as `_static/explorers/NAME.js`, and the style beside them."""
    if exception is not None or app.builder.format != "html":
        return
    folder = Path(app.outdir) / "_static" / "explorers"
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(EXPLORERS.glob("*.js")):
        text = json.dumps(path.read_text(encoding="utf-8"))
        (folder / path.name).write_text(f"segeduExplorers.add({json.dumps(path.stem)}, {text});\n", encoding="utf-8")
    (folder / STYLE).write_bytes((EXPLORERS / STYLE).read_bytes())


def setup(app: Sphinx) -> None:
    app.add_directive("explorer", Explorer)
    app.connect("html-page-context", add_scripts)
    app.connect("build-finished", write_scripts, priority=400)  # before the lint looks at the pages
