"""The drawn U-Net has the sizes of the library's U-Net."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segedu.semantic.unet import UNet, unet_out_size
from segedu.teaching.widgets import unet as widget


@pytest.mark.parametrize("depth, base, padding, size", [(2, 3, 0, 60), (3, 2, 1, 40), (1, 4, 0, 20)])
def test_shapes_parameters_and_feature_maps_are_those_of_the_net(depth, base, padding, size):
    net = UNet(1, 2, base, depth, padding)
    shapes = []
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            layer.register_forward_hook(lambda m, i, o: shapes.append((o.shape[1], o.shape[2])))
    logits = net(torch.zeros(1, 1, size, size))
    down, up = widget.level_sizes(size, base, depth, padding)
    expected = [(level.channels, n) for level in down + up for n in (level.middle, level.after)]
    assert shapes == expected
    assert logits.shape[-1] == up[-1].after
    assert widget.count_parameters(base, depth) == sum(p.numel() for p in net.parameters())


def test_the_paper():
    down, up = widget.level_sizes(572, 64, 4, 0)
    assert [level.channels for level in down] == [64, 128, 256, 512, 1024]
    assert (down[-1].after, up[-1].after) == (28, 388)
    # by hand: one level of one channel on 8 x 8, padded, depth 1
    down, up = widget.level_sizes(8, 1, 1, 1)
    by_hand = 64 + 2 * 64 + 16 + 2 * 2 * 16 + 64 + 2 * 64 + 2 * 64 + 2 * 64
    assert widget.count_activations(down, up) == by_hand


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("padding", [0, 1])
def test_a_legal_size_is_the_next_one(depth, padding):
    size = widget.legal_size(64, depth, padding)
    assert size >= 64
    if padding:
        assert size % 2**depth == 0
    else:
        assert unet_out_size(size, depth) == widget.level_sizes(size, 4, depth, 0)[1][-1].after


@pytest.mark.parametrize("depth, base, padding, size", [(4, 64, 0, 572), (1, 4, 1, 64), (5, 8, 0, 100)])
def test_the_picture_has_all_numbers_in_its_alt_text(monkeypatch, depth, base, padding, size):
    shown = []
    monkeypatch.setattr(widget, "show", lambda fig, alt: shown.append((fig, alt)))
    widget.draw_unet(depth, base, padding, size)
    ((fig, alt),) = shown
    assert f"{base} channels" in alt and f"{base * 2**depth} channels" in alt
    assert len(fig.axes[0].patches) == 2 * depth + 1


def test_static_frames_fit(monkeypatch):
    monkeypatch.setenv("SEGEDU_WIDGETS", "static")
    alts = []
    monkeypatch.setattr(widget, "show", lambda fig, alt: alts.append(alt))
    widget.explorer()
    assert len(alts) == 3 and "388" in alts[0]
