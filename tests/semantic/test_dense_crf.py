"""Dense CRF against loops over all pairs, against the authors' program (pydensecrf), and in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import data
from torch import Tensor

from segedu.datasets.street import draw_street
from segedu.semantic import dense_crf as crf_file
from segedu.semantic.dense_crf import (
    EXACT_PIXELS,
    MIN_PROBABILITY,
    Appearance,
    Smoothness,
    dense_crf,
    exact_filter,
    highest_class_after_crf,
    lattice_filter,
    mean_field,
    normalised,
    postprocess,
)


def scene(classes: int, height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Probabilities (K, H, W) and an image (3, H, W), float64."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(classes, height, width, generator=generator, dtype=torch.float64)
    return logits.softmax(0), torch.rand(3, height, width, generator=generator, dtype=torch.float64)


# --- loops over all pairs ---------------------------------------------------------------------------------------


def by_loops(p: Tensor, image: Tensor, appearance: tuple, smoothness: tuple, iterations: int) -> Tensor:
    """The paper's equations, one pair of pixels at a time."""
    classes, height, width = p.shape
    pixels = [(row, column) for row in range(height) for column in range(width)]
    (w1, alpha, beta), (w2, gamma) = appearance, smoothness

    def pair(i: tuple[int, int], j: tuple[int, int]) -> tuple[float, float]:
        near = (i[0] - j[0]) ** 2 + (i[1] - j[1]) ** 2
        alike = sum((255 * float(image[c, *i] - image[c, *j])) ** 2 for c in range(3))
        return math.exp(-near / (2 * alpha**2) - alike / (2 * beta**2)), math.exp(-near / (2 * gamma**2))

    k = {(i, j): pair(i, j) for i in pixels for j in pixels}
    d = {i: [sum(k[i, j][m] for j in pixels) for m in (0, 1)] for i in pixels}
    unary = {i: [-math.log(max(float(p[c, *i]), MIN_PROBABILITY)) for c in range(classes)] for i in pixels}

    def distribution(energy: list[float]) -> list[float]:
        raised = [math.exp(-e) for e in energy]
        return [r / sum(raised) for r in raised]

    q = {i: distribution(unary[i]) for i in pixels}
    for _ in range(iterations):
        fresh = {}
        for i in pixels:
            energy = list(unary[i])
            for j in pixels:
                weight = sum(w * k[i, j][m] / math.sqrt(d[i][m] * d[j][m]) for m, w in ((0, w1), (1, w2)))
                for mine in range(classes):
                    energy[mine] += weight * sum(q[j][other] for other in range(classes) if other != mine)
            fresh[i] = distribution(energy)
        q = fresh
    values = [[[q[r, c][label] for c in range(width)] for r in range(height)] for label in range(classes)]
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("classes", "size", "appearance", "smoothness", "iterations"),
    [
        (3, (5, 5), (3.0, 4.0, 60.0), (1.0, 1.0), 3),
        (2, (7, 6), (10.0, 80.0, 13.0), (3.0, 3.0), 5),
        (4, (1, 9), (2.0, 3.0, 90.0), (0.0, 1.0), 2),
        (2, (6, 3), (0.0, 3.0, 90.0), (2.0, 2.0), 2),
        (1, (3, 3), (1.0, 1.0, 50.0), (1.0, 1.0), 2),
    ],
)
def test_equal_to_loops(classes: int, size: tuple, appearance: tuple, smoothness: tuple, iterations: int) -> None:
    p, image = scene(classes, *size)
    if classes > 1:
        p[0, 0, 0], p[1:, 0, 0] = 0, 1 / (classes - 1)  # an impossible class
    right = by_loops(p, image, appearance, smoothness, iterations)
    ours = dense_crf(p, image, appearance, smoothness, iterations)
    torch.testing.assert_close(ours, right, rtol=0, atol=1e-10)


@pytest.mark.parametrize("mistake", ["kernel not normalised", "features in [0, 1]", "Q of the start"])
def test_loops_notice_a_mistake(monkeypatch: pytest.MonkeyPatch, mistake: str) -> None:
    p, image = scene(3, 4, 5)
    arguments = (3.0, 4.0, 60.0), (1.0, 1.0), 3
    right = by_loops(p, image, *arguments)
    if mistake == "kernel not normalised":
        monkeypatch.setattr(crf_file, "normalised", lambda kernel, pixels: kernel)
    elif mistake == "features in [0, 1]":
        image = image / 255
    else:
        monkeypatch.setattr(crf_file, "mean_field", lambda unary, kernels, n: mean_field(unary, kernels, 1))
    assert (dense_crf(p, image, *arguments) - right).abs().max() > 1e-3


def test_chunks_make_no_difference() -> None:
    features = np.random.default_rng(0).normal(size=(37, 3))
    values = np.random.default_rng(1).random((37, 2))
    whole = exact_filter(features, chunk=1000)(values)
    for chunk in (1, 8, 37):
        np.testing.assert_allclose(exact_filter(features, chunk)(values), whole, rtol=0, atol=1e-12)


# --- the authors' program ---------------------------------------------------------------------------------------


def photograph(name: str) -> Tensor:
    if name == "street":
        return draw_street(0)["image"].double().mul(255).round() / 255  # the program takes bytes
    pixels = {"astronaut": data.astronaut()[:150, 100:320], "cat": data.chelsea()[30:131, 60:211]}[name]
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy()).double() / 255


def guess(image: Tensor, classes: int) -> Tensor:
    """A blurred, noisy classifier of brightness."""
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(image.mean(0).numpy(), 3)
    label = np.digitize(smooth, np.quantile(smooth, np.linspace(0, 1, classes + 1)[1:-1]))
    noise = 6 * ndimage.gaussian_filter(rng.normal(size=(classes, *label.shape)), (0, 2, 2))
    return (2 * torch.from_numpy(np.eye(classes)[label].transpose(2, 0, 1)) + torch.from_numpy(noise)).softmax(0)


def by_pydensecrf(p: Tensor, image: Tensor, appearance: tuple, smoothness: tuple, iterations: int) -> Tensor:
    densecrf = pytest.importorskip("pydensecrf.densecrf")
    classes, height, width = p.shape
    crf = densecrf.DenseCRF2D(width, height, classes)
    unary = -np.log(np.clip(p.numpy().reshape(classes, -1), MIN_PROBABILITY, 1))
    crf.setUnaryEnergy(np.ascontiguousarray(unary, dtype=np.float32))
    crf.addPairwiseGaussian(sxy=smoothness[1], compat=smoothness[0])
    pixels = np.ascontiguousarray((255 * image).round().byte().numpy().transpose(1, 2, 0))
    crf.addPairwiseBilateral(sxy=appearance[1], srgb=appearance[2], rgbim=pixels, compat=appearance[0])
    return torch.from_numpy(np.array(crf.inference(iterations), dtype=np.float64).reshape(p.shape))


@pytest.mark.parametrize("parameters", [(Appearance(), Smoothness()), ((4, 67, 3), (3, 1)), ((5, 30, 20), (1, 1))])
@pytest.mark.parametrize(("name", "classes"), [("astronaut", 4), ("cat", 7), ("street", 10)])
def test_parity_with_the_authors_program(name: str, classes: int, parameters: tuple) -> None:
    image = photograph(name)
    p = guess(image, classes)
    ours, theirs = dense_crf(p, image, *parameters), by_pydensecrf(p, image, *parameters, iterations=10)
    assert (theirs.argmax(0) != p.argmax(0)).double().mean() > 0.05  # there was something to do
    # The bar of the course is 0.99; the lattice is theirs, so that only float32 is between the two.
    assert (ours.argmax(0) == theirs.argmax(0)).double().mean() > 0.999
    assert (ours - theirs).abs().mean() < 1e-5


def test_parity_notices_other_axes() -> None:
    """Rows before columns turn the lattice: as good a filter, but not the program's."""
    image = photograph("cat")
    p = guess(image, 4)
    turned = dense_crf(p.mT, image.mT).mT
    theirs = by_pydensecrf(p, image, Appearance(), Smoothness(), 10)
    assert (turned - theirs).abs().mean() > 1e-3
    assert (turned.argmax(0) == theirs.argmax(0)).double().mean() > 0.97


# --- the lattice ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_corners_surround_the_position(d: int) -> None:
    features = np.random.default_rng(d).normal(size=(200, d))
    keys, weights = crf_file._corners(features)
    assert (keys.sum(axis=-1) == 0).all()
    assert (weights > -1e-12).all() and np.allclose(weights.sum(axis=1), 1)
    mixed = (weights[..., None] * keys).sum(axis=1)  # the weighted mean of the corners is the elevated position
    square = ((mixed[:, None] - mixed[None]) ** 2).sum(-1)
    right = ((features[:, None] - features[None]) ** 2).sum(-1) * (d + 1) ** 2 * 2 / 3
    np.testing.assert_allclose(square, right, rtol=0, atol=1e-9)
    remainder = keys % (d + 1)  # corner k of a simplex: all coordinates are k modulo d + 1
    assert (remainder == np.arange(d + 1)[:, None]).all()


@pytest.mark.parametrize("d", [1, 2, 3])
def test_lattice_is_close_to_all_pairs(d: int) -> None:
    rng = np.random.default_rng(d)
    features, values = rng.normal(size=(600, d)), rng.random((600, 2))
    exact, fast = (normalised(make(features), 600)(values) for make in (exact_filter, lattice_filter))
    assert abs(fast / exact - 1).mean() < 0.03


def test_lattice_of_one_pixel_and_of_one_colour() -> None:
    # Of the two ways round, 2^-6 each, one has all its points in the simplex of a pixel that is alone.
    assert lattice_filter(np.zeros((1, 5)))(np.ones((1, 1))) == pytest.approx((1 + 2**-6) / (1 + 2**-5))
    once = lattice_filter(np.zeros((9, 2)))(np.eye(9)[:, :1])
    assert np.allclose(once, once[0])  # one place: everybody hears the same


def test_lattice_refuses_what_it_cannot_number() -> None:
    with pytest.raises(ValueError, match="features span"):
        lattice_filter(np.array([[0.0] * 5, [1e5] * 5]))


# --- the whole --------------------------------------------------------------------------------------------------


def test_large_and_small_images_take_their_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    for name in ("exact_filter", "lattice_filter"):
        original = getattr(crf_file, name)
        monkeypatch.setattr(crf_file, name, lambda f, name=name, original=original: taken.append(name) or original(f))
    dense_crf(*scene(2, 1, EXACT_PIXELS), iterations=0)
    assert set(taken) == {"exact_filter"}
    taken.clear()
    dense_crf(*scene(2, 1, EXACT_PIXELS + 1), iterations=0)
    assert set(taken) == {"lattice_filter"}


def test_lattice_and_all_pairs_agree_on_an_image() -> None:
    image = photograph("cat")[:, 30:60, 40:80]
    p = guess(image, 3)
    exact, fast = (dense_crf(p, image, (4, 67, 3), (3, 1), 10, make) for make in (exact_filter, lattice_filter))
    assert (exact.argmax(0) == fast.argmax(0)).double().mean() > 0.99
    assert (exact - fast).abs().mean() < 0.01


def test_a_noisy_square_is_cleaned() -> None:
    target = torch.zeros(48, 64, dtype=torch.int64)
    target[12:36, 16:44] = 1
    image = (0.2 + 0.6 * target).expand(3, -1, -1)
    flip = torch.rand(48, 64, generator=torch.Generator().manual_seed(0)) < 0.25
    p = torch.stack([0.7 - 0.4 * (target ^ flip), 0.3 + 0.4 * (target ^ flip)])
    assert (postprocess(p) == target).float().mean() < 0.8
    assert (postprocess(dense_crf(p, image)) == target).all()


def test_nothing_to_hear_leaves_the_probabilities() -> None:
    p, image = scene(3, 6, 5)
    right = p.clamp(min=MIN_PROBABILITY) / p.clamp(min=MIN_PROBABILITY).sum(0)
    for arguments in [((0, 1, 1), (0, 1), 10), (Appearance(), Smoothness(), 0)]:
        torch.testing.assert_close(dense_crf(p, image, *arguments), right, rtol=0, atol=1e-12)


def test_one_pixel_hears_itself() -> None:
    """Both kernels are 1 there, so Q solves q = softmax(w q - unary) with w = w1 + w2."""
    p = torch.tensor([0.6, 0.4], dtype=torch.float64).reshape(2, 1, 1)
    q = p.flatten()
    for _ in range(10):
        q = (5 * q + p.flatten().log()).softmax(0)
    ours = dense_crf(p, torch.zeros(3, 1, 1), (4, 1, 1), (1, 1), 10).flatten()
    torch.testing.assert_close(ours, q, rtol=0, atol=1e-12)


def test_classes_have_no_order() -> None:
    p, image = scene(4, 40, 30)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(dense_crf(p, image)[order], dense_crf(p[order], image), rtol=0, atol=1e-10)


def test_distributions_of_the_dtype_given() -> None:
    p, image = scene(3, 40, 30)
    q = dense_crf(p.float(), image.float())
    assert q.dtype == torch.float32 and q.shape == p.shape
    torch.testing.assert_close(q.sum(0), torch.ones(40, 30))
    torch.testing.assert_close(q.double(), dense_crf(p, image), rtol=0, atol=1e-3)


def test_arguments_are_left_as_they_were() -> None:
    p, image = scene(3, 6, 5)
    copies = p.clone(), image.clone()
    dense_crf(p, image)
    assert torch.equal(p, copies[0]) and torch.equal(image, copies[1])


P, IMAGE = torch.full((2, 3, 4), 0.5), torch.zeros(3, 3, 4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: dense_crf(P.numpy(), IMAGE), TypeError, "probabilities has type ndarray"),
        (lambda: dense_crf(P, (255 * IMAGE).byte()), TypeError, "image has dtype torch.uint8"),
        (lambda: dense_crf(P[None], IMAGE), ValueError, r"probabilities has shape \(1, 2, 3, 4\)"),
        (lambda: dense_crf(P[:0], IMAGE), ValueError, r"probabilities has shape \(0, 3, 4\)"),
        (lambda: dense_crf(P, IMAGE[:1]), ValueError, r"image has shape \(1, 3, 4\)"),
        (lambda: dense_crf(P, IMAGE.mT), ValueError, r"image has shape \(3, 4, 3\)"),
        (lambda: dense_crf(P - 1, IMAGE), ValueError, "probabilities has values outside"),
        (lambda: dense_crf(P / 0, IMAGE), ValueError, "probabilities has values outside"),
        (lambda: dense_crf(P, IMAGE + 2), ValueError, "image has values outside"),
        (lambda: dense_crf(P, IMAGE * math.nan), ValueError, "image has values outside"),
        (lambda: dense_crf(P, IMAGE, (-1, 1, 1)), ValueError, "w1 is -1"),
        (lambda: dense_crf(P, IMAGE, (1, 0, 1)), ValueError, "theta_alpha is 0"),
        (lambda: dense_crf(P, IMAGE, (1, 1, math.inf)), ValueError, "theta_beta is inf, expected a finite number"),
        (lambda: dense_crf(P, IMAGE + 1, (1, 1e-300, 1), make_filter=crf_file.lattice_filter), ValueError, "reach"),
        (lambda: postprocess([0.5, 0.5]), TypeError, "q has type list"),
        (
            lambda: highest_class_after_crf(P[None] / 0, IMAGE[None]),
            ValueError,
            "logits has NaN",
        ),
        (lambda: highest_class_after_crf(P[None].long(), IMAGE[None]), TypeError, "logits has dtype torch.int64"),
        (lambda: highest_class_after_crf(P[None], IMAGE[None, :1]), ValueError, r"images has shape \(1, 1, 3, 4\)"),
        (lambda: highest_class_after_crf(P[:0][None], IMAGE[None]), ValueError, "logits has shape"),
        (lambda: dense_crf(P, IMAGE, smoothness=(1, -2)), ValueError, "theta_gamma is -2"),
        (lambda: dense_crf(P, IMAGE, iterations=-1), ValueError, "iterations is -1"),
        (lambda: dense_crf(P, IMAGE, iterations=1.5), TypeError, "iterations is 1.5"),
        (lambda: postprocess(P[0]), ValueError, "q has shape"),
    ],
)
def test_bad_input(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_logits_of_a_network_reach_the_crf(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def record(probabilities: Tensor, image: Tensor, **options: object) -> Tensor:
        given.append((probabilities, image, options))
        return probabilities.flip(0)

    monkeypatch.setattr(crf_file, "dense_crf", record)
    logits, images = torch.randn(2, 3, 4, 5), torch.rand(2, 3, 4, 5)
    assert torch.equal(highest_class_after_crf(logits), logits.argmax(1)) and not given
    labels = highest_class_after_crf(logits, images, iterations=7)
    assert torch.equal(labels, logits.flip(1).argmax(1)) and labels.dtype == torch.int64 and len(given) == 2
    for i, (probabilities, image, options) in enumerate(given):
        torch.testing.assert_close(probabilities, logits[i].softmax(0))
        assert torch.equal(image, images[i]) and options == {"iterations": 7}


def test_whole_numbers_of_numpy_are_iterations() -> None:
    p, image = scene(3, 6, 5)
    assert torch.equal(dense_crf(p, image, iterations=np.int64(3)), dense_crf(p, image, iterations=3))
