"""Show an explorer in a notebook. It computes in the browser, so the kernel may be busy while it moves.

from segedu.teaching.explorers.notebook import show_explorer

show_explorer("boxes")
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import traitlets

FOLDER = Path(__file__).parent
HOST = "host"


class ExplorerWidget(anywidget.AnyWidget):
    """The widget: `explorer` is the text of its module, `start` the first values of its controls."""

    _esm = FOLDER / f"{HOST}.js"
    _css = FOLDER / "explorers.css"
    explorer = traitlets.Unicode().tag(sync=True)
    start = traitlets.Dict().tag(sync=True)


def names() -> list[str]:
    """Names of all explorers, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.js") if path.stem != HOST)


def show_explorer(name: str, **start: Any) -> ExplorerWidget:
    """Return the widget of an explorer, which a notebook displays at the end of a cell.

    Args:
        name: one of `names()`.
        start: first values of some controls, by name.

    Raises:
        ValueError: if there is no such explorer.
    """
    if name not in names():
        raise ValueError(f"name is {name!r}, expected one of {', '.join(names())}")
    return ExplorerWidget(explorer=(FOLDER / f"{name}.js").read_text(encoding="utf-8"), start=start)
