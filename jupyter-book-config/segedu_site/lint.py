"""What every finished page keeps. Runs at the end of each build; a complaint is a warning and fails `make book`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.application import Sphinx
from sphinx.util import logging

from segedu_site import weight

logger = logging.getLogger(__name__)

SHORTEST_ALT = 10
WRITTEN_FROM = ("course/", "labs/", "solutions/")  # folders of sources; each of their files is a page
LOADED = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "dns-prefetch", "modulepreload", "manifest"}
EMPTY_WORDS = {"here", "click here", "link", "this", "this link", "this page"}


class Page(HTMLParser):
    """Collects from one HTML page what the rules look at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[tuple[str, str]] = []  # (href, text)
        self.images: list[tuple[str, str | None]] = []  # (src, alt)
        self.loads: list[str] = []
        self.headings: list[int] = []  # levels, in the article
        self.tables: list[bool] = []  # has a header cell
        self.alignments: list[str] = []  # of the columns of formulas
        self.raw_rows: list[str] = []  # paragraphs that begin as a row of a Markdown table
        self.errors = 0
        self._article = 0
        self._link: str | None = None
        self._words = ""
        self._paragraph_begins = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids.update(filter(None, (values.get("id"), values.get("name") if tag == "a" else None)))
        if tag == "article":
            self._article += 1
        elif tag == "a" and "href" in values:
            self._link, self._words = values["href"], ""
        elif tag == "img":
            self.images.append((values.get("src", ""), values.get("alt")))
            self._words += values.get("alt", "")
        elif tag == "table":
            self.tables.append(False)
        elif tag == "th" and self.tables:
            self.tables[-1] = True
        elif re.fullmatch("h[1-6]", tag) and self._article:
            self.headings.append(int(tag[1]))
        if tag == "link" and LOADED & set(values.get("rel", "").split()):
            self.loads.append(values.get("href", ""))
        elif tag in {"script", "img", "iframe", "source", "video", "audio", "embed"} and "src" in values:
            self.loads.append(values["src"])
        if tag == "mtable" and "align" in values:
            self.alignments.append(values["align"])
        self._paragraph_begins = tag == "p"
        self.errors += "traceback" in values.get("class", "").split()

    def handle_endtag(self, tag: str) -> None:
        if tag == "article":
            self._article -= 1
        elif tag == "a" and self._link is not None:
            self.links.append((self._link, " ".join(self._words.split())))
            self._link = None

    def handle_data(self, data: str) -> None:
        if self._paragraph_begins and data.lstrip().startswith("| "):
            self.raw_rows.append(" ".join(data.split())[:60])
        self._paragraph_begins = False
        if self._link is not None:
            self._words += data


@cache
def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def broken_links(page: Page, path: Path, site: Path) -> Iterator[str]:
    """Links within the site whose file or anchor does not exist."""
    for href, text in page.links:
        parts = urlsplit(href)
        if parts.scheme or parts.netloc or not (parts.path or parts.fragment):
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if target.is_dir():
            target /= "index.html"
        if not target.is_file() or not target.is_relative_to(site):
            yield f"link {text!r} leads to {href}, which is not in the site"
        elif parts.fragment and target.suffix == ".html":
            if unquote(parts.fragment) not in read(target).ids:
                yield f"link {text!r} leads to {href}, but that page has no such anchor"


def poor_images(page: Page) -> Iterator[str]:
    """Images whose alt text is missing, short, or the file's name."""
    for source, alt in page.images:
        if not alt or len(alt.strip()) < SHORTEST_ALT or Path(urlsplit(source).path).name in alt:
            yield f"image {source} has no alt text that says what is seen (alt={alt!r})"


def outside_loads(page: Page) -> Iterator[str]:
    """Anything that a browser fetches from elsewhere while it opens the page."""
    for address in page.loads:
        if urlsplit(address).netloc:
            yield f"the page loads {address}: the site must serve it itself"


def poor_structure(page: Page) -> Iterator[str]:
    """Headings, tables, formulas, words of links, and cells that ended in an error."""
    if page.headings.count(1) != 1:
        yield f"{page.headings.count(1)} headings of the first level instead of 1"
    for above, below in zip(page.headings, page.headings[1:], strict=False):
        if below > above + 1:
            yield f"a heading of level {below} follows one of level {above}"
    if not all(page.tables):
        yield "a table without header cells"
    for row in page.raw_rows:
        yield f"the table row {row!r} is a paragraph: its table was not recognised"
    for option in page.alignments:
        if re.fullmatch(r"(axis|baseline|bottom|center|top)( -?\d+)?", option) is None:
            yield f"a formula has lost {option!r}: after \\begin{{aligned}}, [ is read as an option, so write {{}}["
    for href, text in page.links:
        if text.casefold().strip(" .") in EMPTY_WORDS:
            yield f"the link to {href} says only {text!r}"
    if page.errors:
        yield f"{page.errors} code cells ended in an error"


def complaints(path: Path, site: Path) -> Iterator[str]:
    """Every rule on one page."""
    page = read(path)
    yield from broken_links(page, path, site)
    yield from poor_images(page)
    yield from outside_loads(page)
    yield from weight.heavy(path)
    yield from weight.poor_pictures(path)
    if "article" in path.read_text(encoding="utf-8") and path.name not in {"search.html", "genindex.html"}:
        yield from poor_structure(page)


def pages(site: Path) -> list[Path]:
    return sorted(path for path in site.rglob("*.html") if "_static" not in path.relative_to(site).parts)


def unexecuted(app: Sphinx) -> Iterator[tuple[str, str]]:
    """Pages of the course with code cells that did not run to their end in this build or in its cache."""
    for docname in sorted(app.env.found_docs):
        ran = app.env.nb_metadata.get(docname, {}).get("exec_data") if docname.startswith("course/") else None
        if ran and not ran["succeeded"]:
            yield docname, "its code cells did not run to their end"


def delete_removed_pages(app: Sphinx, site: Path) -> None:
    """Delete what an earlier build left of pages whose source no longer exists."""
    for path in pages(site):
        name = path.relative_to(site).with_suffix("").as_posix()
        if name.startswith(WRITTEN_FROM) and name not in app.env.found_docs:
            path.unlink()


def check(app: Sphinx, exception: Exception | None) -> None:
    if exception is not None or app.builder.name != "html":
        return
    read.cache_clear()
    site = Path(app.outdir).resolve()
    delete_removed_pages(app, site)
    for docname, complaint in unexecuted(app):
        logger.warning("%s", complaint, location=docname, type="segedu", subtype="lint")
    found = pages(site)
    for path in found:
        for complaint in complaints(path, site):
            where = path.relative_to(site).as_posix()
            logger.warning("%s: %s", where, complaint, type="segedu", subtype="lint")
    logger.info("segedu_site: %d pages checked", len(found))


def setup(app: Sphinx) -> None:
    app.connect("build-finished", check)
