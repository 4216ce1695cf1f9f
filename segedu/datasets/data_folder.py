"""Where the real data sets of the recipes and of the labs are on this machine."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

REAL_DATA = ("pets", "nuclei_grouped", "phase_cells", "aerial", "camvid", "hippocampus", "bccd", "pennfudan")


def data_folder(name: str) -> Path:
    """The folder of a real data set: a sub-folder of the folder that the variable `SEGEDU_DATA` names.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    root = os.environ.get("SEGEDU_DATA")
    folder = Path(root or ".").expanduser() / name
    if root is None or not folder.is_dir():
        raise FileNotFoundError(
            f"SEGEDU_DATA is {root!r}, expected the path of a folder that contains the folder {name!r}"
        )
    return folder


def real_folder(name: str) -> Path | None:
    """The folder of a real data set, which is downloaded if this machine does not have it yet.

    The labs call it before they train on a GPU, and draw synthetic scenes if the result is None.

    Returns:
        The folder in `SEGEDU_DATA`, or else that of `segedu.datasets.fetch`; None, after a printed sentence that gives
        the reason, if the download fails.
    """
    with suppress(FileNotFoundError):
        return data_folder(name)
    try:
        from segedu.datasets.fetch import fetch

        return fetch(name)
    except (ImportError, OSError, RuntimeError) as error:  # no connection, no space, or not the published file
        print(f"The data set {name} could not be downloaded, so this cell uses synthetic scenes instead. ({error})")
        return None
