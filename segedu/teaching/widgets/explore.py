"""Sliders in a live notebook, a few captioned pictures everywhere else: one call, one drawing function.

In a book build, under nbval and in a script, nobody can move a slider, and a live output widget can make a notebook
runner wait until its timeout. Therefore the same function of plain values is either connected to controls, or called
once for each static frame.
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
    words = {name: name.replace("_", " ") for name in inspect.signature(draw).parameters} | dict(labels or {})
    if is_live():
        from IPython.display import display

        display(sliders(draw, controls, words))
        return
    for frame in static:
        draw(**frame)
        _show_caption(caption(frame, words))


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
