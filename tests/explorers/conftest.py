"""One Chromium for all tests of explorers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from explorers.browser import Browser


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        try:
            chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"no Chromium: {str(error).splitlines()[0]}")
        yield Browser(chromium.new_page())
        chromium.close()
