"""`{chapter-cards}` and the head of each chapter: a picture, the times, and the chapter's part of the map.

The content of `{chapter-cards}` on the home page has one entry per chapter: what you learn, and which figure of the
chapter is its picture. `crop` selects a part of the figure: left, top, right and bottom, from 0 to 1. With
`whole: true` the whole part is shown, on white, so that no title or label is cut. The picture is cut from the figure at
the end of each build, so it can never show something that the chapter no longer shows.

    06-unet:
      learn: build U-Net and train it
      figure: fig-unet-predictions
      crop: [0, 0, 0.5, 1]
      alt: A street and its predicted classes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.writers.html5 import HTML5Translator

from segedu_site.chapter_map import chapter_map, short
from segedu_site.chapters import Chapter, direct, read_chapters

logger = logging.getLogger(__name__)
SIZES = {"card": (440, 264), "page": (880, 528)}  # pixels; the page shows them at half of that or less
FIELDS = {"learn", "figure", "crop", "whole", "alt"}
FOLDER = "_images/chapters"


class thumbnail(nodes.General, nodes.Element):  # Sphinx finds its visitor by this name
    """The picture of a chapter, in one of `SIZES`."""


def visit_thumbnail(writer: HTML5Translator, node: thumbnail) -> None:
    width, height = SIZES[node["size"]]
    root = writer.builder.get_relative_uri(writer.builder.current_docname, "index").removesuffix("index.html")
    source, alt = f"{root}{FOLDER}/{node['folder']}-{node['size']}.webp", escape(node["alt"], quote=True)
    writer.body.append(
        f'<img class="chapter-picture" src="{source}" alt="{alt}" width="{width // 2}" height="{height // 2}" '
        'loading="lazy" decoding="async">'
    )
    raise nodes.SkipNode


def skip(writer, node: nodes.Node) -> None:
    raise nodes.SkipNode


def read_cards(text: str, where: str) -> dict[str, dict]:
    """The entries of `{chapter-cards}`.

    Raises:
        ValueError: if a chapter of the course has no entry, or an entry lacks a field.
    """
    cards = yaml.safe_load(text) or {}
    if missing := [folder for folder in read_chapters() if folder not in cards]:
        raise ValueError(f"{where}: chapter-cards has no entry for {', '.join(missing)}")
    for folder, card in cards.items():
        if folder not in read_chapters():
            raise ValueError(f"{where}: chapter-cards has {folder!r}, expected a folder of a chapter")
        if not {"learn", "figure", "alt"} <= set(card) <= FIELDS:
            raise ValueError(f"{where}: the card of {folder} has {sorted(card)}, expected {sorted(FIELDS)}")
    return cards


def times(chapter: Chapter) -> str:
    """Reading time, lab time and difficulty, in a few words."""
    lab = f" + {chapter.lab_minutes} min lab" if chapter.lab_minutes else ""
    return f"{chapter.minutes} min{lab} · {chapter.difficulty}"


def docs_link(docname: str, *content: nodes.Node, refdoc: str, classes: tuple[str, ...] = ()) -> addnodes.pending_xref:
    """A link to a page of the site, resolved by Sphinx."""
    inner = nodes.inline("", "", *content, classes=list(classes))
    target = {"refdomain": "std", "reftype": "doc", "reftarget": f"/{docname}", "refexplicit": True, "refwarn": True}
    return addnodes.pending_xref("", inner, refdoc=refdoc, **target)


class ChapterCards(SphinxDirective):
    """Writes one card per chapter where it stands."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        where = f"{self.env.docname}.md:{self.lineno}"
        try:
            cards = read_cards("\n".join(self.content), where)
        except (ValueError, yaml.YAMLError) as error:
            raise self.error(str(error)) from None
        self.env.segedu_cards = cards
        before = direct(read_chapters())
        row = nodes.container(classes=["chapter-cards"])
        for folder, chapter in read_chapters().items():
            self.env.note_dependency(f"{self.env.srcdir}/{chapter.docname}.md")
            row += self.card(chapter, cards[folder], before[folder])
        summary = nodes.raw("", '<div class="my-progress" hidden></div>', format="html")
        return [summary, row]

    def card(self, chapter: Chapter, card: dict, before: tuple[str, ...]) -> nodes.container:
        box = nodes.container(classes=["chapter-card"])
        picture = thumbnail(folder=chapter.folder, size="card", alt=card["alt"])
        picture_row = nodes.paragraph("", "", picture, classes=["card-picture"])
        title = nodes.inline("", f"{chapter.number} {short(chapter)}")
        heading = docs_link(chapter.docname, title, refdoc=self.env.docname, classes=("card-link",))
        learn, messages = self.parse_inline(card["learn"])
        links = nodes.paragraph("", times(chapter), classes=["card-facts"])
        if chapter.lab:
            links += nodes.Text(" · ")
            links += docs_link(chapter.lab, nodes.Text(f"Lab {chapter.number}"), refdoc=self.env.docname)
        box += picture_row
        box += nodes.paragraph("", "", heading, classes=["card-title"])
        box += nodes.paragraph("", "", *learn, classes=["card-text"])
        box += links
        box += nodes.raw("", progress_slot(chapter), format="html")
        box += messages
        return box


def progress_slot(chapter: Chapter) -> str:
    """An empty element, which `progress.js` fills with the share of the chapter's pages that are marked as read."""
    return f'<div class="chapter-progress" data-pages="{" ".join(chapter.pages)}" hidden></div>'


def add_heads(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Insert the picture under a chapter's title, and its part of the map before its first section."""
    cards = getattr(app.env, "segedu_cards", {})
    folder = docname.removeprefix("course/").removesuffix("/index")
    if folder not in cards or app.builder.format != "html":
        return
    chapter, card = read_chapters()[folder], cards[folder]
    section = next(doctree.findall(nodes.section))
    picture = nodes.container(classes=["chapter-head"])
    picture += thumbnail(folder=chapter.folder, size="page", alt=card["alt"])
    found = find_figure(app.env, card["figure"])
    if found:
        page, anchor, _ = found
        uri = app.builder.get_relative_uri(docname, page) + f"#{anchor}"
        title = "a figure on this page" if page == docname else app.env.titles[page].astext()
        link = nodes.reference("", title, refuri=uri, internal=True)
        picture += nodes.paragraph("", "From ", link, classes=["chapter-head-source"])
    section.insert(1, picture)
    first = next((child for child in section.children if isinstance(child, nodes.section)), None)
    around = [nodes.raw("", progress_slot(chapter), format="html"), chapter_map(folder=chapter.folder)]
    at = section.index(first) if first else len(section)
    section[at:at] = around


def find_figure(env: BuildEnvironment, name: str) -> tuple[str, str, str] | None:
    """Page, anchor and file of a figure; None if no page has it."""
    page, anchor = env.domains.standard_domain.anonlabels.get(name, ("", ""))
    if not page:
        return None
    figures = (node for node in env.get_doctree(page).findall(nodes.figure) if anchor in node["ids"])
    image = next((image for figure in figures for image in figure.findall(nodes.image)), None)
    return (page, anchor, image["uri"]) if image is not None else None


def cut(path: Path, crop: list[float], size: tuple[int, int], whole: bool = False) -> Any:
    """A part of an image file, scaled to fill a size; what does not fit is cut off on two sides.

    Args:
        path: of the image file.
        crop: left, top, right and bottom of the part, from 0 to 1.
        size: (width, height) of the result in pixels.
        whole: scale the part to fit the size, with white on two sides, instead.
    """
    from PIL import Image, ImageOps  # Jupyter Book 1 comes without Pillow

    image = Image.open(path).convert("RGB")
    left, top, right, bottom = crop
    width, height = image.size
    part = image.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))
    if whole:
        return ImageOps.pad(part, size, Image.Resampling.LANCZOS, color="white")
    return ImageOps.fit(part, size, Image.Resampling.LANCZOS)


def write_pictures(app: Sphinx, exception: Exception | None) -> None:
    """Cut the pictures of all cards from the figures of this build."""
    if exception is not None or app.builder.format != "html" or app.config.nb_execution_mode == "off":
        return
    folder = Path(app.outdir) / FOLDER
    for chapter, card, path in pictures(app):
        folder.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() == ".svg":
            logger.warning("chapter-cards: the figure %s of %s is an SVG, expected a PNG", card["figure"], chapter)
            continue
        if find_spec("PIL") is None:  # then the whole figure, whose middle the page shows
            for name in SIZES:
                shutil.copy(path, folder / f"{chapter}-{name}.webp")
            continue
        for name, size in SIZES.items():
            picture = cut(path, card.get("crop", [0, 0, 1, 1]), size, card.get("whole", False))
            picture.save(folder / f"{chapter}-{name}.webp", quality=82)


def pictures(app: Sphinx) -> Iterator[tuple[str, dict, Path]]:
    """Chapter, card and image file of each card; a figure that does not exist is a warning."""
    for chapter, card in getattr(app.env, "segedu_cards", {}).items():
        if read_chapters()[chapter].docname not in app.env.found_docs:
            continue  # a small book
        found = find_figure(app.env, card["figure"])
        if found is None:
            logger.warning("chapter-cards: no page of the site has the figure %s of %s", card["figure"], chapter)
        else:
            yield chapter, card, Path(app.srcdir) / found[2]


def setup(app: Sphinx) -> None:
    others = {name: (skip, None) for name in ("latex", "text", "man", "texinfo")}
    app.add_node(thumbnail, html=(visit_thumbnail, None), **others)
    app.add_directive("chapter-cards", ChapterCards)
    app.connect("doctree-resolved", add_heads)
    app.connect("build-finished", write_pictures, priority=400)
    app.add_css_file("landing.css")
    app.add_js_file("progress.js")
