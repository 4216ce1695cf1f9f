"""Icons of the theme as small drawings in the page, in place of Font Awesome's script, which has 1.5 megabytes.

The theme writes `<i class="fa-solid fa-bars"></i>`, and its script replaces that by an SVG. Here the same SVG is
written while the book is built. The drawings come from the theme's own copy of the script. A page with an icon that
the script does not have, or a theme without the script, is left as it is.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from sphinx.application import Sphinx

THEME = "pydata_sphinx_theme"
SCRIPT = Path("theme", THEME, "static", "scripts", "fontawesome.js")
LOADING = re.compile(
    r'\s*<!-- So that users can add custom icons -->|\s*<script[^>]* src="[^"]*fontawesome\.js[^"]*">'
    r"</script>"
)
ICON = re.compile(r'<(i|span) class="([^"]*\bfa[sbr]?\b[^"]*|[^"]*\bfa-(?:solid|brands|regular) [^"]*)"([^>]*)></\1>')
STYLES = {"fa", "fas", "fab", "far", "fa-solid", "fa-brands", "fa-regular"}
SIZES = {"fa-lg", "fa-fw", "fa-sm", "fa-xs"}
STYLES_OF_THEME = Path("_static", "styles", "pydata-sphinx-theme.css")
CODES = re.compile(r"(?<=})(?:\.fa-[^{}]*\{--fa:[^}]*\})+")  # which character of its font each icon is
DRAWING = r'[{,]"?NAME"?:\[(\d+),(\d+),\[[^\]]*\],"[0-9a-f]+","([^"]+)"\]'


@cache
def script() -> str:
    """Return the text of the theme's script, empty if the theme has none."""
    found = find_spec(THEME)
    path = Path(found.origin).parent / SCRIPT if found else None
    return path.read_text(encoding="utf-8") if path and path.is_file() else ""


@cache
def drawing(name: str) -> tuple[str, str, str] | None:
    """Return width, height and path of an icon, or None if the script does not have it.

    Args:
        name: such as `bars`. Where the script has an outlined and a solid drawing, this is the solid one, the last.
    """
    found = re.findall(DRAWING.replace("NAME", re.escape(name)), script())
    return found[-1] if found else None


def draw(tag: re.Match) -> str:
    """Write one icon as an SVG; return the tag unchanged if there is no drawing."""
    classes = tag[2].split()
    names = [word.removeprefix("fa-") for word in classes if word.startswith("fa-") and word not in STYLES | SIZES]
    found = drawing(names[0]) if names else None
    if found is None:
        return tag[0]
    width, height, path = found
    kept = " ".join(["icon", *(word for word in classes if word not in STYLES)])
    attributes = re.sub(r'\stitle="[^"]*"', "", tag[3])  # the button around it has the name
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="{kept}"{attributes} aria-hidden="true" '
        f'viewBox="0 0 {width} {height}">'
        f'<path fill="currentColor" d="{path}"></path></svg>'
    )


def replace(page: str) -> str:
    """Draw the icons of a page, and do not load the script unless an icon is left.

    Args:
        page: HTML.
    """
    drawn = ICON.sub(draw, page)
    return drawn if ICON.search(drawn) else LOADING.sub("", drawn)


def shorten_styles(app: Sphinx, exception: Exception | None) -> None:
    """Delete the codes of two thousand icons from the theme's style sheet: no page has an icon as a character."""
    path = Path(app.outdir) / STYLES_OF_THEME
    if exception is None and script() and path.is_file():
        path.write_text(CODES.sub("", path.read_text(encoding="utf-8")), encoding="utf-8")


def setup(app: Sphinx) -> None:
    app.connect("build-finished", shorten_styles, priority=400)  # before pages are weighed
