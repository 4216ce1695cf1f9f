"""The book's own Sphinx extension: what a page of segedu needs beyond Markdown, for Sphinx and Jupyter Book 1 alike.

- `address`: the repository's address, once, from pyproject.toml; the theme's buttons and the `{lab}` directive.
- `kernels`: how page code runs: static widgets, `segedu` importable, a cache that knows the library's sources.
- `figures`: alt text of displayed pictures, a frame in which wide ones scroll, and folded code below its figure.
- `pictures`: their size, lighter copies, and loading when a reader comes near.
- `numbers`: numbers of figures and equations within chapters.
- `methods`: the `{methods}` table, read from the headers of the method files.
- `measured`: tables of other proofs, such as those of the grader.
- `results`: the `{results}` tables, read from the proofs of the training recipes.
- `real_data`: the `{real-data}` tables of blood cells, pedestrians and hippocampi, read from the same proofs.
- `sources`: every quoted file as a page of the site, linked from each quotation.
- `maths`: formulas, typeset while the book is built (with a package from `npm`), or by MathJax in the page.
- `presentation`: accessible names, `icons` without Font Awesome, and fewer scripts in finished pages.
- `metadata`: descriptions, links to edit a page, version, sitemap and 404 page.
- `paper`: the whole book as an EPUB, and as one page that is printed into a PDF.
- `lint`: what a finished page must keep; a complaint is a warning, and the build fails on warnings.
  `weight` measures pages and pictures for it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx.application import Sphinx

sys.path.append(str(Path(__file__).resolve().parents[2]))  # Jupyter Book 1 runs where segedu is not installed
from segedu_site import (
    address,
    figures,
    icons,
    kernels,
    lint,
    maths,
    measured,
    metadata,
    methods,
    numbers,
    paper,
    pictures,
    presentation,
    real_data,
    results,
    sources,
)


def setup(app: Sphinx) -> dict:
    for part in (kernels, address, figures, pictures, numbers, maths, measured, methods, results, real_data, sources):
        part.setup(app)
    for part in (presentation, icons, metadata, paper, lint):
        part.setup(app)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
