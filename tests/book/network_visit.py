"""A visit to a page with a network: a tab that can reach nothing but the book, and what it complains of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

READY = "() => ['ready', 'failed'].includes(document.querySelector('.network').dataset.state)"


class Visit:
    """A tab with the page of one demonstration, `course/PAGE.html`."""

    def __init__(self, browser: Any, root: str, page: str, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        self.context.set_default_timeout(240_000)  # milliseconds: other tests may use all processors
        self.root, self.page, self.outside, self.errors = root, page, [], []
        self.context.route("**/*", self._only_the_book)
        self.tab = self.context.new_page()
        self.tab.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))

    def _only_the_book(self, route: Any) -> None:
        if route.request.url.startswith((self.root, "data:", "blob:")):
            route.continue_()
        else:
            self.outside.append(route.request.url)
            route.abort()

    def open(self, script: str = "") -> Visit:
        if script:
            self.context.add_init_script(script)
        self.tab.goto(f"{self.root}course/{self.page}.html", wait_until="load")
        return self

    def start(self) -> Visit:
        self.tab.locator(".network").scroll_into_view_if_needed()
        self.tab.wait_for_function(READY)
        return self

    def started(self) -> Visit:
        """Open the page and start the demonstration, which must run."""
        self.open().start()
        assert self.tab.get_attribute(".network", "data-state") == "ready", self.tab.inner_text(".network")
        return self

    def picture(self) -> dict[str, Any]:
        """Name, width and height of the picture that is shown."""
        return self.tab.evaluate("""async () => {
            const page = document.querySelector('.network').demonstration;
            await page.busy;
            return { name: page.picture.name, width: page.picture.width, height: page.picture.height };
        }""")

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Centre of a pixel of the image, in pixels of the screen."""
        area, picture = self.tab.locator(".network-stage").bounding_box(), self.picture()
        return (
            area["x"] + (x + 0.5) / picture["width"] * area["width"],
            area["y"] + (y + 0.5) / picture["height"] * area["height"],
        )

    def show(self, name: str) -> Visit:
        self.tab.click(f"[data-picture={name}]")
        self.tab.wait_for_function(f"() => document.querySelector('.network').demonstration.picture.name === '{name}'")
        self.tab.locator(".network-stage").scroll_into_view_if_needed()
        return self


def iou(ours: Tensor, theirs: Tensor, decided: Tensor) -> float:
    """IoU of two masks, without the pixels at which the rounding of float32 decides."""
    union = ((ours | theirs) & decided).sum()
    return float((ours & theirs & decided).sum() / union) if union else 1.0


def as_mask(pixels: list[int], size: torch.Size) -> Tensor:
    """A mask of the page as a tensor."""
    return torch.tensor(pixels, dtype=torch.bool).reshape(size)
