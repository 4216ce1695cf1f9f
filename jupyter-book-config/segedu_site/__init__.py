"""The book's own Sphinx extension: what a page of segedu needs beyond Markdown, for Sphinx and Jupyter Book 1 alike.

- `address`: the repository's address, once, from pyproject.toml; the theme's buttons and the `{lab}` directive.
- `kernels`: how page code runs: static widgets, `segedu` importable, a cache that knows the library's sources.
- `figures`: alt text of displayed pictures, a frame in which wide ones scroll, and folded code below its figure.
- `numbers`: numbers of figures and equations within chapters.
- `methods`: the `{methods}` table, read from the headers of the method files.
- `measured`: tables of other proofs, such as those of the grader.
- `results`: the `{results}` tables, read from the proofs of the training recipes.
- `real_data`: the `{real-data}` tables of blood cells, pedestrians and hippocampi, read from the same proofs.
- `explorers`: live explorers, `{explorer}`.
- `states`: explorers whose pictures are computed in the build, `{states}`.
- `sources`: every quoted file as a page of the site, linked from each quotation.
- `maths`: MathJax served by the site itself.
- `lint`: what a finished page must keep; a complaint is a warning, and the build fails on warnings.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx.application import Sphinx

sys.path.append(str(Path(__file__).resolve().parents[2]))  # Jupyter Book 1 runs where segedu is not installed
from segedu_site import (
    address,
    explorers,
    figures,
    kernels,
    lint,
    maths,
    measured,
    methods,
    numbers,
    real_data,
    results,
    sources,
    states,
)

PARTS = (
    kernels,
    address,
    figures,
    numbers,
    maths,
    measured,
    methods,
    results,
    real_data,
    sources,
    explorers,
    states,
    lint,
)


def setup(app: Sphinx) -> dict:
    for part in PARTS:
        part.setup(app)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
