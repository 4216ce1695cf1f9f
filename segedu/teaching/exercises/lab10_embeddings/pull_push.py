"""pull_push: the two forces of the discriminative loss."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong


def pull_push(embeddings: Tensor, label_map: Tensor, pull_margin: float, push_margin: float) -> tuple[Tensor, Tensor]:
    """Say how far the vectors of each object are from their mean, and how near the means of two objects are.

    There are C objects: all numbers in the label map but 0. Object c has N_c pixels with vectors x_i, and m_c is the
    mean of these. |v| is the Euclidean length of v. Background pixels play no part.

        pull = 1/C  sum over objects c of  1/N_c  sum over its pixels i of  max(0, |x_i - m_c| - pull_margin)^2
        push = 1/(C (C - 1))  sum over ordered pairs a != b of  max(0, 2 push_margin - |m_a - m_b|)^2

    Each pair of objects comes twice in the second sum, as (a, b) and as (b, a). The third term of the paper, which
    keeps the means near 0, is left out here.

    Args:
        embeddings: (D, H, W) floats: one vector of D numbers a pixel.
        label_map: (H, W) integers: 0 is background; numbers of objects may have gaps.
        pull_margin: vectors nearer to their mean than this are left alone.
        push_margin: means that are at least twice this apart are left alone.

    Returns:
        (pull, push), two numbers. With one object the push is 0; with none both are 0.

    Example: the means are 1 and 5. The two pixels of object 1 are 1 from theirs, so each is 1/2 beyond the margin of
    1/2: their mean is 1/4, and half of it is the pull, as object 2 adds 0. The means are 4 apart, 2 too near for 2 * 3.

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
    return [embeddings[:, label_map == number] for number in label_map.unique() if number > 0]


def _distances(group: Tensor) -> Tensor:
    return (group - group.mean(dim=1, keepdim=True)).norm(dim=0)


def _beyond(group: Tensor, margin: float) -> Tensor:
    return (_distances(group) - margin).clamp(min=0)


def _too_near(a: Tensor, b: Tensor, margin: float) -> Tensor:
    return (2 * margin - (a - b).norm()).clamp(min=0)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Objects near and far, of all sizes; one object, none, everything in its place, one number a pixel.

    Args:
        rng: of the vectors, the background and the numbers of objects.

    Returns:
        The cases by group.
    """
    numbers = [int(n) for n in np.sort(rng.permutation([1, 2, 4, 7, 20])[:4])]
    scene = np.zeros((7, 9), np.int64)
    scene[0:5, 0:4], scene[1:3, 5:8], scene[4:6, 5:7], scene[6, 1:4] = numbers
    label_map = torch.from_numpy(scene)

    case = partial(_case, rng)
    near, far = rng.uniform(0.9, 1.6), rng.uniform(4, 5)
    plane = [[0, 0], [near, 0.5], [0.5, -far], [-near, far]]
    space = [[0.5, 0, near], [0, far, 0], [near, 0, 0], [-0.6, near, 0]]
    apart = [[0, 0], [far, 0], [0, -far], [-far, far]]
    alone = torch.where(label_map == numbers[0], label_map, 0)
    pair = torch.where(label_map == numbers[3], 0, label_map).clamp(max=numbers[1])
    dots = torch.tensor([[numbers[1], 0, 0], [0, 0, numbers[3]], [numbers[0], 0, 0]])
    return {
        "core": (
            3,
            [
                case("four objects in the plane", label_map, plane, 1.4, (0.5, 1.5)),
                case("vectors of three numbers", label_map, space, 1.1, (0.25, 1.0)),
                case("two objects", pair, [[0, 0.25], [near, 0]], 0.8, (0.25, 1.25)),
            ],
        ),
        "edge": (
            1,
            [
                case("one object", alone, [[0.5, -0.5]], 1.2, (0.5, 1.5)),
                case("no object", torch.zeros_like(label_map), [], 0.0, (0.5, 1.5)),
                case("all in its place", label_map, apart, 0.34, (0.5, 1.5)),
                case("one number a pixel", label_map, [[0.0], [near], [-3.0], [-9.0]], 1.5, (0.5, 1.5)),
                case("objects of one pixel", dots, [[0.0, 0.2], [near, 0], [0, far]], 0.0, (0.5, 1.0)),
                case("no margin for the pull", pair, [[0, 0], [near, 2]], 0.6, (0.0, 2.0)),
            ],
        ),
    }


def _case(
    rng: np.random.Generator,
    name: str,
    labels: Tensor,
    means: list[list[float]],
    spread: float,
    margins: tuple[float, float],
) -> Case:
    """Vectors lie up to `spread` from the mean of their object, which they keep, some of them right at it."""
    dims = len(means[0]) if means else 2
    embeddings = torch.from_numpy(rng.uniform(3, 9, (dims, *labels.shape)))  # of the background
    for number, mean in zip([n for n in labels.unique().tolist() if n], means, strict=True):
        inside = labels == number
        count = int(inside.sum())
        ways = rng.normal(size=(dims, count // 2))
        ways *= spread * np.linspace(0.1, 1, count // 2) / np.linalg.norm(ways, axis=0)
        around = np.concatenate([ways, -ways, np.zeros((dims, count % 2))], axis=1)
        embeddings[:, inside] = torch.from_numpy(np.array(mean)[:, None] + around[:, rng.permutation(count)])
    return {"name": name, "args": [embeddings, labels, *margins]}


Terms = tuple[Tensor, Tensor]


def _means(embeddings: Tensor, label_map: Tensor) -> Tensor:
    groups = _groups(embeddings, label_map)
    return torch.stack([g.mean(dim=1) for g in groups]) if groups else embeddings.new_zeros(0, len(embeddings))


def pull_without_hinge(embeddings: Tensor, label_map: Tensor, pull_margin: float, push_margin: float) -> Terms:
    """(|x - m| - margin)^2."""
    groups = _groups(embeddings, label_map)
    parts = [((_distances(g) - pull_margin) ** 2).mean() for g in groups]
    return (sum(parts) / max(len(parts), 1)) * torch.ones(()), pull_push(embeddings, label_map, 0.0, push_margin)[1]


def push_without_hinge(embeddings: Tensor, label_map: Tensor, pull_margin: float, push_margin: float) -> Terms:
    """(2 margin - |m - m|)^2, also where they are far apart."""
    means = _means(embeddings, label_map)
    parts = [(2 * push_margin - (a - b).norm()) ** 2 for i, a in enumerate(means) for b in means[:i]]
    pull, _ = pull_push(embeddings, label_map, pull_margin, push_margin)
    return pull, sum(parts) / max(len(parts), 1) * torch.ones(())


def self_pairs(embeddings: Tensor, label_map: Tensor, pull_margin: float, push_margin: float) -> Terms:
    """Each object is pushed away from itself."""
    count = len(_groups(embeddings, label_map))
    pull, push = pull_push(embeddings, label_map, pull_margin, push_margin)
    return pull, push + (2 * push_margin) ** 2 * count / max(count * (count - 1), 1)


def push_summed(embeddings: Tensor, label_map: Tensor, pull_margin: float, push_margin: float) -> Terms:
    """Not divided by C (C - 1)."""
    count = len(_groups(embeddings, label_map))
    pull, push = pull_push(embeddings, label_map, pull_margin, push_margin)
    return pull, push * count * (count - 1)


def over_all_pairs(embeddings: Tensor, label_map: Tensor, pull_margin: float, push_margin: float) -> Terms:
    """Divided by C^2."""
    count = max(len(_groups(embeddings, label_map)), 1)
    pull, push = pull_push(embeddings, label_map, pull_margin, push_margin)
    return pull, push * (count - 1) / count


def pairs_once(embeddings: Tensor, label_map: Tensor, pull_margin: float, push_margin: float) -> Terms:
    """Half of the ordered pairs, divided by the number of all."""
    pull, push = pull_push(embeddings, label_map, pull_margin, push_margin)
    return pull, push / 2


def one_object_fails(embeddings: Tensor, label_map: Tensor, pull_margin: float, push_margin: float) -> Terms:
    """0 / 0 where there are no pairs."""
    count = len(_groups(embeddings, label_map))
    pull, push = pull_push(embeddings, label_map, pull_margin, push_margin)
    return pull, push * torch.tensor(torch.nan) if count == 1 else push


def no_object_fails(embeddings: Tensor, label_map: Tensor, pull_margin: float, push_margin: float) -> Terms:
    """The mean of nothing."""
    pull, push = pull_push(embeddings, label_map, pull_margin, push_margin)
    return pull if label_map.any() else pull * torch.nan, push


def margin_once(embeddings: Tensor, label_map: Tensor, pull_margin: float, push_margin: float) -> Terms:
    """push_margin, not twice it."""
    return pull_push(embeddings, label_map, pull_margin, push_margin / 2)


def mean_of_pixels(embeddings: Tensor, label_map: Tensor, pull_margin: float, push_margin: float) -> Terms:
    """Mean over all foreground pixels: a large object outweighs a small one."""
    groups = _groups(embeddings, label_map)
    pull, push = pull_push(embeddings, label_map, pull_margin, push_margin)
    return (torch.cat([_beyond(g, pull_margin) for g in groups]) ** 2).mean() if groups else pull, push


def pixels_summed(embeddings: Tensor, label_map: Tensor, pull_margin: float, push_margin: float) -> Terms:
    """A sum over the pixels of an object, a mean over objects."""
    groups = _groups(embeddings, label_map)
    pull, push = pull_push(embeddings, label_map, pull_margin, push_margin)
    return sum(((_beyond(g, pull_margin) ** 2).sum() / len(groups) for g in groups), 0 * pull), push


def terms_swapped(embeddings: Tensor, label_map: Tensor, pull_margin: float, push_margin: float) -> Terms:
    """(push, pull)."""
    return pull_push(embeddings, label_map, pull_margin, push_margin)[::-1]


def pull_summed(embeddings: Tensor, label_map: Tensor, pull_margin: float, push_margin: float) -> Terms:
    """A sum over objects."""
    pull, push = pull_push(embeddings, label_map, pull_margin, push_margin)
    return pull * len(_groups(embeddings, label_map)), push


def background_too(embeddings: Tensor, label_map: Tensor, pull_margin: float, push_margin: float) -> Terms:
    """0 is an object."""
    return pull_push(embeddings, label_map + 1, pull_margin, push_margin)


def not_squared(embeddings: Tensor, label_map: Tensor, pull_margin: float, push_margin: float) -> Terms:
    """The hinges themselves."""
    groups, means = _groups(embeddings, label_map), _means(embeddings, label_map)
    pulls = [_beyond(g, pull_margin).mean() for g in groups]
    pushes = [_too_near(a, b, push_margin) for i, a in enumerate(means) for b in means[:i]]
    one = torch.ones(())
    return sum(pulls) / max(len(pulls), 1) * one, sum(pushes) / max(len(pushes), 1) * one


def squared_inside(embeddings: Tensor, label_map: Tensor, pull_margin: float, push_margin: float) -> Terms:
    """max(0, |x - m|^2 - margin^2): the square in the wrong place."""
    groups, means = _groups(embeddings, label_map), _means(embeddings, label_map)
    pulls = [(_distances(g) ** 2 - pull_margin**2).clamp(min=0).mean() for g in groups]
    pairs = [(a, b) for i, a in enumerate(means) for b in means[:i]]
    pushes = [((2 * push_margin) ** 2 - (a - b).norm() ** 2).clamp(min=0) for a, b in pairs]
    one = torch.ones(())
    return sum(pulls) / max(len(pulls), 1) * one, sum(pushes) / max(len(pushes), 1) * one


def city_blocks(embeddings: Tensor, label_map: Tensor, pull_margin: float, push_margin: float) -> Terms:
    """|v| as the sum of the absolute values."""
    groups, means = _groups(embeddings, label_map), _means(embeddings, label_map)
    pulls = [
        ((g - g.mean(1, keepdim=True)).norm(p=1, dim=0) - pull_margin).clamp(min=0).square().mean() for g in groups
    ]
    pairs = [(a, b) for i, a in enumerate(means) for b in means[:i]]
    pushes = [(2 * push_margin - (a - b).norm(p=1)).clamp(min=0) ** 2 for a, b in pairs]
    one = torch.ones(())
    return sum(pulls) / max(len(pulls), 1) * one, sum(pushes) / max(len(pushes), 1) * one


def margins_swapped(embeddings: Tensor, label_map: Tensor, pull_margin: float, push_margin: float) -> Terms:
    """Each term with the other's margin."""
    return pull_push(embeddings, label_map, push_margin, pull_margin)


COUNT = "With C objects there are C (C - 1) ordered pairs of two different ones."
HINGE = "max(0, ...) is a clamp(min=0), and the square comes after it."

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
            pull_without_hinge,
            "Your pull also counts vectors within the margin: they are left alone, max(0, ...).",
            HINGE,
        ),
        Wrong(
            "no hinge in the push",
            push_without_hinge,
            "Your push also counts means that are far apart: they are left alone, max(0, ...).",
            HINGE,
        ),
        Wrong(
            "pushed from itself",
            self_pairs,
            "You push each object away from itself: only pairs of two different objects count.",
            "|m_a - m_a| is 0, which is as near as can be.",
        ),
        Wrong("push not divided", push_summed, "Your push is a sum: divide it by C (C - 1).", COUNT),
        Wrong("divided by C^2", over_all_pairs, "You divide the push by C^2: divide it by C (C - 1).", COUNT),
        Wrong(
            "pairs counted once",
            pairs_once,
            "You count each pair once and divide by C (C - 1): the formula counts it twice, as (a, b) and (b, a).",
            COUNT,
        ),
        Wrong(
            "one object fails",
            one_object_fails,
            "With one object your push is 0 / 0: there is nothing to push, and it is 0.",
            "How many pairs has one object?",
        ),
        Wrong(
            "no object fails",
            no_object_fails,
            "Without objects your pull is the mean of nothing: it is 0.",
            "An image may be all background.",
        ),
        Wrong(
            "margin once",
            margin_once,
            "Your push ends at push_margin: it reaches twice as far, 2 push_margin.",
            "Each of the two means keeps a distance of push_margin for itself.",
        ),
        Wrong(
            "mean over pixels",
            mean_of_pixels,
            "Your pull is a mean over all pixels: take the mean within each object, then the mean over objects.",
            "A small object should count as much as a large one.",
        ),
        Wrong(
            "summed over pixels", pixels_summed, "Your pull is a sum over pixels: divide it by N_c.", "1/N_c, then 1/C."
        ),
        Wrong("terms swapped", terms_swapped, "You give the push first: the pull comes first.", "(pull, push)."),
        Wrong("pull summed", pull_summed, "Your pull is a sum over objects: divide it by C.", "1/C stands in front."),
        Wrong(
            "background is an object",
            background_too,
            "Background plays a part in your terms: 0 is no object.",
            "Leave 0 out of the numbers that you go through.",
        ),
        Wrong("not squared", not_squared, "Your hinges are not squared.", HINGE),
        Wrong(
            "squared too early",
            squared_inside,
            "You square the distances and the margins: subtract first, then square the difference.",
            HINGE,
        ),
        Wrong(
            "sum of absolute values",
            city_blocks,
            "Your distances are sums of absolute values: |v| is the Euclidean length.",
            "The square root of the sum of squares.",
        ),
        Wrong(
            "margins swapped",
            margins_swapped,
            "Each of your terms has the other's margin.",
            "pull_margin comes before push_margin.",
        ),
    ],
)
