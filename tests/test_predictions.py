"""The worst, the median and the best of some new scenes, and the classes with the lowest IoU."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from matplotlib.text import Text

from segedu.teaching import predictions
from segedu.teaching.predictions import Example, draw_predictions, lowest_ious, rank_predictions


@pytest.fixture(scope="module")
def ranked() -> predictions.Ranked:
    return rank_predictions("cells_signed_distance", number=5)


def test_the_worst_the_median_and_the_best(ranked) -> None:
    assert [one.rank for one in ranked.examples] == ["worst", "median", "best"] and ranked.number == 5
    scenes = ranked.recipe.sets(predictions.SEED, None, train=1, held_out=5).held_out["val"]["all"]
    net = predictions.load("cells_signed_distance")
    scores = []
    for image, target in scenes:
        prediction = ranked.recipe.task.predict(net, image, postprocess=ranked.recipe.postprocess)
        scores.append(predictions._score(ranked.recipe, image, target, prediction))
    assert [one.score for one in ranked.examples] == [sorted(scores)[i] for i in (0, 2, 4)]
    worst = scenes[scores.index(min(scores))]
    assert torch.equal(ranked.examples[0].image, worst[0]) and torch.equal(ranked.examples[0].target, worst[1])


def test_the_scores_beside_them_are_those_of_the_log(ranked) -> None:
    assert ranked.baseline_name == "Gaussian + Otsu + watershed"
    assert ranked.baseline < 0.5 < ranked.mean < 1
    assert ranked.metric == "instance accuracy" and f"{ranked.examples[0].score:.2f}" in ranked.description


def test_the_picture_has_a_row_per_scene(ranked) -> None:
    figure = draw_predictions(ranked)
    assert [axis.get_ylabel().partition("\n")[0] for axis in figure.axes] == ["worst", "median", "best"]
    assert all(axis.images[0].get_array().std() > 0 for axis in figure.axes)


def test_the_legend_names_the_classes_where_colours_stand_for_them(ranked) -> None:
    assert draw_predictions(ranked).legends == []  # instances have colours of their own
    figure = draw_predictions(rank_predictions("shapes_fcos", number=3))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["circle", "square", "triangle"]
    classes = rank_predictions("street_fcn8", number=3)
    (legend,) = draw_predictions(classes).legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names[0] == "without colour: road" and tuple(names[1:]) == classes.recipe.classes[1:]


@pytest.mark.parametrize("name", ["cells_signed_distance", "cells_unet", "street_fcn8"])
def test_text_has_ten_pixels_on_a_laptop_and_labels_do_not_touch(name: str, monkeypatch) -> None:
    strips = []
    rendered = predictions._rendered
    monkeypatch.setattr(predictions, "_rendered", lambda figure: strips.append(figure) or rendered(figure))
    figure = draw_predictions(rank_predictions(name, number=3))
    page = predictions.PAGE_WIDTH / figure.get_figwidth()  # pixels of the page per inch of the figure
    assert min(text.get_fontsize() / 72 * page for text in figure.findobj(Text) if text.get_text()) >= 10
    for strip in strips:  # it is drawn predictions.STRIP_WIDTH inches wide
        scale = page * predictions.STRIP_WIDTH / strip.get_figwidth()
        assert min(text.get_fontsize() / 72 * scale for text in strip.findobj(Text) if text.get_text()) >= 9.99
    figure.canvas.draw()
    boxes = [axis.yaxis.label.get_window_extent() for axis in figure.axes]
    assert not any(first.overlaps(second) for first, second in pairwise(boxes))


def test_scenes_are_not_those_of_training() -> None:
    assert predictions.SEED not in (0, 1, 2)


def test_the_lowest_ious() -> None:
    target = torch.tensor([[0, 0, 1, 1], [2, 2, 255, 255]])
    prediction = torch.tensor([[0, 0, 1, 2], [2, 2, 1, 1]])
    one = Example("worst", torch.zeros(3, 2, 4), target, prediction, 0.0)
    # class 1: 1 of 2 pixels; class 2: 2 of 3; class 0: all; class 3 does not occur
    assert lowest_ious(one, ("sky", "car", "road", "boat"), number=2) == "car 0.50 (2 / 1), road 0.67 (2 / 3)"
    assert lowest_ious(one, ("sky", "car", "road", "boat")).count("(") == 3


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="name is 'street_fcn', expected one of street_fcn8"):
        rank_predictions("street_fcn")
    with pytest.raises(ValueError, match="number is 2, expected at least 3"):
        rank_predictions("street_fcn8", number=2)
