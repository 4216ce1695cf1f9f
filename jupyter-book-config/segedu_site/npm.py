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
from dataclasses import dataclass
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
    npm = shutil.which("npm")
    if npm is None:
        return None
    store().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=store()) as workplace:
        command = [npm, "pack", "--silent", *WITHOUT_REPETITION, f"{package.name}@{package.version}"]
        try:
            done = subprocess.run(command, cwd=workplace, capture_output=True, timeout=SECONDS, check=False)
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
    """Return the path of Node.js, or None if it is not installed."""
    return shutil.which("node")
