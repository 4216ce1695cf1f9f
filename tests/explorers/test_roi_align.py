"""The explorer of RoIPool and RoIAlign against the library's operators, on the same feature maps."""

from __future__ import annotations

import base64
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from explorers.browser import assert_equal
from torch import Tensor

from segedu.ops.roi_align import roi_align
from segedu.ops.roi_pool import roi_pool
from segedu.teaching.explorers.notebook import FOLDER
from segedu.teaching.widgets import roi as widget

pytestmark = pytest.mark.browser


def brightness() -> Tensor:
    """The explorer's feature map of stride 4, (1, 1, 32, 32), float64 in [0, 1]."""
    source = (FOLDER / "roi_align.js").read_text(encoding="utf-8")
    text = "".join(re.findall(r'"([A-Za-z0-9+/=]+)"', source.split("const GREY =")[1].split(";")[0]))
    values = np.frombuffer(base64.b64decode(text), np.uint8).reshape(1, 1, 32, 32)
    return torch.from_numpy(values / 255.0)


def test_feature_map_is_the_library_scene() -> None:
    target = widget.scene().features[4]
    torch.testing.assert_close(255 * brightness(), (255 * target).round().double())


def pooled(state: dict, nudge: float) -> tuple[Tensor, Tensor]:
    """RoIPool's and RoIAlign's values (3, 3); in float64, as JavaScript, because RoIPool's rounding decides."""
    stride = int(state["stride"])
    features = F.avg_pool2d(brightness(), stride // 4)
    x, y = state["x"] + nudge, state["y"]
    box = torch.tensor([[value + (y if k % 2 else x) for k, value in enumerate(widget.BOX)]], dtype=torch.float64)
    pool = roi_pool(features, [box], widget.BINS, 1 / stride)
    align = roi_align(features, [box], widget.BINS, 1 / stride, int(state["points"]), state["aligned"])
    return pool[0, 0], align[0, 0]


def test_equals_python(explorers) -> None:
    states = explorers.states("roi_align", 90)
    jumps = {True: 0, False: 0}
    for state, result in zip(states, explorers.compute("roi_align", states), strict=True):
        (pool, align), (pool_later, align_later) = pooled(state, 0), pooled(state, widget.NUDGE)
        target = {"pool": pool, "align": align, "pool_change": pool_later - pool, "align_change": align_later - align}
        assert_equal(result, target, f"{state}")
        jumps[bool((pool_later - pool).abs().max() > 0.02)] += 1
    assert min(jumps.values()) >= 5, jumps


def test_first_state_is_near_the_python_widget(explorers) -> None:
    """Only the rounding of the brightness to bytes differs."""
    state = explorers.states("roi_align", 3)[0]
    result = explorers.compute("roi_align", [state])[0]
    shift = torch.tensor([state["x"]])
    torch.testing.assert_close(
        torch.tensor(result["pool"]), widget.roi_pool_values(shift, 8)[0], atol=0.003, rtol=0, check_dtype=False
    )
    align = widget.roi_align_values(shift, 8, 2, True)[0]
    torch.testing.assert_close(torch.tensor(result["align"]), align, atol=0.003, rtol=0, check_dtype=False)
