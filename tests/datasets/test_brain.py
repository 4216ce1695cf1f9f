"""The drawn head: truths agree, the tumour's parts are nested, brightness alone does not find it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from segedu.datasets import brain
from segedu.datasets.brain import CLASSES, REGIONS, draw_brain
from segedu.datasets.scenes import Scenes

FLUID, GREY, WHITE, OEDEMA, RIM, CORE = (
    CLASSES.index(name) for name in ("fluid", "grey matter", "white matter", "oedema", "rim", "core")
)


@pytest.fixture(scope="module")
def ill() -> list[dict]:
    return [draw_brain((11, i), tumour=1) for i in range(12)]


@pytest.mark.parametrize("size", [(32, 32), (47, 33), (96, 96)])
def test_truths_agree(size) -> None:
    scene = draw_brain(7, size)
    image, semantic, regions = scene["image"], scene["semantic"], scene["regions"]
    assert image.dtype == torch.float32 and image.shape == (3, *size) and 0 <= image.min() <= image.max() <= 1
    assert semantic.dtype == torch.int64 and set(semantic.unique().tolist()) <= set(range(len(CLASSES)))
    assert scene["masks"].shape == (0, *size) and regions.dtype == torch.bool
    for region, part in zip(regions, REGIONS.values(), strict=True):
        assert torch.equal(region, torch.isin(semantic, torch.tensor(part)))
    for entry in scene["segments_info"]:
        assert (semantic[scene["panoptic_seg"] == entry["id"]] == entry["category_id"]).all()


def test_scene_depends_on_seed_and_index_only() -> None:
    first = [Scenes(draw_brain, 2, seed=3, size=(48, 56))[i] for i in range(2)]
    np.random.seed(1)
    torch.manual_seed(1)
    again = Scenes(draw_brain, 9, seed=3, size=(48, 56))[1]
    assert all(torch.equal(v, again[k]) if torch.is_tensor(v) else v == again[k] for k, v in first[1].items())
    assert not torch.equal(first[0]["image"], first[1]["image"])


def test_some_heads_have_no_tumour() -> None:
    without = [draw_brain((2, i), (40, 40), tumour=0)["regions"].any() for i in range(4)]
    usual = [bool(draw_brain((2, i), (40, 40))["regions"].any()) for i in range(20)]
    assert not any(without) and 0.5 < np.mean(usual) < 1


def test_rim_encloses_core_and_swelling_lies_around(ill) -> None:
    for scene in ill:
        semantic = scene["semantic"].numpy()
        assert (semantic == RIM).sum() > 8
        core, tumour = semantic == CORE, np.isin(semantic, (RIM, CORE))
        ring = ndimage.binary_dilation(core) & ~core
        assert not core.any() or np.isin(semantic[ring], (RIM,)).mean() > 0.8
        away = ndimage.distance_transform_edt(~tumour) * float(scene["spacing"][0])
        assert away[semantic == OEDEMA].max(initial=0) < 40  # mm


def test_tones_are_those_of_contrast_enhanced_t1() -> None:
    """White matter above grey, grey above swelling or near it, fluid dark; the rim outshines all of them."""
    scenes = [draw_brain((4, i), tumour=1, noise=0, bias=0) for i in range(12)]
    tone = {
        k: np.mean([float(s["image"][0][s["semantic"] == k].median()) for s in scenes if (s["semantic"] == k).any()])
        for k in (FLUID, GREY, WHITE, OEDEMA, RIM, CORE)
    }
    assert tone[RIM] > tone[WHITE] > tone[GREY] > tone[CORE] > 0.1 and abs(tone[OEDEMA] - tone[GREY]) < 0.08
    assert tone[FLUID] < tone[GREY]


def test_brightness_does_not_find_rim_or_tumour(ill) -> None:
    """The best two thresholds after the best Gaussian, chosen on these very images: scalp and vessels shine as well."""
    best = dict.fromkeys(REGIONS, 0.0)
    for sigma in (0, 0.7, 1.5):
        grey = np.stack([ndimage.gaussian_filter(s["image"][0].numpy(), sigma) for s in ill])
        for low in np.arange(0, 0.95, 0.05):
            for width in (0.05, 0.1, 0.2, 0.4, 1):
                found = (grey >= low) & (grey < low + width)
                for k, name in enumerate(REGIONS):
                    truth = np.stack([s["regions"][k].numpy() for s in ill])
                    best[name] = max(best[name], 2 * (found & truth).sum() / (found.sum() + truth.sum()))
    print("brain, Dice of thresholds", {name: round(float(value), 3) for name, value in best.items()})
    assert max(best.values()) < 0.4


def test_version_is_bumped_when_scenes_change() -> None:
    """If this fails, the scenes changed: raise BRAIN_VERSION and measure again whatever was trained on them."""
    scene = draw_brain((0, 0))
    assert brain.BRAIN_VERSION == 1
    found = [*torch.bincount(scene["semantic"].ravel(), minlength=8).tolist(), round(scene["image"].mean().item(), 3)]
    assert found == pytest.approx(GOLDEN, abs=1e-3)


GOLDEN = [5895, 558, 670, 855, 989, 52, 70, 127, 0.231]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"seed": -1}, ValueError, "seed is -1"),
        ({"size": (31, 64)}, ValueError, "at least 32"),
        ({"noise": 2}, ValueError, "noise is 2"),
        ({"bias": 3}, ValueError, "bias is 3"),
        ({"tumour": 1.5}, ValueError, "tumour is 1.5"),
        ({"tumour": "yes"}, TypeError, "tumour is 'yes'"),
    ],
)
def test_bad_input(arguments: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        draw_brain(**({"seed": 0} | arguments))
