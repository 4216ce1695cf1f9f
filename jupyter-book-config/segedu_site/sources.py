"""Files of the library as pages of the site: a quotation leads to the whole file, without internet.

`{literalinclude}` gets a line "Source: ..." under the quoted code, and {segedu}`segedu/semantic/unet.py` is a link.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.directives.code import LiteralInclude
from sphinx.util.docutils import SphinxRole

ROOT = Path(__file__).resolve().parents[2]


class source_link(nodes.Inline, nodes.TextElement):
    """Becomes a link to the page of a file, once the page that holds it is written."""


def note_source(env, path: str) -> None:
    if not (ROOT / path).is_file():
        raise ValueError(f"no file {path} in the repository, quoted by {env.docname}")
    if not hasattr(env, "segedu_quoted"):
        env.segedu_quoted = {}
    env.segedu_quoted.setdefault(env.docname, set()).add(path)


class Quotation(LiteralInclude):
    """Sphinx's literalinclude, with a link to the quoted file under code of the library."""

    def run(self) -> list[nodes.Node]:
        found = super().run()
        path = Path(self.env.relfn2path(self.arguments[0])[1]).resolve()
        if not path.is_relative_to(ROOT / "segedu"):
            return found
        name = path.relative_to(ROOT).as_posix()
        note_source(self.env, name)
        link = source_link("", name, path=name, anchor=self.options.get("pyobject", ""))
        return [*found, nodes.paragraph("", "Source: ", link, classes=["quoted-from"])]


class Source(SphinxRole):
    """{segedu}`segedu/semantic/unet.py`, or with `#UNet` after it."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        path, _, anchor = self.text.partition("#")
        note_source(self.env, path)
        return [source_link("", self.text.replace("#", ": "), path=path, anchor=anchor)], []


def resolve(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    for link in list(doctree.findall(source_link)):
        literal = nodes.literal("", link.astext())
        if app.builder.name == "html":
            uri = app.builder.get_relative_uri(docname, f"source/{link['path'].removesuffix('.py')}")
            anchor = f"#{link['anchor']}" if link["anchor"] else ""
            link.replace_self(nodes.reference("", "", literal, refuri=uri + anchor, internal=True))
        else:
            link.replace_self(literal)


def anchors(source: str) -> Iterator[tuple[int, str]]:
    """Line (from 0) and name of each function, class and method.

    >>> list(anchors("x = 1\\nclass A:\\n    def f(self): ..."))
    [(1, 'A'), (2, 'A.f')]
    """
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.lineno - 1, node.name
            for inner in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(inner, ast.FunctionDef):
                    yield inner.lineno - 1, f"{node.name}.{inner.name}"


def pages(app: Sphinx) -> Iterator[tuple[str, dict, str]]:
    """One page for each quoted file, on the site only."""
    if app.builder.name != "html":
        return
    for path in sorted(set().union(*getattr(app.env, "segedu_quoted", {}).values())):
        source = (ROOT / path).read_text(encoding="utf-8")
        block = app.builder.highlighter.highlight_block(source, "python", linenos=False)
        head, body = block.split("<pre>", 1)
        lines = body.split("\n")
        for line, name in anchors(source):
            lines[line] = f'<span id="{name}"></span>{lines[line]}'
        body = f'<h1 class="whole-file">{path}</h1>\n{head}<pre>' + "\n".join(lines)
        yield f"source/{path.removesuffix('.py')}", {"title": path, "body": body}, "page.html"


def forget(app: Sphinx, env, docname: str) -> None:
    getattr(env, "segedu_quoted", {}).pop(docname, None)


def setup(app: Sphinx) -> None:
    app.add_node(source_link)
    app.add_directive("literalinclude", Quotation, override=True)
    app.add_role("segedu", Source())
    app.connect("env-purge-doc", forget)
    app.connect("doctree-resolved", resolve)
    app.connect("html-collect-pages", pages)
