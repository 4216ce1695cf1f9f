"""A real data set for a lab, or none: the labs train on synthetic scenes where a data set cannot be downloaded."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from segedu.datasets.data_folder import data_folder


def real_folder(name: str) -> Path | None:
    """The folder of a real data set, which is downloaded if this machine does not have it yet.

    Args:
        name: such as "pets", see `segedu.datasets.data_folder`.

    Returns:
        The folder; None, after a printed sentence that gives the reason, if the download fails.
    """
    with suppress(FileNotFoundError):
        return data_folder(name)
    try:
        from segedu.datasets.fetch import fetch

        return fetch(name)
    except (ImportError, OSError, RuntimeError) as error:  # no connection, no space, or not the published file
        print(f"The data set {name} could not be downloaded, so this cell uses synthetic scenes instead. ({error})")
        return None
