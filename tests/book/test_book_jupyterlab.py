"""A live JupyterLab: the notebook runs to its end, and the widget follows the keyboard."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from proven import each_lab
from pycocotools.coco import COCO

from segedu.datasets.cvat import from_cvat
from segedu.datasets.shapes import CLASSES, draw_shapes
from segedu.teaching import exercises

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[2]
WAIT = 120_000  # milliseconds; a busy machine is slow, a broken one never gets there
SMALL = """
import matplotlib.pyplot as plt
from segedu.viz import show
from segedu.teaching.widgets.explore import explore

def draw(points: int = 3, line: bool = True):
    fig, axes = plt.subplots(figsize=(3, 2))
    axes.plot(range(points), "-" if line else "o")
    show(fig, f"A rising line of {points} points")

explore(draw, static=[{"points": 3}], points=(2, 9), line=[True, False])
"""
EXPLORER = """
from segedu.teaching.explorers.notebook import show_explorer

show_explorer("boxes", x=20)
"""
BUS = """
from segedu.teaching.widgets.grid_cells import explorer

explorer()
"""
PROMPTS = """
from segedu.teaching.widgets.prompts import explorer

explorer()
"""
LABELLING = """
from segedu.datasets.shapes import CLASSES, draw_shapes
from segedu.weights import load
from segedu.teaching.widgets.annotate import annotate

images = {f"scene{seed}.png": draw_shapes(seed)["image"] for seed in (3, 4)}
tool = annotate(images, CLASSES, load("shapes_sam"))
tool
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(folder: Path) -> dict[str, str]:
    """Nothing of this user's settings, nothing of pytest, and all cells of a notebook in the page at once."""
    settings = folder / "settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    (settings / "tracker.jupyterlab-settings").write_text(json.dumps({"windowingMode": "none"}))
    ours = {
        "JUPYTERLAB_SETTINGS_DIR": folder / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": folder / "workspaces",
        "JUPYTER_CONFIG_DIR": folder / "config",
        "JUPYTER_RUNTIME_DIR": folder / "runtime",
        "PYTHONPATH": ROOT,
        "OMP_NUM_THREADS": "1",
    }
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "SEGEDU_"))}
    return kept | {name: str(value) for name, value in ours.items()}


@pytest.fixture(scope="module")
def lab_server(browser, tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """Address of a running JupyterLab, and the folder it serves."""
    folder = tmp_path_factory.mktemp("jupyterlab")
    notebooks = folder / "notebooks"
    notebooks.mkdir()
    port = free_port()
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    command += [f"--ServerApp.root_dir={notebooks}", "--IdentityProvider.token=", "--LabApp.news_url="]
    command += ["--ServerApp.ip=127.0.0.1", "--LabApp.collaborative=False"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment(folder), stdout=log, stderr=log, cwd=folder)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(address, server, folder / "log")
        yield address, notebooks
    finally:
        server.terminate()
        server.wait(timeout=30)


def wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + WAIT / 1000
    while time.monotonic() < end:
        assert server.poll() is None, f"JupyterLab ended:\n{log.read_text()[-2000:]}"
        try:
            urllib.request.urlopen(f"{address}/api/status", timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"JupyterLab does not answer:\n{log.read_text()[-2000:]}")


def open_and_run_all(browser, address: str, name: str, cells: int):
    """Opens a notebook, runs all its cells with the menu, and waits until the last of its `cells` code cells has run."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    context.set_default_timeout(WAIT)
    tab = context.new_page()
    outside: list[str] = []
    tab.on("request", lambda r: outside.append(r.url) if not r.url.startswith((address, "data:", "blob:")) else None)
    # a workspace of its own: the default one would open the notebooks of the tests before as well
    tab.goto(f"{address}/lab/workspaces/{name.partition('.')[0]}/tree/{name}")
    tab.wait_for_selector(".jp-Notebook .jp-CodeCell")
    tab.get_by_text("| Idle").first.wait_for()  # before that, Run asks which kernel to take
    tab.locator(".lm-MenuBar-item", has_text="Run").first.click()
    tab.locator('li[data-command="runmenu:run-all"]').click()
    # by its place, not by its text: a cell that ends with a bracket alone looks like many others
    tab.wait_for_function(
        """cells => {
            const found = document.querySelectorAll('.jp-Notebook .jp-CodeCell');
            const last = found[cells - 1];
            return found.length === cells && /\\[\\d+\\]/.test(last.querySelector('.jp-InputPrompt').textContent);
        }""",
        arg=cells,
    )
    return tab, outside


def picture_of(widget) -> str:
    return widget.locator("img").first.get_attribute("src") or ""


def move_first_control(tab) -> None:
    """Focuses the first control as a keyboard user does, moves it, and sees another picture."""
    widget = tab.locator(".jp-OutputArea .widget-vbox", has=tab.locator("img")).first
    widget.scroll_into_view_if_needed()
    widget.locator("img").first.wait_for()
    before, label = picture_of(widget), widget.inner_text()
    control = widget.locator(".noUi-handle, select, input").first
    control.focus()
    for _ in range(2):
        tab.keyboard.press("ArrowRight" if control.get_attribute("role") == "slider" else "ArrowDown")
    tab.wait_for_function(
        "([image, before]) => image.isConnected ? image.src !== before : true",
        arg=[widget.locator("img").first.element_handle(), before],
    )
    widget.locator("img").first.wait_for()
    assert picture_of(widget) != before
    assert label.strip(), "the controls have no labels"


def move_first_explorer(tab):
    """Moves the first control of an explorer that computes in the browser, and sees another picture."""
    explorer = tab.locator(".jp-OutputArea .ex").first
    explorer.scroll_into_view_if_needed()
    panels, control = explorer.locator(".ex-panels"), explorer.locator("input, select").first
    before = panels.inner_html()
    control.focus()
    for _ in range(2):
        tab.keyboard.press("ArrowDown" if control.evaluate("element => element.tagName") == "SELECT" else "ArrowRight")
    assert panels.inner_html() != before
    assert explorer.locator("label").first.inner_text().strip(), "the controls have no labels"


def click_first_picture(tab):
    """Clicks into the middle of the picture for prompts, and sees four masks, one of them chosen."""
    widget = tab.locator(".jp-OutputArea .segedu-sam.wide").first
    canvas = widget.locator("canvas")
    canvas.scroll_into_view_if_needed()
    canvas.click()
    widget.locator("figure").nth(3).wait_for()
    assert widget.locator("figure.chosen").count() == 1


def use_widgets(tab):
    """Uses the first widget of each kind that the notebook shows."""
    kinds = {
        ".ex": move_first_explorer,
        ".segedu-sam.wide": click_first_picture,
        ".widget-vbox img": move_first_control,
    }
    # the page shows a widget a moment after its cell has run
    tab.locator(", ".join(f".jp-OutputArea {kind}" for kind in kinds)).first.wait_for()
    found = [kind for kind in kinds if tab.locator(f".jp-OutputArea {kind}").count()]
    assert found, "the notebook shows no widget"
    for kind in found:
        kinds[kind](tab)


def test_a_slider_moves_by_keyboard_and_the_picture_changes(browser, lab_server):
    address, folder = lab_server
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SMALL)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "small.ipynb")
    tab, outside = open_and_run_all(browser, address, "small.ipynb", 1)
    move_first_control(tab)
    assert tab.locator(".widget-slider").first.inner_text().split()[0] == "points"
    assert outside == []
    tab.context.close()


def test_an_explorer_computes_without_the_kernel(browser, lab_server):
    address, folder = lab_server
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(EXPLORER)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "explorer.ipynb")
    tab, outside = open_and_run_all(browser, address, "explorer.ipynb", 1)
    slider = tab.get_by_label("x of the centre", exact=True)
    slider.wait_for()
    assert slider.input_value() == "20"
    slider.focus()
    for _ in range(8):
        tab.keyboard.press("ArrowLeft")
    tab.locator(".ex-sentence", has_text="The boxes overlap. IoU 0.091").wait_for()
    tab.locator(".ex-handle").first.focus()
    tab.keyboard.press("ArrowRight")
    assert slider.input_value() == "16.5" and outside == []
    tab.context.close()


def test_the_bus_of_lab_12_is_dragged_over_the_grid(browser, lab_server):
    address, folder = lab_server
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(BUS)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "bus.ipynb")
    tab, outside = open_and_run_all(browser, address, "bus.ipynb", 1)
    image = tab.locator(".ex-panel").first
    image.get_by_text("The bus is lost: its slot is occupied").wait_for()
    handle = image.locator(".ex-handle")
    handle.scroll_into_view_if_needed()
    start, panel = handle.bounding_box(), image.bounding_box()
    x, y = start["x"] + start["width"] / 2, start["y"] + start["height"] / 2
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x, y - 0.35 * panel["height"], steps=5)
    tab.mouse.up()
    image.get_by_text("Drag the bus: all have a slot").wait_for()
    assert int(tab.get_by_label("y of the bus", exact=True).input_value()) < 21  # in the upper row of cells
    assert tab.get_by_label("x of the bus", exact=True).input_value() == "40" and outside == []
    tab.context.close()


def test_sam_answers_clicks_a_box_and_keys(browser, lab_server, tmp_path):
    """A click, a background click in both ways, a box, an undo, another scene, and the same with the keyboard."""
    address, folder = lab_server
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(PROMPTS)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "prompts.ipynb")
    tab, outside = open_and_run_all(browser, address, "prompts.ipynb", 1)
    widget = tab.locator(".segedu-sam")
    canvas, status, chosen = widget.locator("canvas"), widget.locator(".status"), widget.locator("figure.chosen")
    canvas.wait_for()
    canvas.scroll_into_view_if_needed()
    assert widget.locator("figure").count() == 0
    box = canvas.bounding_box()
    step = box["width"] / 96  # screen pixels to one of the image

    def says(words):
        status.filter(has_text=words).wait_for()

    def press(name):
        widget.get_by_role("button", name=name, exact=True).click()

    canvas.click(position={"x": 55 * step, "y": 63 * step})
    says("One click is ambiguous. Of the three masks for it, mask")
    assert widget.locator("figure").count() == 4 and "predicted IoU" in chosen.inner_text()
    assert "chosen" in chosen.inner_text() and "IoU with the" in chosen.inner_text()
    canvas.click(position={"x": 10 * step, "y": 20 * step}, modifiers=["Shift"])
    says("more than one click, is a clear prompt, so the fourth mask is chosen")
    press("Not this")
    assert widget.get_by_role("button", name="Not this").get_attribute("aria-pressed") == "true"
    tab.mouse.move(box["x"] + 38 * step, box["y"] + 48 * step)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 76 * step, box["y"] + 82 * step, steps=4)
    before = widget.locator(".sam-masks").inner_text()
    tab.mouse.up()
    tab.wait_for_function("before => document.querySelector('.sam-masks').innerText !== before", arg=before)
    tab.screenshot(path=tmp_path / "prompts.png")
    press("Clear")
    says("Click on an object")
    assert widget.locator("figure").count() == 0
    assert widget.get_by_role("button", name="Not this").get_attribute("aria-pressed") == "false"
    tab.keyboard.press("u")  # the keys go on with the picture
    says("Undone. A box, or more than one click")
    assert widget.locator("figure").count() == 4
    widget.get_by_label("Scene").select_option("cells")
    says("Click on an object")
    canvas.focus()
    for key in (
        "ArrowLeft",
        "ArrowRight",
        "Shift+ArrowDown",
        "ArrowUp",
        "Enter",
    ):  # the first brings the cross to the middle
        tab.keyboard.press(key)
    says("One click is ambiguous")
    for key in ("n", "Shift+ArrowLeft", "Shift+ArrowLeft", "Space"):
        tab.keyboard.press(key)
    says("more than one click, is a clear prompt")
    for key in ("Escape", "b", "b"):
        tab.keyboard.press(key)
    says("Not done: the box has no area")
    assert tab.locator(".jp-Notebook .jp-CodeCell").count() == 1, "a key of the widget reached the notebook"
    assert outside == []
    tab.context.close()


def test_the_annotation_tool_is_driven_by_mouse_and_keys(browser, lab_server, tmp_path):
    """Three clicks, a box, an undo, an object by mouse and one by keys, and files that COCO's and our reader take."""
    address, folder = lab_server
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(LABELLING)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "label.ipynb")
    tab, outside = open_and_run_all(browser, address, "label.ipynb", 1)
    tool = tab.locator(".segedu-annotate")
    canvas, status, objects = tool.locator("canvas"), tool.locator(".status"), tool.locator(".objects li")
    canvas.wait_for()
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    step = box["width"] / 64  # screen pixels to one of the image

    def at(x, y):
        return {"x": (x + 0.5) * step, "y": (y + 0.5) * step}

    def says(words):
        status.filter(has_text=words).wait_for()

    def press(name):
        tool.get_by_role("button", name=name, exact=True).click()

    truth = draw_shapes(3)
    x1, y1, x2, y2 = truth["boxes"][3].tolist()
    row, column = truth["masks"][3].nonzero().float().mean(dim=0).tolist()
    says("Image 1 of 2, scene3.png. Click on an object")
    canvas.click(position=at(column, row))
    says("of 3, SAM predicts an IoU of")
    press("Next mask")
    canvas.click(position=at(column + 1, row))
    says("pixels, SAM predicts")
    canvas.click(position=at(1, 1), modifiers=["Shift"])
    tab.mouse.move(box["x"] + (x1 + 0.5) * step, box["y"] + (y1 + 0.5) * step)
    tab.mouse.down()
    tab.mouse.move(box["x"] + (x2 - 0.5) * step, box["y"] + (y2 - 0.5) * step, steps=4)
    tab.mouse.up()
    says("pixels, SAM predicts")
    tab.screenshot(path=tmp_path / "asked.png")
    canvas.press("u")
    says("Undone")
    canvas.press("r")
    says("Redone")
    tool.locator("select").select_option(str(int(truth["labels"][3])))
    press("Keep")
    says("Kept")
    assert objects.count() == 1
    for key in ("ArrowLeft", "Shift+ArrowUp", "ArrowDown", " "):  # the first brings the cross to the middle
        canvas.press(key)
    says("of 3, SAM predicts an IoU of")
    canvas.press("2")
    canvas.press("Enter")
    objects.nth(1).wait_for()
    objects.nth(1).locator("select").select_option("1")
    says("The class of object 2 is now circle")
    tool.get_by_role("button", name="Undo", exact=True).click()  # by mouse: the keys go on with the picture
    says("Undone")
    tab.keyboard.press("Enter")
    says("Not done: there is no mask to keep")
    tab.screenshot(path=tmp_path / "kept.png")
    files = {}
    for button in ("COCO JSON", "CVAT XML"):
        with tab.expect_download() as download:
            press(button)
        files[button] = tmp_path / download.value.suggested_filename
        download.value.save_as(files[button])
    coco = COCO(files["COCO JSON"])
    masks = [coco.annToMask(annotation).astype(bool) for annotation in coco.anns.values()]
    assert len(masks) == 2 and all(mask.any() for mask in masks)
    assert [image["file_name"] for image in coco.imgs.values()] == ["scene3.png", "scene4.png"]
    again, classes = from_cvat(files["CVAT XML"].read_text())
    assert classes == list(CLASSES) and torch.equal(again["scene3.png"]["masks"], torch.from_numpy(np.stack(masks)))
    assert again["scene3.png"]["labels"].tolist() == [int(truth["labels"][3]), 2]
    assert (torch.from_numpy(masks[0]) & truth["masks"][3]).sum() / (
        torch.from_numpy(masks[0]) | truth["masks"][3]
    ).sum() > 0.7
    tab.locator(".jp-Notebook .jp-CodeCell").nth(0).wait_for()
    assert tab.locator(".jp-Notebook .jp-CodeCell").count() == 1, "a key of the tool reached the notebook"
    assert outside == []
    tab.context.close()


@each_lab(exercises.with_notebook())
def test_the_widget_of_a_lab_moves_in_the_lab_itself(browser, lab_server, lab):
    """Run All on the student's notebook, then the keyboard. The training cell, which other tests run, is left out."""
    address, folder = lab_server
    notebook = nbformat.read(ROOT / "labs" / f"{lab}.ipynb", as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.metadata["segedu"]["role"] != "train"]
    nbformat.write(notebook, folder / f"{lab}.ipynb")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tab, outside = open_and_run_all(browser, address, f"{lab}.ipynb", len(code))
    assert tab.locator(".jp-OutputArea img").count() > 2, "the lab shows no pictures"
    use_widgets(tab)
    assert outside == []
    tab.context.close()
