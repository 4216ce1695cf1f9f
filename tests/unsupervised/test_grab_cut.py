"""GrabCut against OpenCV's on photographs, the mixtures against scikit-learn's densities, and closed forms."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from skimage import data

from segedu.unsupervised import grab_cut as cut_file
from segedu.unsupervised.grab_cut import Mixture, component_log_densities, fit, grab_cut, split

# Photograph, box (xyxy) at full size, and the step in pixels that makes it small.
SCENES = {
    "coffee": ((100, 60, 480, 370), 2),
    "chelsea": ((60, 20, 420, 295), 2),
    "rocket": ((290, 60, 350, 400), 2),
}


def scene(name: str) -> tuple[torch.Tensor, list[int]]:
    box, step = SCENES[name]
    pixels = np.ascontiguousarray(getattr(data, name)()[::step, ::step])
    return torch.from_numpy(pixels).permute(2, 0, 1) / 255, [edge // step for edge in box]


def peer(image: torch.Tensor, box: list[int], iterations: int = 5) -> torch.Tensor:
    pixels = (255 * image).round().byte().permute(1, 2, 0).numpy()
    mask = np.zeros(pixels.shape[:2], np.uint8)
    left, top, right, bottom = box
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    rectangle = (left, top, right - left, bottom - top)
    cv2.grabCut(np.ascontiguousarray(pixels[..., ::-1]), mask, rectangle, *models, iterations, cv2.GC_INIT_WITH_RECT)
    return torch.from_numpy(mask & 1).bool()


def iou(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("name", SCENES)
def test_mask_is_opencvs(name):
    image, box = scene(name)
    expected = peer(image, box)
    assert 0 < expected.sum() < expected.numel()
    assert iou(grab_cut(image, box), expected) >= 0.95


def test_parity_fails_when_perturbed(monkeypatch):
    image, box = scene("chelsea")
    expected = peer(image, box)
    assert iou(grab_cut(image, box, gamma=1.0), expected) < 0.95
    monkeypatch.setattr(cut_file, "component_log_densities", lambda c, m: component_log_densities(c[:, ::-1], m))
    assert iou(grab_cut(image, box), expected) < 0.95


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
