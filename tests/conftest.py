"""Fixtures of all tests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import matplotlib
import pytest
import torch
from proven import COURSE, needs_site, proven_files, unless_proven

matplotlib.use("Agg")  # no test opens a window
if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # several processes share the processors: one thread each, if nothing else is set
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data: $SEGEDU_DATA, or ../shared/data beside the checkout. Skips where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SEGEDU_DATA") or beside)
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set SEGEDU_DATA to the folder that holds nuclei_grouped/ and others")
    return folder


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


SITE = (  # one process runs these files: two that build the site at once write into the same folder
    "test_book_site",
    "test_book_browser",
    "test_accessibility",
    "test_book_jupyter_book_1",
    "test_book_states",
    "test_keyboard_path",
)


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, for several processes: pytest -n 2
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Keep the tests of a file in one process, and so the tests of all files that look at the built site."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = Path(nodeid.partition("::")[0])
            if file.stem == "test_labs":  # a lab's notebooks take minutes: each lab is a group
                return nodeid.partition("[")[2]
            return "site" if file.stem in SITE else str(file)

    config.option.loadscopereorder = False  # the longest come first as they are collected
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the files that a claim runs whole if `make prove` ran them on the same sources.

    Raises:
        pytest.UsageError: a test looks at the built site, and its file is not in `SITE`.
    """
    if strays := {i.path.name for i in items if needs_site(i) and i.path.stem not in SITE}:
        raise pytest.UsageError(f"{sorted(strays)} look at the built site: add them to SITE in tests/conftest.py")
    files = {COURSE / file: claim for file, claim in proven_files().items()}
    for item in items:
        if item.path in files and not item.get_closest_marker("prove"):
            item.add_marker(unless_proven(files[item.path]))


@pytest.fixture(autouse=True)
def another_seed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `SEGEDU_TEST_SEED=3`, the tests marked `learns` train from other random weights than usual."""
    shift = 1000 * int(os.environ.get("SEGEDU_TEST_SEED", "0"))
    if shift and request.node.get_closest_marker("learns"):
        seed = torch.manual_seed
        monkeypatch.setattr(torch, "manual_seed", lambda number: seed(number + shift))
