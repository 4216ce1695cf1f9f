"""Merging by hand: who has a pixel, what is dropped, ties, one pixel, nothing; and beside loops over pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from segedu.panoptic.panoptic_fpn import merge_panoptic

CAR, BUS, ROAD, SKY = 3, 4, 1, 2
CARS_AND_BUSES = (CAR, BUS)


def found(*rows: tuple[int, float, list[list[int]]]) -> dict[str, Tensor]:
    labels, scores, masks = zip(*rows, strict=True)
    return {"labels": torch.tensor(labels), "scores": torch.tensor(scores), "masks": torch.tensor(masks).bool()}


def nothing(height: int, width: int) -> dict[str, Tensor]:
    empty = torch.zeros(0)
    return {"labels": empty.long(), "scores": empty, "masks": torch.zeros(0, height, width, dtype=torch.bool)}


def merged(instances, semantic, **options):
    options = {"stuff_area": 1, **options}
    seg, info = merge_panoptic(instances, torch.tensor(semantic), CARS_AND_BUSES, **options)
    assert seg.dtype == torch.int32 and [s["id"] for s in info] == list(range(1, len(info) + 1))
    assert set(seg.unique().tolist()) - {0} == {s["id"] for s in info}
    return seg.tolist(), [s["category_id"] for s in info]


def test_the_surer_one_has_the_pixel_and_the_map_does_not_depend_on_the_order() -> None:
    one, two = (CAR, 0.6, [[1, 1, 1, 0]]), (BUS, 0.9, [[0, 0, 1, 1]])
    for instances in (found(one, two), found(two, one)):
        assert merged(instances, [[ROAD] * 4]) == ([[2, 2, 1, 1]], [BUS, CAR])
    seg, info = merge_panoptic(found(one, two), torch.tensor([[ROAD] * 4]), CARS_AND_BUSES)
    assert [(s["isthing"], s["score"]) for s in info] == [(True, pytest.approx(0.9)), (True, pytest.approx(0.6))]


def test_of_equal_scores_the_first_has_the_pixel() -> None:
    one, two = (CAR, 0.75, [[1, 1, 0]]), (BUS, 0.75, [[0, 1, 1]])
    assert merged(found(one, two), [[ROAD] * 3]) == ([[1, 1, 2]], [CAR, BUS])
    assert merged(found(two, one), [[ROAD] * 3]) == ([[2, 1, 1]], [BUS, CAR])


def test_thresholds_themselves() -> None:
    """A score of the threshold is enough; half of the pixels taken is not too much, more is."""
    sure = (BUS, 0.9, [[1, 1, 0, 0]])
    assert merged(found((CAR, 0.5, [[1, 0, 0, 0]])), [[255] * 4]) == ([[1, 0, 0, 0]], [CAR])
    assert merged(found((CAR, 0.49, [[1, 0, 0, 0]])), [[255] * 4]) == ([[0, 0, 0, 0]], [])
    assert merged(found(sure, (CAR, 0.8, [[0, 1, 1, 0]])), [[255] * 4]) == ([[1, 1, 2, 0]], [BUS, CAR])
    assert merged(found(sure, (CAR, 0.8, [[1, 1, 1, 0]])), [[255] * 4]) == ([[1, 1, 0, 0]], [BUS])
    assert merged(found(sure, (CAR, 0.8, [[1, 1, 1, 0]])), [[255] * 4], overlap_threshold=0.7)[0] == [[1, 1, 2, 0]]
    # one that is covered whole stays out even where any share may be taken; so does one without pixels
    assert merged(found(sure, (CAR, 0.8, [[1, 1, 0, 0]])), [[255] * 4], overlap_threshold=1.0)[1] == [BUS]
    assert merged(found((CAR, 0.8, [[0, 0, 0, 0]])), [[255] * 4]) == ([[0, 0, 0, 0]], [])
    # what was dropped takes nothing from those behind it
    third = (CAR, 0.7, [[0, 0, 1, 1]])
    assert merged(found(sure, (CAR, 0.8, [[1, 1, 1, 0]]), third), [[255] * 4]) == ([[1, 1, 2, 2]], [BUS, CAR])


def test_masks_overlap_not_boxes() -> None:
    """An L and what stands in its corner: their boxes overlap by much, their masks by nothing."""
    corner = [[1, 1, 1], [1, 0, 0], [1, 0, 0]]
    rest = [[0, 0, 0], [0, 1, 1], [0, 1, 1]]
    seg, categories = merged(found((CAR, 0.9, corner), (CAR, 0.8, rest)), [[ROAD] * 3] * 3)
    assert categories == [CAR, CAR] and seg == [[1, 1, 1], [1, 2, 2], [1, 2, 2]]


def test_things_override_stuff_and_small_stuff_is_dropped() -> None:
    semantic = [[SKY, SKY, SKY, SKY], [ROAD, ROAD, ROAD, SKY]]
    car = found((CAR, 0.9, [[0, 0, 0, 0], [1, 1, 0, 0]]))
    assert merged(car, semantic) == ([[3, 3, 3, 3], [1, 1, 2, 3]], [CAR, ROAD, SKY])
    # the road has three pixels, of which the car leaves one: counted is what is left
    assert merged(car, semantic, stuff_area=2) == ([[2, 2, 2, 2], [1, 1, 0, 2]], [CAR, SKY])
    assert merged(nothing(2, 4), semantic, stuff_area=3) == ([[2, 2, 2, 2], [1, 1, 1, 2]], [ROAD, SKY])
    assert merged(car, semantic, stuff_area=5)[1] == [CAR, SKY] and merged(car, semantic, stuff_area=6)[1] == [CAR]


def test_thing_pixels_of_the_map_are_nobodys() -> None:
    """Also where a thing was dropped; and stuff in two places is one segment."""
    semantic = [[ROAD, CAR, 255, ROAD]]
    assert merged(nothing(1, 4), semantic) == ([[1, 0, 0, 1]], [ROAD])
    assert merged(found((BUS, 0.3, [[1, 1, 0, 0]])), semantic) == ([[1, 0, 0, 1]], [ROAD])


def test_one_pixel_and_nothing() -> None:
    assert merged(found((CAR, 1.0, [[1]])), [[ROAD]]) == ([[1]], [CAR])
    assert merged(nothing(1, 1), [[ROAD]]) == ([[1]], [ROAD])
    assert merged(nothing(1, 1), [[255]]) == ([[0]], [])
    seg, info = merge_panoptic(nothing(64, 64), torch.full((64, 64), ROAD), CARS_AND_BUSES)
    assert bool((seg == 1).all()) and info == [{"id": 1, "category_id": ROAD, "isthing": False}]  # 4096 are enough
    assert merge_panoptic(nothing(64, 63), torch.full((64, 63), ROAD), CARS_AND_BUSES)[1] == []


def slowly(instances, semantic, area):
    """Pixel by pixel."""
    H, W = semantic.shape
    owner, names = {}, []
    rows = sorted(range(len(instances["scores"])), key=lambda i: -float(instances["scores"][i]))
    for i in rows:
        pixels = [(y, x) for y in range(H) for x in range(W) if instances["masks"][i, y, x]]
        free = [pixel for pixel in pixels if pixel not in owner]
        if instances["scores"][i] < 0.5 or not free or (len(pixels) - len(free)) / len(pixels) > 0.5:
            continue
        names.append(int(instances["labels"][i]))
        owner |= dict.fromkeys(free, len(names))
    free = [(y, x) for y in range(H) for x in range(W) if (y, x) not in owner]
    for stuff in (ROAD, SKY):
        own = [pixel for pixel in free if semantic[pixel] == stuff]
        if len(own) >= area:
            names.append(stuff)
            owner |= dict.fromkeys(own, len(names))
    return [[owner.get((y, x), 0) for x in range(W)] for y in range(H)], names


def test_merge_is_that_of_loops_over_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    kinds = torch.tensor([ROAD, SKY, CAR, 255])
    dropped = 0
    for _ in range(20):
        masks = torch.zeros(6, 8, 9, dtype=torch.bool)
        for mask in masks:
            y, x = torch.randint(0, 6, (2,), generator=generator).tolist()
            mask[y : y + 4, x : x + 4] = torch.rand(mask[y : y + 4, x : x + 4].shape, generator=generator) < 0.8
        labels = torch.randint(CAR, BUS + 1, (6,), generator=generator)
        scores = torch.randint(7, 17, (6,), generator=generator) / 16  # ties are frequent
        semantic = kinds[torch.randint(0, 4, (8, 9), generator=generator)]
        instances = {"labels": labels, "scores": scores, "masks": masks}
        expected = slowly(instances, semantic, area=12)
        assert merged(instances, semantic.tolist(), stuff_area=12) == expected
        dropped += 6 + 2 - len(expected[1])
    assert dropped > 20  # the rules had work to do


# --- what it refuses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "words", "change"),
    [
        (TypeError, "instances has type list", {"instances": []}),
        (ValueError, "instances has the keys", {"instances": {}}),
        (ValueError, r"instances\['labels'\] has the value 1, expected one of \[3, 4\]", {"labels": torch.tensor([1])}),
        (ValueError, r"instances\['scores'\] has shape \(2,\), expected \(1,\)", {"scores": torch.ones(2)}),
        (ValueError, r"instances\['masks'\] has shape", {"masks": torch.ones(1, 3, 2).bool()}),
        (TypeError, r"instances\['masks'\] has dtype torch.uint8", {"masks": torch.ones(1, 2, 3).byte()}),
        (TypeError, r"instances\['labels'\] has dtype torch.float32", {"labels": torch.ones(1)}),
        (ValueError, r"instances\['scores'\] contains NaN", {"scores": torch.tensor([torch.nan])}),
        (TypeError, "semantic has dtype torch.uint8", {"semantic": torch.ones(2, 3).byte()}),
        (ValueError, r"semantic has shape \(1, 2, 3\)", {"semantic": torch.ones(1, 2, 3).long()}),
        (TypeError, r"instances\['scores'\] has type list, expected a tensor", {"scores": [1.0]}),
        (TypeError, r"instances\['masks'\] has type ndarray, expected a tensor", {"masks": np.ones((1, 2, 3), bool)}),
        (TypeError, "things has type int, expected a collection of categories", {"things": 3}),
        (ValueError, "semantic has the value -1", {"semantic": torch.full((2, 3), -1)}),
        (ValueError, "score_threshold is 1.5", {"score_threshold": 1.5}),
        (ValueError, "overlap_threshold is -0.5", {"overlap_threshold": -0.5}),
        (TypeError, "stuff_area is '4096', expected a finite number", {"stuff_area": "4096"}),
    ],
)
def test_merge_refuses(error, words, change) -> None:
    given = {"labels": torch.tensor([CAR]), "scores": torch.ones(1), "masks": torch.ones(1, 2, 3).bool()}
    instances = change.get("instances", given | {key: change[key] for key in given.keys() & change})
    options = {key: change[key] for key in change.keys() - {*given, "instances", "semantic", "things"}}
    with pytest.raises(error, match=words):
        semantic, things = change.get("semantic", torch.ones(2, 3).long()), change.get("things", CARS_AND_BUSES)
        merge_panoptic(instances, semantic, things, **options)
