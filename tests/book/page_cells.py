"""The text and the code cells of a page, for tests that compare both with the library."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

COURSE = Path(__file__).resolve().parents[2] / "course"
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(?:---\n.*?^---\n|(?::[^\n]*\n)*)(.*?)^```$", re.M | re.S)


class Run(NamedTuple):
    """What the cells of a page left: all names, the glued values, and what they printed."""

    names: dict[str, Any]
    glued: dict[str, Any]
    printed: str


def source(page: str) -> str:
    return (COURSE / f"{page}.md").read_text(encoding="utf-8")


def prose(text: str) -> str:
    """A text without line breaks, comment signs and the marks of glossary terms."""
    text = re.sub(r"\{term\}`([^`<]+?)(?:\s*<[^>]+>)?`", r"\1", re.sub(r"^# ?", "", text, flags=re.M))
    return " ".join(text.split())


def find(pattern: str, text: str) -> tuple[str, ...]:
    """The groups of the only place of a text that a pattern matches."""
    matches = list(re.finditer(pattern, prose(text)))
    assert len(matches) == 1, f"{len(matches)} places match {pattern!r}"
    return matches[0].groups()


def states(page: str, sentence: str) -> None:
    """Check that a page still has the sentence that a test is about."""
    find(re.escape(sentence), source(page))


def rounds_to(value: float, printed: str) -> bool:
    """Whether a value has the digits that are printed."""
    digits = printed.replace(",", "")
    return abs(float(digits) - value) <= 0.501 * 10 ** -len(digits.partition(".")[2])


def run_cells_of(page: str, *marks: str, **other: Any) -> Run:
    """Run code cells of a page on one thread, without showing figures.

    Args:
        page: such as "06-unet/sizes".
        marks: for each cell, a text that only this cell contains, such as "name: fig-seam" or a line of its code.
        other: names that other cells of the page import.
    """
    glued: dict[str, Any] = {}
    cells, threads, printed = list(CELL.finditer(source(page))), torch.get_num_threads(), io.StringIO()

    def glue(name: str, value: Any, display: bool = True) -> None:
        glued[name] = value

    def show(fig: Figure, **options: Any) -> None:
        plt.close(fig)

    names = {"np": np, "torch": torch, "plt": plt, "glue": glue, "show": show, **other}
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr("myst_nb.glue", glue)
        patch.setattr("segedu.viz.show", show)
        try:
            for mark in marks:
                (code,) = (cell[1] for cell in cells if mark in cell[0])
                exec(compile(code, f"{page}: {mark}", "exec"), names)
        finally:
            torch.set_num_threads(threads)
    return Run(names, glued, printed.getvalue())
