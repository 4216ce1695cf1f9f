"""GrabCut against OpenCV's on photographs, the mixtures against scikit-learn's densities, and closed forms."""

from __future__ import annotations

import itertools
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from skimage import data

from segedu.unsupervised import grab_cut as cut_file
from segedu.unsupervised.grab_cut import Mixture, component_log_densities, fit, grab_cut, split
from segedu.unsupervised.graph_cut import contrast_weights

# Photograph and box (xyxy) at full size; the tests halve both. The first three are natural boxes round the cup, the
# person and the head, fixed before any result was seen; on the others the loops of ours and OpenCV's have differed.
NATURAL = [("coffee", (150, 60, 490, 360)), ("astronaut", (20, 0, 480, 512)), ("chelsea", (100, 0, 380, 280))]
# Where OpenCV's seeds end at one place: that is the rule by which these were chosen, and the test holds it.
AGREED = [("coffee", (130, 40, 560, 380)), NATURAL[1], NATURAL[2]]
HARD = [("rocket", (150, 20, 560, 420)), ("chelsea", (60, 20, 420, 295)), ("astronaut", (160, 30, 300, 230))]


def scene(name: str, box: tuple[int, ...]) -> tuple[torch.Tensor, list[int]]:
    pixels = np.ascontiguousarray(getattr(data, name)()[::2, ::2])
    return torch.from_numpy(pixels).permute(2, 0, 1) / 255, [edge // 2 for edge in box]


def bgr(image: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray((255 * image).round().byte().permute(1, 2, 0).numpy()[..., ::-1])


def peer(image: torch.Tensor, box: list[int], seed: int) -> torch.Tensor:
    """OpenCV's whole loop of five rounds."""
    mask = np.zeros(image.shape[1:], np.uint8)
    left, top, right, bottom = box
    cv2.setRNGSeed(seed)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(bgr(image), mask, (left, top, right - left, bottom - top), *models, 5, cv2.GC_INIT_WITH_RECT)
    return torch.from_numpy(mask & 1).bool()


def flattened(mixture: Mixture) -> np.ndarray:
    """OpenCV's model: weights, means and covariances of blue, green, red in 0..255."""
    covariances = 255**2 * mixture.covariances[:, ::-1, ::-1]
    return np.concatenate([mixture.weights, 255 * mixture.means[:, ::-1].ravel(), covariances.ravel()])[None]


def rounds(image: torch.Tensor, box: list[int], count: int):
    """Ours and OpenCV's, round by round from the same mask and models: masks (N,) and flattened models of both.

    OpenCV gives a pixel to a component without regard to its weight. All weights are equal here, so that both agree.
    """
    hints = cut_file._box_to_hints(box, image.shape[1:])
    mask, pixels = (hints == 3).ravel(), image.double().reshape(3, -1).T.numpy()
    pairwise = contrast_weights(image)
    mixtures = [fit(pixels[side], split(pixels[side], 5), 5) for side in (~mask, mask)]
    for _ in range(count):
        mixtures = [mixture._replace(weights=np.full(5, 0.2)) for mixture in mixtures]
        theirs = np.where(hints == 0, 0, 2 + mask.reshape(hints.shape)).astype(np.uint8)
        models = [flattened(mixture) for mixture in mixtures]
        cv2.grabCut(bgr(image), theirs, None, *models, 1, cv2.GC_EVAL)
        mask, mixtures = cut_file.one_iteration(pixels, mask, mixtures, hints, pairwise)
        yield torch.from_numpy(mask), torch.from_numpy(theirs & 1).bool().ravel(), map(flattened, mixtures), models


def iou(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize(("name", "box"), NATURAL + HARD)
def test_a_round_from_the_same_models_is_opencvs(name, box):
    for ours, theirs, models, peer_models in rounds(*scene(name, box), count=1):
        assert 0 < theirs.sum() < theirs.numel()
        assert iou(ours, theirs) >= 0.999
        for model, expected in zip(models, peer_models, strict=True):  # OpenCV regularises singular covariances only
            np.testing.assert_allclose(model, expected, rtol=1e-3, atol=0.02)


@pytest.mark.parametrize("perturbed", ["gamma", "densities"])
def test_parity_of_a_round_fails_when_perturbed(monkeypatch, perturbed):
    if perturbed == "gamma":
        monkeypatch.setitem(globals(), "contrast_weights", partial(contrast_weights, gamma=40.0))
    else:
        monkeypatch.setattr(cut_file, "component_log_densities", lambda c, m: component_log_densities(c[:, ::-1], m))
    ours, theirs, _, _ = next(rounds(*scene(*NATURAL[2]), count=1))
    assert iou(ours, theirs) < 0.999


@pytest.mark.parametrize(("name", "box"), NATURAL)
def test_the_whole_loop_ends_where_opencvs_does_from_one_of_five_starts(name, box):
    image, box = scene(name, box)
    ours, theirs = grab_cut(image, box), [peer(image, box, seed) for seed in range(5)]
    away = [round(iou(ours, mask), 3) for mask in theirs]
    among = [round(iou(a, b), 3) for a, b in itertools.combinations(theirs, 2)]
    print(f"{name}: IoU of ours with OpenCV's five seeds {away}, of OpenCV's among themselves {among}")
    assert max(away) >= 0.95, (away, among)


@pytest.mark.parametrize(("name", "box"), AGREED)
def test_the_whole_loop_ends_where_all_of_opencvs_starts_do(name, box):
    image, box = scene(name, box)
    ours, theirs = grab_cut(image, box), [peer(image, box, seed) for seed in range(5)]
    assert 0 < ours.sum() < ours.numel()
    assert min(iou(a, b) for a, b in itertools.combinations(theirs, 2)) >= 0.95
    assert min(iou(ours, mask) for mask in theirs) >= 0.95


def disc() -> tuple[torch.Tensor, torch.Tensor]:
    """A red disc on a noisy green ground."""
    rows, columns = torch.meshgrid(torch.arange(40), torch.arange(50), indexing="ij")
    inside = (rows - 20) ** 2 + (columns - 24) ** 2 < 100
    colours = torch.where(
        inside, torch.tensor([0.8, 0.2, 0.2]).view(3, 1, 1), torch.tensor([0.2, 0.7, 0.3]).view(3, 1, 1)
    )
    noise = 0.05 * torch.randn(3, 40, 50, generator=torch.Generator().manual_seed(0))
    return (colours + noise).clamp(0, 1), inside


def test_box_hints_and_a_box_beyond_the_image_find_a_disc():
    image, inside = disc()
    assert torch.equal(grab_cut(image, (8, 5, 40, 36)), inside)
    assert torch.equal(grab_cut(image, (-30, 5, 40, 900)), inside)
    hints = torch.full((40, 50), 2)
    hints[:5], hints[18:22, 20:28] = 0, 1
    assert torch.equal(grab_cut(image, hints=hints), inside)
    assert torch.equal(grab_cut(image, (8, 5, 40, 36)), grab_cut(image, torch.tensor([8.0, 5, 40, 36])))


def test_sure_pixels_stay_what_they_are():
    image, inside = disc()
    hints = torch.full((40, 50), 2)
    hints[18:22, 20:28] = 3
    hints[20, 24], hints[0, 0] = 0, 1
    mask = grab_cut(image, hints=hints)
    assert not mask[20, 24] and mask[0, 0]


@pytest.mark.parametrize("value", [0, 1, 2, 3])
def test_hints_of_one_side_only_stay(value):
    image, _ = disc()
    assert (grab_cut(image, hints=torch.full((40, 50), value)) == bool(value % 2)).all()


def test_one_colour_and_one_pixel():
    mask = grab_cut(torch.full((3, 12, 10), 0.4), (2, 2, 7, 8))
    assert mask.shape == (12, 10) and not mask[0].any()
    assert grab_cut(torch.full((3, 1, 1), 0.4), (0, 0, 1, 1)).tolist() == [[True]]


def test_densities_are_scipys():
    rng = np.random.default_rng(0)
    colours = rng.random((200, 3))
    mixture = fit(colours, split(colours, 4), 5)
    ours = component_log_densities(colours, mixture)
    for k in range(4):
        peer_density = multivariate_normal(mixture.means[k], mixture.covariances[k]).logpdf(colours)
        np.testing.assert_allclose(ours[:, k], peer_density + np.log(mixture.weights[k]), atol=1e-9)
    assert np.isneginf(ours[:, 4]).all() and mixture.weights.sum() == pytest.approx(1)


def test_fit_by_hand():
    colours = np.array([[0.0, 0, 0], [1, 0, 0], [0.5, 0.5, 0.5]])
    mixture = fit(colours, np.array([0, 0, 1]), 2)
    assert isinstance(mixture, Mixture)
    np.testing.assert_allclose(mixture.weights, [2 / 3, 1 / 3])
    np.testing.assert_allclose(mixture.means, [[0.5, 0, 0], [0.5, 0.5, 0.5]])
    np.testing.assert_allclose(mixture.covariances[0], np.diag([0.25, 0, 0]), atol=1e-6)


I = torch.full((3, 4, 5), 0.5)
H = torch.zeros(4, 5, dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: grab_cut(I.int(), (0, 0, 2, 2)), TypeError, "image has dtype torch.int32"),
        (lambda: grab_cut(I[:1], (0, 0, 2, 2)), ValueError, r"image has shape \(1, 4, 5\)"),
        (lambda: grab_cut(I * torch.nan, (0, 0, 2, 2)), ValueError, "image has values outside"),
        (lambda: grab_cut(I), ValueError, "both given or both missing"),
        (lambda: grab_cut(I, (0, 0, 2, 2), H), ValueError, "both given or both missing"),
        (lambda: grab_cut(I, (9, 0, 12, 2)), ValueError, "box is .*expected xyxy with at least one pixel"),
        (lambda: grab_cut(I, (3, 0, 1, 2)), ValueError, "box is"),
        (lambda: grab_cut(I, (0, 0, 2)), ValueError, "expected four finite numbers"),
        (lambda: grab_cut(I, (0, 0, 2, float("nan"))), ValueError, "expected four finite numbers"),
        (lambda: grab_cut(I, hints=H.float()), TypeError, "hints has dtype torch.float32"),
        (lambda: grab_cut(I, hints=H[:2]), ValueError, r"hints has shape \(2, 5\)"),
        (lambda: grab_cut(I, hints=H + 4), ValueError, "hints has values from 4 to 4"),
        (lambda: grab_cut(I, (0, 0, 2, 2), iterations=0), ValueError, "iterations is 0"),
    ],
)
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call()
