"""What a row of the table of weights says: one file, and how it becomes a model of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

TORCHVISION, FACEBOOK = "https://download.pytorch.org/models/", "https://dl.fbaipublicfiles.com/"


@dataclass(frozen=True)
class Weights:
    """One file of official weights.

    `build` is "module:function", `options` what the function is given besides a normalisation. `sha256` is the
    digest or its published beginning; where it is empty, none is known, and `mebibytes` is exact. `rename` holds
    pairs of pattern and replacement for the file's keys, where `#0`, `#1` at an end make pieces of one tensor; keys
    that begin with one of `leave_out` are of parts that the model does not have. `inside`: under which key a file of
    a whole training keeps the weights. `notice` is said to whoever loads the file. `normalizes`: the builder
    normalises by itself.
    `non_commercial`: the licence forbids commercial use; only who says `accept_license=True` is given the file.
    """

    build: str
    url: str
    sha256: str
    mebibytes: float
    licence: str
    trained_on: str
    options: Mapping[str, Any] = field(default_factory=dict)
    rename: tuple[tuple[str, str], ...] = ()
    leave_out: tuple[str, ...] = ()
    notice: str = ""
    normalizes: bool = False
    non_commercial: bool = False
    inside: str = ""

    @property
    def file_name(self) -> str:
        """The last part of the url; of Hugging Face's, which are all called alike, behind the repository's."""
        *folders, name = urlsplit(self.url).path.split("/")
        return f"{folders[folders.index('resolve') - 1]}-{name}" if "resolve" in folders else name
