"""The built site, once a session, a server for it, and a browser that can reach nothing else.

A cold build takes minutes on one core. Where one process runs all tests, the build begins with the session, beside it,
and the tests that look at the site come last. Where several do (pytest-xdist), those tests are one group, which comes
first: one process waits for the build while the others go on.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import small_book
from folder_server import served
from proven import SITE, STALE, needs_site, unless_proven

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "jupyter-book-config"
sys.path.insert(0, str(CONFIG))


class Building:
    """`make book` in a process of its own; pages that have not changed come from its cache."""

    def __init__(self) -> None:
        self.log = tempfile.TemporaryFile()  # no pipe: a full one would stop the build until somebody reads
        command = [sys.executable, "-m", "segedu.cli", "book"]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=self.log, stderr=self.log, start_new_session=True)

    def result(self) -> tuple[int, str]:
        """Wait for its end; exit status, its warnings and the end of what it said."""
        status = self.process.wait()
        self.log.seek(0)
        said = self.log.read().decode(errors="replace")
        warnings = [line for line in said.splitlines() if "WARNING" in line or "ERROR" in line]
        return status, "\n".join([*warnings, said[-3000:]])

    def stop(self) -> None:
        """End it where it still runs, its kernels with it: the tests were stopped, or nobody asked for the site."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait()
        self.log.close()


BUILDING = pytest.StashKey[Building]()


def _one_of_several(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")  # pytest-xdist sets it in the processes that it starts


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the tests of the site if `make prove` ran them on the same sources, and sort them otherwise.

    They come last, beside those with a browser, or first where several processes run.
    """
    for item in items:
        if needs_site(item) and not item.get_closest_marker("prove"):
            item.add_marker(unless_proven(SITE))
    if _one_of_several(config):
        items.sort(key=lambda item: not needs_site(item))
    else:
        items.sort(key=lambda item: needs_site(item) or "browser" in getattr(item, "fixturenames", ()))


def _build(config: pytest.Config) -> None:
    config.stash[BUILDING] = building = Building()
    config.add_cleanup(building.stop)


def pytest_runtestloop(session: pytest.Session) -> None:
    """Begin to build before the first test if any test waits for the site and one process runs all tests."""
    config = session.config
    waiting = any(needs_site(item) and (SITE in STALE or item.get_closest_marker("prove")) for item in session.items)
    if waiting and not (config.option.collectonly or _one_of_several(config)):
        _build(config)


@pytest.fixture(scope="session")
def site(pytestconfig: pytest.Config) -> Path:
    """The folder that `make book` builds."""
    if BUILDING not in pytestconfig.stash:
        _build(pytestconfig)
    status, said = pytestconfig.stash[BUILDING].result()
    assert status == 0, f"segedu book failed:\n{said}"
    return ROOT / "_build" / "html"


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    """Where the site is served on this machine."""
    with served(site) as address:
        yield address


NETWORKS = ("sam", "unet", "mask2former")  # on the first page, and on pages with their names
NETWORK_PAGE = """# A network in the page

{{numref}}`fig-{name}-here` shows it.

```{{network}} {name}
:name: fig-{name}-here

A caption.
```
"""


@pytest.fixture(scope="session")
def networks_roots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A book with a page for each network: its address on a server ("http") and in its folder ("file").

    What a build of the whole book has already obtained or exported is used again.
    """
    from segedu_site import npm, onnxruntime_web

    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    if npm.obtain(onnxruntime_web.PACKAGE) is None:
        pytest.skip("npm is not installed, or cannot fetch onnxruntime-web")
    folder, build = tmp_path_factory.mktemp("networks"), ROOT / "_build"
    (folder / "_build").mkdir()
    (folder / "_build" / "npm").symlink_to(build / "npm")
    if (build / "networks").is_dir():
        shutil.copytree(build / "networks", folder / "_build" / "networks")
    (folder / "course").mkdir()
    first, *others = NETWORKS
    for name in others:
        (folder / "course" / f"{name}.md").write_text(small_book.FRONT + NETWORK_PAGE.format(name=name))
    toc = "chapters:\n" + "".join(f"  - file: course/{name}\n" for name in others)
    status, said = small_book.build(folder, NETWORK_PAGE.format(name=first), toc)
    assert status == 0, said
    with served(folder / "_build" / "html") as address:
        yield {"http": f"{address}/", "file": f"{(folder / '_build' / 'html').as_uri()}/"}
