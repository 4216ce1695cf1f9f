"""Explorers whose pictures are computed while the book is built: `{states}` before the code cell that draws them.

The cell draws one picture per state, each with a caption of its values ("layer = 2, query = 10"). The first few stay in
the figure, for readers without JavaScript, in print and in the EPUB. All others go into a `<template>`, which a browser
neither shows nor loads, until `states.js` builds controls from the captions.
"""

from __future__ import annotations

from collections.abc import Iterator

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective
from sphinx.writers.html5 import HTML5Translator

from segedu_site.explorers import STILLS_FIRST, STYLE

STILLS = 3


class states_slot(nodes.General, nodes.Element):  # Sphinx finds its visitor by this name
    """Where the controls appear; `stills` pictures stay in the figure of the next code cell."""


class more_states(nodes.General, nodes.Element):
    """The pictures that only a browser with JavaScript shows."""


class States(SphinxDirective):
    """`{states}`: the pictures of the next code cell become one picture with controls."""

    option_spec = {"stills": directives.positive_int}

    def run(self) -> list[nodes.Node]:
        return [states_slot("", stills=self.options.get("stills", STILLS))]


def frames(figure: nodes.figure) -> Iterator[list[nodes.Node]]:
    """Each picture of a figure with what follows it, its caption of values, before the next picture."""
    frame: list[nodes.Node] = []
    for child in figure.children:
        if isinstance(child, nodes.caption | nodes.legend):
            continue
        if frame and (isinstance(child, nodes.image) or any(child.findall(nodes.image))):
            yield frame
            frame = []
        frame.append(child)
    if frame:
        yield frame


class MoveStates(SphinxPostTransform):
    """Keep the first pictures in the figure; move the others beside the slot, or drop them where no browser reads."""

    default_priority = 950  # after wide pictures have their frames

    def run(self, **options) -> None:
        for slot in list(self.document.findall(states_slot)):
            following = slot.next_node(nodes.figure, siblings=True, ascend=True)
            if following is None:
                raise ValueError(f"{slot.source}: no code cell with a figure follows the directive `states`")
            more = more_states()
            for frame in list(frames(following))[slot["stills"] :]:
                for node in frame:
                    following.remove(node)
                    more.append(node)
            slot.append(more)


def visit_slot(writer: HTML5Translator, node: states_slot) -> None:
    writer.body.append('<div class="live-states">')


def visit_more(writer: HTML5Translator, node: more_states) -> None:
    writer.body.append("<template>")


def add_script(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    if doctree and any(doctree.findall(states_slot)):
        app.add_js_file("stills.js", priority=STILLS_FIRST)
        app.add_js_file("states.js")
        app.add_css_file(f"explorers/{STYLE}")


def skip(writer: nodes.NodeVisitor, node: nodes.Node) -> None:
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    slot = (visit_slot, lambda writer, node: writer.body.append("</div>\n"))
    app.add_node(states_slot, html=slot, epub=(skip, None), text=(skip, None))
    app.add_node(more_states, html=(visit_more, lambda writer, node: writer.body.append("</template>")))
    app.add_directive("states", States)
    app.add_post_transform(MoveStates)
    app.connect("html-page-context", add_script)
