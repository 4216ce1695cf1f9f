"""Networks that run in the reader's browser: the `{network}` directive, and the scripts of the pages that have it.

    ```{network} sam
    :name: fig-sam-in-the-page

    A caption about the figure, which readers without JavaScript see.
    ```

The networks are `sam`, `unet` and `mask2former`. A network becomes ONNX files (`segedu export`), which onnxruntime-web
runs. Both are large, so a page loads them only when the reader starts the demonstration, or scrolls to it (not with
`:on-touch:`). A page that is opened from a folder may load scripts and nothing else; so every file is a script that
holds base64 text of gzipped data. Without the runtime, the page keeps the figure and says why.
"""

from __future__ import annotations

import html
import json
import os
from pathlib import Path
from typing import NamedTuple

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.writers.html5 import HTML5Translator

from segedu_site import onnxruntime_web
from segedu_site.demonstration import FIGURE_WIDTH
from segedu_site.mask2former_demonstration import MASK2FORMER
from segedu_site.onnxruntime_web import Unavailable
from segedu_site.sam_demonstration import SAM
from segedu_site.unet_demonstration import UNET

logger = logging.getLogger(__name__)
SCRIPTS = ("networks.js", "networks-image.js", "networks-paint.js", "networks-stage.js")
DEMONSTRATIONS = {"sam": SAM, "unet": UNET, "mask2former": MASK2FORMER}


class network(nodes.General, nodes.Element):  # Sphinx finds its visitor by this name
    """The element that `networks.js` turns into the demonstration; its only child is the figure."""


class Made(NamedTuple):
    """The files of a demonstration that exist in the build folder, or the reason why they do not."""

    figure: str  # path below the source folder; empty if it was not drawn
    alt: str
    version: str
    megabytes: float
    reason: str


class Files:
    """The files of one demonstration in `_build/networks`, made on first use and kept for later builds.

    Args:
        name: a key of `DEMONSTRATIONS`.
        build: the folder `_build`.
    """

    def __init__(self, name: str, build: Path) -> None:
        self.name, self.demonstration = name, DEMONSTRATIONS[name]
        self.folder = build / "networks"

    def scripts(self, version: str) -> dict[str, Path]:
        """Name of a data script on the page -> its file."""
        runtime = f"{onnxruntime_web.NAME}-{onnxruntime_web.VERSION}"
        weights = f"{self.demonstration.weights}-{self.demonstration.network_version()}"
        return {
            onnxruntime_web.NAME: self.folder / f"{runtime}.js",
            f"{self.name}-pictures": self.folder / f"{self.name}-pictures-{version}.js",
            self.demonstration.weights: self.folder / f"{weights}.js",
        }

    def make(self) -> Made:
        """Make what does not exist yet. Says in one line why a part could not be made."""
        self.folder.mkdir(parents=True, exist_ok=True)
        figure, alt, version, megabytes, reason = "", "", "", 0.0, ""
        try:
            version = self.demonstration.version()
            figure, alt = self._figure(version)
            megabytes = self._write_scripts(version)
        except ImportError as error:
            reason = f"the Python package {error.name or error} is not installed where the book was built"
        except Unavailable as error:
            reason = str(error)
        if reason:
            logger.info("segedu_site: the network %r does not run in its pages, because %s", self.name, reason)
        return Made(figure, alt, version, megabytes, reason)

    def _figure(self, version: str) -> tuple[str, str]:
        picture = self.folder / f"{self.name}-{version}.jpg"
        text = picture.with_suffix(".txt")
        if not text.is_file():
            onnxruntime_web.write(text, self.demonstration.draw_figure(picture))
        return str(picture), text.read_text()

    def _write_scripts(self, version: str) -> float:
        """Write the data scripts that do not exist; returns the size of all in megabytes."""
        scripts = self.scripts(version)
        runtime, pictures, weights = scripts
        onnxruntime_web.write_runtime(scripts[runtime])
        makers = {
            pictures: self.demonstration.contents_of_pictures,
            weights: lambda: self.demonstration.contents_of_network(self.folder),
        }
        for name, maker in makers.items():
            if not scripts[name].is_file():
                onnxruntime_web.write(scripts[name], onnxruntime_web.script(name, maker()))
        return sum(path.stat().st_size for path in scripts.values()) / 1e6


def files_of(app: Sphinx, name: str) -> Files:
    return Files(name, Path(app.outdir).parent)


def made(app: Sphinx, name: str) -> Made:
    """The files of a demonstration, made once per build."""
    store = app.segedu_networks = getattr(app, "segedu_networks", {})
    if name not in store:
        store[name] = files_of(app, name).make()
    return store[name]


class Network(SphinxDirective):
    """`{network} NAME`: a demonstration, with a figure for readers without JavaScript, whose caption is the body."""

    required_arguments = 1
    has_content = True
    option_spec = {"name": directives.unchanged, "on-touch": directives.flag}

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name not in DEMONSTRATIONS:
            raise self.error(f"network is {name!r}, expected one of {', '.join(DEMONSTRATIONS)}")
        files = made(self.env.app, name)
        uses = self.env.segedu_networks = getattr(self.env, "segedu_networks", {})
        uses.setdefault(self.env.docname, {})[name] = (files.version, files.reason)
        mount = network("", demonstration=name, made=files, on_touch="on-touch" in self.options)
        mount += self._figure(files)
        return [mount]

    def _figure(self, files: Made) -> nodes.figure:
        figure = nodes.figure("", align="default")
        if files.figure:
            path = Path(os.path.relpath(files.figure, self.env.srcdir)).as_posix()
            figure += nodes.image(uri=f"/{path}", alt=files.alt, width=f"{FIGURE_WIDTH}px")
        caption = nodes.caption()
        text, messages = self.parse_inline("\n".join(self.content))
        caption += text
        figure += caption
        self.add_name(figure)
        self.set_source_info(figure)
        return figure


def visit_network(writer: HTML5Translator, node: network) -> None:
    files: Made = node["made"]
    demonstration = DEMONSTRATIONS[node["demonstration"]]
    settings = {"name": node["demonstration"], "weights": demonstration.weights, "version": files.version}
    settings |= {"megabytes": round(files.megabytes, 1), "onTouch": node["on_touch"]}
    settings |= {"runtimeVersion": onnxruntime_web.VERSION}
    writer.body.append(f'<div class="network" data-settings="{html.escape(json.dumps(settings))}">\n')
    summary = demonstration.summary
    if files.reason:
        summary = f"On this copy of the site, the network does not run in the page, because {files.reason}."
    writer.body.append(f'<p class="network-summary">{html.escape(summary)}</p>\n')


def depart_network(writer: HTML5Translator, node: network) -> None:
    writer.body.append("</div>\n")


def pass_over(writer: nodes.NodeVisitor, node: network) -> None:
    """In a printed book, only the figure remains."""


def add_scripts(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document | None) -> None:
    """Only the pages that have a network load the scripts, and only if the network can run."""
    uses = getattr(app.env, "segedu_networks", {}).get(pagename, {})
    if uses and doctree is not None:
        app.add_css_file("networks.css")
    running = [name for name, (_, reason) in uses.items() if not reason]
    if not running or doctree is None:
        return
    of_demonstrations = [script for name in running for script in DEMONSTRATIONS[name].scripts]
    for script in dict.fromkeys([*SCRIPTS, *of_demonstrations]):
        app.add_js_file(script, loading_method="defer")


def outdated(app: Sphinx, env: BuildEnvironment, added: set, changed: set, removed: set) -> list[str]:
    """Pages whose network has changed since they were read, or which can run it only now."""
    uses = getattr(env, "segedu_networks", {})
    return [
        docname
        for docname, networks in uses.items()
        if docname not in removed and any(_has_changed(app, name, used) for name, used in networks.items())
    ]


def _has_changed(app: Sphinx, name: str, used: tuple[str, str]) -> bool:
    if name not in DEMONSTRATIONS:
        return True
    files = made(app, name)
    return used != (files.version, files.reason)


def forget(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    getattr(env, "segedu_networks", {}).pop(docname, None)


def copy_scripts(app: Sphinx, exception: Exception | None) -> None:
    """Put the data scripts of all demonstrations that pages have into the site."""
    if exception is not None or app.builder.format != "html":
        return
    folder = Path(app.outdir) / "_static" / "networks"
    names = {name for uses in getattr(app.env, "segedu_networks", {}).values() for name in uses}
    for name in sorted(names):
        files = made(app, name)
        for script, path in files_of(app, name).scripts(files.version).items() if not files.reason else ():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{script}.js").write_bytes(path.read_bytes())


def setup(app: Sphinx) -> None:
    kept = (pass_over, pass_over)
    app.add_node(network, html=(visit_network, depart_network), latex=kept, text=kept, man=kept, texinfo=kept)
    app.add_directive("network", Network)
    app.connect("env-get-outdated", outdated)
    app.connect("env-purge-doc", forget)
    app.connect("html-page-context", add_scripts)
    app.connect("build-finished", copy_scripts, priority=400)  # before the pages are checked
