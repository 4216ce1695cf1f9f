"""The book's own Sphinx extension: what a page of segedu needs beyond Markdown, for Sphinx and Jupyter Book 1 alike.

- `kernels`: how page code runs: static widgets, `segedu` importable, a cache that knows the library's sources.
- `address`: the repository's address, once, from pyproject.toml; the theme's buttons and the `{lab}` directive.
- `figures`: alt text of displayed pictures, a frame in which wide ones scroll, and folded code below its figure.
- `pictures`: their size, lighter copies, and loading when a reader comes near.
- `numbers`: numbers of figures and equations within chapters.
- `maths`: MathJax served by the site itself.
- `measured`: tables of other proofs, such as those of the grader.
- `methods`: the `{methods}` table, read from the headers of the method files.
- `results`: the `{results}` tables, read from the proofs of the training recipes.
- `real_data`: the `{real-data}` tables of blood cells, pedestrians and hippocampi, read from the same proofs.
- `sources`: every quoted file as a page of the site, linked from each quotation.
- `explorers`: live explorers, `{explorer}`.
- `states`: explorers whose pictures are computed in the build, `{states}`.
- `networks`: networks that run in the reader's browser: the `{network}` directive.
- `claims`: measured numbers in large type, and the table of all claims.
- `lab_pages`: what the cells of labs and solutions display.
- `lookups`: tables with a filter, and the page of wrong answers in parts.
- `quizzes`: quizzes that can be answered and are marked.
- `search`: compounds as one word, titles first, no code.
- `presentation`: accessible names, `icons` without Font Awesome, and fewer scripts in finished pages.
- `metadata`: descriptions, links to edit a page, version, sitemap and 404 page.
- `links_to_papers`: numbers of arXiv and DOIs as links.
- `paper`: the whole book as an EPUB, and as one page that is printed into a PDF.
- `lint`: what a finished page must keep; a complaint is a warning, and the build fails on warnings.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx.application import Sphinx

sys.path.append(str(Path(__file__).resolve().parents[2]))  # Jupyter Book 1 runs where segedu is not installed
from segedu_site import (
    address,
    chapter_map,
    claims,
    explorers,
    figures,
    icons,
    kernels,
    lab_pages,
    landing,
    links_to_papers,
    lint,
    lookups,
    maths,
    measured,
    metadata,
    methods,
    networks,
    numbers,
    paper,
    pictures,
    presentation,
    quizzes,
    real_data,
    results,
    search,
    sources,
    states,
)

PARTS = (
    kernels,
    address,
    figures,
    pictures,
    numbers,
    maths,
    measured,
    methods,
    results,
    real_data,
    sources,
    explorers,
    states,
    networks,
    chapter_map,
    landing,
    claims,
    lab_pages,
    lookups,
    quizzes,
    search,
    presentation,
    icons,
    metadata,
    links_to_papers,
    paper,
    lint,
)


def setup(app: Sphinx) -> dict:
    for part in PARTS:
        part.setup(app)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
