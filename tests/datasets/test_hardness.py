"""The scenes are hard: a threshold with connected components finds at most 0.30 of shapes, cells and their kin, and
a random forest on single pixels and their 5x5 windows reaches at most 0.50 mean IoU on streets.

The threshold is given every chance: grey, each colour channel, and saturation and value of HSV; bright and
dark objects; two smoothings; small specks removed; and the best of all these settings counts. The score is
TP / (TP + FP + FN) over all scenes at IoU 0.5: `instance_accuracy` at 0.5, which the cell literature calls AP50.
The area under precision and recall needs scores, and components have none: with one score for all of them
it is precision times recall at most, which is bounded here as well.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.color import rgb2hsv
from skimage.filters import threshold_otsu

from segedu.datasets import street
from segedu.datasets.bacteria import draw_bacteria
from segedu.datasets.cells import draw_cells
from segedu.datasets.cytoplasm import draw_cytoplasm
from segedu.datasets.nuclei3d import draw_nuclei3d
from segedu.datasets.shapes import draw_shapes
from segedu.datasets.street import draw_street
from segedu.recipes.baselines import WindowForest, some_windows

SPECK = 20  # pixels; smaller components are dropped, in favour of the baseline


def channels(image: np.ndarray) -> dict[str, np.ndarray]:
    """Everything that one could threshold of an image (H, W, 3), or of a volume (D, H, W, 1)."""
    if image.ndim == 4:
        return {"grey": image[..., 0]}
    hsv = rgb2hsv(image)
    named = {name: image[..., i] for i, name in enumerate(("red", "green", "blue"))}
    return named | {"grey": image @ [0.299, 0.587, 0.114], "saturation": hsv[..., 1], "value": hsv[..., 2]}


def components(channel: np.ndarray, sigma: float, bright: bool) -> np.ndarray:
    """Otsu's threshold of the smoothed channel and its connected components without specks."""
    smooth = ndimage.gaussian_filter(channel, sigma)
    above = smooth > threshold_otsu(smooth)
    labels, _ = ndimage.label(above if bright else ~above)
    keep = np.bincount(labels.ravel()) >= SPECK
    keep[0] = False
    return (np.cumsum(keep) * keep)[labels]


def outcome(labels: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """TP, FP and FN at IoU above 0.5, where a match is unique."""
    joint = np.zeros((truth.max() + 1, labels.max() + 1))
    np.add.at(joint, (truth, labels), 1)
    shared = joint[1:, 1:]
    union = joint.sum(1)[1:, None] + joint.sum(0)[None, 1:] - shared
    right = int((shared > 0.5 * union).sum())
    return np.array([right, labels.max() - right, truth.max() - right])


def best_baseline(scenes: list[dict]) -> dict[str, tuple]:
    """The best setting by each score: (score, setting)."""
    counts: dict[tuple, np.ndarray] = {}
    for scene in scenes:
        image, truth = scene["image"].movedim(0, -1).numpy(), scene["label_map"].numpy()
        for name, channel in channels(image).items():
            if np.ptp(channel) == 0:  # saturation of a grey image
                continue
            for sigma in (1.0, 2.0):
                for bright in (True, False):
                    setting = (name, sigma, bright)
                    found = outcome(components(channel, sigma, bright), truth)
                    counts[setting] = counts.get(setting, 0) + found
    accuracy = {key: tp / (tp + fp + fn) for key, (tp, fp, fn) in counts.items()}
    area = {key: tp / max(tp + fp, 1) * tp / (tp + fn) for key, (tp, fp, fn) in counts.items()}
    return {name: max((s, k) for k, s in scores.items()) for name, scores in (("accuracy", accuracy), ("area", area))}


@pytest.mark.parametrize(
    ("name", "draw", "size", "number"),
    [
        ("shapes", draw_shapes, (64, 64), 60),
        ("shapes, larger", draw_shapes, (128, 128), 15),
        ("cells", draw_cells, (128, 128), 16),
        ("cells, smaller", draw_cells, (64, 64), 60),
        ("cytoplasm", draw_cytoplasm, (128, 128), 16),
        ("cytoplasm, smaller", draw_cytoplasm, (64, 64), 40),
        ("bacteria", draw_bacteria, (128, 128), 16),
        ("bacteria, smaller", draw_bacteria, (64, 64), 40),
        ("nuclei in 3D", draw_nuclei3d, (16, 64, 64), 10),
    ],
)
def test_threshold_and_components_fail(name, draw, size, number) -> None:
    best = best_baseline([draw((11, i), size) for i in range(number)])
    assert best["accuracy"][0] <= 0.30 and best["area"][0] <= 0.30, (name, best)
    print(name, best)


def test_baseline_is_fair() -> None:
    """Where the same nuclei are evenly bright, the baseline finds them: it fails on ours for a reason."""
    easy = [draw_cells((5, i), count=6, touching=0) for i in range(8)]
    for scene in easy:
        scene["image"] = (0.2 + 0.6 * (scene["label_map"] > 0)).float().repeat(3, 1, 1)
    best = best_baseline(easy)
    assert best["accuracy"][0] > 0.8 and best["area"][0] > 0.8, best


# --- street: a forest that sees colour, position and a window ------------------------------------------------------


def forest_mean_iou(train: list[dict], held_out: list[dict], num_classes: int, balanced: bool) -> float:
    """Mean IoU over the classes of the held-out truth, from one confusion matrix; void is left out."""
    pairs, others = ([(scene["image"], scene["semantic"]) for scene in scenes] for scenes in (train, held_out))
    forest = WindowForest(pairs, num_classes, balanced).forest
    features, truth = some_windows(others, 1500)
    matrix = np.zeros((num_classes, num_classes))
    np.add.at(matrix, (truth, forest.predict(features)), 1)
    union = matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
    return float((np.diag(matrix) / np.where(union > 0, union, np.nan))[matrix.sum(1) > 0].mean())


@pytest.fixture(scope="module")
def streets() -> tuple[list[dict], list[dict]]:
    """Scenes to train on and scenes held out; drawing them takes as long as growing a forest."""
    train, held_out = ([draw_street((seed, i)) for i in range(n)] for seed, n in ((21, 90), (22, 30)))
    return train, held_out


@pytest.mark.parametrize("balanced", [False, True])
def test_a_forest_on_windows_fails_on_streets(balanced: bool, streets: tuple[list[dict], list[dict]]) -> None:
    reached = forest_mean_iou(*streets, len(street.CLASSES), balanced)
    print("forest on street, balanced" if balanced else "forest on street", round(reached, 3))
    assert reached <= 0.50


def test_the_forest_is_fair() -> None:
    """Where each class has its own colour, under light and noise, the same forest labels nearly every pixel."""
    tones = np.random.default_rng(5).uniform(0.1, 0.9, (len(street.CLASSES), 3))

    def easy(seed: tuple[int, int]) -> dict:
        scene = draw_street(seed, (48, 80))
        semantic = scene["semantic"].numpy()
        flat = tones[np.where(semantic == street.VOID, 0, semantic)].transpose(2, 0, 1)
        noise = 0.03 * np.random.default_rng(seed).standard_normal(flat.shape)
        return scene | {"image": torch.from_numpy(np.clip(flat + noise, 0, 1).astype(np.float32))}

    train, held_out = ([easy((seed, i)) for i in range(n)] for seed, n in ((21, 40), (22, 12)))
    assert forest_mean_iou(train, held_out, len(street.CLASSES), False) > 0.8
