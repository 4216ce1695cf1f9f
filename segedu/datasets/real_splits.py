"""The splits of real data sets that their authors do not give: lists of names in `real_splits.json`.

They are those of the excerpts on which the weights of segedu are trained, so that no network is tested on images that
it has seen. An image that is in no list belongs to "train", if its data set says nothing else.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path


@cache
def _lists() -> dict[str, dict[str, str]]:
    return json.loads(Path(__file__).with_name("real_splits.json").read_text(encoding="utf-8"))


def listed_splits(data: str) -> dict[str, str]:
    """Name of an image -> its split, for the images of a data set that are in a list."""
    return {name: split for split, names in _lists()[data].items() for name in names.split()}
