"""Alt text: `segedu.viz.show` writes it into the output's metadata, and here it reaches the page.

myst-nb takes width and height from there, but not the alt text (myst-nb 1.4).
"""

from __future__ import annotations

from docutils import nodes
from myst_nb.core.render import MimeData, NbElementRenderer
from sphinx.application import Sphinx

_render_image = NbElementRenderer.render_image


def render_image(self: NbElementRenderer, data: MimeData) -> list[nodes.Element]:
    """myst-nb's own rendering, with the alt text of the output's metadata."""
    rendered = _render_image(self, data)
    alt = data.output_metadata.get(data.mime_type, {}).get("alt")
    for image in rendered:
        if alt and isinstance(image, nodes.image):
            image["alt"] = alt
    return rendered


def setup(app: Sphinx) -> None:
    NbElementRenderer.render_image = render_image
