"""How long explorers take from a change of a control to the new picture: `python tests/explorers/measure.py [NAME ...]`.

Each explorer passes through states at random, after one for warming up. Times hold for the machine that measures.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from explorers.browser import Browser
from playwright.sync_api import sync_playwright

from segedu.teaching.explorers.notebook import FOLDER, names

STATES = 50
LIMIT = 50  # milliseconds
MOUNT = """(name) => {
    document.body.replaceChildren(document.createElement("div"));
    window.state = modules.host.mount(document.body.firstChild, modules[name]);
}"""
# reading a size makes the browser lay the new picture out, which belongs to the answer
DURATIONS = """(states) => states.map((values) => {
    const start = performance.now();
    window.state.set(values);
    document.querySelector(".ex").getBoundingClientRect();
    return performance.now() - start;
})"""


def main() -> int:
    """Print one line per explorer and the slowest; the exit status is 1 if one is above the limit."""
    slowest = {}
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        browser = Browser(chromium.new_page())
        browser.page.add_style_tag(path=str(FOLDER / "explorers.css"))
        for name in sys.argv[1:] or names():
            browser.load(name)
            browser.page.evaluate(MOUNT, name)
            durations = browser.page.evaluate(DURATIONS, browser.states(name, STATES + 1))[1:]
            slowest[name] = sorted(durations)[int(0.95 * len(durations))]
            print(f"{name:24} median {statistics.median(durations):5.1f} ms, 95 % within {slowest[name]:5.1f} ms")
        chromium.close()
    name = max(slowest, key=slowest.get)
    print(f"{len(slowest)} explorers, {STATES} states each: 95 % of redraws within {slowest[name]:.0f} ms ({name})")
    return int(slowest[name] > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
