"""The built site, once a session, a server for it, and a browser that can reach nothing else.

A cold build takes minutes on one core. It begins with the session, in a process of its own, and the tests that look
at the site come last: by then the site is there, and the other tests have run beside its building.
"""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

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


def _needs_site(item: pytest.Item) -> bool:
    return "site" in getattr(item, "fixturenames", ())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that wait for the site come last, and those with a browser, which have limits of time."""
    items.sort(key=lambda item: _needs_site(item) or "browser" in getattr(item, "fixturenames", ()))


def pytest_runtestloop(session: pytest.Session) -> None:
    """The build begins before the first test, if any test waits for it."""
    if any(map(_needs_site, session.items)) and not session.config.option.collectonly:
        session.config.stash[BUILDING] = building = Building()
        session.config.add_cleanup(building.stop)


@pytest.fixture(scope="session")
def site(pytestconfig: pytest.Config) -> Path:
    """The folder that `make book` builds."""
    status, said = pytestconfig.stash[BUILDING].result()
    assert status == 0, f"segedu book failed:\n{said}"
    return ROOT / "_build" / "html"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    """Where the site is served on this machine."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium, driven by playwright, headless."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make test does it")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium, or set CHROMIUM to its path")
    with playwright.sync_playwright() as player:
        chromium = player.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()
