"""Lab and solution pages show what their cells display, although the notebooks in git hold no figures.

A build runs each solution notebook once, and keeps the outputs below `_build` until the library or the notebook
changes: about six CPU-minutes for all labs. The page of a solution shows all of them. The page of a lab shows what a
student meets: a notebook whose missing functions are the library's. Its cells that draw and train give the same outputs
as in the solution, because a solution passes its checks; the cells that check a student's function show an empty slot.

`SEGEDU_LAB_OUTPUTS=0 make book` leaves the outputs out, and so does a build that runs no code.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import nbformat
from docutils import nodes
from nbclient import NotebookClient
from sphinx.application import Sphinx
from sphinx.util import logging

from segedu_site.kernels import hash_for_lab

logger = logging.getLogger(__name__)
LAB = re.compile(r"(?P<folder>labs|solutions)/(?P<name>\d\d_\w+)")
SLOT = '<div class="own-result">Your result appears here after you have run this cell in your notebook.</div>'
LENT = (
    '<div class="lent-result">Computed with the library\'s {}. In your notebook, your own function is used as soon as '
    "it passes its check.</div>"
)
ABOUT_LAB = (
    "The outputs on this page were computed on a CPU, with the library's functions in place of the functions that you "
    "will write. The dashed boxes are for your own results."
)
ABOUT_SOLUTION = "The outputs on this page were computed on a CPU, with the functions on this page."
WIDGET = "application/vnd.jupyter.widget-view+json"


def execute(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Run a notebook from top to bottom, in a folder, and keep its outputs in it.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell fails.
    """
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute(env={**os.environ, "SEGEDU_WIDGETS": "static", "SEGEDU_CHECK": "print"})


def shown(output: dict) -> bool:
    """Whether a page shows an output: no progress bars, and no widgets, which need a kernel."""
    return output.get("name") != "stderr" and WIDGET not in output.get("data", {})


def outputs_of(solution: Path, cache: Path, state: str, run: bool) -> dict[str, list]:
    """The outputs of each code cell of a solution, by the cell's name; empty if they are not known and `run` is False.

    Args:
        solution: the notebook.
        cache: the folder that keeps outputs from build to build.
        state: of the library; another state has other outputs.
        run: whether the notebook may be run.
    """
    notebook = nbformat.read(solution, as_version=4)
    text = "\0".join([state, *(cell.source for cell in notebook.cells)])
    path = cache / f"{solution.stem}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    if not path.is_file():
        if not run:
            return {}
        logger.info("running %s for its outputs", solution.name)
        execute(notebook, solution.parent.parent / "labs")
        found = {
            cell.metadata["segedu"]["name"]: [output for output in cell.outputs if shown(output)]
            for cell in notebook.cells
            if cell.cell_type == "code"
        }
        cache.mkdir(parents=True, exist_ok=True)
        for old in cache.glob(f"{solution.stem}-*.json"):
            old.unlink()
        path.write_text(json.dumps(found))
    return json.loads(path.read_text())


def html_output(text: str) -> dict:
    return {"output_type": "display_data", "data": {"text/html": text, "text/plain": ""}, "metadata": {}}


def fill(notebook: dict, outputs: dict[str, list], is_lab: bool) -> None:
    """Put the outputs into the cells of a notebook, or in a lab an empty slot below each check.

    Args:
        notebook: of a lab or of its solution, as JSON; changed in place.
        outputs: by the name of the cell.
        is_lab: whether the notebook is the student's.
    """
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        about, source = cell["metadata"]["segedu"], "".join(cell["source"])
        found = outputs.get(about["name"], [])
        if is_lab and about["role"] == "check":
            found = [html_output(SLOT)]
        elif is_lab and found and (names := re.findall(r"\buse\((\w+)\)", source)):
            code = [f"<code>{name}</code>" for name in dict.fromkeys(names)]
            found = [html_output(LENT.format(" and ".join(code))), *found]
        cell["outputs"] = found


def fill_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Before Sphinx reads a notebook, put in the outputs."""
    lab = LAB.fullmatch(docname)
    solution = Path(app.srcdir) / "solutions" / f"{lab['name']}.ipynb" if lab else None
    if solution is None or not solution.is_file() or os.environ.get("SEGEDU_LAB_OUTPUTS") == "0":
        return
    cache = Path(app.outdir).parent / ".lab_outputs"
    runs = app.config.nb_execution_mode != "off"
    outputs = outputs_of(solution, cache, hash_for_lab(lab["name"]), runs)
    if outputs:
        notebook = json.loads(source[0])
        fill(notebook, outputs, lab["folder"] == "labs")
        source[0] = json.dumps(notebook)
        app.env.note_dependency(str(solution))
        app.env.metadata[docname]["lab_outputs"] = True


def explain(app: Sphinx, doctree: nodes.document) -> None:
    """Say below the title where the outputs come from."""
    lab = LAB.fullmatch(app.env.docname)
    title = next(iter(doctree.findall(nodes.title)), None)
    if lab and title is not None and app.env.metadata[app.env.docname].get("lab_outputs"):
        text = ABOUT_LAB if lab["folder"] == "labs" else ABOUT_SOLUTION
        title.parent.insert(title.parent.index(title) + 1, nodes.paragraph("", text, classes=["about-outputs"]))


def setup(app: Sphinx) -> None:
    app.connect("source-read", fill_page)
    app.connect("doctree-read", explain, priority=90)  # before the row of buttons, which comes above it
    app.add_css_file("lab_pages.css")
