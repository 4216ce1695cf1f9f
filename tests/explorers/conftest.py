"""One page of the browser for all tests of explorers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from explorers.browser import Browser


@pytest.fixture(scope="session")
def explorers(browser) -> Iterator[Browser]:
    page = browser.new_page()
    yield Browser(page)
    page.close()
