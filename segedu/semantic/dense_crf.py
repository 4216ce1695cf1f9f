"""Dense CRF: every pixel talks to every other, and ten rounds of filtering sharpen a segmentation.

Paper: Krähenbühl, Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials", NIPS 2011,
    arXiv 1210.5644. Fast filter: Adams, Baek, Davis, "Fast High-Dimensional Filtering Using the Permutohedral
    Lattice", Eurographics 2010.
Idea: A labelling is good if it follows the class probabilities and if pixels that are near each other and alike
    in colour have one label. Mean field keeps a distribution Q for each pixel and lets all others vote on it,
    again and again. The votes are a Gaussian blur of Q in position and colour, so that one round over all
    N x N pairs costs time in proportion to N.
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

Filter = Callable[[np.ndarray], np.ndarray]  # values (N, C) -> (N, C)
MIN_PROBABILITY = 1e-5  # a class is never ruled out for good: smaller probabilities count as this one
EXACT_PIXELS = 1024  # up to here all pairs are summed: no slower than the lattice, and without its error


class Appearance(NamedTuple):
    """w1 exp(-|p_i - p_j|^2 / (2 theta_alpha^2) - |I_i - I_j|^2 / (2 theta_beta^2)): near and alike in colour.

    Positions p are in pixels and colours I in grey levels from 0 to 255, as in the paper.
    """

    w1: float = 10.0
    theta_alpha: float = 80.0
    theta_beta: float = 13.0


class Smoothness(NamedTuple):
    """w2 exp(-|p_i - p_j|^2 / (2 theta_gamma^2)): near, whatever the colour; it removes small islands."""

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

    A weight of 0 leaves its kernel out.

    Args:
        probabilities: (K, H, W), the classifier's; the unary potential is minus their logarithm. Those below
            `MIN_PROBABILITY` count as `MIN_PROBABILITY`.
        image: (3, H, W) in [0, 1].
        appearance: w1, theta_alpha (pixels) and theta_beta (grey levels of 255).
        smoothness: w2 and theta_gamma (pixels).
        iterations: of mean field; 0 gives the normalised probabilities back.
        make_filter: what sums over pairs: `exact_filter`, `lattice_filter`, or None, which takes the first for
            images of at most `EXACT_PIXELS` pixels and the second for larger ones. The lattice is off by a few
            per cent, and every iteration feeds on the one before: where the probabilities leave it open, the
            two may settle on different labels.

    Returns:
        Q (K, H, W): positive, the sum over K is 1; dtype and device of `probabilities`.

    Raises:
        TypeError: a tensor is not floating point.
        ValueError: a shape, a value or a parameter is not one of those above.

    >>> sure, unsure = [0.9, 0.1], [0.45, 0.55]
    >>> probabilities = torch.tensor([sure, sure, unsure]).T.reshape(2, 1, 3)
    >>> dense_crf(probabilities, torch.full((3, 1, 3), 0.5)).argmax(dim=0)
    tensor([[0, 0, 0]])
    """
    appearance, smoothness = Appearance(*appearance), Smoothness(*smoothness)
    _check_tensors(probabilities, image)
    _check_parameters(appearance, smoothness, iterations)
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
    start = probabilities.detach().cpu().double().reshape(classes, -1).T.numpy()  # (N, K)
    unary = -np.log(start.clip(MIN_PROBABILITY, None))
    q = mean_field(unary, kernels, iterations)
    return torch.from_numpy(q.T.reshape(classes, height, width)).to(probabilities)


def mean_field(unary: np.ndarray, kernels: Iterable[tuple[float, Filter]], iterations: int) -> np.ndarray:
    """Algorithm 1 of the paper, all pixels at once.

    Args:
        unary: (N, K) potentials, minus log probabilities.
        kernels: pairs of a weight and a filter.
        iterations: rounds of message passing, compatibility, local update and normalisation.

    Returns:
        Q (N, K), rows of sum 1.
    """
    kernels = list(kernels)
    q = _softmax(-unary)
    for _ in range(iterations):
        # Potts: a label pays for the votes of all the others, sum(votes) - votes. The sum is the same for all
        # labels of a pixel and leaves with the normalisation.
        votes = sum(weight * kernel(q) for weight, kernel in kernels)
        q = _softmax(votes - unary)
    return q


def _softmax(x: np.ndarray) -> np.ndarray:
    raised = np.exp(x - x.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def normalised(kernel: Filter, pixels: int) -> Filter:
    """D^(-1/2) K D^(-1/2) with D the row sums of K: a pixel with many alike is not outvoted by their number.

    Paper: equation 3 has no such factor; the authors' program has it.

    Args:
        kernel: the filter K.
        pixels: N.

    Returns:
        The normalised filter.
    """
    scale = 1 / np.sqrt(kernel(np.ones((pixels, 1))))  # (N, 1)
    return lambda values: scale * kernel(scale * values)


def exact_filter(features: np.ndarray, chunk: int = 512) -> Filter:
    """sum_j exp(-|f_i - f_j|^2 / 2) v_j over all N pixels: N^2 work, nothing left out.

    Paper: algorithm 1 leaves j = i out. Here, as in the authors' program, a pixel votes for itself too.

    Args:
        features: (N, d).
        chunk: rows of the N x N matrix in memory at a time.

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
    """The same sum on the permutohedral lattice, about N (d + 1) work: three steps, each a sparse matrix.

    Splat: a pixel's value is shared among the d + 1 corners of its simplex. Blur: every lattice point takes half
    of its two neighbours in each of the d + 1 directions. Slice: the transpose of splat.

    Args:
        features: (N, d).

    Returns:
        The filter, values (N, C) -> (N, C); approximate.

    Raises:
        ValueError: the features reach so far that the lattice points cannot be numbered in 63 bits.
    """
    if not np.abs(features).max() < 2.0**40:
        raise ValueError(f"features reach {np.abs(features).max()}, expected less than 2**40")
    keys, weights = _corners(features)  # (N, d + 1, d + 1), (N, d + 1)
    pixels, corners, _ = keys.shape
    d = corners - 1
    # Number the lattice points: their first d coordinates are the digits of one integer (the last one follows,
    # as the sum is 0). With room for one step at both ends, a step in a direction adds a fixed number.
    low = keys.min(axis=(0, 1))[:d] - d
    base = keys.max(axis=(0, 1))[:d] + d + 1 - low
    if np.prod(base.astype(float)) >= 2.0**62:
        raise ValueError(f"features span {base.tolist()} lattice points, expected a product below 2**62")
    place = np.cumprod(np.concatenate([[1], base[:-1]]))
    codes, index = np.unique((keys[..., :d] - low) @ place, return_inverse=True)
    row = np.repeat(np.arange(pixels), corners)
    slicing = sparse.csr_array((weights.ravel(), (row, index.ravel())), shape=(pixels, len(codes)))
    splat = slicing.T.tocsr()
    steps = np.ones((corners, d), dtype=np.int64) - corners * np.eye(corners, d, dtype=np.int64)
    blurs = [_blur(codes, shift) for shift in steps @ place]
    # The d + 1 steps add up to 0: along them half of half of ... a point's own value comes back to it, from both
    # sides. Divided by that 1 + 2^-d, a lattice point's weight on itself is exp(0) = 1.
    own = 1 + 2.0**-d

    def apply(values: np.ndarray) -> np.ndarray:
        grid = splat @ values  # (N, C) -> (M, C)
        for blur in blurs:
            grid = blur @ grid
        return slicing @ grid / own  # (M, C) -> (N, C)

    return apply


def _corners(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The d + 1 lattice points around each position and their barycentric weights (Adams 2010)."""
    pixels, d = features.shape
    size = d + 1
    # Columns: an orthonormal basis of the plane where the d + 1 coordinates add up to 0. Splat, blur and slice
    # together spread like a Gaussian of deviation size sqrt(2 / 3) in these coordinates, which is to mean 1.
    basis = np.triu(np.ones((size, d))) - np.diag(np.arange(1.0, size), -1)[:, :d]
    basis /= np.linalg.norm(basis, axis=0)
    x = features @ (size * np.sqrt(2 / 3) * basis).T  # (N, d + 1), rows of sum 0
    # The nearest point with all coordinates multiples of d + 1, by rounding. If they do not add up to 0, those
    # that rounding moved furthest go one multiple back.
    corner = np.rint(x / size).astype(np.int64)
    excess = corner.sum(axis=1, keepdims=True)
    rank = _rank(x - size * corner) + excess
    moved = (rank < 0).astype(np.int64) - (rank > d)
    corner, rank = size * (corner + moved), rank + size * moved
    # Barycentric weights are the gaps between neighbours in the sorted rest x - corner.
    rest = np.empty_like(x)
    np.put_along_axis(rest, rank, (x - corner) / size, axis=1)  # rank 0, the largest, first
    weights = np.empty_like(x)
    weights[:, 1:] = (rest[:, :-1] - rest[:, 1:])[:, ::-1]
    weights[:, 0] = 1 + rest[:, -1] - rest[:, 0]
    # Corner k is k further in every coordinate, but size - k back in those of the k last ranks.
    ranks, corners = np.arange(size)[:, None], np.arange(size)
    canonical = corners - size * (ranks + corners > d)  # (rank, k)
    keys = corner[:, None, :] + canonical[rank].transpose(0, 2, 1)  # (N, k, coordinate)
    return keys, weights


def _rank(x: np.ndarray) -> np.ndarray:
    """Place of each number in its row, 0 for the largest; of equal ones the first comes first."""
    order = np.argsort(-x, axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.broadcast_to(np.arange(x.shape[1]), x.shape), axis=1)
    return rank


def _blur(codes: np.ndarray, shift: int) -> sparse.csr_array:
    """1/2, 1, 1/2 along one direction; a neighbour that holds no pixel counts as 0."""
    after = np.searchsorted(codes, codes + shift).clip(max=len(codes) - 1)
    there = np.flatnonzero(codes[after] == codes + shift)
    half = np.full(len(there), 0.5)
    step = sparse.csr_array((half, (there, after[there])), shape=(len(codes), len(codes)))
    return (sparse.eye_array(len(codes)) + step + step.T).tocsr()


def postprocess(q: Tensor) -> Tensor:
    """The most probable class of each pixel, the lowest where several are equal.

    Args:
        q: (K, H, W) or (B, K, H, W).

    Returns:
        Labels (H, W) or (B, H, W), int64.

    Raises:
        TypeError: not a tensor.
        ValueError: `q` has another shape or no class.

    >>> postprocess(torch.tensor([[[0.2, 0.5]], [[0.8, 0.5]]]))
    tensor([[1, 0]])
    """
    if not isinstance(q, Tensor):
        raise TypeError(f"q has type {type(q).__name__}, expected a Tensor")
    if q.ndim not in (3, 4) or q.shape[-3] == 0:
        raise ValueError(f"q has shape {tuple(q.shape)}, expected (K, H, W) or (B, K, H, W) with K >= 1")
    return q.argmax(dim=-3)


def highest_class_after_crf(logits: Tensor, images: Tensor | None = None, **crf: Any) -> Tensor:
    """The best class of each pixel, behind a fully connected CRF if images are given.

    Args:
        logits: (B, K, H, W).
        images: (B, 3, H, W) in [0, 1], or None for no CRF.
        **crf: options of `dense_crf`, such as `iterations`.

    Returns:
        Labels (B, H, W), int64.

    Raises:
        TypeError: not a tensor, or not of floating-point numbers.
        ValueError: a wrong shape, an empty batch with images, or options of a CRF without images.

    >>> highest_class_after_crf(torch.tensor([[[[0.0, 2.0]], [[1.0, 2.0]]]]))
    tensor([[[1, 0]]])
    """
    if images is None:
        if crf:
            raise ValueError(f"{next(iter(crf))} is given without images, expected images for the CRF to look at")
        return highest_class(logits)
    for name, tensor in (("logits", logits), ("images", images)):
        _check_floating(name, tensor)
    if logits.ndim != 4 or 0 in logits.shape:
        raise ValueError(f"logits has shape {tuple(logits.shape)}, expected (B, K, H, W) with no empty axis")
    batch, _, *size = logits.shape
    if images.shape != (batch, 3, *size):
        raise ValueError(f"images has shape {tuple(images.shape)}, expected {(batch, 3, *size)}")
    if not bool((logits < torch.inf).all()):  # NaN fails the comparison too
        raise ValueError("logits has values that are no number or infinite, expected finite ones")
    pairs = zip(logits.softmax(dim=1), images, strict=True)
    return torch.stack([dense_crf(probabilities, image, **crf).argmax(dim=0) for probabilities, image in pairs])


def _check_floating(name: str, tensor: Tensor) -> None:
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        given = f"dtype {tensor.dtype}" if isinstance(tensor, Tensor) else f"type {type(tensor).__name__}"
        raise TypeError(f"{name} has {given}, expected a floating point tensor")


def _check_tensors(probabilities: Tensor, image: Tensor) -> None:
    _check_floating("probabilities", probabilities)
    _check_floating("image", image)
    if probabilities.ndim != 3 or 0 in probabilities.shape:
        shape = tuple(probabilities.shape)
        raise ValueError(f"probabilities has shape {shape}, expected (K, H, W) with no empty axis")
    if image.shape != (3, *probabilities.shape[1:]):
        expected = (3, *probabilities.shape[1:])
        raise ValueError(f"image has shape {tuple(image.shape)}, expected {expected} as probabilities has")
    # NaN fails every comparison, and so these two.
    if not bool(((probabilities >= 0) & (probabilities <= 1 + 1e-4)).all()):
        raise ValueError("probabilities has values outside 0 to 1, expected probabilities: apply softmax to logits")
    if not bool(((image >= 0) & (image <= 1)).all()):
        raise ValueError("image has values outside 0 to 1, expected [0, 1]")


def _check_parameters(appearance: Appearance, smoothness: Smoothness, iterations: int) -> None:
    values = {**appearance._asdict(), **smoothness._asdict()}
    for name, value in values.items():
        least = "a finite number " + ("of at least 0" if name.startswith("w") else "above 0")
        if not np.isfinite(value) or value < 0 or (value == 0 and not name.startswith("w")):
            raise ValueError(f"{name} is {value}, expected {least}")
    if not isinstance(iterations, int | np.integer) or isinstance(iterations, bool) or iterations < 0:
        raise ValueError(f"iterations is {iterations!r}, expected a whole number of at least 0")
