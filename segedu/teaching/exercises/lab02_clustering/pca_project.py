"""pca_project: project features onto the directions in which they vary most."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.outcomes import same_outcome
from segedu.teaching.checks.variants import Variants, case
from segedu.unsupervised.dino import principal_components


def pca_project(features: Tensor, n: int) -> Tensor:
    """The scores of the first principal components.

    Args:
        features: (N, D), one row per point.
        n: number of components, at most min(N, D).

    Returns:
        (N, n), the component of largest variance first; either sign of a column is right.
    """
    return principal_components(features, n).scores


def up_to_signs(case: Case, expected: dict, got: dict, tolerance: float) -> bool:
    """Whether two outcomes are equal up to the signs of their columns."""
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
    """Points with given, different standard deviations along random directions, away from the origin."""
    rank = len(spread)
    scores = rng.normal(size=(points, rank))
    scores, _ = np.linalg.qr(scores - scores.mean(axis=0))
    axes, _ = np.linalg.qr(rng.normal(size=(dims, rank)))
    # away from the span of the axes, so that the first direction is another one without centring
    centre = rng.choice([-1, 1], dims) * rng.uniform(2, 4, dims)
    return torch.from_numpy(scores * np.array(spread) * np.sqrt(points) @ axes.T + centre)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """More points than features and fewer; one component, all of them, a constant feature, more than the rank."""
    still = _cloud(rng, 9, 3, [2.0, 1.0, 0.5])
    still = torch.cat([still[:, :1], torch.full((9, 1), 5.0, dtype=torch.float64), still[:, 1:]], dim=1)
    core = [
        case("12 points of 5 features, 2 components", _cloud(rng, 12, 5, [3, 2, 1, 0.5]), 2),
        case("5 points of 8 features, 3 components", _cloud(rng, 5, 8, [4, 2, 1, 0.5]), 3),
        case("6 points of 6 features, 2 components", _cloud(rng, 6, 6, [3, 1.5, 0.7, 0.3]), 2),
    ]
    edge = [
        case("one component", _cloud(rng, 10, 4, [1.5, 0.8, 0.4, 0.2]), 1),
        case("all components", _cloud(rng, 11, 3, [2, 1, 0.5]), 3),
        case("a feature that is the same for all points", still, 2),
        case("points on a line, 2 components", _cloud(rng, 7, 3, [2.0]), 2),
    ]
    return {"core": (2, core), "edge": (2, edge)}


def _centred(features: Tensor, dim: int = 0) -> Tensor:
    return features - features.mean(dim=dim, keepdim=True)


def _directions(features: Tensor, n: int) -> Tensor:
    """(D, n): the right singular vectors, largest singular value first."""
    return torch.linalg.svd(features, full_matrices=False)[2][:n].T


def _projected(features: Tensor, n: int) -> Tensor:
    return features @ _directions(features, n)


def ascending(features: Tensor, n: int) -> Tensor:
    """Take the first columns of `eigh`, which have the smallest variance."""
    centred = _centred(features)
    return centred @ torch.linalg.eigh(centred.T @ centred)[1][:, :n]


def standardised(features: Tensor, n: int) -> Tensor:
    """Scale every feature to variance 1 first."""
    centred = _centred(features)
    return _projected(centred / centred.std(dim=0, unbiased=False).clamp(min=1e-6), n)


def _sample_standardised(features: Tensor, n: int) -> Tensor:
    """Divide each feature by its standard deviation with N - 1."""
    centred = _centred(features)
    std = centred.std(dim=0)
    return _projected(centred / torch.where(std > 0, std, 1.0), n)


def _of_correlations(features: Tensor, n: int) -> Tensor:
    """Project the centred points onto the directions of the standardised ones."""
    centred = _centred(features)
    norms = centred.norm(dim=0)
    return centred @ _directions(centred / torch.where(norms > 0, norms, 1.0), n)


def _reconstructed(features: Tensor, n: int) -> Tensor:
    directions = _directions(_centred(features), n)
    return _centred(features) @ directions @ directions.T


def _largest_features(features: Tensor, n: int) -> Tensor:
    centred = _centred(features)
    return centred[:, centred.square().sum(dim=0).argsort(descending=True)[:n]]


def _columns_of_vh(features: Tensor, n: int) -> Tensor:
    return _centred(features) @ torch.linalg.svd(_centred(features), full_matrices=True)[2][:, :n]


def _unit_points(features: Tensor, n: int) -> Tensor:
    return _projected(_centred(features / features.norm(dim=1, keepdim=True).clamp(min=1e-12)), n)


CENTRE_HINT = "Subtract the mean of each column (dim=0) once, and use the result for both steps."
ORDER_HINT = (
    "`torch.linalg.eigh` sorts eigenvalues in ascending order, `svd` sorts singular values in descending order."
)
SCORES_HINT = "Multiply the centred points by the directions."
right = Variants(pca_project)

wrong = [
    Wrong(
        "no centring",
        right.instead(lambda a: _projected(a.features, a.n)),
        "You do not subtract the mean of the points. PCA finds the directions of largest variance around that mean.",
        CENTRE_HINT,
    ),
    Wrong(
        "projected without centring",
        right.instead(lambda a: a.features @ _directions(_centred(a.features), a.n)),
        "You compute the directions from centred points, but project the original points. Project the centred ones.",
        CENTRE_HINT,
    ),
    Wrong(
        "each point centred",
        right.instead(lambda a: _projected(_centred(a.features, dim=1), a.n)),
        "You subtract from each point the mean of its own features. Subtract the mean over all points.",
        CENTRE_HINT,
    ),
    Wrong(
        "rows and columns swapped",
        right.given(features=lambda a: a.features.T),
        "You treat columns as points. Each row is a point, and each point gets n scores.",
        "The covariance matrix is D x D: centred.T @ centred.",
    ),
    Wrong(
        "smallest first",
        ascending,
        "You choose the directions of smallest variance. Choose those of largest variance.",
        ORDER_HINT,
    ),
    Wrong(
        "order reversed",
        right.then(lambda scores, a: scores.flip(1)),
        "You have the right components in reverse order. The one of largest variance comes first.",
        ORDER_HINT,
    ),
    Wrong(
        "loadings, not scores",
        right.instead(lambda a: _directions(_centred(a.features), a.n)),
        "You return the directions. Return the scores, that is, the points projected onto them.",
        SCORES_HINT,
    ),
    Wrong(
        "loadings as rows",
        right.instead(lambda a: _directions(_centred(a.features), a.n).T),
        "You return the directions, one per row. Return the scores, that is, the points projected onto them.",
        SCORES_HINT,
    ),
    Wrong(
        "whitened",
        right.then(lambda scores, a: scores / scores.std(dim=0, unbiased=False).clamp(min=1e-6)),
        "You scale every component to variance 1. Do not scale the scores: they keep their variance.",
        "Do not divide by the singular values, nor by a standard deviation.",
    ),
    Wrong(
        "left singular vectors",
        right.then(lambda scores, a: scores / scores.norm(dim=0).clamp(min=1e-6)),
        "You return the left singular vectors. Multiply each by its singular value.",
        "In U S V^T, the scores are U S. This equals the centred points times V.",
    ),
    Wrong(
        "standardised",
        standardised,
        "You scale every feature to variance 1 first. Only subtract the mean.",
        "That is another PCA: the one of the correlation matrix.",
    ),
    Wrong(
        "first columns",
        right.instead(lambda a: _centred(a.features)[:, : a.n]),
        "You return the first n features. First find the directions of largest variance.",
        "They are the eigenvectors of the covariance matrix.",
    ),
    Wrong(
        "n ignored",
        right.given(n=lambda a: min(a.features.shape)),
        "You return all components. Return only the first n.",
        "Keep n directions before you project, or n columns of the scores.",
    ),
    Wrong(
        "sample standard deviation",
        right.instead(lambda a: _sample_standardised(a.features, a.n)),
        "You divide every feature by its standard deviation first. Only subtract the mean.",
        "That is another PCA: the one of the correlation matrix.",
    ),
    Wrong(
        "directions of the correlations",
        right.instead(lambda a: _of_correlations(a.features, a.n)),
        "Your directions are those of the correlation matrix. Use the covariance matrix, without scaling the features.",
        "Do not divide the features by their lengths or standard deviations.",
    ),
    Wrong(
        "left singular vectors as computed",
        right.instead(lambda a: torch.linalg.svd(_centred(a.features), full_matrices=False)[0][:, : a.n]),
        "You return the left singular vectors as they are. Multiply each by its singular value.",
        "In U S V^T, the scores are U S. This equals the centred points times V.",
    ),
    Wrong(
        "columns of Vh",
        right.instead(lambda a: _columns_of_vh(a.features, a.n)),
        "You use the columns of the third result of `svd`. The directions are its rows.",
        "`svd` returns V already transposed.",
    ),
    Wrong(
        "divided by the root of N - 1",
        right.then(lambda scores, a: scores / max(len(a.features) - 1, 1) ** 0.5),
        "You divide the scores by the square root of N - 1. The scores are the projected points themselves.",
        "The covariance has this factor, but the directions do not depend on it.",
    ),
    Wrong(
        "directions without centring",
        right.instead(lambda a: _centred(a.features) @ _directions(a.features, a.n)),
        "You compute the directions from points that are not centred. Subtract the mean first.",
        CENTRE_HINT,
    ),
    Wrong(
        "one mean for all columns",
        right.instead(lambda a: _projected(a.features - a.features.mean(), a.n)),
        "You subtract one number, the mean of all values. Subtract from each column its own mean.",
        CENTRE_HINT,
    ),
    Wrong(
        "scaled by eigenvalues",
        right.then(lambda scores, a: scores * scores.norm(dim=0)),
        "You multiply unit vectors by eigenvalues, which are squares of the singular values. Use the singular values.",
        "The eigenvalues of a Gram matrix are squared lengths.",
    ),
    Wrong(
        "points of length 1",
        right.instead(lambda a: _unit_points(a.features, a.n)),
        "You scale every point to length 1 first. Only subtract the mean.",
        CENTRE_HINT,
    ),
    Wrong(
        "reconstructed points",
        right.instead(lambda a: _reconstructed(a.features, a.n)),
        "You return points in the original space, reconstructed from n components. Return their n scores.",
        SCORES_HINT,
    ),
    Wrong(
        "features of largest variance",
        right.instead(lambda a: _largest_features(a.features, a.n)),
        "You choose the n features with the largest variance. PCA finds directions that combine the features.",
        "They are the eigenvectors of the covariance matrix.",
    ),
    Wrong(
        "first component repeated",
        right.then(lambda scores, a: scores[:, :1].expand(-1, a.n).clone()),
        "All your columns are the first component. Each further component is perpendicular to those before it.",
        "Before you look for the next direction, remove the previous ones from the points.",
    ),
]

exercise = Exercise(
    name="pca_project",
    points=4,
    cases=cases,
    reference=pca_project,
    wrong=wrong,
    tolerance=1e-5,
    kind="points",
    accept=up_to_signs,
    alike=up_to_signs,
    hides=["segedu.unsupervised.dino"],
)
