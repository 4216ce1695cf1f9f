"""Figures, tables and equations are numbered within the chapter whose number the page shows: Figure 5.3, equation 5.2.

The numbers of chapters stand in the titles, such as "5 FCN and SegNet" and "5.2 FCN-32s, 16s, 8s". Sphinx's own
chapter numbers come from numbered tables of contents, which would print a second number before each title. So Sphinx
counts as it always does, but takes the number of a chapter from its title. A page without a number, such as a lab,
belongs to the chapter above it in `_toc.yml`. Background pages and the appendix have a letter: B1, B2, A1.
"""

from __future__ import annotations

import re

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.environment.collectors.toctree import TocTreeCollector

_assign_figure_numbers = TocTreeCollector.assign_figure_numbers


def chapter(title: str) -> str | None:
    """The number of the chapter in a page's title; None for a title without a number.

    >>> [chapter(title) for title in ("5 FCN and SegNet", "5.2 FCN-32s", "B2 Attention", "Lab 5: FCN")]
    ['5', '5', 'B2', None]
    """
    found = re.match(r"([A-Z]?\d+)(\.\d+)?\s", title)
    return found[1] if found else None


def assign_figure_numbers(self: TocTreeCollector, env: BuildEnvironment) -> list[str]:
    """Sphinx's own numbering, with chapters from titles; no title or table of contents shows these numbers."""
    shown = env.toc_secnumbers
    titles = {docname: chapter(title.astext()) for docname, title in env.titles.items()}
    env.toc_secnumbers = {docname: {"": (number,)} for docname, number in titles.items() if number}
    try:
        return _assign_figure_numbers(self, env)
    finally:
        env.toc_secnumbers = shown


def setup(app: Sphinx) -> None:
    TocTreeCollector.assign_figure_numbers = assign_figure_numbers
