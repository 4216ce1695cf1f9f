"""What a finished page needs beyond the theme's templates: accessible names, small icons, fewer scripts, a footer.

The theme's templates are changed in their output, one rule per function. A rule whose pattern does not occur changes
nothing, so another version of the theme still builds.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any

from sphinx.application import Sphinx

from segedu_site import icons

VIEWPORT = re.compile(r'\s*<meta name="viewport"[^>]*>')
SEARCH = re.compile(r'\s*<script src="[^"]*(?:searchtools|language_data|searchindex)\.js[^"]*"></script>')
CHAPTER = re.compile(
    r'(<a class="[^"]*reference internal" href="[^"]*">(?P<title>(?:(?!</a>).)*)</a>\s*<details[^>]*>\s*)<summary>',
    re.DOTALL,
)
BREAK = re.compile(r"[/_=](?=\w)|\.(?!py\b)(?=[a-z]{2})|\((?=[\w&])")
LONG = 24  # characters; a shorter name in a paragraph fits into a line of a telephone
NOT_TEXT = re.compile(r"(<(pre|script|style|svg|template|mjx-container|textarea)\b.*?</\2>|<[^>]*>)", re.DOTALL)
HEADING_OR_CELL = re.compile(r"<(h[1-6]|td|th)\b.*?</\1>", re.DOTALL)
HYPHENATED = re.compile(r"\b[A-Za-z]*[A-Z]-(?:Net|CNN)s?\b")
PERCENT = re.compile(r"(?:(?<=\d)|^)\s+%(?!\w)")
UNNAMED_TOGGLE = re.compile(r'(<button class="sidebar-toggle (primary|secondary)-toggle[^"]*")')
SIDEBARS = {"primary": "Show or hide the table of contents", "secondary": "Show or hide the contents of this page"}


def one_viewport(page: str) -> str:
    """Keep the first of several equal `viewport` elements."""
    first = VIEWPORT.search(page)
    if first is None:
        return page
    return page[: first.end()] + VIEWPORT.sub("", page[first.end() :])


def search_on_its_own_page(page: str) -> str:
    """Load the search index only where it is used: the search page, and pages that search while a reader types."""
    if "search_as_you_type = true" in page or 'id="search-results"' in page:
        return page
    return SEARCH.sub("", page)


def named_chapters(page: str) -> str:
    """Name the buttons that unfold chapters in the navigation; the theme gives them an icon only."""

    def named(found: re.Match) -> str:
        title = " ".join(re.sub("<[^>]*>", "", found["title"]).split())
        return f'{found[1]}<summary aria-label="Pages of {html.escape(html.unescape(title))}">'

    return CHAPTER.sub(named, page)


def names_that_are_visible(page: str) -> str:
    """Remove names for screen readers that differ from the visible text, and give names to buttons without text."""
    page = page.replace('<summary aria-label="Toggle hidden content">', "<summary>")
    page = re.sub(r'(<button class="btn search-button-field[^>]*?) aria-label="Search"', r"\1", page)
    return UNNAMED_TOGGLE.sub(lambda found: f'{found[1]} aria-label="{SIDEBARS[found[2]]}"', page)


def plain_references(page: str) -> str:
    """Remove roles from the list of references: one is deprecated, the other does not allow what the list holds."""
    page = page.replace('<div role="list" class="citation-list">', '<div class="citation-list">')
    return page.replace(' role="doc-biblioentry"', "")


def breaks_in_names(page: str) -> str:
    """Let a path or a name go on in the next line only after a slash, an underscore, a full stop or a parenthesis.

    In a table this concerns each name of 9 characters, elsewhere those that can be longer than a line of a telephone.
    """

    def broken(text: str, least: int) -> str:
        return re.sub(
            rf'(<span class="pre">)([^<]{{{least},}})(</span>)',
            lambda name: name[1] + BREAK.sub(r"\g<0><wbr>", name[2]) + name[3],
            text,
        )

    page = re.sub(r"<td\b.*?</td>", lambda cell: broken(cell[0], 9), page, flags=re.DOTALL)
    return re.sub(r"<article\b.*?</article>", lambda article: broken(article[0], LONG), page, flags=re.DOTALL)


def texts_of(part: str, change: Callable[[str], str]) -> str:
    """Change the texts of a part of a page, not its tags, its code and its formulas."""
    pieces, at = [], 0
    for other in NOT_TEXT.finditer(part):
        pieces += [change(part[at : other.start()]), other[0]]
        at = other.end()
    return "".join([*pieces, change(part[at:])])


def articles(page: str, change: Callable[[str], str]) -> str:
    """Change the articles of a page."""
    return re.sub(r"<article\b.*?</article>", lambda article: change(article[0]), page, flags=re.DOTALL)


def whole_percentages(page: str) -> str:
    """Keep a number and its percent sign on one line.

    >>> whole_percentages("<article>about 97 % of <b>48</b> %</article>")
    '<article>about 97\\xa0% of <b>48</b>\\xa0%</article>'
    """
    return articles(page, lambda article: texts_of(article, lambda text: PERCENT.sub("\u00a0%", text)))


def whole_names(page: str) -> str:
    """Keep the names of networks, such as U-Net, on one line in headings and tables, and break paths after slashes."""

    def kept(text: str) -> str:
        text = HYPHENATED.sub(r'<span class="one-line">\g<0></span>', text)
        return re.sub(r"(?<=\w)/(?=\w)", "/<wbr>", text) if text.endswith(".py") else text

    def short(part: re.Match) -> str:
        return texts_of(part[0], kept)

    return articles(page, lambda article: HEADING_OR_CELL.sub(short, article))


def whole_options(page: str) -> str:
    """Mark options of commands, such as `--data`, which a line break would separate from their hyphens."""
    return re.sub(r'<span class="pre">(?=--?[a-z][\w-]*</span>)', '<span class="pre option">', page)


RULES: tuple[Callable[[str], str], ...] = (
    one_viewport,
    search_on_its_own_page,
    named_chapters,
    names_that_are_visible,
    plain_references,
    breaks_in_names,
    whole_options,
    whole_percentages,
    whole_names,
    icons.replace,
)


def finish(page: str) -> str:
    """Apply every rule to the HTML of a page."""
    for rule in RULES:
        page = rule(page)
    return page


def finish_rendered_pages(app: Sphinx) -> None:
    """Let the builder's templates return finished pages."""
    templates = getattr(app.builder, "templates", None)
    if app.builder.format != "html" or templates is None:
        return
    render = templates.render

    def finished(name: str, context: dict[str, Any]) -> str:
        page = render(name, context)
        if "</html>" not in page:
            return page
        page = finish(page)
        return page.replace("<wbr>", "<wbr/>") if app.builder.name == "epub" else page  # an EPUB is XML

    templates.render = finished


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", finish_rendered_pages)
