"""What myst-nb (1.4) does not do with outputs by itself.

Alt text: `segedu.viz.show` writes it into the output's metadata, and here it reaches the page; myst-nb takes width
and height from there only. All pictures of a cell, such as the frames of a widget, are one figure with one number and
one caption; myst-nb makes a figure of each. A capstone's report: it lies beside its own text as JSON for the
instructor's command; the page shows the text, and that the JSON is left out is no warning.

Two changes to a finished page. A wide picture gets a frame in which it scrolls on a telephone, so that its text stays
legible (`figures.js` and `segedu.css`). Folded code moves below the figure that it draws, so the figure comes first.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from docutils import nodes
from myst_nb import sphinx_ as myst_nb_pages
from myst_nb.core.render import MimeData, NbElementRenderer
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.writers.html5 import HTML5Translator

from segedu_site.pictures import size

REPORT = (
    "application/vnd.segedu.capstone+json"  # `segedu.teaching.capstone.report` needs NumPy, which Jupyter Book 1 lacks
)
WIDE = 480  # CSS pixels; a narrower picture is legible on a telephone
_render_image = NbElementRenderer.render_image
_create_figure_context = myst_nb_pages.create_figure_context
_render_mime_type = NbElementRenderer.render_mime_type


def render_image(self: NbElementRenderer, data: MimeData) -> list[nodes.Element]:
    """myst-nb's own rendering, with the alt text of the output's metadata."""
    rendered = _render_image(self, data)
    alt = data.output_metadata.get(data.mime_type, {}).get("alt")
    for image in rendered:
        if alt and isinstance(image, nodes.image):
            image["alt"] = alt
    return rendered


def render_mime_type(self: NbElementRenderer, data: MimeData) -> list[nodes.Element]:
    """myst-nb's own rendering, and nothing for a report's JSON."""
    return [] if data.mime_type == REPORT else _render_mime_type(self, data)


@contextmanager
def create_figure_context(
    self: myst_nb_pages.SphinxNbRenderer, figure_options: dict[str, Any] | None, line: int
) -> Iterator[None]:
    """myst-nb's own figure for the first picture of a cell; the others join it, above the caption."""
    figures = [child for child in self.current_node.children if isinstance(child, nodes.figure)]
    if not figures:
        with _create_figure_context(self, figure_options, line):
            yield
        return
    pictures = nodes.container()
    with self.current_node_context(pictures):
        yield
    caption = figures[0].first_child_matching_class((nodes.caption, nodes.legend))
    end = len(figures[0]) if caption is None else caption
    figures[0].insert(end, pictures.children)


class frame(nodes.container):  # Sphinx finds its visitor by this name
    """The frame of a wide picture, with the picture's width in CSS pixels."""


def visit_frame(writer: HTML5Translator, node: frame) -> None:
    attributes = {"style": f"--full-width: {node['width']:.0f}px"}
    if full := writer.builder.images.get(node.get("full")):  # the page shows a small copy of this file
        attributes["data-full"] = posixpath.join(writer.builder.imgpath, full)
    writer.body.append(writer.starttag(node, "div", CLASS="figure-frame", **attributes))


def depart_frame(writer: HTML5Translator, node: frame) -> None:
    writer.body.append("</div>\n")


def full_width(path: Path) -> float:
    """Width of a PNG or of an SVG by matplotlib, in CSS pixels; 0 for other files."""
    return (size(path) or (0, 0))[0]


class FrameWidePictures(SphinxPostTransform):
    """Put each wide picture into a frame."""

    default_priority = 900
    formats = ("html",)

    def run(self, **options) -> None:
        for image in list(self.document.findall(nodes.image)):
            path = Path(self.app.srcdir) / image["uri"]
            given = re.fullmatch(r"([\d.]+)(px)?", str(image.get("width", "")))  # a PNG has two pixels per CSS pixel
            width = float(given[1]) if given else full_width(path) if path.is_file() else 0
            if width >= WIDE and isinstance(image.parent, nodes.figure | nodes.container):
                image.replace_self(frame("", image.deepcopy(), width=width, full=image.get("full", "")))


class FoldedCodeBelow(SphinxPostTransform):
    """Move the folded code of a cell below what the cell shows, also for keyboards and screen readers."""

    default_priority = 200  # myst-nb has folded the code before, with priority 199
    formats = ("html",)

    def run(self, **options) -> None:
        for cell in self.document.findall(nodes.container):
            shows = [child for child in cell if child.get("nb_element") == "cell_code_output"]
            if shows and "above-input" in cell[0].get("classes", []):
                cell.append(cell.pop(0))


def setup(app: Sphinx) -> None:
    NbElementRenderer.render_mime_type = render_mime_type
    NbElementRenderer.render_image = render_image
    myst_nb_pages.create_figure_context = create_figure_context
    app.add_node(frame, html=(visit_frame, depart_frame))
    app.add_post_transform(FrameWidePictures)
    app.add_post_transform(FoldedCodeBelow)
