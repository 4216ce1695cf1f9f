"""Networks on photographs: views and factors, matching, counts, and figures with legible text."""

from __future__ import annotations

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

from segedu.datasets.photos import Photos
from segedu.datasets.sample import VOID
from segedu.teaching import photo_boxes, photo_objects, photo_streets
from segedu.teaching.photo_boxes import Detections, View, detect, draw_detections, photo_view
from segedu.teaching.predictions import PAGE_WIDTH, SMALLEST_TEXT

NARROWEST = 15 / 16  # of its full width, to which a wide figure is reduced on a telephone (segedu.css)


def assert_legible(figure: Figure) -> None:
    """Text has ten pixels on a laptop, where the page is 700 pixels wide, and on a telephone, where a figure scrolls."""
    points = min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text())
    scale = min(PAGE_WIDTH / (figure.get_figwidth() * 100), NARROWEST)
    assert points * 100 / 72 * scale >= SMALLEST_TEXT


# --- objects ------------------------------------------------------------------------------------------------------


def test_a_factor_gives_the_median_diameter() -> None:
    factor = photo_objects.factor_for("coins", 16)
    image, label_map = photo_objects.resized_part("coins", factor)
    assert photo_objects.median_diameter(label_map) == pytest.approx(16, abs=0.3)
    assert image.shape[1:] == label_map.shape == tuple(round(factor * side) for side in (303, 384))


def test_the_median_diameter_is_that_of_a_circle_of_equal_area() -> None:
    label_map = torch.zeros(20, 40, dtype=torch.int32)
    label_map[2:12, 2:12], label_map[2:4, 20:22], label_map[:20, 25:40] = 1, 2, 5  # 100, 4 and 300 pixels; no 3, no 4
    assert photo_objects.median_diameter(label_map) == pytest.approx(2 * (100 / torch.pi) ** 0.5)


def test_networks_for_cells_and_for_nuclei() -> None:
    (trial,) = photo_objects.segment_photos("cells_affinities", [("coins", 0.3)])
    again = photo_objects.segment_view("cells_affinities", "coins", 0.3, trial.image, trial.target)
    assert torch.equal(trial.prediction, again.prediction) and trial.counts == again.counts
    assert trial.correct + trial.missed == 24 and trial.correct + trial.false == len(trial.prediction.unique()) - 1
    assert trial.title == f"coins, factor 0.3:\n{trial.correct} of 24 found, {trial.false} false"
    (nuclei,) = photo_objects.segment_photos("nuclei_stardist", [("coins", 0.3)])
    assert not torch.equal(nuclei.prediction, trial.prediction)
    with pytest.raises(ValueError, match="name is 'dots_affinities'"):
        photo_objects.segment_photos("dots_affinities", [("coins", 0.3)])


def test_the_spread_of_vectors() -> None:
    labels = torch.tensor([[1, 1, 0, 7, 7]])
    vectors = torch.tensor([[[0.0, 2.0, 9.0, 5.0, 5.0]], [[0.0, 0.0, 9.0, 1.0, 1.0]]])
    assert photo_objects.spread(vectors, labels) == 0.5  # 1 in the first object, 0 in the second


# --- boxes and masks ----------------------------------------------------------------------------------------------


def test_a_view_has_objects_of_the_size_in_training() -> None:
    view = photo_view("coins")
    (sample,) = Photos(["coins"])
    assert len(view.masks) == len(sample["masks"]) == 24
    diameters = 2 * (view.masks.sum(dim=(1, 2)) / torch.pi).sqrt()
    assert diameters.quantile(0.5) == pytest.approx(photo_boxes.DIAMETER, abs=0.3)


def test_a_window_has_the_objects_that_are_at_least_half_inside() -> None:
    whole, window = photo_view("coins"), photo_view("coins", window=64)
    assert window.image.shape == (3, 64, 64) and window.masks.shape[1:] == (64, 64)
    top, left = ((side - 64) // 2 for side in whole.image.shape[1:])
    assert torch.equal(window.image, whole.image[:, top : top + 64, left : left + 64])
    inside = whole.masks[:, top : top + 64, left : left + 64].sum(dim=(1, 2)) / whole.masks.sum(dim=(1, 2))
    assert len(window.masks) == (inside >= 0.5).sum() < (inside > 0).sum()


def detections(masks: bool = False) -> Detections:
    """Two objects, of which the first is found; another prediction lies on no object."""
    objects = torch.zeros(2, 30, 40, dtype=torch.bool)
    objects[0, 5:15, 5:15], objects[1, 15:25, 25:35] = True, True
    view = View("two squares", torch.full((3, 30, 40), 0.5), objects)
    boxes = torch.tensor([[5.0, 5.0, 15.0, 16.0], [0.0, 20.0, 8.0, 30.0]])
    preds = torch.zeros(2, 30, 40, dtype=torch.bool)
    preds[0, 5:16, 5:15], preds[1, 20:, :8] = True, True
    iou = torch.tensor([[10 / 11, 0.0], [0.0, 0.0]])
    return Detections(
        view,
        boxes,
        torch.tensor([1, 3]),
        torch.tensor([0.9, 0.4]),
        preds if masks else None,
        iou,
        torch.tensor([0, -1]),
    )


def test_the_counts_of_detections() -> None:
    one = detections()
    assert (one.correct, one.false, one.missed.tolist()) == (1, 1, [False, True])
    assert one.title == "1 of 2 found, 1 false"
    assert one.diameters.tolist() == pytest.approx([2 * (100 / torch.pi) ** 0.5] * 2)
    assert one.mean_side == pytest.approx((110**0.5 + 80**0.5) / 2)


@pytest.mark.parametrize(
    ("network", "by_masks"),
    [("shapes_fcos", False), ("shapes_detr", False), ("shapes_solov2", True), ("shapes_mask_rcnn", True)],
)
def test_a_detector_on_a_window(network: str, by_masks: bool) -> None:
    view = photo_view("coins", window=64)
    one = detect(network, view, score=0.3, by_masks=by_masks)
    assert one.correct >= 3  # of 4
    assert one.scores.min() >= 0.3 and torch.equal(one.scores, one.scores.sort(descending=True).values)
    assert one.iou.shape == (len(one.boxes), len(view.masks)) and (one.masks is not None) == by_masks
    for prediction, target in enumerate(one.matched.tolist()):
        assert target == -1 or one.iou[prediction, target] >= 0.5
    matched = one.matched[one.matched >= 0]
    assert len(matched.unique()) == len(matched)


def test_a_network_that_detects_no_shapes() -> None:
    with pytest.raises(ValueError, match="network is 'street_fcn8', expected the weights of a detector of shapes"):
        detect("street_fcn8", photo_view("coins", window=64))


@pytest.mark.parametrize("masks", [False, True])
def test_the_figure_of_detections(masks: bool) -> None:
    one = detections(masks)
    figure = draw_detections({"first": [one, one], "second": [one, one]})
    assert [axis.get_ylabel() for axis in figure.axes[::2]] == ["annotation", "first", "second"]
    assert [axis.get_title() for axis in figure.axes[:3]] == ["two squares", "two squares", "1 of 2 found, 1 false"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["annotated", "correct", "false", "missed"]
    for axis in figure.axes[2:]:
        assert len(axis.collections if masks else axis.patches) == 3  # correct, false, missed
    assert_legible(figure)


# --- streets ------------------------------------------------------------------------------------------------------


def test_classes_of_a_photograph_that_streets_have_too() -> None:
    image, target = photo_streets.street_view("china")
    assert image.shape == (3, 96, 144) and target.shape == (96, 144)
    photos = Photos(["china"])
    assert set(photo_streets.SAME) <= set(photos.classes)
    assert set(photo_streets.SAME.values()) <= set(photo_streets.CLASSES)
    labels = {"sky": "sky", "tree": "vegetation", "building": "building"}
    pairs = [(photos.classes.index(own), photo_streets.CLASSES.index(street)) for own, street in labels.items()]
    for own, street in [*pairs, (0, VOID)]:  # the background of a photograph is no class of the streets
        share = float((photos[0]["semantic"] == own).double().mean())
        assert float((target == street).double().mean()) == pytest.approx(share, abs=0.01)


def test_recoloured_pixels() -> None:
    image, target = torch.full((3, 2, 4), 0.5), torch.tensor([[5, 5, 3, VOID], [5, 5, 3, VOID]])
    image[:, 0, :2] = 0.3  # the mean of the sky is 0.4
    prediction = torch.tensor([[5, 5, 8, 8], [5, 8, 3, 8]])
    trial = photo_streets.StreetTrial("a street", image, target, prediction)
    changed = trial.recoloured("sky", torch.tensor([0.4, 0.5, 0.95]))
    assert torch.allclose(changed[:, 0, 0], torch.tensor([0.3, 0.4, 0.85]))
    assert torch.allclose(changed[:, 1, 0], torch.tensor([0.5, 0.6, 1.0]))  # 1.05 is clipped
    assert torch.equal(changed[:, :, 2:], image[:, :, 2:]) and image[0, 0, 0] == torch.tensor(0.3)
    assert trial.share("sky", "sky") == 0.75 and trial.share("bus", "building") == 0.5
    assert trial.ious == {"building": 0.5, "sky": 0.75}  # void pixels do not count


def test_colours_and_shares_of_streets() -> None:
    red, green, blue = photo_streets.street_colour("vegetation").tolist()
    assert green > max(red, blue)
    assert 0.1 < photo_streets.largest_share("sky") < 0.6


def test_the_figure_of_streets() -> None:
    trials = [photo_streets.segment_street("street_fcn8", name) for name in ("china", "rocket")]
    figure = photo_streets.draw_street_trials(trials)
    assert [axis.get_title().partition(":")[0] for axis in figure.axes] == ["china", "rocket", "IoU", "IoU"]
    assert f"sky {trials[1].ious['sky']:.2f}" in figure.axes[3].get_title()
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert {"sky", "building", "vegetation", "bus"} <= set(names) and "road" not in names
    assert_legible(figure)
