"""The widget of chapter 3: its numbers agree with torch, and its picture marks them."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from matplotlib.colors import to_hex

from segedu.teaching.widgets import convolution as widget

CONV, TRANSPOSED = widget.CONVOLUTION, widget.TRANSPOSED


@pytest.fixture
def shown(monkeypatch):
    found = []
    monkeypatch.setattr(widget, "show", lambda fig, alt: found.append((fig, alt)))
    return found


def marked(ax):
    """(row, column) of the orange cells."""
    cells = [p for p in ax.patches if p.get_fill() and to_hex(p.get_facecolor()) == widget.TAP]
    return {(int(p.get_y()), int(p.get_x())) for p in cells}


@pytest.mark.parametrize(("size", "k", "s", "p", "d"), [(7, 3, 2, 1, 1), (6, 2, 1, 0, 3), (5, 4, 3, 3, 1)])
def test_marked_pixels_are_those_that_the_output_pixel_sees(shown, size, k, s, p, d):
    padded = torch.zeros(1, 1, size + 2 * p, size + 2 * p, requires_grad=True)
    out = F.conv2d(padded, torch.ones(1, 1, k, k), stride=s, dilation=d)
    for pixel in (0, 1, out.numel() - 1):
        (gradient,) = torch.autograd.grad(out.flatten()[pixel], padded, retain_graph=True)
        widget.draw_grids(CONV, size, k, s, p, d, 0, pixel)
        assert marked(shown[-1][0].axes[0]) == {(int(y), int(x)) for y, x in gradient[0, 0].nonzero()}


@pytest.mark.parametrize(("size", "k", "s", "d", "extra"), [(4, 3, 2, 1, 1), (3, 2, 3, 2, 0), (1, 4, 1, 1, 0)])
def test_marked_pixels_and_counts_of_a_transposed_convolution(shown, size, k, s, d, extra):
    kernel = torch.ones(1, 1, k, k)
    options = {"stride": s, "dilation": d, "output_padding": extra}
    counts = F.conv_transpose2d(torch.ones(1, 1, size, size), kernel, **options)[0, 0]
    for pixel in {0, size**2 - 1}:
        one = torch.zeros(size**2)
        one[pixel] = 1
        patch = F.conv_transpose2d(one.view(1, 1, size, size), kernel, **options)[0, 0]
        widget.draw_grids(TRANSPOSED, size, k, s, 0, d, extra, pixel)
        ax = shown[-1][0].axes[1]
        assert marked(ax) == {(int(y), int(x)) for y, x in patch.nonzero()}
        texts = {(int(t.get_position()[1]), int(t.get_position()[0])): int(t.get_text()) for t in ax.texts}
        assert texts == {(y, x): int(counts[y, x]) for y, x in itertools.product(*map(range, counts.shape))}
        assert f"{int(counts.min())} to {int(counts.max())} patches" in shown[-1][1]


def test_the_formula_is_right_when_computed():
    for numbers in itertools.product((5, 7, 8), (2, 3), (1, 2, 3), (0, 1), (1, 2), (0,)):
        for operation in (CONV, TRANSPOSED):
            text, out = widget.formula(operation, *numbers)
            assert eval(text.split(" = ")[0].replace("floor", "int")) == out


def test_no_output_gives_a_sentence(shown):
    widget.draw_grids(CONV, size=2, kernel_size=5, padding=0)
    widget.draw_grids(TRANSPOSED, size=4, stride=2, output_padding=3)
    assert "kernel_size is 5" in shown[0][1] and "output_padding is 3" in shown[1][1]


def test_pixels_that_are_never_seen_are_counted(shown):
    widget.draw_grids(CONV, size=8, kernel_size=3, stride=2, padding=1)
    widget.draw_grids(CONV, size=8, kernel_size=3, stride=2, padding=0)
    widget.draw_grids(CONV, size=8, kernel_size=1, stride=3, padding=0)
    widget.draw_grids(CONV, size=7, kernel_size=3, stride=2, padding=1)
    assert "never seen" not in shown.pop()[1]
    said = [alt.split(" rows and columns")[0].split()[-3] for _, alt in shown]
    assert said == ["1", "1", "5"]


def test_static_frames_are_drawn(monkeypatch, shown):
    monkeypatch.setenv("SEGEDU_WIDGETS", "static")
    widget.explorer()
    assert len({alt for _, alt in shown}) == 4
