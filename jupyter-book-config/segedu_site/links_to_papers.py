"""Numbers of arXiv and digital object identifiers in the text become links to the papers."""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

PAPER = re.compile(r"arXiv:(?P<arxiv>\d{4}\.\d{4,5}|[a-z-]+/\d{7})|(?:doi:)?(?P<doi>10\.\d{4,9}/[^\s,;]*[^\s,;.)\]])")
UNCHANGED = (nodes.reference, nodes.literal, nodes.literal_block, nodes.math, nodes.math_block, nodes.raw, nodes.title)


def linked(text: str) -> list[nodes.Node]:
    """A text as nodes: its parts, with a link wherever it names a paper by arXiv's number or a DOI."""
    parts, start = [], 0
    for found in PAPER.finditer(text):
        address = f"https://arxiv.org/abs/{found['arxiv']}" if found["arxiv"] else f"https://doi.org/{found['doi']}"
        parts += [nodes.Text(text[start : found.start()]), nodes.reference("", found[0], refuri=address)]
        start = found.end()
    return [*parts, nodes.Text(text[start:])]


def is_fixed(node: nodes.Node) -> bool:
    """Whether a text stands in code, in a formula, in a title, or in a link already."""
    while node is not None:
        if isinstance(node, UNCHANGED):
            return True
        node = node.parent
    return False


class LinkPapers(SphinxPostTransform):
    """After all citations are resolved."""

    default_priority = 900

    def run(self, **_: object) -> None:
        for text in list(self.document.findall(nodes.Text)):
            if PAPER.search(text) and not is_fixed(text):
                text.parent.replace(text, linked(text))


def setup(app: Sphinx) -> None:
    app.add_post_transform(LinkPapers)
