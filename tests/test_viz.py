"""Pictures: alternative text, colours, overlays, comparisons, bad input."""

from __future__ import annotations

import base64
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from PIL import Image

from segedu import viz
from segedu.datasets.shapes import draw_shapes

RED = torch.zeros(3, 9, 7)


@pytest.fixture
def shown(monkeypatch) -> list[tuple[dict, dict]]:
    """What a notebook would receive: (data, metadata) of each displayed object."""
    outputs: list[tuple[dict, dict]] = []

    def display(image, metadata=None) -> None:
        data, own = DisplayFormatter().format(image)
        outputs.append((data, own | (metadata or {})))

    monkeypatch.setattr("IPython.display.display", display)
    return outputs


def test_show_carries_the_alternative_text_and_closes(shown, capsys) -> None:
    fig = plt.figure()
    assert viz.show(fig, "one empty figure") is None
    ((data, metadata),) = shown
    assert metadata["image/png"]["alt"] == "one empty figure"
    assert "image/png" in data
    assert capsys.readouterr().out == "" and not plt.fignum_exists(fig.number)


def test_show_writes_two_pixels_for_each_pixel_of_the_page(shown) -> None:
    viz.show(plt.figure(figsize=(3, 2), dpi=100), "one empty figure")
    ((data, metadata),) = shown
    width, height = Image.open(BytesIO(base64.b64decode(data["image/png"]))).size
    assert metadata["image/png"]["width"] == width // 2
    assert 590 <= width <= 640 and 390 <= height <= 440


def test_show_as_vector_graphics(shown) -> None:
    for _ in range(2):
        fig, ax = plt.subplots()
        ax.plot([1, 2], [3, 4])
        viz.show(fig, "one rising line", vector=True)
        assert not plt.fignum_exists(fig.number)
    (first, metadata), (second, _) = shown
    assert metadata["image/svg+xml"]["alt"] == "one rising line"
    assert first["image/svg+xml"] == second["image/svg+xml"] and "<svg" in first["image/svg+xml"]


def test_palette() -> None:
    colours = viz.palette(21)
    assert colours.shape == (21, 3) and colours.min() >= 0 and colours.max() <= 1
    assert len(np.unique(colours.round(3), axis=0)) == 21
    assert np.array_equal(viz.palette(5), colours[:5]) and viz.palette(0).shape == (0, 3)
    assert (colours[0] * 255).round().tolist() == [0xE6, 0x9F, 0x00]


def test_overlay_tints_and_outlines() -> None:
    labels = torch.zeros(9, 7, dtype=torch.int32)
    labels[2:7, 1:6] = 2
    picture = viz.overlay(RED, labels, opacity=0.5)
    colour = viz.palette(2)[1]
    assert np.allclose(picture[0, 0], 0), "background stays"
    assert np.allclose(picture[2, 1], colour), "outline in full"
    assert np.allclose(picture[4, 3], 0.5 * colour), "tint inside"
    masks = torch.stack([labels == 1, labels == 2])
    assert np.array_equal(viz.overlay(RED, masks, opacity=0.5), picture)
    assert viz.overlay(RED[0], labels > 0).shape == (9, 7, 3)


@pytest.mark.parametrize("labels", [torch.zeros(9, 7).int(), torch.zeros(0, 9, 7).bool(), torch.zeros(9, 7).bool()])
def test_overlay_of_nothing_is_the_image(labels) -> None:
    assert np.array_equal(viz.overlay(RED + 0.5, labels), np.full((9, 7, 3), 0.5))


def test_gallery_and_compare_draw() -> None:
    samples = [draw_shapes(seed, (33, 21)) for seed in range(3)]
    images = [sample["image"] for sample in samples]
    maps = [samples[0]["label_map"], None, samples[2]["masks"]]
    fig = viz.gallery(images, maps, titles=["a", "b", "c"], columns=2, numbers=True)
    assert len(fig.axes) == 4 and [axis.get_title() for axis in fig.axes[:3]] == ["a", "b", "c"]
    assert {text.get_text() for text in fig.axes[0].texts} == {str(i + 1) for i in range(len(samples[0]["labels"]))}
    assert len(viz.gallery(torch.stack(images)).axes) == 3
    assert len(viz.gallery([torch.zeros(1, 1)]).axes) == 1
    plt.close("all")


@pytest.mark.parametrize("title", ["one line", "two\nlines"])
def test_titles_of_a_gallery_are_clear_of_the_images_above(title: str) -> None:
    fig = viz.gallery([torch.rand(3, 20, 20)] * 8, titles=[title] * 8, columns=4)
    fig.canvas.draw()
    above, below = fig.axes[0], fig.axes[4]
    assert below.title.get_window_extent().y1 < above.images[0].get_window_extent().y0 - 3
    plt.close(fig)


def test_compare_counts_each_kind_of_error() -> None:
    truth = torch.tensor([[1, 1, 2, 0, 0, 255]]).repeat(2, 1)
    prediction = torch.tensor([[1, 0, 1, 1, 0, 1]]).repeat(2, 1)
    fig = viz.compare(torch.zeros(3, 2, 6), truth, prediction)
    texts = [text.get_text() for text in fig.legends[0].get_texts()]
    assert texts == ["correct: 2 px", "missed: 2 px", "false: 4 px"]
    assert len(fig.axes[3].collections) == 2, "missed and false pixels are hatched, not only coloured"
    fig.savefig(BytesIO(), format="png")
    for size in ((1, 1), (1, 5), (5, 1)):
        viz.compare(torch.zeros(3, *size), torch.ones(size).bool(), torch.zeros(size).bool()).savefig(BytesIO())
    plt.close("all")


def test_same_figure_same_bytes(shown) -> None:
    sample = draw_shapes(0)
    for _ in range(2):
        viz.show(viz.compare(sample["image"], sample["semantic"], sample["semantic"]), "shapes, all right")
    first, second = (base64.b64decode(data["image/png"]) for data, _ in shown)
    assert first == second
    assert Image.open(BytesIO(first)).size[0] > 300


IDS = torch.zeros(9, 7, dtype=torch.int32)
BAD = [
    (lambda: viz.palette(-1), ValueError, "num is -1"),
    (lambda: viz.palette(2.0), TypeError, "num is 2.0"),
    (lambda: viz.show(plt.figure(), "short"), ValueError, "at least 10 characters"),
    (lambda: viz.show(plt.figure(), " " * 20), ValueError, "at least 10 characters"),
    (lambda: viz.show(plt.figure(), None), TypeError, "alt has type NoneType"),
    (lambda: viz.show("figure", "a figure of nothing"), TypeError, "fig has type str"),
    (lambda: viz.overlay([[0.0]], IDS), TypeError, "image has type list"),
    (lambda: viz.overlay(RED.byte(), IDS), TypeError, "image has dtype uint8"),
    (lambda: viz.overlay(RED + 2, IDS), ValueError, "image runs from 2.0 to 2.0"),
    (lambda: viz.overlay(RED * float("nan"), IDS), ValueError, "image runs from nan"),
    (lambda: viz.overlay(torch.zeros(2, 9, 7), IDS), ValueError, "image has shape"),
    (lambda: viz.overlay(torch.zeros(3, 0, 7), IDS), ValueError, "not empty"),
    (lambda: viz.overlay(RED, IDS[1:]), ValueError, "labels has shape"),
    (lambda: viz.overlay(RED, IDS.float()), TypeError, "labels has dtype float32"),
    (lambda: viz.overlay(RED, IDS - 1), ValueError, "negative label -1"),
    (lambda: viz.overlay(RED, IDS, opacity=1.5), ValueError, "opacity is 1.5"),
    (lambda: viz.gallery([]), ValueError, "images is empty"),
    (lambda: viz.gallery([RED], [IDS, IDS]), ValueError, "labels has 2 entries, expected 1"),
    (lambda: viz.gallery([RED], titles=[]), ValueError, "titles has 0 entries"),
    (lambda: viz.gallery([RED], columns=0), ValueError, "columns is 0"),
    (lambda: viz.compare(RED, IDS, IDS[:3]), ValueError, "prediction has shape"),
    (lambda: viz.compare(RED, IDS[:3], IDS), ValueError, "target has shape"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        call()
    plt.close("all")
