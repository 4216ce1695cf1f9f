"""`{chapter-map}`: which chapter builds on which, as a picture whose boxes are links.

A row holds the chapters that need equally many others before them, one after the other. The first page of a chapter
gets its part of the map: the chapters that it builds on, and those that build on it.
"""

from __future__ import annotations

from html import escape
from itertools import pairwise

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.writers.html5 import HTML5Translator

from segedu_site.chapters import Chapter, direct, level, read_chapters

WIDTH, HEIGHT, ACROSS, DOWN = 162, 48, 12, 36  # of a box, and of the gaps between boxes
MARGIN = 4
PER_ROW = 4
Place = tuple[float, float]  # x of the middle, y of the upper edge


def short(chapter: Chapter) -> str:
    """A title that fits into a box: what stands before its colon."""
    return chapter.title.partition(":")[0]


def places(chapters: dict[str, Chapter]) -> dict[str, Place]:
    """The position of each box. Within a row, a chapter stands near the chapters that it builds on."""
    rows: dict[int, list[str]] = {}
    for folder in chapters:
        rows.setdefault(level(chapters, folder), []).append(folder)
    before, found = direct(chapters), {}
    middle = MARGIN + (PER_ROW * (WIDTH + ACROSS) - ACROSS) / 2

    def wish(folder: str) -> float:
        above = [found[name][0] for name in before[folder]]
        return sum(above) / len(above) if above else middle

    for depth, folders in sorted(rows.items()):
        ordered = sorted(folders, key=wish)
        step, first, last = WIDTH + ACROSS, MARGIN + WIDTH / 2, MARGIN + WIDTH / 2 + (PER_ROW - 1) * (WIDTH + ACROSS)
        together = sum(map(wish, ordered)) / len(ordered) - (len(ordered) - 1) / 2 * step
        left = min(max(together, first), last - (len(ordered) - 1) * step)
        apart = all(wish(b) - wish(a) >= step for a, b in pairwise(ordered))
        for column, folder in enumerate(ordered):
            found[folder] = (wish(folder) if apart else left + column * step, MARGIN + depth * (HEIGHT + DOWN))
    return found


def lines_of(text: str, longest: int = 16) -> list[str]:
    """A title in one or two lines.

    >>> lines_of("Segmentation as clustering")
    ['Segmentation as', 'clustering']
    """
    words, lines = text.split(), [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + 1 + len(word) > longest and len(lines) < 2:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def box(chapter: Chapter, place: Place, address: str, current: bool = False) -> str:
    """One chapter as a link."""
    x, y = place[0] - WIDTH / 2, place[1]
    lines = lines_of(short(chapter))
    first = y + HEIGHT / 2 + (5 if len(lines) == 1 else -3)
    words = "".join(
        f'<tspan x="{x + 42:g}" y="{first + 17 * row:g}">{escape(line)}</tspan>' for row, line in enumerate(lines)
    )
    name = f"Chapter {chapter.number}, {chapter.title}, {chapter.difficulty}"
    shape = (
        f'<rect class="chapter-box" x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="7"/>'
        f'<rect class="chapter-level {chapter.difficulty}" x="{x:g}" y="{y:g}" width="34" height="{HEIGHT}" rx="7"/>'
        f'<text class="chapter-number" x="{x + 17:g}" y="{y + HEIGHT / 2 + 6:g}">{chapter.number}</text>'
        f'<text class="chapter-title">{words}</text>'
    )
    if current:
        return f'<g class="chapter-node current" data-chapter="{chapter.folder}">{shape}</g>'
    return (
        f'<a class="chapter-node" data-chapter="{chapter.folder}" href="{escape(address)}" '
        f'aria-label="{escape(name)}"><title>{escape(name)}</title>{shape}</a>'
    )


def lane(start: Place, end: Place, boxes: list[Place]) -> float:
    """Where a line passes the rows between two boxes: the x nearest to both at which it meets no box."""
    between = [x for x, y in boxes if start[1] < y < end[1]]
    gaps = [x + side * (WIDTH + ACROSS) / 2 for x in between for side in (-1, 1)]
    free = [x for x in (start[0], end[0], *gaps) if all(abs(x - other) > WIDTH / 2 + 3 for other in between)]
    return min(free, key=lambda x: abs(x - start[0]) + abs(x - end[0]), default=start[0])


def bend(x: float, y: float, u: float, v: float) -> str:
    """A curve from (x, y) to (u, v) that begins and ends vertically."""
    return f"C{x:g},{(y + v) / 2:g} {u:g},{(y + v) / 2:g} {u:g},{v:g}"


def edge(start: Place, end: Place, boxes: list[Place]) -> str:
    """A curve from the lower edge of one box to the upper edge of another, around the boxes between them."""
    (x, top), (u, v) = start, end
    y, across = top + HEIGHT, lane(start, end, boxes)
    curve = bend(x, y, u, v)
    if v - y > DOWN:
        curve = f"{bend(x, y, across, y + DOWN)} V{v - DOWN:g} {bend(across, v - DOWN, u, v)}"
    return f'<path class="chapter-edge" d="M{x:g},{y:g} {curve}"/>'


def picture(shapes: list[str], width: float, height: float, label: str) -> str:
    """An SVG picture of those shapes that scrolls on a narrow screen."""
    return (
        f'<div class="figure-frame chapter-map"><svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="group" aria-label="{escape(label)}">{"".join(shapes)}</svg></div>'
    )


def whole_map(chapters: dict[str, Chapter], address) -> str:
    """The map of all chapters.

    Args:
        chapters: by folder.
        address: gives the address of a docname, seen from the page that shows the map.
    """
    where, before = places(chapters), direct(chapters)
    boxes = list(where.values())
    shapes = [edge(where[name], where[folder], boxes) for folder in chapters for name in before[folder]]
    shapes += [box(chapter, where[folder], address(chapter.docname)) for folder, chapter in chapters.items()]
    width = 2 * MARGIN + PER_ROW * (WIDTH + ACROSS) - ACROSS
    height = max(y for _, y in where.values()) + HEIGHT + MARGIN
    return picture(
        shapes, width, height, "Map of the chapters: a line leads down to each chapter that builds on another"
    )


def part_map(chapters: dict[str, Chapter], folder: str, address) -> str:
    """One chapter between those that it builds on, above it, and those that build on it, below it."""
    before = direct(chapters)
    rows = [before[folder], (folder,), tuple(name for name in chapters if folder in before[name])]
    rows = [row[start : start + PER_ROW] for row in rows if row for start in range(0, len(row), PER_ROW)]
    widest = max(map(len, rows))
    where = {
        name: (MARGIN + WIDTH / 2 + (column + (widest - len(row)) / 2) * (WIDTH + ACROSS), MARGIN + n * (HEIGHT + DOWN))
        for n, row in enumerate(rows)
        for column, name in enumerate(row)
    }
    boxes = list(where.values())
    shapes = [edge(where[name], where[folder], boxes) for name in before[folder]]
    shapes += [edge(where[folder], where[name], boxes) for name in where if folder in before[name]]
    shapes += [box(chapters[name], where[name], address(chapters[name].docname), name == folder) for name in where]
    width, height = 2 * MARGIN + widest * (WIDTH + ACROSS) - ACROSS, 2 * MARGIN + len(rows) * (HEIGHT + DOWN) - DOWN
    return picture(shapes, width, height, "The chapters that this chapter builds on, and those that build on it")


class chapter_map(nodes.General, nodes.Element):  # Sphinx finds its visitor by this name
    """The whole map, or the part around the chapter `folder`."""


def visit(writer: HTML5Translator, node: chapter_map) -> None:
    builder, page = writer.builder, writer.builder.current_docname
    known = {folder: one for folder, one in read_chapters().items() if one.docname in builder.env.found_docs}

    def address(docname: str) -> str:
        return builder.get_relative_uri(page, docname)

    chapters = known or read_chapters()
    part = node.get("folder")
    writer.body.append(part_map(chapters, part, address) if part else whole_map(chapters, address))
    raise nodes.SkipNode


def skip(writer, node: chapter_map) -> None:
    raise nodes.SkipNode


class ChapterMap(SphinxDirective):
    """Draws the whole map where it stands."""

    def run(self) -> list[nodes.Node]:
        for chapter in read_chapters().values():
            self.env.note_dependency(f"{self.env.srcdir}/{chapter.docname}.md")
        return [chapter_map()]


def setup(app: Sphinx) -> None:
    app.add_node(chapter_map, html=(visit, None), latex=(skip, None), text=(skip, None), man=(skip, None))
    app.add_directive("chapter-map", ChapterMap)
