"""The ONNX files of the pages' demonstrations give what the networks predict, and what the pages say about them is true."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from book.network_visit import iou
from scipy import ndimage
from segedu_site import mask2former_demonstration, unet_demonstration
from segedu_site.mask2former_demonstration import STREETS, pixels
from segedu_site.unet_demonstration import GROUNDS, LEVELS, SIZE, Stroke, grey, painted
from torch import Tensor

from segedu.datasets.street import CLASSES, THINGS, draw_street
from segedu.panoptic.inference import panoptic_inference
from segedu.panoptic.mask2former.mask2former import attention_mask
from segedu.recipes.export_weights import export_weights
from segedu.weights import load
from segedu.weights.own.street_mask2former import SIZE as STREET_SIZE
from segedu.weights.own.street_mask2former import SURE

MANY = pytest.mark.parametrize("number", [5, pytest.param(200, marks=pytest.mark.prove)])
Run = Callable[[Tensor], list[Tensor]]


def exported(name: str, size: tuple[int, int], folder: Path) -> tuple[Run, dict[str, Any]]:
    """A function from images (1, 3, H, W) to the outputs of the ONNX file, and the file's metadata."""
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    (file,) = export_weights(name, folder / f"{name}.onnx", size)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> list[Tensor]:
        return [torch.from_numpy(output) for output in session.run(None, {"images": images.numpy()})]

    return run, json.loads(session.get_modelmeta().custom_metadata_map["segedu"])


# --- U-Net ---

UNET = functools.cache(functools.partial(load, unet_demonstration.WEIGHTS))


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run, about = exported(unet_demonstration.WEIGHTS, (SIZE, SIZE), tmp_path_factory.mktemp("unet"))
    assert about["weights"] == "cells_unet" and about["licence"] == "MIT" and about["preprocessing"] == "RGB in [0, 1]"
    return run


def as_images(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image)[None, None].repeat(1, 3, 1, 1).float() / 255


def difference(logits: Tensor) -> Tensor:
    """Logit of the foreground against the background, (H, W)."""
    return logits[0, 1] - logits[0, 0]


def painting(seed: int) -> np.ndarray:
    """An image of the page with up to eight random strokes."""
    rng = np.random.default_rng((6, seed))
    image = grey(GROUNDS[seed % len(GROUNDS)].name)
    for _ in range(int(rng.integers(1, 9))):
        points = rng.uniform(0, SIZE, (int(rng.integers(1, 5)), 2)).tolist()
        image = painted(image, Stroke(points, float(rng.integers(1, 60)) / 2, int(rng.choice(list(LEVELS.values())))))
    return image


@MANY
def test_unet_masks_of_paintings(number: int, unet: Run) -> None:
    covered = 0
    for seed in range(number):
        images = as_images(painting(seed))
        with torch.no_grad():
            ours = difference(UNET()(images))
        theirs = difference(unet(images)[0])
        torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-3)
        assert iou(ours > 0, theirs > 0, ours.abs() > 1e-4) >= 0.999, f"painting {seed}"
        covered += bool((ours > 0).any())
    assert covered >= 0.9 * number  # most masks are not empty, so that the comparison is about something


def foreground(ground: str, *strokes: Stroke) -> np.ndarray:
    """The mask that the U-Net predicts for an image with strokes."""
    image = functools.reduce(painted, strokes, grey(ground))
    with torch.no_grad():
        return (difference(UNET()(as_images(image))) > 0).numpy()


def regions(mask: np.ndarray) -> int:
    return ndimage.label(mask)[1]


def disc(centre: tuple[float, float], diameter: float) -> np.ndarray:
    """The pixels of a disc that are not on its edge."""
    y, x = np.mgrid[:SIZE, :SIZE]
    return np.hypot(x - centre[0], y - centre[1]) < diameter / 2 - 1


# The answers below `fig-unet-in-the-page` on page 6.1.


@pytest.mark.parametrize("diameter", [1, 2, 3, 5, 7])
def test_a_bridge_joins_two_regions(diameter: int) -> None:
    assert regions(foreground("few")) == 11
    assert regions(foreground("few", Stroke([(64, 17), (88, 17)], diameter / 2, LEVELS["bright"]))) == 10


@pytest.mark.parametrize("ends", [[(26, 53), (50, 53)], [(38, 40), (38, 66)]])
def test_a_dark_line_of_one_pixel_is_covered_and_one_of_three_divides(ends: list) -> None:
    whole, nucleus = foreground("few"), disc((38, 53), 18)
    assert regions(whole & nucleus) == 1
    assert regions(foreground("few", Stroke(ends, 0.5, LEVELS["dark"])) & nucleus) == 1
    assert regions(foreground("few", Stroke(ends, 1.5, LEVELS["dark"])) & nucleus) == 2


@pytest.mark.parametrize("size", [0.4, 1, 2.2])
def test_the_hole_of_a_ring_is_background(size: float) -> None:
    ring = [(64 + size * (x - 64), 64 + size * (y - 64)) for x, y in unet_demonstration.CIRCLE]
    radius = min(4, 5 * size)
    mask = foreground("empty", Stroke(ring, radius, LEVELS["bright"]))
    assert not mask[disc((64, 64), 2 * (20 * size - radius) - 2)].any() and mask[64, round(64 + 20 * size)]


@pytest.mark.parametrize("centre", [(40, 40), (64, 64), (80, 50), (50, 90), (88, 88)])
def test_only_the_large_dim_disc_has_a_hole(centre: tuple[float, float]) -> None:
    for diameter, level, filled in (
        (30, "bright", True),
        (60, "bright", True),
        (30, "dim", True),
        (60, "dim", False),
    ):
        mask = foreground("empty", Stroke([centre], diameter / 2, LEVELS[level]))
        assert mask[disc(centre, diameter)].all() == filled
    rim = disc(centre, 60) & ~disc(centre, 54)
    assert mask[rim].mean() > 0.99 and not mask[disc(centre, 20)].any()


# --- Mask2Former ---

MASK2FORMER = functools.cache(functools.partial(load, mask2former_demonstration.WEIGHTS))
CLASS_NAMES = (*CLASSES, "no object")


@pytest.fixture(scope="module")
def mask2former(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("mask2former")
    run, about = exported(mask2former_demonstration.WEIGHTS, STREET_SIZE, folder)
    assert about["weights"] == "street_mask2former" and about["licence"] == "MIT"
    return run


@MANY
def test_mask2former_masks_and_attention_of_streets(number: int, mask2former: Run) -> None:
    for seed in range(number):
        images = draw_street((1515, seed), STREET_SIZE)["image"].as_subclass(Tensor)[None]
        class_logits, mask_logits, *attention = mask2former(images)
        with torch.no_grad():
            outputs = MASK2FORMER()(images)
        layers = [*outputs["aux_outputs"], outputs]
        torch.testing.assert_close(class_logits, torch.cat([x["class_logits"] for x in layers]), rtol=1e-3, atol=1e-3)
        expected = torch.cat([x["mask_logits"] for x in layers])
        torch.testing.assert_close(mask_logits, expected, rtol=1e-3, atol=1e-2)
        for ours, theirs in zip(expected.flatten(0, 1), mask_logits.flatten(0, 1), strict=True):
            assert iou(ours > 0, theirs > 0, ours.abs() > 1e-3) >= 0.999, f"street {seed}"
        for before, weights in zip(mask_logits, attention, strict=False):
            torch.testing.assert_close(weights.sum(dim=(1, 2)), torch.ones(len(weights)), rtol=0, atol=1e-5)
            masked_out = attention_mask(before[None], weights.shape[1:], num_heads=1)[0]
            assert not weights.flatten(1)[masked_out].any()


def test_attention_weights_are_those_that_the_layer_uses() -> None:
    images = torch.from_numpy(pixels(STREETS[0]).copy()).permute(2, 0, 1)[None].float() / 255
    _, _, *attention = mask2former_demonstration.predictions(pixels(STREETS[0]))
    model, recorded = MASK2FORMER(), []
    hooks = [
        layer.cross_attn.register_forward_pre_hook(
            lambda _, args, kwargs: recorded.append((args, kwargs)), with_kwargs=True
        )
        for layer in model.decoder.layers
    ]
    with torch.no_grad():
        model(images)
        for hook in hooks:
            hook.remove()
        for weights, layer, (args, kwargs) in zip(attention, model.decoder.layers, recorded, strict=True):
            _, expected = layer.cross_attn(*args, **{**kwargs, "need_weights": True})
            torch.testing.assert_close(weights.flatten(1), expected[0], rtol=0, atol=1e-5)


class Follow(NamedTuple):
    """A query through the layers: its classes, its mask sizes in pixels, and the positions that it may attend to."""

    classes: list[str]
    areas: list[int]
    attended: list[int]
    segment: int


def follow(street: str, query: int) -> Follow:
    image = pixels(next(each for each in STREETS if each.name == street))
    class_logits, mask_logits, *attention = mask2former_demonstration.predictions(image)
    masks = F.interpolate(mask_logits[:, query, None], STREET_SIZE, mode="bilinear")[:, 0] >= 0
    outputs = {"class_logits": class_logits[-1:], "mask_logits": mask_logits[-1:]}
    outputs |= {"sizes": [STREET_SIZE], "image_size": STREET_SIZE}
    ((_, info),) = panoptic_inference(outputs, THINGS, score_threshold=SURE)
    best = class_logits.softmax(dim=-1).max(dim=-1)
    scores = [round(segment["score"], 4) for segment in info]
    score = round(float(best.values[-1, query]), 4)
    return Follow(
        [CLASS_NAMES[k] for k in best.indices[:, query]],
        masks.flatten(1).sum(dim=1).tolist(),
        [int((weights[query] > 0).sum()) for weights in attention],
        scores.index(score) + 1 if score in scores else 0,
    )


# The answers below `fig-mask2former-in-the-page` on page 15.3.


def test_query_10_on_the_street_with_two_cars() -> None:
    query = follow("cars", 10)
    assert query.attended == [24, 1, 5] and query.areas[0] == 0 < query.areas[1] < query.areas[2]
    assert query.classes == ["bus", "car", "car", "car"]


def test_query_10_and_query_17_predict_the_same_car() -> None:
    assert follow("cars", 17).segment and not follow("cars", 10).segment
    class_logits, mask_logits, *_ = mask2former_demonstration.predictions(pixels(STREETS[0]))
    chances = F.interpolate(mask_logits[-1:], STREET_SIZE, mode="bilinear")[0].sigmoid()
    (first, second), scores = chances[[17, 10]] >= 0.5, class_logits[-1].softmax(dim=1).amax(dim=1)[:, None, None]
    assert iou(first, second, torch.ones_like(first)) > 0.6
    assert ((scores * chances)[17] > (scores * chances)[10])[first].float().mean() > 0.5


def test_query_7_loses_and_finds_the_boat() -> None:
    query = follow("boat", 7)
    assert query.areas[1] == min(query.areas) == 37 and query.attended[1] == 96 and query.areas[3] > 1000
    assert query.segment


@pytest.mark.parametrize("street", [street.name for street in STREETS])
def test_query_18_becomes_a_building(street: str) -> None:
    classes = follow(street, 18).classes
    assert classes[0] == "person" and classes[-1] == "building"
