"""Pictures that load late, keep their place, and are light: each `img` has its size, and large PNGs have a small copy.

A figure with photographs can have three megabytes as a PNG. Its page shows a WebP of high quality, and the enlarged
figure (`figures.js`) is the PNG itself. Without Pillow the page shows the PNG.
"""

from __future__ import annotations

import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

HEAVY = 150_000  # bytes; a lighter PNG stays as it is
QUALITY = 85
# In dark mode a drawing is inverted. Not one whose caption would then be wrong: "white boxes" would be black.
NAMES_LIGHTNESS = re.compile(r"\b(black|white|light|dark|pale|bright)\b", re.IGNORECASE)


def size(path: Path) -> tuple[float, float] | None:
    """Return width and height of a PNG in pixels or of an SVG by matplotlib in CSS pixels, None for other files."""
    with path.open("rb") as file:
        start = file.read(2000)
    if start.startswith(b"\x89PNG"):
        return int.from_bytes(start[16:20]), int.from_bytes(start[20:24])
    sides = [re.search(rb"<svg[^>]*\s%s=\"([\d.]+)pt\"" % side, start) for side in (b"width", b"height")]
    if not all(sides):
        return None
    width, height = (float(side[1]) * 96 / 72 for side in sides)
    return width, height


def light_copy(path: Path) -> Path | None:
    """Write a WebP beside a large PNG, once, and return its path; None if the PNG is small or Pillow is missing."""
    if path.suffix != ".png" or path.stat().st_size < HEAVY:
        return None
    light = path.with_suffix(".webp")
    if not light.is_file():
        try:
            from PIL import Image
        except ImportError:
            return None
        with Image.open(path) as picture:
            picture.convert("RGB").save(light, quality=QUALITY, method=4)
    return light if light.stat().st_size < path.stat().st_size else None


def _caption(image: nodes.image) -> str:
    figure = image.parent
    while figure is not None and not isinstance(figure, nodes.figure):
        figure = figure.parent
    return " ".join(caption.astext() for caption in figure.findall(nodes.caption)) if figure is not None else ""


class LatePictures(SphinxPostTransform):
    """Give each picture of a page its size and its small copy, and let it load when a reader comes near."""

    default_priority = 890  # before wide pictures get their frames
    formats = ("html",)

    def run(self, **options: object) -> None:
        for image in self.document.findall(nodes.image):
            path = Path(self.app.srcdir) / image["uri"]
            if not path.is_file():
                continue
            if self.app.builder.name == "html":
                image["loading"] = "lazy"
            if path.suffix == ".svg" and not NAMES_LIGHTNESS.search(_caption(image)):
                image["classes"].append("line-drawing")
            self._give_size(image, path)
            if self.app.builder.name != "epub" and (light := light_copy(path)):
                self._show(image, light)

    def _give_size(self, image: nodes.image, path: Path) -> None:
        found = size(path)
        if found is None or "height" in image:
            return
        given = re.fullmatch(r"([\d.]+)(px)?", str(image.get("width", "")))
        if "width" in image and not given:  # per cent of the page
            return
        width = float(given[1]) if given else found[0]
        image["width"] = f"{width:.0f}"
        image["height"] = f"{width * found[1] / found[0]:.0f}"

    def _show(self, image: nodes.image, light: Path) -> None:
        """Show the small copy, and keep the picture itself for the enlarged figure."""
        env, uri = self.app.env, image["uri"]
        copy = light.relative_to(self.app.srcdir).as_posix()
        env.images.add_file(env.docname, copy)
        if uri in env.images:
            image["full"] = uri
            self.app.builder.images[uri] = env.images[uri][1]
        image["uri"] = copy
        image["candidates"] = {"*": copy}


def setup(app: Sphinx) -> None:
    app.add_post_transform(LatePictures)
