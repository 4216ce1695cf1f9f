"""The command `segedu data`: list the real data sets, or download one. It imports no torch to list them."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from segedu.datasets.data_folder import data_folder
from segedu.datasets.real_data import DATA_SETS, RealData, find_data

ASK_ABOVE = 200 * 10**6  # bytes of a download


def data(
    name: Annotated[str, typer.Argument(help="Name of a data set. Default: list all.", show_default=False)] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Download more than 200 MB without a question.")] = False,
) -> None:
    """List the real data sets, or download one and convert it to a folder that `segedu train` reads."""
    if not name:
        for row in rows():
            typer.echo(row)
        return
    chosen = find_data(name)
    folder = _present(chosen)
    if folder is None:
        from segedu.datasets.fetch import fetch

        large = chosen.size > ASK_ABOVE and not chosen.by_hand
        if large and not yes and not _agreed(chosen):
            raise typer.Exit(1)
        folder = fetch(name)
    typer.echo(f"{name}: {folder}")


def _agreed(chosen: RealData) -> bool:
    """Whether the user wants a large download."""
    size = chosen.size_note
    if not _can_answer():
        raise typer.BadParameter(f"{chosen.name} is a download of {size}: add --yes to start it without a question")
    if typer.confirm(f"{chosen.name} is a download of {size} ({chosen.licence}). Continue?", default=False):
        return True
    typer.echo("Nothing was downloaded.")
    return False


def _can_answer() -> bool:
    """Whether a person can answer a question."""
    return sys.stdin.isatty()


def rows() -> list[str]:
    """One line per data set with name, images, size, licence and whether it is on this machine, and what it shows."""
    cells = [("name", "images", "download", "here", "licence")]
    for one in DATA_SETS.values():
        size = "by hand" if one.by_hand else one.size_note
        cells.append((one.name, str(one.images), size, "yes" if _present(one) else "no", one.licence))
    widths = [max(len(row[column]) for row in cells) for column in range(4)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, [*widths, 0], strict=True)) for row in cells]
    about = ["", *(f"    {one.about}" for one in DATA_SETS.values())]
    together = [line for pair in zip(lines, about, strict=True) for line in pair if line]
    return [*together, "", "`segedu data NAME` downloads one, `segedu train METHOD --data FOLDER` trains on it."]


def _present(chosen: RealData) -> Path | None:
    """The folder of a data set, if it is on this machine."""
    with suppress(FileNotFoundError):
        return data_folder(chosen.name)
    return None
