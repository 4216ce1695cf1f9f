"""Where the real data sets are on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from segedu.datasets.download import cache_folder
from segedu.datasets.real_data import DATA_SETS, find_data

REAL_DATA = tuple(DATA_SETS)


def data_folder(name: str) -> Path:
    """The folder of a real data set: `$SEGEDU_DATA/NAME`, or the folder into which `fetch` downloads it.

    Args:
        name: a key of `segedu.datasets.real_data.DATA_SETS`, or the name of a folder in `$SEGEDU_DATA`.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    root = os.environ.get("SEGEDU_DATA")
    places = [Path(root).expanduser() / name] if root else []
    places += [fetched_folder(name)] if name in DATA_SETS else []
    for place in places:
        if place.is_dir():
            return place
    where = " or ".join(map(str, places)) or f"SEGEDU_DATA, which is not set, expected the path of a folder with {name}"
    if name not in DATA_SETS:
        raise FileNotFoundError(f"data set {name!r} is not in {where}")
    data = find_data(name)
    how = "`segedu data {0}` says how to get it" if data.by_hand else "`segedu data {0}` downloads it"
    raise FileNotFoundError(f"data set {name!r} is not in {where}: {how.format(name)} ({data.size_note})")


def fetched_folder(name: str) -> Path:
    """The folder into which `fetch` downloads a data set, whether it exists or not."""
    return cache_folder() / "data" / name
