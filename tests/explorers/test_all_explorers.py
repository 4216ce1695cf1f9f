"""What every explorer keeps: each control changes the picture, labels are legible, nothing is undefined at the ends."""

from __future__ import annotations

import pytest

from segedu.teaching.explorers.notebook import FOLDER, names, show_explorer

pytestmark = pytest.mark.browser
SMALLEST_LABEL = 10  # CSS pixels at full width

MOUNT = """(name) => {
    document.body.replaceChildren(document.createElement("div"));
    window.state = modules.host.mount(document.body.firstChild, modules[name]);
}"""
PICTURE = "() => document.querySelector('.ex-panels').innerHTML + document.querySelector('.ex-legend').innerHTML"
# numbers that an SVG cannot draw, in any attribute
UNDEFINED = r"""() => [...document.querySelectorAll('.ex-panels *')].flatMap((element) =>
    [...element.attributes].filter(({ value }) => /NaN|undefined|Infinity/.test(value) && !value.startsWith('data:')).map(({ name, value }) => name + '=' + value))"""
TEXT_SIZES = (
    "() => [...document.querySelectorAll('.ex-panel text')].map((text) => Number(text.getAttribute('font-size')))"
)


@pytest.fixture(params=names())
def mounted(request, explorers):
    explorers.load(request.param)
    explorers.page.set_content("<html lang='en'><head></head><body></body></html>")
    explorers.page.add_style_tag(path=str(FOLDER / "explorers.css"))
    errors: list[str] = []
    explorers.page.on("pageerror", lambda error: errors.append(str(error)))
    explorers.page.evaluate(MOUNT, request.param)
    yield request.param, explorers
    assert errors == []


def test_each_control_changes_the_picture(mounted) -> None:
    name, explorers = mounted
    page = explorers.page
    unchanged = []
    for control in explorers.controls(name):
        if control.get("hidden"):
            continue  # only the figure changes it
        page.evaluate(MOUNT, name)
        before = page.evaluate(PICTURE)
        field = page.get_by_label(control["label"], exact=True)
        field.focus()
        if isinstance(control["value"], bool):
            page.keyboard.press("Space")
        elif "options" in control:
            page.keyboard.press("ArrowDown" if control["value"] != control["options"][-1] else "ArrowUp")
        else:
            for _ in range(3):
                page.keyboard.press("ArrowRight" if control["value"] < control["max"] else "ArrowLeft")
        if page.evaluate(PICTURE) == before:
            unchanged.append(control["name"])
        page.get_by_role("button", name="Reset").click()
        assert page.evaluate(PICTURE) == before, f"Reset does not restore the picture after {control['name']}"
    assert unchanged == []


def test_nothing_is_undefined(mounted) -> None:
    name, explorers = mounted
    for state in explorers.states(name, 25, seed=1):
        explorers.page.evaluate("(values) => window.state.set(values)", state)
        assert explorers.page.evaluate(UNDEFINED) == [], state
        words = explorers.page.evaluate("(name) => modules[name].describe(state.values, state.result)", name)
        assert len(words) > 20 and "NaN" not in words and "undefined" not in words, (state, words)


def test_labels_are_legible(mounted) -> None:
    _, explorers = mounted
    sizes = explorers.page.evaluate(TEXT_SIZES)
    assert sizes and min(sizes) >= SMALLEST_LABEL


def test_panels_fit_a_telephone(mounted) -> None:
    _, explorers = mounted
    explorers.page.set_viewport_size({"width": 390, "height": 800})
    overflow = explorers.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    explorers.page.set_viewport_size({"width": 1280, "height": 800})
    assert overflow <= 0


def test_notebook_widget_holds_the_module() -> None:
    widget = show_explorer("boxes", x=20)
    assert "export function compute" in widget.explorer and widget.start == {"x": 20}
    with pytest.raises(ValueError, match="expected one of"):
        show_explorer("boxen")
