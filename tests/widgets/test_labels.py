"""Labels of widgets that show several panels: large enough on a page, and clear of each other."""

from __future__ import annotations

from itertools import combinations

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from segedu.teaching.widgets import anchors, embedding, roi

PAGE_WIDTH = 700  # pixels of the text column on a laptop; a wider figure is scaled to it
FRAMES = [
    *((embedding, embedding.draw_sigma, frame) for frame in embedding.FRAMES),
    *((anchors, anchors.draw_anchors, frame) for frame in anchors.FRAMES),
    *((anchors, anchors.draw_nms, frame) for frame in anchors.NMS_FRAMES),
    *((roi, roi.draw_regions, frame) for frame in roi.FRAMES),
]


@pytest.mark.parametrize(
    ("module", "draw", "frame"), FRAMES, ids=[f"{draw.__name__} {frame}" for _, draw, frame in FRAMES]
)
def test_labels_are_large_enough_and_titles_do_not_touch(module, draw, frame, monkeypatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(module, "show", lambda figure, alt: figures.append(figure))
    draw(**frame)
    (figure,) = figures
    figure.canvas.draw()
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    per_point = min(PAGE_WIDTH / figure.get_figwidth(), 100) / 72  # pixels of the page
    assert min(text.get_fontsize() for text in texts) * per_point >= 10
    titles = [axis.title.get_window_extent() for axis in figure.axes]
    assert not any(first.overlaps(second) for first, second in combinations(titles, 2))
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in titles)
