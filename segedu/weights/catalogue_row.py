"""An entry of the catalogue of weights: one file, and how it is loaded into a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

TORCHVISION, FACEBOOK = "https://download.pytorch.org/models/", "https://dl.fbaipublicfiles.com/"


@dataclass(frozen=True)
class Weights:
    """One weights file.

    - `builder` is "module:function", and `options` are arguments of the function besides `normalize`.
    - `sha256` is the SHA-256 hash, or its first digits if only these are published. If it is empty, no hash is known,
      and the size `mebibytes` is exact.
    - `rename` has pairs of a regular expression and its replacement, applied to the keys of the file. Tensors
      whose new keys end in `#0`, `#1` and so on are concatenated to one tensor.
    - `ignored_keys` has prefixes of keys that are dropped, because the model has no such parameters.
    - `normalizes`: the builder normalises images without an argument `normalize`.
    - `non_commercial`: the licence forbids commercial use; loading requires `accept_license=True`.
    - `checkpoint_key` is the key of the weights in a file that is a complete training checkpoint.
    - `notice` is shown as a warning when the file is loaded.
    """

    builder: str
    url: str
    sha256: str
    mebibytes: float
    licence: str
    trained_on: str
    options: Mapping[str, Any] = field(default_factory=dict)
    rename: tuple[tuple[str, str], ...] = ()
    ignored_keys: tuple[str, ...] = ()
    notice: str = ""
    normalizes: bool = False
    non_commercial: bool = False
    checkpoint_key: str = ""

    @property
    def file_name(self) -> str:
        """The last part of the url; for Hugging Face, whose files share one name, after the repository's name."""
        *folders, name = urlsplit(self.url).path.split("/")
        return f"{folders[folders.index('resolve') - 1]}-{name}" if "resolve" in folders else name
