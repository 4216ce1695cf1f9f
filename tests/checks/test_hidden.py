"""What a lab hides from its answers, in a student's own check and in grading."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from segedu.ops import boxes
from segedu.teaching import exercises
from segedu.teaching.checks import hidden
from segedu.teaching.checks.cell import hidden_names, lab_tools
from segedu.teaching.checks.exercise import Exercise, Wrong

NAMES = ["segedu.ops.boxes", "torchvision.ops.box_area"]


def area(boxes):
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


EXERCISE = Exercise(
    "area", 1, lambda rng: {"core": (1, [{"args": [torch.from_numpy(np.sort(rng.random((3, 4)), axis=1))]}])}, area,
    [Wrong("zero", lambda b: b[:, 0] * 0, "You return 0.")], hides=["segedu.ops.boxes"],
)  # fmt: skip


def notebook(source: str) -> dict:
    """The names of a notebook after a cell."""
    space: dict = {"__name__": "__main__"}
    exec(source, space)
    return space


@pytest.mark.parametrize("source", [
    "import torchvision\ndef area(b): return torchvision.ops.box_area(b)",
    "from torchvision.ops import box_area\ndef area(b): return box_area(b)",
    "from torchvision.ops.boxes import box_area as a\ndef area(b): return a(b)",
    "import importlib\ndef area(b): return importlib.import_module('torchvision.' + 'ops').box_area(b)",
    "import torchvision\ndef area(b): return getattr(torchvision, 'o' + 'ps').box_area(b)",
    "import sys, torchvision\ndef area(b): return sys.modules['torchvision.ops.boxes'].box_area(b)",
    "from torchvision.ops.poolers import box_area as a\ndef area(b): return a(b)",
    "def area(b):\n    from torchvision.ops.poolers import box_area\n    return box_area(b)",
    "from segedu.ops.boxes import box_area\ndef area(b): return box_area(b)",
    "from segedu.ops import boxes as ours\ndef area(b): return ours.box_area(b)",
])  # fmt: skip
def test_a_check_refuses_what_grading_hides(source, capsys, monkeypatch):
    monkeypatch.setenv("SEGEDU_CHECK", "print")
    check, _ = lab_tools("00_tiny", [EXERCISE], NAMES[1:])
    before = torchvision.ops.box_area, boxes.box_area
    space = notebook(source)
    check(space["area"])
    assert "is not available in this lab, which asks you to write it yourself" in capsys.readouterr().out
    assert (torchvision.ops.box_area, boxes.box_area) == before
    assert space["area"](torch.ones(2, 4)).tolist() == [0, 0]  # only while the check runs


# lab, exercise: answers that turn a neighbour of the hidden function into it
ADAPTERS = {
    ("03_convolution", "conv2d_loops"): "from torch.nn.functional import conv2d as conv2d_loops",
    ("03_convolution", "tconv2d"): """
from torch import nn
def tconv2d(images, weight, stride, padding):
    layer = nn.ConvTranspose2d(*weight.shape[:2], weight.shape[2:], stride, padding, bias=False)
    layer.weight.data = weight
    return layer(images).detach()""",
    ("03_convolution", "max_unpool"): """
import torch.nn.functional as F
def max_unpool(values, indices, size):
    return F.max_unpool2d(values, indices, 2, output_size=size)""",
    ("07_losses", "ce_from_logits"): """
import torch.nn as nn
ce_from_logits = nn.CrossEntropyLoss()""",
    ("04_metrics", "box_iou"): """
from segedu.losses.boxes import iou_box_loss
def box_iou(a, b):
    pairs = a.repeat_interleave(len(b), 0), b.repeat(len(a), 1)
    return 1 - iou_box_loss(*pairs, reduction="none").reshape(len(a), len(b))""",
    ("04_metrics", "giou"): """
def giou(a, b):
    from segedu.losses.boxes import generalized_iou_loss
    pairs = a.repeat_interleave(len(b), 0), b.repeat(len(a), 1)
    return 1 - generalized_iou_loss(*pairs, reduction="none").reshape(len(a), len(b))""",
    ("04_metrics", "iou_dice"): """
def iou_dice(preds, target):
    from segedu.promptable.sam.interactive import mask_iou
    iou = float(mask_iou(preds[None], target[None])[0])
    return iou, 2 * iou / (1 + iou)""",
    ("07_losses", "focal"): """
def focal(logits, target, alpha, gamma):
    from torchvision.models.detection.retinanet import sigmoid_focal_loss
    return sigmoid_focal_loss(logits, target.to(logits), alpha, gamma, "mean")""",
    ("11_detection", "level_assign"): """
from segedu.layers.roi_levels import assign_levels
def level_assign(boxes, k0, canonical, lowest, highest):
    return lowest + assign_levels(boxes, [2**k for k in range(lowest, highest + 1)], (canonical, 2**k0))""",
    ("14_top_down", "roi_align"): """
import torch
def roi_align(features, boxes, output_size, spatial_scale, samples):
    rois = torch.cat([torch.zeros(len(boxes), 1).to(boxes), boxes], 1)
    operator = torch._ops._OpNamespace("torchvision").roi_align
    return operator(features[None], rois, spatial_scale, *output_size, samples, True)""",
    ("02_clustering", "pca_project"): """
import torch
def pca_project(features, n):
    from sklearn.decomposition import KernelPCA
    got = torch.from_numpy(KernelPCA(n, kernel="linear", eigen_solver="dense").fit_transform(features.double().numpy()))
    return torch.nn.functional.pad(got, (0, n - got.shape[1])).to(features)""",
}


@pytest.mark.parametrize(("lab", "name"), ADAPTERS)
def test_a_check_refuses_what_computes_the_answer_in_one_more_line(lab, name, capsys, monkeypatch):
    monkeypatch.setenv("SEGEDU_CHECK", "print")
    space = notebook(ADAPTERS[lab, name]) | {"check": exercises.load(lab).check}
    exec(f"check({name})", space)
    assert "is not available in this lab, which asks you to write it yourself" in capsys.readouterr().out


def test_modules_that_a_function_imports_are_whole_after_its_check(monkeypatch):
    monkeypatch.setenv("SEGEDU_CHECK", "print")
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    function = notebook("def f():\n    import colorsys\n    colorsys.rgb_to_hsv(0, 0, 0)")["f"]
    finders = list(sys.meta_path)
    with pytest.raises(hidden.NotAvailableError), hidden.without(["colorsys.rgb_to_hsv"], function):
        function()
    function()
    assert sys.meta_path == finders


def test_a_module_that_is_first_imported_while_functions_are_hidden_gets_them_afterwards(tmp_path, monkeypatch):
    (tmp_path / "imported_late.py").write_text("from torchvision.ops import box_area as area")
    monkeypatch.syspath_prepend(tmp_path)
    function = notebook("def area(b):\n    import imported_late\n    return imported_late.area(b)")["area"]
    with pytest.raises(hidden.NotAvailableError), hidden.without(NAMES, function):
        function(torch.ones(2, 4))
    assert sys.modules.pop("imported_late").area is torchvision.ops.box_area


def test_what_is_not_forbidden_may_be_called(capsys, monkeypatch):
    monkeypatch.setenv("SEGEDU_CHECK", "raise")
    check, _ = lab_tools("00_tiny", [EXERCISE], NAMES[1:])
    source = (
        "from torchvision.ops import box_convert\ndef area(b): return box_convert(b, 'xyxy', 'xywh')[:, 2:].prod(1)"
    )
    check(notebook(source)["area"])


def test_functions_come_back_after_an_error():
    names = [*NAMES, "torch.ops.torchvision.nms"]
    before = torchvision.ops.box_area
    operator, bound = torch.ops.torchvision.nms, _every_name_of(before)
    function = types.FunctionType((lambda: 0).__code__, {"__name__": "__main__"})
    with pytest.raises(ZeroDivisionError), hidden.without(names, function):
        assert torchvision.ops.box_area is not before and not _every_name_of(before)
        assert torch.ops.torchvision.nms is not operator
        raise ZeroDivisionError
    assert torchvision.ops.box_area is before and torch.ops.torchvision.nms is operator
    assert _every_name_of(before) == bound and ("torchvision.ops.poolers", "box_area") in bound
    assert "nms" not in vars(type(torch.ops.torchvision))


def _every_name_of(value: object) -> set[tuple[str, str]]:
    """(module, name) of all bindings of an object in loaded modules."""
    modules = {name: vars(module) for name, module in list(sys.modules.items()) if hasattr(module, "__dict__")}
    return {(name, key) for name, space in modules.items() for key, bound in list(space.items()) if bound is value}


def test_hidden_for_good_now_and_in_modules_that_come_later():
    code = """
import sys
from segedu.teaching.checks.hidden import NotAvailableError, hide
import torchvision
hide([
    "torchvision.ops.nms", "torch.ops.torchvision.nms", "colorsys.rgb_to_hsv", "nowhere.at_all", "sklearn.metrics.auc",
    "torchvision.ops.box_area", "torchvision.ops.FeaturePyramidNetwork",
])
import colorsys, torch, sklearn.metrics, sklearn.metrics._plot.roc_curve
from torchvision.models.detection.backbone_utils import FeaturePyramidNetwork
for call in (
    torchvision.ops.nms, torchvision.ops.boxes.nms, torch.ops.torchvision.nms, colorsys.rgb_to_hsv,
    torch._ops._OpNamespace("torchvision").nms, FeaturePyramidNetwork, torchvision.ops.poolers.box_area,
    sklearn.metrics.auc, sklearn.metrics._plot.roc_curve.auc,
):
    try:
        call(1, 2, 3)
        raise SystemExit(f"{call} ran")
    except NotAvailableError:
        pass
assert colorsys.hsv_to_rgb(0, 0, 1) == (1, 1, 1)
try:
    import nowhere
except ImportError:
    print("done")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "done\n", done.stderr


@pytest.mark.parametrize("lab", exercises.names())
def test_what_a_lab_forbids_is_there_and_the_references_do_without(lab):
    module = exercises.load(lab)
    for name in getattr(module, "FORBIDDEN", ()):
        parent, _, last = name.rpartition(".")
        owner = torch.ops.torchvision if parent == "torch.ops.torchvision" else __import__(parent, fromlist=["x"])
        assert hasattr(owner, last), name
    assert set(hidden_names(module.exercises, ())) >= {name for e in module.exercises for name in e.hides}


@pytest.mark.parametrize("lab", exercises.names())
def test_the_page_for_instructors_lists_what_a_lab_forbids(lab):
    page = (Path(__file__).parents[2] / "course" / "grading" / "trust.md").read_text()
    names = getattr(exercises.load(lab), "FORBIDDEN", ())
    assert not names or f"| {int(lab[:2])} | {', '.join(f'`{name}`' for name in names)} |\n" in page
