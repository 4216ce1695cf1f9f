"""What a page says about itself: description, preview for links, address, version; and the site's map and 404 page.

The site's own address is `html_baseurl` (`baseurl` in _config.yml). Without one there are no canonical addresses, no
preview picture and no sitemap, since all of these need absolute addresses.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urljoin
from xml.sax.saxutils import escape

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

from segedu import __version__
from segedu_site.address import branch_of, repository

LONGEST = 160  # characters of a description; search engines show no more
PICTURE = re.compile(r"_images/[\w.-]+\.(?:png|webp)")
NOT_IN_SITEMAP = {"404", "search", "genindex"}
RELATIVE = re.compile(r'(\s(?:href|src)=")(?![a-z]+:|#|/)([^"]*)"')


def configure(app: Sphinx, config: Config) -> None:
    config.release = config.version = __version__
    config.html_last_updated_fmt = "%Y-%m-%d"
    footer = config.html_theme_options.get("extra_footer", "")
    config.html_theme_options = {**config.html_theme_options, "extra_footer": f"<p>Version {__version__}</p>{footer}"}


def description(doctree: nodes.document) -> str:
    """Return the first paragraph of a page that is text, cut after a word; empty if there is none."""
    for paragraph in doctree.findall(nodes.paragraph):
        if not isinstance(paragraph.parent, nodes.section) or "lab-buttons" in paragraph["classes"]:
            continue
        text = " ".join(paragraph.astext().split())
        if len(text) < 30:
            continue
        return text if len(text) <= LONGEST else text[: LONGEST - 2].rsplit(" ", 1)[0].rstrip(",;:") + " …"
    return ""


def add_metatags(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document | None) -> None:
    """Add description and preview to the head of a page."""
    title = html.unescape(re.sub("<[^>]*>", "", context.get("title", ""))) or app.config.html_title
    properties = {"og:title": title, "og:type": "article", "og:site_name": app.config.html_title}
    tags = []
    if doctree is not None and (text := description(doctree)):
        tags.append(f'<meta name="description" content="{html.escape(text)}"/>')
        properties["og:description"] = text
    if base := app.config.html_baseurl:
        properties["og:url"] = urljoin(base, app.builder.get_target_uri(pagename))
        if first := PICTURE.search(context.get("body", "")):
            properties["og:image"] = urljoin(base, first[0])
    tags += [f'<meta property="{name}" content="{html.escape(value)}"/>' for name, value in properties.items()]
    context["metatags"] = context.get("metatags", "") + "\n".join(tags) + "\n"


def source_of(app: Sphinx, pagename: str) -> str:
    """Return the file that a reader edits to change a page, relative to the repository.

    The notebooks in labs/ and solutions/ are generated from `solutions/NAME.py`.
    """
    folder, _, name = pagename.partition("/")
    if folder in ("labs", "solutions"):
        return f"solutions/{name}.py"
    return Path(app.env.doc2path(pagename)).relative_to(app.srcdir).as_posix()


def add_links(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document | None) -> None:
    """Add links to edit a page and to report an issue at its end."""
    if doctree is None or app.builder.name != "html":
        return
    source = source_of(app, pagename)
    edit = f"{repository()}/edit/{branch_of(app.config)}/{source}"
    report = f"{repository()}/issues/new?title={quote('Page ' + pagename)}&body={quote('File: ' + source)}"
    context["body"] += (
        f'<p class="page-links"><a href="{edit}">Edit this page</a> <a href="{html.escape(report)}">Report an issue</a>'
        "</p>\n"
    )


def missing_page(app: Sphinx) -> Iterator[tuple[str, dict, str]]:
    """The page that a server shows in place of one that does not exist."""
    if app.builder.name != "html":
        return
    links = [("course/index", "Start of the course"), ("search", "Search"), ("genindex", "Index")]
    items = "".join(f'<li><a href="{app.builder.get_target_uri(name)}">{text}</a></li>' for name, text in links)
    body = (
        f"<h1>Page not found</h1>\n<p>The site has no page at this address. Perhaps it was renamed.</p><ul>{items}</ul>"
    )
    yield "404", {"title": "Page not found", "body": body}, "page.html"


def absolute_links(page: str, base: str) -> str:
    """Make the relative links of a page absolute: a server shows the 404 page at addresses of any depth."""
    return RELATIVE.sub(lambda found: f'{found[1]}{urljoin(base, html.unescape(found[2]))}"', page)


def write_sitemap(app: Sphinx, exception: Exception | None) -> None:
    """Write sitemap.xml, and make the links of the 404 page absolute, if the site's address is known."""
    base = app.config.html_baseurl
    if exception is not None or app.builder.name != "html" or not base:
        return
    site = Path(app.outdir)
    lost = site / "404.html"
    lost.write_text(absolute_links(lost.read_text(encoding="utf-8"), base), encoding="utf-8")
    pages = sorted(
        path.relative_to(site) for path in site.rglob("*.html") if path.relative_to(site).parts[0] != "_static"
    )
    found = [page.as_posix() for page in pages if page.stem not in NOT_IN_SITEMAP]
    entries = "".join(f"<url><loc>{escape(urljoin(base, quote(page)))}</loc></url>\n" for page in found)
    (site / "sitemap.xml").write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{entries}</urlset>\n',
        encoding="utf-8",
    )


def setup(app: Sphinx) -> None:
    app.connect("config-inited", configure)
    app.connect("html-page-context", add_metatags, priority=400)
    app.connect("html-page-context", add_links)
    app.connect("html-collect-pages", missing_page)
    app.connect("build-finished", write_sitemap)
