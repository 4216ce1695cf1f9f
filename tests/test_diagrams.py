"""Architecture diagrams: sizes read from a network, boxes that do not overlap, texts that fit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segedu.teaching.diagrams import ROLES, Diagram, output_shapes


class Net(nn.Module):
    """A list, a dict and a module that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.again = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.levels = Levels()

    def forward(self, images):
        return {"maps": self.levels(self.again(self.again(self.stem(images))))}


class Levels(nn.Module):
    def forward(self, x):
        return [x, x[..., ::2, ::2]]


def test_shapes_of_modules_lists_and_dicts():
    net = Net()
    shapes = output_shapes(net, torch.zeros(1, 3, 32, 48))
    assert shapes["stem"] == (1, 8, 16, 24) and shapes["levels.1"] == (1, 8, 8, 12)
    assert shapes["maps.0"] == (1, 8, 16, 24)
    assert not net.stem._forward_hooks, "the hooks stay"


def test_shapes_of_another_method():
    net = Net()
    net.twice = lambda images: {"first": net.stem(images), "second": net.again(net.stem(images))}
    shapes = output_shapes(net, torch.zeros(1, 3, 32, 48), method="twice")
    assert shapes["first"] == shapes["again"] == (1, 8, 16, 24) and "levels.0" not in shapes


@pytest.mark.parametrize(
    ("rows", "text"), [(180, "8 channels, 1/2"), (23, "8 channels, 1/16"), (12, "8 channels, 1/32")]
)
def test_strides_where_each_pooling_rounds_up(rows, text):
    assert Diagram(image=torch.zeros(1, 3, 360, 360)).size_text((1, 8, rows, rows)) == text


def test_pooled_regions_without_a_stride():
    diagram = Diagram(image=torch.zeros(1, 3, 473, 473))
    diagram.box("pooled", "means", (0, 0), "operation", (1, 8, 3, 3), stride=False)
    assert diagram.boxes["pooled"]["text"] == "means\n8 × 3 × 3"


def test_a_frame_contains_the_arrows_between_its_boxes():
    diagram = small()
    diagram.arrow("image", "stem", bend="over")
    diagram.frame("both", ["image", "stem"])
    frame = diagram.figure().axes[0].patches[0]
    assert frame.get_y() + frame.get_height() > max(y for _, y in diagram._path(diagram.arrows[0])) + 0.2


def test_hooks_are_removed_when_the_network_fails():
    net = Net()
    with pytest.raises(RuntimeError):
        output_shapes(net, torch.zeros(1, 4, 32, 48))
    assert not any(module._forward_hooks for module in net.modules())


def small() -> Diagram:
    image = torch.zeros(1, 3, 32, 48)
    diagram = Diagram(output_shapes(Net(), image), image)
    diagram.box("image", "image", (0, 0), "data", image.shape)
    diagram.module("stem", "convolution", (1, 0), "backbone")
    return diagram


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((1, 3, 32, 48), "3 channels"),
        ((1, 8, 16, 24), "8 channels, 1/2"),
        ((2, 8, 2, 3), "8 channels, 1/16"),
        ((1, 8, 11, 16), "8 channels, 1/3"),  # an odd size, rounded
        ((1, 8, 14, 14), "8 × 14 × 14"),  # no stride: pooled regions
        ((1, 8, 16, 16), "8 × 16 × 16"),  # a stride on one axis only
        ((1, 1, 16, 24), "1 channel, 1/2"),
        ((1, 100, 256), "100 × 256"),
        ((5, 4), "4"),
        ((), "scalar"),
    ],
)
def test_sizes_in_words(shape, text):
    assert small().size_text(shape) == text


@pytest.mark.parametrize("bend", ["", "hv", "vh", "over", "under"])
def test_arrows_start_and_end_at_their_boxes(bend):
    diagram = small()
    diagram.box("head", "head", (1, 2), "head")
    diagram.arrow("image", "head", "features", bend=bend, dashed=True)
    path = diagram._path(diagram.arrows[0])
    for (x, y), key in ((path[0], "image"), (path[-1], "head")):
        left, bottom, right, top = diagram._extent(key)
        assert left - 1e-9 <= x <= right + 1e-9 and bottom - 1e-9 <= y <= top + 1e-9
        assert min(abs(x - left), abs(x - right), abs(y - bottom), abs(y - top)) < 1e-9, "not at the edge"
    diagram.frame("all of it", ["image", "stem"])
    figure = diagram.figure()
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {"features", "all of it", "convolution\n8 channels, 1/2"} <= set(texts)
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [
        ROLES[role][1] for role in ("data", "backbone", "head")
    ]


def test_what_is_refused():
    diagram = small()
    with pytest.raises(KeyError, match="nothing named 'steam'; it has"):
        diagram.module("steam", "convolution", (3, 0), "backbone")
    with pytest.raises(ValueError, match="'stem' is used by two"):
        diagram.module("stem", "convolution", (3, 0), "backbone")
    with pytest.raises(ValueError, match="role is 'blue', expected one of data"):
        diagram.box("x", "x", (3, 0), "blue")
    with pytest.raises(ValueError, match="no box has the key 'x'"):
        diagram.arrow("image", "x")
    with pytest.raises(ValueError, match="bend is 'round'"):
        diagram.arrow("image", "stem", bend="round")
    diagram.box("x", "x", (0.5, 0), "head")
    with pytest.raises(ValueError, match="boxes 'image' and 'x' overlap"):
        diagram.figure()


def test_a_text_that_does_not_fit_its_box():
    diagram = small()
    diagram.box("long", "a text that is much longer than its box", (3, 0), "head")
    with pytest.raises(ValueError, match="text of box 'long' needs .* inches, its box has 1.6 x 0.6; shorten"):
        diagram.figure()
