"""What myst-nb (1.4) does not do with outputs by itself.

Alt text: `segedu.viz.show` writes it into the output's metadata, and here it reaches the page; myst-nb takes width
and height from there only. A capstone's report: it lies beside its own text as JSON for the instructor's command;
the page shows the text, and that the JSON is left out is no warning.
"""

from __future__ import annotations

from docutils import nodes
from myst_nb.core.render import MimeData, NbElementRenderer
from sphinx.application import Sphinx

REPORT = (
    "application/vnd.segedu.capstone+json"  # `segedu.teaching.capstone.report` needs NumPy, which Jupyter Book 1 lacks
)
_render_image = NbElementRenderer.render_image
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


def setup(app: Sphinx) -> None:
    NbElementRenderer.render_mime_type = render_mime_type
    NbElementRenderer.render_image = render_image
