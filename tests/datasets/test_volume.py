"""The CT phantom: one patient on any grid, organs where they belong, grey values that name none of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from segedu.datasets import volume
from segedu.datasets.batch import semantic_batch
from segedu.datasets.scenes import Scenes
from segedu.datasets.volume import CLASSES, WINDOW, draw_volume

SMALL = (16, 32, 48)
LUNG, LIVER, SPLEEN, KIDNEY, SPINE, TUMOUR = range(1, 7)


def middle(scene: dict, organ: int) -> np.ndarray:
    return (scene["semantic"] == organ).nonzero().double().mean(0).numpy()


def test_what_is_drawn() -> None:
    for size in [(8, 8, 8), (9, 17, 31), SMALL]:
        scene = draw_volume((1, size[1]), size)
        image, hu, semantic = scene["image"], scene["hu"], scene["semantic"]
        assert image.dtype == hu.dtype == torch.float32 and semantic.dtype == torch.int64
        assert image.shape == (1, *size) and hu.shape == semantic.shape == size
        low, high = WINDOW
        assert torch.allclose(image[0], ((hu - low) / (high - low)).clamp(0, 1), atol=1e-6)
        assert hu.min() >= -1024 and hu.max() <= 3071 and set(semantic.unique().tolist()) <= set(range(7))
    assert draw_volume(0)["spacing"] == (12.0, 5.5, 5.5) and draw_volume(0)["image"].shape == (1, 24, 48, 64)
    assert draw_volume(0, SMALL, (5, 2, 2.5))["spacing"] == (5.0, 2.0, 2.5)


def test_every_class_in_nearly_every_patient() -> None:
    counts = torch.stack([torch.bincount(draw_volume((3, i))["semantic"].ravel(), minlength=7) for i in range(12)])
    assert len(CLASSES) == 7 and (counts[:, :TUMOUR] > 50).all()
    assert 3 <= (counts[:, TUMOUR] > 0).sum() < 12  # some patients have none


def test_scene_depends_on_seed_and_index_only() -> None:
    forward = [Scenes(draw_volume, 3, seed=3, size=SMALL)[i] for i in range(3)]
    np.random.seed(1)
    torch.manual_seed(1)
    longer = Scenes(draw_volume, 9, seed=3, size=SMALL)
    for i in (2, 0, 1):
        for key, value in forward[i].items():
            assert torch.equal(value, longer[i][key]) if torch.is_tensor(value) else value == longer[i][key]
    assert not torch.equal(forward[0]["image"], forward[1]["image"])
    images, target = semantic_batch(forward)
    assert images.shape == (3, 1, *SMALL) and target.shape == (3, *SMALL)


def test_organs_lie_where_they_belong() -> None:
    """Axes: feet to head, front to back, the patient's right to the left."""
    higher = []
    for seed in range(6):
        scene = draw_volume((9, seed))
        at = {organ: middle(scene, organ) for organ in (LUNG, LIVER, SPLEEN, KIDNEY, SPINE)}
        assert at[LIVER][2] < at[SPINE][2] < at[SPLEEN][2]
        assert at[LUNG][0] > at[LIVER][0] > at[KIDNEY][0]
        assert at[SPINE][1] > at[KIDNEY][1] > at[LIVER][1]
        left, right = (scene["semantic"][..., side] == KIDNEY for side in (slice(32, None), slice(None, 32)))
        assert left.sum() > 20 and right.sum() > 20
        higher.append((left.nonzero().double().mean(0) - right.nonzero().double().mean(0))[0])
    assert np.mean(higher) > 0  # the right kidney hangs lower, in most people


def test_one_patient_on_two_grids() -> None:
    """The label of a voxel is what lies at its middle: a grid three times finer has the same labels there."""
    coarse = draw_volume(4, (8, 16, 16), (12, 9, 9), tumours=2)
    fine = draw_volume(4, (24, 48, 48), (4, 3, 3), tumours=2)
    assert torch.equal(coarse["semantic"], fine["semantic"][1::3, 1::3, 1::3])
    means = fine["hu"].reshape(8, 3, 16, 3, 16, 3).mean(dim=(1, 3, 5))
    assert (means - coarse["hu"]).abs().median() < 30


def test_thick_slices_mix_tissues() -> None:
    """Without noise a voxel within an organ has one value, and at its border one between two."""
    thin, thick = (draw_volume(5, (d, 40, 56), (z, 6, 6), noise=0) for d, z in ((60, 4), (20, 12)))
    mixed = []
    for scene in (thin, thick):
        lung = scene["hu"][scene["semantic"] == LUNG]
        mixed.append((lung > -700).double().mean().item())
    assert mixed[1] > mixed[0] + 0.02 > 0.1


def test_tumours_are_in_the_liver_and_change_nothing_else() -> None:
    without, with_three = draw_volume(2, tumours=0), draw_volume(2, tumours=(3, 3))
    changed = without["semantic"] != with_three["semantic"]
    assert changed.sum() > 20 and (without["semantic"][changed] == LIVER).all()
    assert (with_three["semantic"][changed] == TUMOUR).all() and not (without["semantic"] == TUMOUR).any()
    darker = (without["hu"] - with_three["hu"])[ndimage.binary_erosion(changed.numpy(), iterations=1)]
    assert darker.numel() > 3 and (darker > 40).all() and (darker < 80).all()


def test_noise() -> None:
    quiet, loud = draw_volume(6, noise=0), draw_volume(6, noise=1)
    assert (loud["hu"] - quiet["hu"])[quiet["hu"] > -900].std().item() == pytest.approx(22, rel=0.05)


def best_bands(scenes: list[dict], classes: range) -> dict[str, float]:
    """Dice of each class, voxels pooled, of the best pair of thresholds on the best smoothing, chosen on the test set."""
    truth = np.concatenate([scene["semantic"].numpy().ravel() for scene in scenes])
    best = dict.fromkeys((CLASSES[k] for k in classes), 0.0)
    for sigma in (0, (0.4, 0.8, 0.8), (0.7, 1.5, 1.5)):
        values = np.concatenate([ndimage.gaussian_filter(s["image"][0].numpy(), sigma).ravel() for s in scenes])
        level = np.clip((values * 80).astype(int), 0, 80)
        for k in classes:
            hits = np.concatenate([[0], np.cumsum(np.bincount(level[truth == k], minlength=81))])
            found = np.concatenate([[0], np.cumsum(np.bincount(level, minlength=81))])
            low, high = np.triu_indices(82, 1)
            dice = 2 * (hits[high] - hits[low]) / np.maximum(found[high] - found[low] + (truth == k).sum(), 1)
            best[CLASSES[k]] = max(best[CLASSES[k]], float(dice.max()))
    return best


def test_thresholds_fail() -> None:
    """Each organ gets its own two thresholds and Gaussian, the best there are: mean Dice stays below 0.35."""
    best = best_bands([draw_volume((11, i)) for i in range(10)], range(1, 7))
    print("best band of each class", {name: round(value, 3) for name, value in best.items()})
    assert np.mean(list(best.values())) < 0.35 and max(best.values()) < 0.8


def test_the_thresholds_are_fair() -> None:
    """Where each organ has a grey value of its own, the same bands find it."""
    scenes = [draw_volume((11, i), SMALL) for i in range(3)]
    for scene in scenes:
        scene["image"] = (scene["semantic"].float() / 7 + 0.02 * torch.randn(SMALL).clamp(-2, 2)).clamp(0, 1)[None]
    assert min(best_bands(scenes, range(1, 6)).values()) > 0.9


def test_version_is_bumped_when_scenes_change() -> None:
    """If this fails, the scenes changed: raise VOLUME_VERSION and measure again whatever was trained on them."""
    scene = draw_volume((0, 0))
    assert volume.VOLUME_VERSION == 1
    assert torch.bincount(scene["semantic"].ravel(), minlength=7).tolist() == GOLDEN["voxels"]
    assert scene["hu"].mean().item() == pytest.approx(GOLDEN["hu"], abs=0.01)


GOLDEN = {"voxels": [63682, 5337, 2421, 335, 717, 1236, 0], "hu": -460.019}

BAD = [
    ({"seed": 1.5}, TypeError, "seed is 1.5"),
    ({"size": 32}, TypeError, "size is 32, expected \\(D, H, W\\), integers"),
    ({"size": (32, 32)}, TypeError, "expected \\(D, H, W\\), integers"),
    ({"size": (32.0, 32, 32)}, TypeError, "expected \\(D, H, W\\), integers"),
    ({"size": (7, 32, 32)}, ValueError, "integers of at least 8"),
    ({"size": (2000, 8, 8)}, ValueError, r"size is \(2000, 8, 8\), expected fewer voxels, or a spacing"),
    ({"spacing": 3.0}, TypeError, "spacing is 3.0, expected three numbers in mm"),
    ({"spacing": (3.0, 1.0)}, TypeError, "expected three numbers in mm"),
    ({"spacing": (3.0, 1.0, "wide")}, TypeError, "spacing is 'wide'"),
    ({"spacing": (0, 1.0, 1.0)}, ValueError, "spacing is 0"),
    ({"spacing": (1, 1.0, float("nan"))}, ValueError, "spacing is nan"),
    ({"noise": -1}, ValueError, "noise is -1"),
    ({"tumours": -1}, ValueError, "count is -1"),
    ({"tumours": 1.5}, TypeError, "count is 1.5"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD)
def test_bad_input(arguments: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        draw_volume(**({"seed": 0} | arguments))
