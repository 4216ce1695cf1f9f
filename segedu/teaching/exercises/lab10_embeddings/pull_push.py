"""pull_push: the two terms of the discriminative loss."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case


def pull_push(embeddings: Tensor, label_map: Tensor, pull_margin: float, push_margin: float) -> tuple[Tensor, Tensor]:
    """Penalise vectors far from the mean of their object, and means of two objects close to each other.

    There are C objects: all labels in the label map but 0. Object c has N_c pixels with vectors x_i, and m_c is their
    mean. |v| is the Euclidean length of v. Background pixels are ignored.

        pull = 1/C  sum over objects c of  1/N_c  sum over its pixels i of  max(0, |x_i - m_c| - pull_margin)^2
        push = 1/(C (C - 1))  sum over ordered pairs a != b of  max(0, 2 push_margin - |m_a - m_b|)^2

    The second sum contains each pair of objects twice, as (a, b) and as (b, a). The third term of the paper, which
    keeps the means near 0, is omitted here.

    Args:
        embeddings: (D, H, W) floats: one vector of D values per pixel.
        label_map: (H, W) integers: 0 is background; the labels of objects may have gaps.
        pull_margin: vectors closer to their mean than this have no pull.
        push_margin: means that are at least twice this apart have no push.

    Returns:
        (pull, push), two scalars. With one object the push is 0; with none both are 0.

    Example: the means are 1 and 5. The two pixels of object 1 are at distance 1 from their mean, 1/2 beyond the margin
    of 1/2, so the mean of their squares is 1/4; object 2 adds 0, and the pull is 1/8. The distance of the means is 4,
    which is 2 less than 2 * 3, so the push is 4.

        >>> pull_push(torch.tensor([[[0.0, 2.0, 9.0, 5.0]]]), torch.tensor([[1, 1, 0, 2]]), 0.5, 3.0)
        (tensor(0.1250), tensor(4.))
    """
    groups = _groups(embeddings, label_map)
    if not groups:
        return torch.tensor(0.0), torch.tensor(0.0)
    pull = torch.stack([(_beyond(group, pull_margin) ** 2).mean() for group in groups]).mean()
    means = torch.stack([group.mean(dim=1) for group in groups])  # (C, D)
    push = sum((_too_near(a, b, push_margin) ** 2 for i, a in enumerate(means) for b in means[:i]), torch.tensor(0.0))
    pairs = len(means) * (len(means) - 1) / 2
    return pull, push / max(pairs, 1)


def _groups(embeddings: Tensor, label_map: Tensor) -> list[Tensor]:
    """The vectors (D, N) of each object."""
    return [embeddings[:, label_map == label] for label in label_map.unique() if label > 0]


def _distances(group: Tensor) -> Tensor:
    return (group - group.mean(dim=1, keepdim=True)).norm(dim=0)


def _beyond(group: Tensor, margin: float) -> Tensor:
    return (_distances(group) - margin).clamp(min=0)


def _too_near(a: Tensor, b: Tensor, margin: float) -> Tensor:
    return (2 * margin - (a - b).norm()).clamp(min=0)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Objects near each other and far apart, of all sizes; in the edge cases, terms that are 0 or undefined."""
    labels = [int(n) for n in np.sort(rng.permutation([1, 2, 4, 7, 20])[:4])]
    scene = np.zeros((7, 9), np.int64)
    scene[0:5, 0:4], scene[1:3, 5:8], scene[4:6, 5:7], scene[6, 1:4] = labels
    label_map = torch.from_numpy(scene)

    vectors = partial(_case, rng)
    near, far = rng.uniform(0.9, 1.6), rng.uniform(4, 5)
    plane = [[0, 0], [near, 0.5], [0.5, -far], [-near, far]]
    space = [[0.5, 0, near], [0, far, 0], [near, 0, 0], [-0.6, near, 0]]
    apart = [[0, 0], [far, 0], [0, -far], [-far, far]]
    alone = torch.where(label_map == labels[0], label_map, 0)
    pair = torch.where(label_map == labels[3], 0, label_map).clamp(max=labels[1])
    dots = torch.tensor([[labels[1], 0, 0], [0, 0, labels[3]], [labels[0], 0, 0]])
    core = [
        vectors("four objects in the plane", label_map, plane, 1.4, (0.5, 1.5)),
        vectors("vectors of three values", label_map, space, 1.1, (0.25, 1.0)),
        vectors("two objects", pair, [[0, 0.25], [near, 0]], 0.8, (0.25, 1.25)),
    ]
    edge = [
        vectors("one object", alone, [[0.5, -0.5]], 1.2, (0.5, 1.5)),
        vectors("no object", torch.zeros_like(label_map), [], 0.0, (0.5, 1.5)),
        vectors("everything within the margins", label_map, apart, 0.34, (0.5, 1.5)),
        vectors("one value per pixel", label_map, [[0.0], [near], [-3.0], [-9.0]], 1.5, (0.5, 1.5)),
        vectors("objects of one pixel", dots, [[0.0, 0.2], [near, 0], [0, far]], 0.0, (0.5, 1.0)),
        vectors("no margin for the pull", pair, [[0, 0], [near, 2]], 0.6, (0.0, 2.0)),
    ]
    return {"core": (3, core), "edge": (1, edge)}


def _case(
    rng: np.random.Generator,
    name: str,
    label_map: Tensor,
    means: list[list[float]],
    spread: float,
    margins: tuple[float, float],
) -> Case:
    """Vectors lie up to `spread` from the given mean of their object, some of them exactly at it."""
    dims = len(means[0]) if means else 2
    embeddings = torch.from_numpy(rng.uniform(3, 9, (dims, *label_map.shape)))  # of the background
    for label, mean in zip([n for n in label_map.unique().tolist() if n], means, strict=True):
        inside = label_map == label
        count = int(inside.sum())
        offsets = rng.normal(size=(dims, count // 2))
        offsets *= spread * np.linspace(0.1, 1, count // 2) / np.linalg.norm(offsets, axis=0)
        around = np.concatenate([offsets, -offsets, np.zeros((dims, count % 2))], axis=1)
        embeddings[:, inside] = torch.from_numpy(np.array(mean)[:, None] + around[:, rng.permutation(count)])
    return case(name, embeddings, label_map, *margins)


right = Variants(pull_push)


def _pull(change: Callable[[Tensor, int], Tensor]) -> Callable:
    """`pull_push` with another pull, made from the right one and C."""
    return right.then(lambda out, a: (change(out[0], len(_groups(a.embeddings, a.label_map))), out[1]))


def _push(change: Callable[[Tensor, int, SimpleNamespace], Tensor]) -> Callable:
    """`pull_push` with another push, made from the right one, C, and the arguments."""
    return right.then(lambda out, a: (out[0], change(out[1], len(_groups(a.embeddings, a.label_map)), a)))


def _squared_beyond(group: Tensor, margin: float) -> Tensor:
    return (_beyond(group, margin) ** 2).mean()


def _squared_too_near(a: Tensor, b: Tensor, margin: float) -> Tensor:
    return _too_near(a, b, margin) ** 2


def _terms(pull: Callable = _squared_beyond, push: Callable = _squared_too_near) -> Callable:
    """`pull_push` with another pull of an object with vectors (D, N), or another push of two means (D,)."""

    def mean(parts: list[Tensor]) -> Tensor:
        return sum(parts) / max(len(parts), 1) * torch.ones(())

    def terms(a: SimpleNamespace) -> tuple[Tensor, Tensor]:
        groups = _groups(a.embeddings, a.label_map)
        means = [group.mean(dim=1) for group in groups]
        pulls = [pull(group, a.pull_margin) for group in groups]
        return mean(pulls), mean([push(m, n, a.push_margin) for i, m in enumerate(means) for n in means[:i]])

    return right.instead(terms)


def mean_over_pixels(embeddings: Tensor, label_map: Tensor, pull_margin: float, push_margin: float) -> tuple:
    groups = _groups(embeddings, label_map)
    pull, push = pull_push(embeddings, label_map, pull_margin, push_margin)
    return (torch.cat([_beyond(g, pull_margin) for g in groups]) ** 2).mean() if groups else pull, push


def _l1_pull(group: Tensor, margin: float) -> Tensor:
    distances = (group - group.mean(1, keepdim=True)).norm(p=1, dim=0)
    return (distances - margin).clamp(min=0).square().mean()


def _normalised_means(a: SimpleNamespace) -> tuple[Tensor, Tensor]:
    groups = _groups(a.embeddings, a.label_map)
    if not groups:
        return torch.tensor(0.0), torch.tensor(0.0)
    means = [group.mean(1) / group.mean(1).norm().clamp(min=1e-12) for group in groups]
    pairs = list(zip(groups, means, strict=True))
    pull = [((g - m[:, None]).norm(dim=0) - a.pull_margin).clamp(min=0).square().mean() for g, m in pairs]
    push = [_squared_too_near(m, n, a.push_margin) for i, m in enumerate(means) for n in means[:i]]
    return torch.stack(pull).mean(), torch.stack(push).mean() if push else torch.tensor(0.0)


def _labels_to_count(label_map: Tensor) -> Tensor:
    """Only the labels up to the number of objects."""
    return torch.where(label_map <= len(label_map[label_map > 0].unique()), label_map, 0)


def _nan_without_objects(out: tuple[Tensor, Tensor], a: SimpleNamespace) -> tuple[Tensor, Tensor]:
    nan = torch.tensor(float("nan"))
    return out if (a.label_map > 0).any() else (nan, nan)


COUNT = "With C objects there are C (C - 1) ordered pairs of different objects."
HINGE = "max(0, ...) is clamp(min=0), and the square comes after it."

exercise = Exercise(
    name="pull_push",
    points=4,
    cases=cases,
    reference=pull_push,
    kind="mask",
    hides=["segedu.instance.discriminative"],
    wrong=[
        Wrong(
            "no hinge in the pull",
            _terms(pull=lambda group, margin: ((_distances(group) - margin) ** 2).mean()),
            "Your pull also penalises vectors within the margin. They should contribute 0: max(0, ...).",
            HINGE,
        ),
        Wrong(
            "no hinge in the push",
            _terms(push=lambda m, n, margin: (2 * margin - (m - n).norm()) ** 2),
            "Your push also penalises means that are far apart. They should contribute 0: max(0, ...).",
            HINGE,
        ),
        Wrong(
            "pushed from itself",
            _push(lambda push, C, a: push + (2 * a.push_margin) ** 2 * C / max(C * (C - 1), 1)),
            "You also push each object away from itself. Sum only over pairs of two different objects.",
            "|m_a - m_a| is 0, the smallest possible distance.",
        ),
        Wrong(
            "push not divided",
            _push(lambda push, C, a: push * C * (C - 1)),
            "Your push is a sum. Divide it by C (C - 1).",
            COUNT,
        ),
        Wrong(
            "divided by C^2",
            _push(lambda push, C, a: push * (C - 1) / max(C, 1)),
            "You divide the push by C^2. Divide it by C (C - 1).",
            COUNT,
        ),
        Wrong(
            "pairs counted once",
            _push(lambda push, C, a: push / 2),
            "You sum each pair once but divide by C (C - 1). The formula sums it twice, as (a, b) and (b, a).",
            COUNT,
        ),
        Wrong(
            "one object fails",
            _push(lambda push, C, a: push * torch.nan if C == 1 else push),
            "With one object your push is 0 / 0. Return a push of 0, because there is no pair.",
            "How many pairs are there with one object?",
        ),
        Wrong(
            "no object fails",
            _pull(lambda pull, C: pull if C else pull * torch.nan),
            "Without objects your pull is the mean of an empty set. It should be 0.",
            "An image may contain only background.",
        ),
        Wrong(
            "margin once",
            right.given(push_margin=lambda a: a.push_margin / 2),
            "Your push ends at a distance of push_margin. It should end at twice that distance.",
            "Each of the two means keeps a distance of push_margin around itself.",
        ),
        Wrong(
            "mean over pixels",
            mean_over_pixels,
            "Your pull is a mean over all pixels. Take the mean within each object, then the mean over objects.",
            "A small object should count as much as a large one.",
        ),
        Wrong(
            "summed over pixels",
            _terms(pull=lambda group, margin: (_beyond(group, margin) ** 2).sum()),
            "Your pull sums over the pixels of an object. Divide each of these sums by N_c.",
            "First 1/N_c, then 1/C.",
        ),
        Wrong(
            "terms swapped",
            right.then(lambda out, a: out[::-1]),
            "You return the push first. Return (pull, push).",
            "The exercise names the order of the two results.",
        ),
        Wrong(
            "pull summed",
            _pull(lambda pull, C: pull * C),
            "Your pull sums over the objects. Divide it by C.",
            "The formula begins with 1/C.",
        ),
        Wrong(
            "background is an object",
            right.given(label_map=lambda a: a.label_map + 1),
            "You treat the background as an object. Ignore the pixels with label 0.",
            "Skip 0 when you loop over the labels.",
        ),
        Wrong(
            "not squared",
            _terms(lambda group, margin: _beyond(group, margin).mean(), _too_near),
            "You do not square the hinges. The formula contains max(0, ...)^2.",
            HINGE,
        ),
        Wrong(
            "squared too early",
            _terms(
                lambda group, margin: (_distances(group) ** 2 - margin**2).clamp(min=0).mean(),
                lambda m, n, margin: ((2 * margin) ** 2 - (m - n).norm() ** 2).clamp(min=0),
            ),
            "You square distances and margins separately. Subtract first, then square the difference.",
            HINGE,
        ),
        Wrong(
            "sum of absolute values",
            _terms(_l1_pull, lambda m, n, margin: (2 * margin - (m - n).norm(p=1)).clamp(min=0) ** 2),
            "Your distances are sums of absolute values. |v| is the Euclidean length.",
            "The Euclidean length is the square root of the sum of squares.",
        ),
        Wrong(
            "margins swapped",
            right.given(pull_margin=lambda a: a.push_margin, push_margin=lambda a: a.pull_margin),
            "You swap the margins. The pull uses pull_margin, the push uses push_margin.",
            "In which order does the exercise list the two arguments?",
        ),
        Wrong(
            "pull not squared",
            _terms(pull=lambda group, margin: _beyond(group, margin).mean()),
            "You do not square the hinge of the pull. Square max(0, ...).",
            HINGE,
        ),
        Wrong(
            "push not squared",
            _terms(push=_too_near),
            "You do not square the hinge of the push. Square max(0, ...).",
            HINGE,
        ),
        Wrong(
            "mean squared",
            _terms(pull=lambda group, margin: _beyond(group, margin).mean() ** 2),
            "Your pull squares the mean of the hinges. Square each hinge, then take the mean.",
            HINGE,
        ),
        Wrong(
            "squared distance in the pull",
            _terms(pull=lambda group, margin: (_distances(group) ** 2 - margin).clamp(min=0).square().mean()),
            "You subtract the margin from the squared distance. Subtract it from the distance.",
            "|v| is a length, not its square.",
        ),
        Wrong(
            "city blocks in the pull",
            _terms(pull=_l1_pull),
            "Your pull adds absolute differences. |v| is the Euclidean length.",
            "torch.linalg.vector_norm(v, dim=0).",
        ),
        Wrong(
            "divided by half the pairs",
            _push(lambda push, count, a: 2 * push),
            "You divide the sum over ordered pairs by the number of unordered pairs, so the push is twice too large.",
            COUNT,
        ),
        Wrong(
            "labels up to the count",
            right.given(label_map=lambda a: _labels_to_count(a.label_map)),
            "You assume that the labels are 1, 2, 3, ... without gaps. Use the labels that occur.",
            "torch.unique returns the labels that occur.",
        ),
        Wrong(
            "means of length 1",
            right.instead(_normalised_means),
            "You normalise the means to length 1. Use the means as they are.",
            "The margins are distances in the space of the embeddings.",
        ),
        Wrong(
            "NaN without objects",
            right.then(_nan_without_objects),
            "Without objects, you return NaN, the mean of nothing. Both terms are 0 then.",
            "Check the number of objects first.",
        ),
    ],
)
