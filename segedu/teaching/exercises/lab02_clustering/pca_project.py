"""pca_project: features of hundreds of numbers, seen along the directions in which they vary most."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.outcomes import same_outcome
from segedu.unsupervised.dino import principal_components


def pca_project(features: Tensor, n: int) -> Tensor:
    """The scores of the first principal components.

    Args:
        features: (N, D), one row a point.
        n: components, at most min(N, D).

    Returns:
        (N, n), the component of largest variance first; the sign of each column is free.
    """
    return principal_components(features, n).scores


def _directions(centred: Tensor, n: int) -> Tensor:
    """(D, n): right singular vectors, largest first."""
    return torch.linalg.svd(centred, full_matrices=False)[2][:n].T


def up_to_signs(case: Case, expected: dict, got: dict, tolerance: float) -> bool:
    """The same columns, each with either sign.

    Args:
        case: unused.
        expected: outcome of the reference, or of a wrong answer.
        got: outcome of the student.
        tolerance: of numbers.

    Returns:
        True where the two agree but for the signs of columns.
    """
    if same_outcome(case, expected, got, tolerance):
        return True
    want, have = expected.get("value"), got.get("value")
    try:
        want, have = np.asarray(want), np.asarray(have)
    except ValueError:
        return False
    if want.shape != have.shape or want.ndim != 2 or have.dtype.kind != "f" or not want.size:
        return False
    signs = np.where((want * have).sum(axis=0) < 0, -1.0, 1.0)
    return same_outcome(case, {**expected, "value": want}, {**got, "value": have * signs}, tolerance)


def _cloud(rng: np.random.Generator, points: int, dims: int, spread: list[float]) -> Tensor:
    """Points of given, different standard deviations along random directions, away from the origin."""
    rank = len(spread)
    scores = rng.normal(size=(points, rank))
    scores, _ = np.linalg.qr(scores - scores.mean(axis=0))
    axes, _ = np.linalg.qr(rng.normal(size=(dims, rank)))
    # not along the axes alone: without centring, the first direction must be another
    centre = rng.choice([-1, 1], dims) * rng.uniform(2, 4, dims)
    return torch.from_numpy(scores * np.array(spread) * np.sqrt(points) @ axes.T + centre)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """More points than numbers and fewer; one component, all of them, a column without variance, more than the rank.

    Args:
        rng: of the points.

    Returns:
        The cases by group.
    """
    still = _cloud(rng, 9, 3, [2.0, 1.0, 0.5])
    still = torch.cat([still[:, :1], torch.full((9, 1), 5.0, dtype=torch.float64), still[:, 1:]], dim=1)
    return {
        "core": (
            2,
            [
                {"name": "12 points of 5 numbers, 2 components", "args": [_cloud(rng, 12, 5, [3, 2, 1, 0.5]), 2]},
                {"name": "5 points of 8 numbers, 3 components", "args": [_cloud(rng, 5, 8, [4, 2, 1, 0.5]), 3]},
                {"name": "6 points of 6 numbers, 2 components", "args": [_cloud(rng, 6, 6, [3, 1.5, 0.7, 0.3]), 2]},
            ],
        ),
        "edge": (
            2,
            [
                {"name": "one component", "args": [_cloud(rng, 10, 4, [1.5, 0.8, 0.4, 0.2]), 1]},
                {"name": "all components", "args": [_cloud(rng, 11, 3, [2, 1, 0.5]), 3]},
                {"name": "a number that is the same everywhere", "args": [still, 2]},
                {"name": "points on a line, 2 components", "args": [_cloud(rng, 7, 3, [2.0]), 2]},
            ],
        ),
    }


def not_centred(features: Tensor, n: int) -> Tensor:
    """The first direction points at the mean."""
    return features @ _directions(features, n)


def centred_late(features: Tensor, n: int) -> Tensor:
    """Centres for the directions, projects what is not centred."""
    return features @ _directions(features - features.mean(dim=0), n)


def centred_by_rows(features: Tensor, n: int) -> Tensor:
    """Takes each point's own mean off."""
    centred = features - features.mean(dim=1, keepdim=True)
    return centred @ _directions(centred, n)


def rows_and_columns_swapped(features: Tensor, n: int) -> Tensor:
    """Takes points for numbers: (D, n) comes back."""
    return pca_project(features.T, n)


def ascending(features: Tensor, n: int) -> Tensor:
    """The first columns of eigh: the smallest variance."""
    centred = features - features.mean(dim=0)
    return centred @ torch.linalg.eigh(centred.T @ centred)[1][:, :n]


def smallest_of_largest_first(features: Tensor, n: int) -> Tensor:
    """The last columns of eigh, not turned round."""
    return pca_project(features, n).flip(1)


def loadings(features: Tensor, n: int) -> Tensor:
    """The directions."""
    return _directions(features - features.mean(dim=0), n)


def loadings_as_rows(features: Tensor, n: int) -> Tensor:
    """The directions, one a row."""
    return loadings(features, n).T


def whitened(features: Tensor, n: int) -> Tensor:
    """Every column has variance 1."""
    scores = pca_project(features, n)
    return scores / scores.std(dim=0, unbiased=False).clamp(min=1e-6)


def left_vectors(features: Tensor, n: int) -> Tensor:
    """The first factor of the decomposition: columns of length 1."""
    scores = pca_project(features, n)
    return scores / scores.norm(dim=0).clamp(min=1e-6)


def standardised(features: Tensor, n: int) -> Tensor:
    """Every number of a point gets variance 1 first."""
    centred = features - features.mean(dim=0)
    scaled = centred / centred.std(dim=0, unbiased=False).clamp(min=1e-6)
    return scaled @ _directions(scaled, n)


def first_columns(features: Tensor, n: int) -> Tensor:
    """No directions at all."""
    return (features - features.mean(dim=0))[:, :n]


def all_components(features: Tensor, n: int) -> Tensor:
    """n is ignored."""
    return pca_project(features, min(features.shape))


CENTRE = "Subtract the mean of each column (dim=0) once, and use what is left in both places."
ORDER = "torch.linalg.eigh gives eigenvalues from the smallest up, svd gives singular values from the largest down."

exercise = Exercise(
    name="pca_project",
    points=4,
    cases=cases,
    reference=pca_project,
    tolerance=1e-5,
    kind="points",
    accept=up_to_signs,
    alike=up_to_signs,
    hides=["segedu.unsupervised.dino"],
    wrong=[
        Wrong(
            "no centring",
            not_centred,
            "You do not subtract the mean: your first direction only points from the origin to the cloud.",
            CENTRE,
        ),
        Wrong(
            "projected without centring",
            centred_late,
            "You centre to find the directions, and project the points as they were: their mean should be 0.",
            CENTRE,
        ),
        Wrong(
            "each point centred",
            centred_by_rows,
            "You subtract each point's own mean: it is the mean over the points that is taken off.",
            CENTRE,
        ),
        Wrong(
            "rows and columns swapped",
            rows_and_columns_swapped,
            "You take rows for columns: a row is a point, and every point gets n numbers.",
            "The covariance is D x D, centred.T @ centred.",
        ),
        Wrong(
            "smallest first",
            ascending,
            "You take the directions of smallest variance.",
            ORDER,
        ),
        Wrong(
            "order reversed",
            smallest_of_largest_first,
            "You have the right directions in the wrong order: the largest variance comes first.",
            ORDER,
        ),
        Wrong(
            "loadings, not scores",
            loadings,
            "You return the directions: asked for are the points along them.",
            "Multiply the centred points by the directions.",
        ),
        Wrong(
            "loadings as rows",
            loadings_as_rows,
            "You return the directions, one a row: asked for are the points along them.",
            "Multiply the centred points by the directions.",
        ),
        Wrong(
            "whitened",
            whitened,
            "All your columns have variance 1: a principal component keeps its own.",
            "Do not divide by the singular values, nor by a standard deviation.",
        ),
        Wrong(
            "left singular vectors",
            left_vectors,
            "You return the left singular vectors: multiply each by its singular value.",
            "In U S V^T the scores are U S, which is the centred points times V.",
        ),
        Wrong(
            "standardised",
            standardised,
            "You give every number variance 1 before: only the mean is taken off here.",
            "It is another PCA, of correlations.",
        ),
        Wrong(
            "first columns",
            first_columns,
            "You return the first columns of the features: find the directions of largest variance first.",
            "They are the eigenvectors of the covariance.",
        ),
        Wrong(
            "n ignored",
            all_components,
            "You return all components: n of them are asked for.",
            "Cut the directions before you project, or the scores after.",
        ),
    ],
)
