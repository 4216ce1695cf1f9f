"""The prompt widget shows SAM's masks and their targets; the small SAM separates a car from its street."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from promptable.small_sam import small

from segedu.promptable.sam.interactive import mask_iou
from segedu.promptable.sam.sam import postprocess
from segedu.teaching.widgets import prompts as widget
from segedu.weights import WEIGHTS

HERE = {"x": 52, "y": 52}  # a cell of a chain


@pytest.fixture
def shown(monkeypatch):
    calls = []
    monkeypatch.setattr(widget, "show", lambda fig, alt: calls.append((fig, alt)))
    return calls


@pytest.fixture
def untrained(monkeypatch):
    """A SAM with random weights: prompts and picture do not depend on the weights."""
    sam = small().eval()
    monkeypatch.setattr(widget, "model", lambda: sam)
    widget.embedding.cache_clear()
    yield sam
    widget.embedding.cache_clear()


@pytest.mark.parametrize("name", widget.SCENES)
def test_answers_are_sam_s_to_the_second_click_with_the_mask_of_the_first(untrained, name):
    answer = widget.predict(name, 30, 60, second="not this", x2=80, y2=10)
    image = widget.scene(name).image
    H, W = image.shape[1:]
    coords = torch.tensor([[[0.3 * (W - 1), 0.6 * (H - 1)], [0.8 * (W - 1), 0.1 * (H - 1)]]])
    with torch.no_grad():
        first = untrained(image[None], point_coords=coords[:, :1], point_labels=torch.ones(1, 1))
        best = first["mask_logits"][:, first["iou_scores"][0].argmax()]
        prompts = {"point_coords": coords, "point_labels": torch.tensor([[1, 0]]), "mask_inputs": best}
        out = untrained(image[None], **prompts, multimask_output=None)
    assert np.array_equal(answer.masks, postprocess(out)[0].numpy())
    assert np.allclose(answer.predicted_ious, out["iou_scores"][0], atol=1e-5)
    assert np.allclose(answer.points, coords[0])


def test_a_box_comes_before_the_click(untrained):
    answer = widget.predict("cells", **HERE, box=True)
    image, box = widget.scene("cells").image[None], torch.from_numpy(answer.box)[None]
    with torch.no_grad():
        first = untrained(image, boxes=box)
        best = first["mask_logits"][:, first["iou_scores"][0].argmax()]
        click = {"point_coords": torch.from_numpy(answer.points)[None], "point_labels": torch.ones(1, 1)}
        out = untrained(image, boxes=box, mask_inputs=best, **click, multimask_output=None)
    assert np.array_equal(answer.masks, postprocess(out)[0].numpy())


def test_one_click_takes_the_best_guess_of_three_and_clear_prompts_the_one(untrained):
    answer = widget.predict("cells", **HERE)
    assert answer.chosen == 1 + answer.predicted_ious[1:].argmax()
    assert widget.predict("cells", **HERE, second="this").chosen == 0
    boxed = widget.predict("cells", **HERE, box=True)
    rows, columns = np.nonzero(boxed.targets["object"])
    assert boxed.chosen == 0
    assert boxed.box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_what_may_be_meant_lies_under_the_click(untrained):
    answer = widget.predict("cells", **HERE)
    x, y = answer.points[0].round().astype(int)
    assert list(answer.targets) == ["object", "clump"]
    assert all(mask[y, x] for mask in answer.targets.values())
    assert answer.targets["clump"].sum() > 2 * answer.targets["object"].sum()
    for index in range(4):
        ious = [mask_iou(*map(torch.from_numpy, (answer.masks[index], mask))) for mask in answer.targets.values()]
        assert widget.best_overlap(answer, index)[0] == pytest.approx(float(max(ious)))


def test_nothing_is_meant_beside_the_cells_and_by_not_this(untrained, shown):
    beside = widget.predict("cells", 95, 5, box=True)
    assert not beside.targets and beside.box is None and widget.best_overlap(beside, 0) is None
    assert not widget.predict("cells", **HERE, click="not this").targets
    widget.draw_masks(95, 5, scene="cells", box=True)
    fig, alt = shown[0]
    assert "no object at the click" in fig.axes[0].get_title() and "true IoU" not in alt and "box" not in alt


def test_the_picture_says_what_it_shows(untrained, shown):
    widget.draw_masks(**HERE, scene="cells", second="not this", x2=36, y2=28)
    fig, alt = shown[0]
    answer = widget.predict("cells", **HERE, second="not this", x2=36, y2=28)
    assert '"this" at (33, 33) and "not this" at (23, 18)' in alt and alt.endswith("Chosen: fourth mask.")
    for index, (ax, name) in enumerate(zip(fig.axes[1:], widget.NAMES, strict=True)):
        real, kind = widget.best_overlap(answer, index)
        assert ax.get_title() == f"{name}: predicted {answer.predicted_ious[index]:.2f}\ntrue IoU {real:.2f}, {kind}"
        assert f"{name} has {answer.masks[index].sum()} pixels" in alt


def test_static_frames_are_drawn(untrained, monkeypatch, shown):
    monkeypatch.setenv("SEGEDU_WIDGETS", "static")
    widget.explorer()
    assert len({alt for _, alt in shown}) == len(widget.FRAMES)


@pytest.mark.skipif("shapes_sam" not in WEIGHTS, reason="the small SAM is not in the table")
def test_the_small_sam_finds_what_is_meant_in_every_frame():
    widget.embedding.cache_clear()
    for frame in widget.FRAMES:
        answer = widget.predict(frame["scene"], **{key: value for key, value in frame.items() if key != "scene"})
        assert max(widget.best_overlap(answer, index)[0] for index in range(4)) > 0.5
