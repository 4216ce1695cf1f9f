"""What the search of the site finds, and in which order.

- A compound is found as one word and as its parts: "unet", "u-net" and "net" find the U-Net.
- Code is not searched, nor are the solutions, whose text is that of the labs.
- Titles come first: a page whose title is the query, then titles that contain it, then other pages
  (`search-scorer.js`).
"""

from __future__ import annotations

import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.search.en import SearchEnglish

SCORER = Path(__file__).resolve().parents[1] / "static" / "search-scorer.js"


class CompoundWords(SearchEnglish):
    """English, in which a compound with hyphens is also one word. A query is split in `search-scorer.js`."""

    def split(self, input: str) -> list[str]:  # Sphinx's name
        """Words of a text.

        >>> CompoundWords({}).split("a U-Net")
        ['a', 'U', 'Net', 'UNet']
        """
        compounds = re.findall(r"\w+(?:-\w+)+", input)
        return [*super().split(input), *(compound.replace("-", "") for compound in compounds)]


def leave_out_code(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Keep blocks of code, and text that a cell prints, out of the index."""
    for block in doctree.findall(nodes.literal_block):
        block["classes"].append("no-search")


def leave_out_solutions(app: Sphinx, doctree: nodes.document) -> None:
    if app.env.docname.startswith("solutions/"):
        app.env.metadata[app.env.docname]["nosearch"] = True


def configure(app: Sphinx, config: Config) -> None:
    config.html_search_scorer = str(SCORER)


def setup(app: Sphinx) -> None:
    app.add_search_language(CompoundWords)
    app.connect("config-inited", configure)
    app.connect("doctree-read", leave_out_solutions)
    app.connect("doctree-resolved", leave_out_code)
