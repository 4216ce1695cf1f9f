"""Dense CRF: a model that connects every pixel to every other pixel refines a segmentation in ten iterations.

Paper: Krähenbühl, Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials", NIPS 2011,
    arXiv 1210.5644. Fast filter: Adams, Baek, Davis, "Fast High-Dimensional Filtering Using the Permutohedral
    Lattice", Eurographics 2010.
Idea: A labelling is good if it agrees with the class probabilities, and if nearby pixels of similar colour have the
    same label. Mean-field inference keeps a distribution Q for each pixel and repeatedly updates it by the messages of
    all other pixels. The messages are a Gaussian blur of Q in position and colour, so that one iteration over all
    N x N pairs takes time proportional to N.
Simplified: Potts compatibility only. The number of iterations is fixed; nothing is learned.
Shapes: probabilities (K, H, W) and image (3, H, W) in [0, 1] -> (K, H, W), distributions over K at every pixel.
    `postprocess`: (B, K, H, W) or (K, H, W) -> labels without the axis K.
Quality: argmax as pydensecrf's at 0.9999 of the pixels of photographs, and as brute force to 1e-10 (its tests).
Course: 08-context
Lab: 08_context
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse
from scipy.spatial.distance import cdist
from torch import Tensor

from segedu.layers.labels import highest_class
from segedu.validation.images import check_image
from segedu.validation.numbers import check_integer, check_number
from segedu.validation.tensors import check_floats, check_tensor

Filter = Callable[[np.ndarray], np.ndarray]  # values (N, C) -> (N, C)
MIN_PROBABILITY = 1e-5  # smaller probabilities are raised to this value, so that no class is excluded for ever
EXACT_PIXELS = 1024  # for smaller images, the exact sum is not slower than the lattice


class Appearance(NamedTuple):
    """w1 exp(-|p_i - p_j|^2 / (2 theta_alpha^2) - |I_i - I_j|^2 / (2 theta_beta^2)): nearby pixels of similar colour.

    Positions p are in pixels and colours I in grey levels from 0 to 255, as in the paper.
    """

    w1: float = 10.0
    theta_alpha: float = 80.0
    theta_beta: float = 13.0


class Smoothness(NamedTuple):
    """w2 exp(-|p_i - p_j|^2 / (2 theta_gamma^2)): nearby pixels of any colour; it removes small isolated regions."""

    w2: float = 3.0
    theta_gamma: float = 3.0


DEFAULT_APPEARANCE, DEFAULT_SMOOTHNESS = Appearance(), Smoothness()  # of the authors' example program


def dense_crf(
    probabilities: Tensor,
    image: Tensor,
    appearance: Appearance | tuple[float, float, float] = DEFAULT_APPEARANCE,
    smoothness: Smoothness | tuple[float, float] = DEFAULT_SMOOTHNESS,
    iterations: int = 10,
    make_filter: Callable[[np.ndarray], Filter] | None = None,
) -> Tensor:
    """Refine class probabilities with a fully connected CRF: equations 2 and 3 and algorithm 1 of the paper.

    Args:
        probabilities: (K, H, W), of the classifier. The unary potential is their negative logarithm; values below
            `MIN_PROBABILITY` are raised to it.
        image: (3, H, W) in [0, 1].
        appearance: w1, theta_alpha (pixels) and theta_beta (grey levels of 255). A kernel of weight 0 is not computed.
        smoothness: w2 and theta_gamma (pixels).
        iterations: of mean-field inference; 0 returns the normalised probabilities.
        make_filter: makes the filter that sums over pairs: `exact_filter`, `lattice_filter`, or None, which uses the
            first for images of at most `EXACT_PIXELS` pixels and the second for larger ones. The lattice has an error
            of a few per cent, and each iteration builds on the one before: where the probabilities are ambiguous, the
            two filters may lead to different labels.

    Returns:
        Q (K, H, W): positive, with a sum of 1 over K; dtype and device of `probabilities`.

    >>> confident, ambiguous = [0.9, 0.1], [0.45, 0.55]
    >>> probabilities = torch.tensor([confident, confident, ambiguous]).T.reshape(2, 1, 3)
    >>> dense_crf(probabilities, torch.full((3, 1, 3), 0.5)).argmax(dim=0)
    tensor([[0, 0, 0]])
    """
    appearance, smoothness = Appearance(*appearance), Smoothness(*smoothness)
    sizes = check_floats("probabilities", probabilities, "K H W")
    if not bool(((probabilities >= 0) & (probabilities <= 1 + 1e-4)).all()):  # NaN fails this comparison too
        raise ValueError("probabilities has values outside [0, 1], expected probabilities: apply softmax to logits")
    check_floats("image", image, "3 H W", sizes)
    check_image(image)
    for name, value in {**appearance._asdict(), **smoothness._asdict()}.items():
        check_number(name, value, exclusive=name.startswith("theta"))
    check_integer("iterations", iterations, 0)
    classes, height, width = probabilities.shape
    if make_filter is None:
        make_filter = exact_filter if height * width <= EXACT_PIXELS else lattice_filter
    rows, columns = np.indices((height, width), dtype=np.float64)
    position = np.stack([columns, rows], axis=-1).reshape(-1, 2)  # (N, 2): x, y
    colour = 255 * image.detach().cpu().double().reshape(3, -1).T.numpy()  # (N, 3)
    kernels = []
    if appearance.w1:
        features = np.hstack([position / appearance.theta_alpha, colour / appearance.theta_beta])
        kernels.append((appearance.w1, normalised(make_filter(features), len(features))))
    if smoothness.w2:
        features = position / smoothness.theta_gamma
        kernels.append((smoothness.w2, normalised(make_filter(features), len(features))))
    prior = probabilities.detach().cpu().double().reshape(classes, -1).T.numpy()  # (N, K)
    unary = -np.log(prior.clip(MIN_PROBABILITY, None))
    q = mean_field(unary, kernels, iterations)
    return torch.from_numpy(q.T.reshape(classes, height, width)).to(probabilities)


def mean_field(unary: np.ndarray, kernels: Iterable[tuple[float, Filter]], iterations: int) -> np.ndarray:
    """Algorithm 1 of the paper, for all pixels at once.

    Args:
        unary: (N, K) potentials, negative log probabilities.
        kernels: pairs of a weight and a filter.
        iterations: of message passing, compatibility transform, local update and normalisation.

    Returns:
        Q (N, K), rows with a sum of 1.
    """
    kernels = list(kernels)
    q = _softmax(-unary)
    for _ in range(iterations):
        # Potts: the cost of a label is the messages for all other labels, sum(messages) - messages. The sum is the
        # same for all labels of a pixel and cancels in the normalisation.
        messages = sum(weight * kernel(q) for weight, kernel in kernels)
        q = _softmax(messages - unary)
    return q


def _softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def normalised(kernel: Filter, pixels: int) -> Filter:
    """D^(-1/2) K D^(-1/2), D the row sums of the filter K of N pixels, so that numerous similar pixels do not dominate.

    Paper: equation 3 has no such factor; the authors' program has it.
    """
    scale = 1 / np.sqrt(kernel(np.ones((pixels, 1))))  # (N, 1)
    return lambda values: scale * kernel(scale * values)


def exact_filter(features: np.ndarray, chunk: int = 512) -> Filter:
    """sum_j exp(-|f_i - f_j|^2 / 2) v_j over all N pixels, in O(N^2) time.

    Paper: algorithm 1 excludes j = i. Here, as in the authors' program, a pixel also sends a message to itself.

    Args:
        features: (N, d).
        chunk: rows of the N x N matrix that are in memory at a time.

    Returns:
        The filter, values (N, C) -> (N, C).

    >>> exact_filter(np.array([[0.0], [2.0]]))(np.array([[1.0], [0.0]])).round(4)  # exp(0), exp(-2)
    array([[1.    ],
           [0.1353]])
    """

    def apply(values: np.ndarray) -> np.ndarray:
        rows = range(0, len(features), chunk)
        return np.concatenate(
            [np.exp(-cdist(features[i : i + chunk], features, "sqeuclidean") / 2) @ values for i in rows]
        )

    return apply


def lattice_filter(features: np.ndarray) -> Filter:
    """An approximation of `exact_filter` on the permutohedral lattice, in about O(N d) time.

    Three steps, each a sparse matrix. Splat: a pixel's value is distributed to the d + 1 corners of its simplex. Blur:
    every lattice point adds half of its two neighbours in each of the d + 1 directions. Slice: the transpose of splat.

    Args:
        features: (N, d).

    Returns:
        The filter, values (N, C) -> (N, C).

    Raises:
        ValueError: the range of the features is so large that the lattice points cannot be numbered in 63 bits.
    """
    if not np.abs(features).max() < 2.0**40:
        raise ValueError(f"features reach {np.abs(features).max()}, expected less than 2**40: choose a larger theta")
    keys, weights = _corners(features)  # (N, d + 1, d + 1), (N, d + 1)
    pixels, corners, _ = keys.shape
    d = corners - 1
    # Number the lattice points: their first d coordinates are the digits of one integer (the last coordinate follows,
    # because the sum is 0). With room for one step at both ends, a step in a direction adds a constant.
    low = keys.min(axis=(0, 1))[:d] - d
    base = keys.max(axis=(0, 1))[:d] + d + 1 - low
    if np.prod(base.astype(float)) >= 2.0**62:
        raise ValueError(f"features span {base.tolist()} lattice points, expected a product below 2**62")
    digit_values = np.cumprod(np.concatenate([[1], base[:-1]]))
    codes, index = np.unique((keys[..., :d] - low) @ digit_values, return_inverse=True)
    row = np.repeat(np.arange(pixels), corners)
    slicing = sparse.csr_array((weights.ravel(), (row, index.ravel())), shape=(pixels, len(codes)))
    splat = slicing.T.tocsr()
    steps = np.ones((corners, d), dtype=np.int64) - corners * np.eye(corners, d, dtype=np.int64)
    blurs = [_blur(codes, shift) for shift in steps @ digit_values]
    # The d + 1 steps add up to 0, so that 2^-(d + 1) of a point's own value returns to it in both directions. After
    # division by 1 + 2^-d, the weight of a lattice point on itself is exp(0) = 1.
    self_weight = 1 + 2.0**-d

    def apply(values: np.ndarray) -> np.ndarray:
        grid = splat @ values  # (N, C) -> (M, C)
        for blur in blurs:
            grid = blur @ grid
        return slicing @ grid / self_weight  # (M, C) -> (N, C)

    return apply


def _corners(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The d + 1 lattice points around each position and their barycentric weights (Adams 2010)."""
    pixels, d = features.shape
    size = d + 1
    # Columns: an orthonormal basis of the plane where the d + 1 coordinates add up to 0. Splat, blur and slice
    # together act like a Gaussian of standard deviation size sqrt(2 / 3) in these coordinates, which must mean 1.
    basis = np.triu(np.ones((size, d))) - np.diag(np.arange(1.0, size), -1)[:, :d]
    basis /= np.linalg.norm(basis, axis=0)
    x = features @ (size * np.sqrt(2 / 3) * basis).T  # (N, d + 1), rows of sum 0
    # The nearest point whose coordinates are all multiples of d + 1, by rounding. If they do not add up to 0, the
    # coordinates with the largest rounding errors go one multiple back.
    corner = np.rint(x / size).astype(np.int64)
    excess = corner.sum(axis=1, keepdims=True)
    rank = _rank(x - size * corner) + excess
    shift = (rank < 0).astype(np.int64) - (rank > d)
    corner, rank = size * (corner + shift), rank + size * shift
    # Barycentric weights are the gaps between neighbours in the sorted residual x - corner.
    residual = np.empty_like(x)
    np.put_along_axis(residual, rank, (x - corner) / size, axis=1)  # rank 0, the largest, first
    weights = np.empty_like(x)
    weights[:, 1:] = (residual[:, :-1] - residual[:, 1:])[:, ::-1]
    weights[:, 0] = 1 + residual[:, -1] - residual[:, 0]
    # Corner k adds k to every coordinate, but subtracts size - k from the coordinates of the k last ranks.
    ranks, corners = np.arange(size)[:, None], np.arange(size)
    canonical = corners - size * (ranks + corners > d)  # (rank, k)
    keys = corner[:, None, :] + canonical[rank].transpose(0, 2, 1)  # (N, k, coordinate)
    return keys, weights


def _rank(x: np.ndarray) -> np.ndarray:
    """Rank of each value in its row, 0 for the largest; of equal values the first comes first."""
    order = np.argsort(-x, axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.broadcast_to(np.arange(x.shape[1]), x.shape), axis=1)
    return rank


def _blur(codes: np.ndarray, shift: int) -> sparse.csr_array:
    """1/2, 1, 1/2 along one direction; a lattice point without pixels counts as 0."""
    after = np.searchsorted(codes, codes + shift).clip(max=len(codes) - 1)
    rows = np.flatnonzero(codes[after] == codes + shift)
    half = np.full(len(rows), 0.5)
    step = sparse.csr_array((half, (rows, after[rows])), shape=(len(codes), len(codes)))
    return (sparse.eye_array(len(codes)) + step + step.T).tocsr()


def postprocess(q: Tensor) -> Tensor:
    """Take the most probable class of each pixel, the lowest class if several are equal.

    Args:
        q: (K, H, W) or (B, K, H, W).

    Returns:
        Labels (H, W) or (B, H, W), int64.

    >>> postprocess(torch.tensor([[[0.2, 0.5]], [[0.8, 0.5]]]))
    tensor([[1, 0]])
    """
    check_tensor("q", q)
    if q.ndim not in (3, 4) or q.shape[-3] == 0:
        raise ValueError(f"q has shape {tuple(q.shape)}, expected (K, H, W) or (B, K, H, W) with K >= 1")
    return q.argmax(dim=-3)


def highest_class_after_crf(logits: Tensor, images: Tensor | None = None, **crf: Any) -> Tensor:
    """Take the highest class of each pixel, after refinement by a fully connected CRF if images are passed.

    Args:
        logits: (B, K, H, W).
        images: (B, 3, H, W) in [0, 1], or None for no CRF.
        **crf: options of `dense_crf`, such as `iterations`.

    Returns:
        Labels (B, H, W), int64.

    >>> highest_class_after_crf(torch.tensor([[[[0.0, 2.0]], [[1.0, 2.0]]]]))
    tensor([[[1, 0]]])
    """
    if images is None:
        if crf:
            raise ValueError(f"{next(iter(crf))} is given without images, expected the images that the CRF needs")
        return highest_class(logits)
    sizes = check_floats("logits", logits, "B K H W")
    check_floats("images", images, "B 3 H W", sizes)
    if not bool((logits < torch.inf).all()):  # NaN fails the comparison too
        raise ValueError("logits has NaN or infinite values, expected finite values")
    pairs = zip(logits.softmax(dim=1), images, strict=True)
    return torch.stack([dense_crf(probabilities, image, **crf).argmax(dim=0) for probabilities, image in pairs])
