"""How heavy a page is before a reader does anything, how sharp its pictures are, and how large their labels are.

`lint` calls these rules for each page of a finished site.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from segedu_site.pictures import size

HEAVIEST = 1_500_000  # bytes of a page, as they lie in the site, not compressed
NEAR = 2  # pictures that a browser loads at once although they may load late: those near the top of the page
DENSITY = 2  # pixels of a picture per CSS pixel
SMALL = 200  # CSS pixels; a narrower picture may be an image of few pixels
SMALLEST_LABEL = 8  # points, the size in the drawing
# What the build could not replace, because it found no Node.js or because the theme is another version.
NOT_OURS = ("mathjax/", "fontawesome.js", "fontawesome/js")
TAG = re.compile(r"<(img|script|link)\b([^>]*)>")
ATTRIBUTE = re.compile(r'([\w-]+)="([^"]*)"')
THEME = re.compile(r'href="([^"]*_static/)styles/')
FONT = "vendor/fontawesome/webfonts/fa-solid-900.woff2"
OUTPUT = re.compile(r"[0-9a-f]{64}\.\w+")  # name of a picture that a cell has drawn
LABEL = re.compile(r"<g [^>]*scale\(([\d.]+) -")  # matplotlib writes text as outlines of 100 units per em


def tags(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Return name and attributes of the elements of a page that load files."""
    for tag in TAG.finditer(text):
        yield tag[1], dict(ATTRIBUTE.findall(tag[2]))


def parts(path: Path) -> dict[str, int]:
    """Return the bytes of a page and of each file that it loads at once, by address.

    Args:
        path: of the page, in a finished site.
    """
    text = path.read_text(encoding="utf-8")
    found = {path.name: len(text.encode())}
    late: list[str] = []
    for tag, attributes in tags(text):
        if tag == "link" and "stylesheet" not in attributes.get("rel", ""):
            continue
        address = attributes.get("href" if tag == "link" else "src", "")
        if tag == "img" and attributes.get("loading") == "lazy":
            late.append(address)
        elif address:
            found[address] = _bytes(path, address)
    found |= {address: _bytes(path, address) for address in late[:NEAR]}
    if 'class="admonition' in text and (styles := THEME.search(text)):  # their icons are characters of a font
        address = styles[1] + FONT
        found[address] = _bytes(path, address)
    return {address: length for address, length in found.items() if not any(word in address for word in NOT_OURS)}


def _bytes(page: Path, address: str) -> int:
    file = page.parent / unquote(urlsplit(address).path)
    return file.stat().st_size if not urlsplit(address).scheme and file.is_file() else 0


def heavy(path: Path) -> Iterator[str]:
    """Complain about a page that is too heavy, and name the heaviest files."""
    found = parts(path)
    total = sum(found.values())
    if total > HEAVIEST:
        heaviest = sorted(found.items(), key=lambda pair: -pair[1])[:3]
        names = ", ".join(f"{urlsplit(address).path} {length / 1e6:.2f} MB" for address, length in heaviest)
        yield f"the page has {total / 1e6:.2f} MB before any interaction, expected at most {HEAVIEST / 1e6} ({names})"


@cache
def smallest_label(path: Path) -> float | None:
    """Return the size in points of the smallest text of an SVG by matplotlib, None if it has no text."""
    scales = [float(scale) for scale in LABEL.findall(path.read_text(encoding="utf-8"))]
    return round(100 * min(scales), 2) if scales else None


def _density(file: Path, width: float) -> float:
    """Return the pixels of a picture per pixel of the page; as many as expected where they do not matter."""
    pixels = size(file.with_suffix(".png"))
    if pixels is None or width < SMALL:
        return DENSITY
    return DENSITY if pixels[0] + 1 >= DENSITY * width else pixels[0] / width


def poor_pictures(path: Path) -> Iterator[str]:
    """Complain about outputs of cells without a size, with too few pixels, or with labels that are too small."""
    for tag, attributes in tags(path.read_text(encoding="utf-8")):
        source = Path(urlsplit(attributes.get("src", "")).path)
        file = path.parent / source
        if tag != "img" or not OUTPUT.fullmatch(source.name) or not file.is_file():
            continue
        if not {"width", "height"} <= set(attributes):
            yield f"image {source.name} has no width or height, so the text below it jumps when it has loaded"
        elif file.suffix == ".svg":
            label = smallest_label(file)
            if label is not None and label < SMALLEST_LABEL:
                yield f"image {source.name} has labels of {label:g} points, expected at least {SMALLEST_LABEL}"
        elif (density := _density(file, float(attributes["width"]))) < DENSITY:
            yield f"image {source.name} has {density:.2f} pixels per pixel of the page, expected {DENSITY}"
