"""A widget in a live notebook, a few captioned pictures everywhere else: one call, one drawing function.

In a book build, under nbval and in a script, nobody can move a slider, and a live output widget can make a notebook
runner wait until its timeout. There, a function of plain values is called once for each static frame. In a live
notebook, `explore` connects the same function to sliders, and `explore_in_browser` shows an explorer that computes the
same values in the browser, so that the kernel may be busy.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Frame = Mapping[str, Any]


def explore(
    draw: Callable[..., None],
    /,
    *,
    static: Sequence[Frame],
    labels: Mapping[str, str] | None = None,
    **controls: Any,
) -> None:
    """Show `draw` with controls for its arguments; without a live notebook, show the static frames.

    The environment variable `SEGEDU_WIDGETS` ("live" or "static") decides. If it is not set, frames are shown under
    pytest and wherever there is no Jupyter kernel.

    Args:
        draw: function of plain values that displays a picture (`segedu.viz.show`). The default values of
            its arguments are the controls' first values.
        static: at least one frame: the arguments of one call of `draw`. Each picture gets a caption with
            its values.
        labels: text beside a control and in captions, for arguments whose name is not clear enough.
        controls: one for each argument to vary: `(min, max)` or `(min, max, step)` for a slider, a list or
            a dict of named values for a drop-down list, a bool for a check box, or an ipywidget.

    Raises:
        ValueError: if there is no frame, or a control or frame does not fit the arguments of `draw`.
    """
    _check_arguments(draw, static, controls)
    if is_live():
        from IPython.display import display

        display(sliders(draw, controls, _words(draw, labels)))
    else:
        show_frames(draw, static, labels)


def explore_in_browser(
    draw: Callable[..., None], /, *names: str, static: Sequence[Frame], labels: Mapping[str, str] | None = None
) -> None:
    """Show explorers that compute in the browser; without a live notebook, show the static frames of `draw`.

    When a notebook is live is decided as in `explore`.

    Args:
        draw: function of plain values that displays a picture (`segedu.viz.show`).
        names: of the explorers, in the order in which they appear; see `segedu.teaching.explorers.notebook`.
        static: at least one frame: the arguments of one call of `draw`. Each picture gets a caption with its values.
        labels: text in captions, for arguments whose name is not clear enough.

    Raises:
        ValueError: if there is no frame, a frame does not fit the arguments of `draw`, or there is no such explorer.
    """
    _check_arguments(draw, static, {})
    if is_live():
        from IPython.display import display

        from segedu.teaching.explorers.notebook import show_explorer

        display(*(show_explorer(name) for name in names))
    else:
        show_frames(draw, static, labels)


def is_live() -> bool:
    """Whether the user can move controls, see `explore`."""
    setting = os.environ.get("SEGEDU_WIDGETS", "")
    if setting not in ("", "live", "static"):
        raise ValueError(f"SEGEDU_WIDGETS is {setting!r}, expected 'live' or 'static'")
    if setting:
        return setting == "live"
    return "PYTEST_CURRENT_TEST" not in os.environ and _has_kernel()


def sliders(draw: Callable[..., None], controls: Mapping[str, Any], labels_by_name: Mapping[str, str]) -> Any:
    """Build the live widget: labelled controls above the picture. Works with ipywidgets 7.7 and 8.

    Every control is reached with Tab and moved with the arrow keys. The picture follows each key press, but follows the
    mouse only when its button is released, so that slow drawings do not queue up.
    """
    from ipywidgets import Layout, VBox, interactive, interactive_output

    parameters = inspect.signature(draw).parameters
    widgets = {}
    for name, abbreviation in controls.items():
        widget = interactive.widget_from_abbrev(abbreviation, parameters[name].default)
        if widget is None:
            raise ValueError(f"controls: {name}={abbreviation!r} makes no control, see ipywidgets.interact")
        widget.description = labels_by_name[name]
        widget.style.description_width = "initial"
        widget.layout = Layout(width="min(28rem, 95%)")
        if hasattr(widget, "continuous_update"):
            widget.continuous_update = False
        widgets[name] = widget
    picture = interactive_output(draw, widgets)
    return VBox([*widgets.values(), picture])


def show_frames(draw: Callable[..., None], static: Sequence[Frame], labels: Mapping[str, str] | None = None) -> None:
    """Call `draw` once for each static frame, and show a caption with its values; see `explore`."""
    for frame in static:
        draw(**frame)
        _show_caption(caption(frame, _words(draw, labels)))


def caption(frame: Frame, labels: Mapping[str, str]) -> str:
    """Describe the values of a frame.

    >>> caption({"depth": 3, "base_channels": 8}, {"base_channels": "base channels"})
    'depth = 3, base channels = 8'
    """
    parts = []
    for name, value in frame.items():
        text = f"{value:g}" if isinstance(value, float) else str(value)
        parts.append(f"{labels.get(name, name)} = {text}")
    return ", ".join(parts)


def _words(draw: Callable[..., None], labels: Mapping[str, str] | None) -> dict[str, str]:
    """Text for each argument of `draw`: its label, or its name."""
    return {name: name.replace("_", " ") for name in inspect.signature(draw).parameters} | dict(labels or {})


def _show_caption(text: str) -> None:
    """Show a caption as Markdown in a notebook, as a line of text elsewhere."""
    if _has_kernel():
        from IPython.display import Markdown, display

        display(Markdown(f"*{text}*"))
    else:
        print(text)


def _has_kernel() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    shell = get_ipython()
    return shell is not None and hasattr(shell, "kernel")


def _check_arguments(draw: Callable[..., None], static: Sequence[Frame], controls: Frame) -> None:
    if not static:
        raise ValueError("static has no frame, expected at least one, for readers without a live notebook")
    for what, arguments in [("controls", controls), *((f"static[{i}]", f) for i, f in enumerate(static))]:
        try:
            inspect.signature(draw).bind(**arguments)
        except TypeError as error:
            name = getattr(draw, "__name__", repr(draw))
            raise ValueError(f"{what}: {dict(arguments)!r} does not fit {name}: {error}") from None
