"""In a live notebook, the widgets of these modules are explorers that compute in the browser; nothing is drawn there."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from segedu.teaching.explorers.notebook import FOLDER, ExplorerWidget
from segedu.teaching.widgets import (
    anchors,
    convolution,
    dilation,
    embedding,
    flows,
    grid_cells,
    losses,
    matching,
    metrics,
    ranking,
    rays,
    roi,
    unet,
)

SHOWN = [
    (anchors.explorer, ["anchors"]),
    (anchors.nms_explorer, ["nms"]),
    (convolution.explorer, ["convolution", "transposed_convolution"]),
    (dilation.explorer, ["dilation"]),
    (embedding.explorer, ["offsets"]),
    (flows.explorer, ["flows"]),
    (grid_cells.explorer, ["grid_cells"]),
    (losses.explorer, ["losses"]),
    (matching.explorer, ["matching"]),
    (metrics.explorer, ["boxes"]),
    (ranking.explorer, ["average_precision"]),
    (ranking.panoptic_explorer, ["panoptic_quality"]),
    (rays.explorer, ["rays"]),
    (roi.explorer, ["roi_align"]),
    (unet.explorer, ["unet_sizes"]),
]


@pytest.mark.parametrize(("explorer", "names"), SHOWN, ids=[" and ".join(names) for _, names in SHOWN])
@pytest.mark.parametrize("setting", ["live", "static"])
def test_a_live_notebook_shows_the_explorer_and_all_others_the_frames(explorer, names, setting, monkeypatch) -> None:
    monkeypatch.setenv("SEGEDU_WIDGETS", setting)
    widgets: list[ExplorerWidget] = []
    monkeypatch.setattr("IPython.display.display", lambda *shown: widgets.extend(shown))
    figures: list[str] = []
    monkeypatch.setitem(explorer.__globals__, "show", lambda figure, alt: figures.append(alt))
    explorer()
    if setting == "live":
        assert [widget.explorer for widget in widgets] == [text_of(name) for name in names]
        assert all(isinstance(widget, ExplorerWidget) and widget.start == {} for widget in widgets)
        assert figures == []
    else:
        assert widgets == [] and len(figures) == len(set(figures)) >= 3


def text_of(name: str) -> str:
    return (FOLDER / f"{name}.js").read_text(encoding="utf-8")


def test_each_module_has_no_other_explorer() -> None:
    """A new function of these modules needs a row above."""
    modules = {explorer.__globals__["__name__"]: explorer.__globals__ for explorer, _ in SHOWN}
    found: set[Callable] = {
        value for names in modules.values() for name, value in names.items() if name.endswith("explorer")
    }
    assert found == {explorer for explorer, _ in SHOWN}
