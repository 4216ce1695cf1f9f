"""What is special about lab 6: its own statements hold, and the pieces of its wrong answers are sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from segedu.semantic.unet import border_weight_map, unet_out_size
from segedu.teaching.checks.judge import draw, judge, outcomes_of
from segedu.teaching.checks.probes import fill_weights
from segedu.teaching.exercises import lab06_unet as lab
from segedu.teaching.exercises.lab06_unet import without_skips
from segedu.teaching.mutants.wrong_answers import load_alternatives

ALTERNATIVES = load_alternatives(Path(__file__).parents[3], "06_unet")
BY_NAME = {exercise.name: exercise for exercise in lab.exercises}


def test_the_unbroken_net_behind_the_wrong_ones_is_right():
    """Each wrong net differs from the right one in exactly the part that it replaces."""
    exercise = BY_NAME["build_unet"]
    right = without_skips.__mro__[1]
    drawn = draw(exercise, 3)
    assert judge(exercise, drawn, outcomes_of(exercise, right, drawn)).points == exercise.points


def test_without_skips_has_the_weights_of_the_unet_and_hears_nothing_of_the_fine_levels():
    net, unet = without_skips(1, 2, 4, 2), BY_NAME["build_unet"].reference(1, 2, 4, 2)
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in unet.parameters())
    images = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    fill_weights(net, [images], 5)
    fill_weights(unet, [images], 5)
    assert not torch.allclose(net(images), unet(images), atol=1e-3)


def test_order_of_construction_and_names_of_layers_do_not_matter():
    exercise = BY_NAME["build_unet"]
    drawn = draw(exercise, 11)
    for build in ALTERNATIVES["build_unet"]:
        verdict = judge(exercise, drawn, outcomes_of(exercise, build, drawn))
        assert verdict.passed, verdict.detail


@pytest.mark.parametrize("seed", range(5))
def test_every_legal_size_in_the_cases_is_legal_and_every_edge_is_there(seed):
    outcomes = {}
    for group, _, case in draw(BY_NAME["unet_out_size"], seed):
        try:
            outcomes.setdefault(group, []).append(unet_out_size(*case["args"]))
        except ValueError:
            outcomes.setdefault(group, []).append(None)
    assert None not in outcomes["core"] and outcomes["core"][0] == 388
    # seven that must be refused, the smallest legal sizes at depth 1 and 4, and one at the depth of the signature
    assert outcomes["edge"][:-1] == [None] * 7 + [2, 4] and outcomes["edge"][-1] > 4


def test_all_legal_sizes_against_the_walk():
    for depth in (1, 2, 3):
        for size in range(1, 150):
            try:
                expected = ALTERNATIVES["unet_out_size"][0](size, depth)
            except ValueError:
                with pytest.raises(ValueError):
                    unet_out_size(size, depth)
            else:
                assert unet_out_size(size, depth) == expected


@pytest.mark.parametrize("seed", range(4))
def test_weight_maps_have_the_cells_that_their_names_promise(seed):
    drawn = draw(BY_NAME["weight_map"], seed)
    counts = [len(np.unique(case["args"][0][case["args"][0] > 0])) for _, _, case in drawn]
    assert counts == [2, 4, 3, 1, 0, 2]
    label_map, weights, w0, sigma = drawn[0][2]["args"]
    term = border_weight_map(label_map, w0, sigma, weights).numpy() - np.where(label_map > 0, weights[1], weights[0])
    assert term[label_map == 0].max() > 0.5, "the gap between the two cells must show"


def test_a_message_for_each_of_the_misconceptions_of_the_syllabus():
    names = {wrong.name for exercise in lab.exercises for wrong in exercise.wrong}
    assert {"no ReLU between", "batch normalisation", "middle channels", "padding"} <= names
    assert {"top-left crop", "adds", "batch axis", "odd sizes fail"} <= names
    assert {"padding assumed", "pooling rounds down", "one convolution", "nothing refused"} <= names
    assert {"skip after the pooling", "channels not halved", "softmax inside", "skips zeroed"} <= names
    assert {"d1 only", "on the cells too", "class weight lost", "single cell crashes"} <= names
    assert {"overlaps summed", "zeros outside", "last tile lost", "stride of the input tile"} <= names
