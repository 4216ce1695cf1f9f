"""Where the real data sets of the recipes are on this machine."""

from __future__ import annotations

import os
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
