"""The drawn pelvis: truths agree, organs lie where they belong, no threshold finds the prostate."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.filters import threshold_otsu

from segedu.datasets import prostate
from segedu.datasets.prostate import ZONES, draw_prostate
from segedu.datasets.scenes import Scenes


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    return 2 * float((found & truth).sum()) / float(found.sum() + truth.sum())


@pytest.fixture(scope="module")
def scenes() -> list[dict]:
    return [draw_prostate((11, i)) for i in range(20)]


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (96, 96)])
def test_truths_agree(size) -> None:
    scene = draw_prostate(7, size)
    image, semantic, zones = scene["image"], scene["semantic"], scene["zones"]
    assert image.dtype == torch.float32 and image.shape == (3, *size) and 0 <= image.min() <= image.max() <= 1
    assert torch.equal(image[0], image[1]) and semantic.dtype == zones.dtype == torch.int64
    assert torch.equal(semantic, (zones > 0).long()) and torch.equal(scene["masks"][0], semantic == 1)
    assert set(zones.unique().tolist()) == set(range(len(ZONES))) and scene["labels"].tolist() == [1]
    assert scene["spacing"][0] == scene["spacing"][1] and 190 <= scene["spacing"][0] * min(size) <= 240


def test_scene_depends_on_seed_and_index_only() -> None:
    first = [Scenes(draw_prostate, 2, seed=3, size=(48, 56))[i] for i in range(2)]
    np.random.seed(1)
    torch.manual_seed(1)
    again = Scenes(draw_prostate, 9, seed=3, size=(48, 56))[1]
    assert all(torch.equal(first[1][key], again[key]) for key in again)
    assert not torch.equal(first[0]["image"], first[1]["image"])


def test_gland_varies_and_has_two_zones(scenes) -> None:
    """Real sizes: 20 to 60 cm3 glands are about 4 to 7 cm wide; here the area of the slice is 8 to 25 cm2."""
    areas = [float((s["semantic"] == 1).sum() * s["spacing"].prod() / 100) for s in scenes]
    assert 6 < min(areas) < 13 and 16 < max(areas) < 28
    middles = torch.stack([(s["semantic"] == 1).nonzero().double().mean(0) for s in scenes])
    assert (middles.std(0) > 2).all() and (middles - 48).abs().max() < 20
    for scene in scenes:
        central, peripheral = ((scene["zones"] == k).nonzero().double() for k in (1, 2))
        assert min(len(central), len(peripheral)) > 5 and peripheral[:, 0].mean() > central[:, 0].mean()


def test_otsu_and_any_band_of_grey_fail(scenes) -> None:
    """Both sides of Otsu's threshold; and the best two thresholds after the best Gaussian, chosen on these very images."""
    truth = np.stack([s["semantic"].numpy() == 1 for s in scenes])
    best = {"Otsu": 0.0, "band": 0.0}
    for sigma in (0, 1, 2):
        grey = np.stack([ndimage.gaussian_filter(s["image"][0].numpy(), sigma) for s in scenes])
        bright = np.stack([image > threshold_otsu(image) for image in grey])
        best["Otsu"] = max(best["Otsu"], dice(bright, truth), dice(~bright, truth))
        for low in np.arange(0, 0.8, 0.05):
            for width in (0.05, 0.1, 0.15, 0.2, 0.3, 0.5):
                best["band"] = max(best["band"], dice((grey >= low) & (grey < low + width), truth))
    print("prostate, Dice of thresholds", {name: round(value, 3) for name, value in best.items()})
    assert best["Otsu"] < 0.2 and best["band"] < 0.3


def test_its_mean_place_is_not_enough(scenes) -> None:
    """Where it lies on average, on the best level: the gland moves and changes its size."""
    truth = np.stack([s["semantic"].numpy() == 1 for s in scenes])
    share = truth.mean(axis=0)
    best = max(dice(np.broadcast_to(share >= level, truth.shape), truth) for level in np.arange(0.05, 1, 0.05))
    print("prostate, Dice of the mean place", round(best, 3))
    assert best < 0.75


def test_bias_and_noise() -> None:
    flat, bent = draw_prostate(4, noise=0, bias=0), draw_prostate(4, noise=0, bias=1)
    ratio = (bent["image"][0] / flat["image"][0])[flat["image"][0] > 0.2]
    assert torch.equal(flat["semantic"], bent["semantic"]) and ratio.max() / ratio.min() > 1.2
    loud = draw_prostate(4, noise=0.1, bias=0)
    assert (loud["image"] - flat["image"]).std() == pytest.approx(0.1, rel=0.25)


def test_version_is_bumped_when_scenes_change() -> None:
    """If this fails, the scenes changed: raise PROSTATE_VERSION and measure again whatever was trained on them."""
    scene = draw_prostate((0, 0))
    assert prostate.PROSTATE_VERSION == 1
    found = [*torch.bincount(scene["zones"].ravel()).tolist(), round(scene["image"].mean().item(), 3)]
    assert found == pytest.approx(GOLDEN, abs=1e-3)


GOLDEN = [8775, 164, 277, 0.365]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"seed": -1}, ValueError, "seed is -1"),
        ({"size": (31, 64)}, ValueError, "at least 32"),
        ({"size": 64}, TypeError, "size is 64"),
        ({"noise": 2}, ValueError, "noise is 2"),
        ({"bias": -1}, ValueError, "bias is -1"),
        ({"bias": "strong"}, TypeError, "bias is 'strong'"),
    ],
)
def test_bad_input(arguments: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        draw_prostate(**({"seed": 0} | arguments))
