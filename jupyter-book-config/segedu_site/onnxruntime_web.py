"""onnxruntime-web, which runs networks in the browser: an npm package, obtained once and checked by its hash.

Nothing of it is in the repository. The package lies in `_build/npm` after the first build, so further builds need no
network. Two of its files are enough: the module and the WebAssembly program for one thread of a processor.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
from collections.abc import Mapping
from pathlib import Path

from segedu_site import npm

NAME, VERSION = "onnxruntime-web", "1.30.0"
PACKAGE = npm.Package(
    NAME,
    VERSION,
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
)
FILES = {"module": "dist/ort.wasm.bundle.min.mjs", "wasm": "dist/ort-wasm-simd-threaded.wasm"}


class Unavailable(Exception):
    """The networks of a page cannot run in the browser; the message is the reason, as the end of a sentence."""


def packed(data: bytes) -> str:
    """Bytes as base64 of gzip: a page that lies in a folder may read a script, but no other file."""
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()


def script(name: str, contents: Mapping[str, object]) -> str:
    """A classic script that hands `contents` to `networks.js` under a name."""
    return f"segeduNetworks.receive({json.dumps(name)}, {json.dumps(contents, separators=(',', ':'))});\n"


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all, so that a stopped build leaves no part of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text)
    part.replace(path)


def write_runtime(out: Path) -> None:
    """Write the script with both files of the package; nothing is done if `out` exists.

    Raises:
        Unavailable: if the package is neither in the store nor to be had from npm.
    """
    if out.is_file():
        return
    folder = npm.obtain(PACKAGE)
    if folder is None:
        raise Unavailable(f"npm is not installed, or could not fetch {NAME} {VERSION}")
    contents = {"version": VERSION, "licence": "MIT"}
    contents |= {key: packed((folder / name).read_bytes()) for key, name in FILES.items()}
    write(out, script(NAME, contents))
