"""The repository's address, read from pyproject.toml, and what is made of it: theme buttons, `{lab}` and `{clone}`."""

from __future__ import annotations

import tomllib
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.docutils import SphinxDirective

from segedu.teaching.authoring.address import PLACEHOLDER

ROOT = Path(__file__).resolve().parents[2]
NO_ADDRESS = (
    "This copy of the course has no public address yet. Replace `ADDRESS` by the address of the Git repository, which "
    "you get from whoever teaches or publishes the course. If you have its folder already, leave out the first line."
)


def repository(pyproject: Path = ROOT / "pyproject.toml") -> str:
    """The address under [project.urls] Repository, without a slash at its end."""
    return tomllib.loads(pyproject.read_text())["project"]["urls"]["Repository"].rstrip("/")


def colab(path: str, branch: str) -> str:
    """Address at which Colab opens a notebook of the repository.

    >>> colab("labs/04_metrics.ipynb", "main").split("github/")[1].split("/", 2)[2]
    'blob/main/labs/04_metrics.ipynb'
    """
    owner_and_name = repository().split("github.com/", 1)[1]
    return f"https://colab.research.google.com/github/{owner_and_name}/blob/{branch}/{path}"


def configure(app: Sphinx, config: Config) -> None:
    config.html_theme_options = {**config.html_theme_options, "repository_url": repository()}


def branch_of(config: Config) -> str:
    return config.html_theme_options.get("repository_branch") or "main"


def button_row(lab: str, env, with_page: bool) -> nodes.paragraph:
    """Links to a lab: its page, Colab, the file itself, and its solution where the site holds it."""
    notebook = f"labs/{lab}.ipynb"
    links: list[nodes.Node] = []
    if with_page:
        links.append(page_link(f"labs/{lab}", "Read the lab", env.docname))
    links.append(nodes.reference("", "Open in Colab", refuri=colab(notebook, branch_of(env.config))))
    links.append(
        addnodes.download_reference(
            "", "", nodes.inline("", "Download the notebook"), reftarget=f"/{notebook}", refdoc=env.docname
        )
    )
    if env.config.segedu_solutions and f"solutions/{lab}" in env.found_docs:
        links.append(page_link(f"solutions/{lab}", "Solution", env.docname))
    row = nodes.paragraph("", classes=["lab-buttons"])
    for link in links:
        row += link
        row += nodes.Text(" ")
    return row


def page_link(target: str, text: str, docname: str) -> addnodes.pending_xref:
    return addnodes.pending_xref(
        "",
        nodes.inline("", text),
        refdomain="std",
        reftype="doc",
        reftarget=f"/{target}",
        refexplicit=True,
        refwarn=True,
        refdoc=docname,
    )


class Lab(SphinxDirective):
    """`{lab} 04_metrics`: the row of buttons of one lab."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        return [button_row(self.arguments[0], self.env, with_page=True)]


class Clone(SphinxDirective):
    """`{clone}`: its lines as a shell block, below the two that fetch the repository.

    While the copy has no address, the block has the word ADDRESS, and a sentence above it says what to write instead.
    """

    has_content = True

    def run(self) -> list[nodes.Node]:
        address, name = repository(), repository().rsplit("/", 1)[1]
        above: list[nodes.Node] = []
        if address == PLACEHOLDER:
            address = f"ADDRESS {name}"
            above, _ = self.parse_inline(NO_ADDRESS)
            above = [nodes.paragraph("", "", *above)]
        text = "\n".join([f"git clone {address}", f"cd {name}", *self.content])
        return [*above, nodes.literal_block(text, text, language="shell")]


def dress_notebook_pages(app: Sphinx, doctree: nodes.document) -> None:
    """Labs get the row under their title. Solutions are named so, and need no place in the table of contents."""
    folder, _, name = app.env.docname.partition("/")
    title = next(iter(doctree.findall(nodes.title)), None)
    if folder not in ("labs", "solutions") or title is None:
        return
    if folder == "labs":
        row = button_row(name, app.env, with_page=False)
    else:
        app.env.metadata[app.env.docname]["orphan"] = True
        title += nodes.Text(" (solution)")
        row = nodes.paragraph("", classes=["lab-buttons"])
        row += page_link(f"labs/{name}", "The lab without the solution", app.env.docname)
    title.parent.insert(title.parent.index(title) + 1, row)


def setup(app: Sphinx) -> None:
    app.connect("config-inited", configure)
    app.add_directive("lab", Lab)
    app.add_directive("clone", Clone)
    # Before Sphinx collects the files to download (priority 500).
    app.connect("doctree-read", dress_notebook_pages, priority=100)
