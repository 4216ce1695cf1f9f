"""matrix_nms: lower the scores of masks that overlap better masks, all at once."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from segedu.ops.masks import boxes_from_masks
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case


def matrix_nms(masks: Tensor, labels: Tensor, scores: Tensor, sigma: float) -> Tensor:
    """Lower the score of each mask by the better masks of its class that overlap it, as in SOLOv2.

    With f(iou) = exp(-sigma * iou^2), the score of mask j is multiplied by

        the smallest of  f(iou_ij) / f(worst_i)  over all better masks i,  where
        worst_i = the largest iou_ki  over all masks k that are better than i.

    A mask i that overlaps a better mask itself has a large worst_i, and lowers other scores less. "Better" means a
    higher score. The IoU of two masks of different classes counts as 0, and so does that of two empty masks. Where no
    mask is better, worst is 0. The best mask keeps its score.

    Args:
        masks: (N, H, W) bool. N may be 0.
        labels: (N,) integers.
        scores: (N,) floats, in any order; no two are equal.
        sigma: strength of the decay, above 0.

    Returns:
        (N,) floats: the lowered scores, in the order of the arguments. No mask is removed.

    Example: two equal masks. The score of the second is multiplied by exp(-2) = 0.135.

        >>> matrix_nms(torch.ones(2, 2, 2).bool(), torch.tensor([1, 1]), torch.tensor([0.9, 0.8]), 2.0)
        tensor([0.9000, 0.1083])
    """
    overlap = _iou(masks) * (labels[:, None] == labels)
    return scores * _decay(overlap, scores, sigma)


def _iou(masks: Tensor) -> Tensor:
    """(N, N)."""
    pixels = masks.flatten(1).float()
    both, area = pixels @ pixels.T, pixels.sum(dim=1)
    return both / (area[:, None] + area - both).clamp(min=1)


def _decay(overlap: Tensor, scores: Tensor, sigma: float) -> Tensor:
    """(N,): the factors of the scores, from an (N, N) matrix of IoUs."""
    overlap, worst = _with_better(overlap, scores)
    ratios = torch.exp(-sigma * (overlap**2 - worst[:, None] ** 2))
    return torch.cat([ratios, torch.ones_like(scores)[None]]).amin(dim=0)


def _with_better(overlap: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """IoUs where mask i (row) is better than mask j (column), else 0; and the largest of each column."""
    overlap = overlap * (scores[:, None] > scores)
    return overlap, torch.cat([overlap, torch.zeros_like(scores)[None]]).amax(dim=0)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Chains of overlapping masks, two classes, L-shaped masks; empty masks, one mask, none."""

    def detections(name: str, shapes: list, labels: list[int], sigma: float = 2.0, shuffle: bool = True) -> Case:
        """`shapes`: parts of each mask, best mask first. If shuffled, the first mask is not the best."""
        masks = torch.zeros(len(shapes), 12, 13, dtype=torch.bool)
        for mask, parts in zip(masks, shapes, strict=True):
            for top, left, bottom, right in parts:  # rectangles
                mask[top:bottom, left:right] = True
        scores = torch.from_numpy(np.sort(rng.choice(np.arange(30, 99), len(shapes), replace=False))[::-1] / 100)
        order = torch.from_numpy(rng.permutation(len(shapes)))
        if shuffle and len(order) > 1 and order[0] < order[-1]:
            order = order.flip(0)
        return case(name, masks[order], torch.tensor(labels)[order].long(), scores[order].float(), sigma)

    low, end = (int(n) for n in rng.integers((7, 7), (9, 10)))
    # each mask overlaps the next one more than the one after it
    chain = [[(1, 1, low, end)], [(2, 1, low + 1, end)], [(3, 2, low + 2, end)], [(4, 3, low + 3, end + 2)]]
    beside = [(0, 11, low, 13)]
    # the second overlaps the first a little, and most of the third
    little = [[(0, 2, 5, end)], [(3, 2, low + 2, end)], [(4, 2, low + 3, end)]]
    pixel = [(11, 12, 12, 13)]
    # two L-shapes, whose bounding boxes are almost equal, but which share little more than a corner
    corners = [[(0, 0, 9, 2), (0, 0, 2, end)], [(7, 1, 9, end), (1, end - 2, 9, end)], [(0, 0, 4, end)]]
    inside = [[(0, 0, 8, end)], [(2, 2, 5, 5)], [(1, 1, 8, end)]]
    core = [
        detections("a chain of masks", [*chain, beside], [1, 1, 1, 1, 1]),
        detections("two classes", [chain[0], chain[1], chain[2], chain[1], chain[3]], [1, 2, 1, 1, 2]),
        detections("a mask that overlaps a better one a little", [*little, beside], [1, 1, 1, 1]),
        detections("L-shaped masks, and a weak decay", corners, [3, 3, 3], sigma=0.5),
    ]
    edge = [
        detections("a small mask in a large one", inside, [2, 2, 2], sigma=3.0),
        detections("already sorted", chain[:3], [1, 1, 1], shuffle=False),
        detections("empty masks, and two of one pixel", [[], chain[0], pixel, [], pixel], [1, 1, 1, 1, 1]),
        detections("one mask", [chain[0]], [1]),
        detections("no mask", [], []),
    ]
    return {"core": (1, core), "edge": (1, edge)}


right = Variants(matrix_nms)


def _overlap(a: SimpleNamespace) -> Tensor:
    return _iou(a.masks) * (a.labels[:, None] == a.labels)


def _with_decay(overlap: Callable = _overlap, scores: Callable = lambda a: a.scores) -> Callable[..., Tensor]:
    """The right decay of other IoUs, or for other scores."""
    return right.instead(lambda a: a.scores * _decay(overlap(a), scores(a), a.sigma))


def _decaying(decay: Callable[[Tensor, Tensor, float], Tensor]) -> Callable[..., Tensor]:
    """Other factors: `decay(IoUs with better masks, worst, sigma)`."""
    return right.instead(lambda a: a.scores * decay(*_with_better(_overlap(a), a.scores), a.sigma))


def _suppressed(a: SimpleNamespace, only_by_kept: bool) -> Tensor:
    """Remove each mask whose IoU with a better mask is above 1/2; `only_by_kept`: a better mask that is kept itself."""
    overlap, kept = _overlap(a), torch.ones_like(a.scores)
    for j in a.scores.argsort(descending=True):
        better = (a.scores > a.scores[j]) & (overlap[:, j] > 0.5)
        if (better & (kept > 0) if only_by_kept else better).any():
            kept[j] = 0
    return a.scores * kept


def _filled_boxes(masks: Tensor) -> Tensor:
    filled = torch.zeros_like(masks)
    for mask, (x1, y1, x2, y2) in zip(filled, boxes_from_masks(masks).int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = True
    return filled


def _linear(overlap: Tensor, worst: Tensor, sigma: float) -> Tensor:
    ratios = (1 - overlap) / (1 - worst[:, None])
    return torch.cat([ratios, torch.ones_like(worst)[None]]).amin(dim=0)


def _share_of_the_smaller(a: SimpleNamespace) -> Tensor:
    pixels = a.masks.flatten(1).float()
    area = pixels.sum(dim=1)
    share = (pixels @ pixels.T) / torch.minimum(area[:, None], area).clamp(min=1)
    return share * (a.labels[:, None] == a.labels)


def _nan_if_empty(a: SimpleNamespace) -> Tensor:
    area = a.masks.flatten(1).sum(dim=1)
    return _overlap(a).masked_fill((area[:, None] + area) == 0, torch.nan)


MATRIX = "Sort by score. In the matrix of IoUs, row i lowers column j where it is above the diagonal: triu(1)."
FORMULA = "Best mask: worst is 0. Second: worst is its IoU with the best. Write f(iou_ij) / f(worst_i) for the third."

exercise = Exercise(
    name="matrix_nms",
    points=2,
    cases=cases,
    reference=matrix_nms,
    tolerance=1e-5,
    kind="mask",
    hides=["segedu.ops.nms", "segedu.instance.solov2"],
    wrong=[
        Wrong(
            "hard",
            right.instead(lambda a: _suppressed(a, only_by_kept=True)),
            "You remove masks whose IoU is above a threshold. Matrix NMS lowers scores and removes no mask.",
            FORMULA,
        ),
        Wrong(
            "hard, all at once",
            right.instead(lambda a: _suppressed(a, only_by_kept=False)),
            "You remove each mask whose IoU with a better one is above 1/2, as Fast NMS does. Lower its score instead.",
            FORMULA,
        ),
        Wrong(
            "no compensation",
            _decaying(lambda overlap, worst, sigma: torch.exp(-sigma * worst**2)),
            "You do not divide by f(worst_i). A mask that overlaps a better one itself should lower others less.",
            FORMULA,
        ),
        Wrong(
            "nothing lowered",
            right.instead(lambda a: a.scores.clone()),
            "You lower no score. This happens if worst_i includes i or worse masks, or if you divide by f(worst_j).",
            MATRIX + " Not triu(0), and worst belongs to the rows: worst[:, None].",
        ),
        Wrong(
            "wrong triangle",
            _with_decay(scores=lambda a: -a.scores),
            "Your masks with lower scores lower those with higher scores. Only better masks lower a score.",
            MATRIX,
        ),
        Wrong(
            "not sorted",
            _with_decay(scores=lambda a: -torch.arange(len(a.scores)).to(a.scores)),
            "You treat masks that come earlier as better. The scores decide which masks are better.",
            MATRIX,
        ),
        Wrong(
            "left sorted",
            right.then(lambda out, a: out[a.scores.argsort(descending=True)]),
            "You return the scores sorted, best mask first. Return them in the order of the arguments.",
            "result[order] = lowered",
        ),
        Wrong(
            "boxes",
            right.given(masks=lambda a: _filled_boxes(a.masks)),
            "You compute the IoU of bounding boxes. Compute the IoU of the masks.",
            "Count the pixels in both masks, and the pixels in at least one of them.",
        ),
        Wrong(
            "classes together",
            right.given(labels=lambda a: torch.zeros_like(a.labels)),
            "Masks of other classes lower a score in your function. Only masks of the same class should.",
            "labels[:, None] == labels",
        ),
        Wrong(
            "product",
            _decaying(lambda overlap, worst, sigma: torch.exp(-sigma * overlap**2).prod(dim=0)),
            "You multiply the decays of all better masks. Take the smallest f(iou_ij) / f(worst_i).",
            FORMULA,
        ),
        Wrong(
            "linear",
            _decaying(_linear),
            "Your f is the linear decay 1 - iou. Here f is exp(-sigma * iou^2).",
            "The paper describes both decays.",
        ),
        Wrong(
            "not squared",
            _with_decay(lambda a: _overlap(a).sqrt()),
            "You do not square the IoU. f is exp(-sigma * iou^2).",
            FORMULA,
        ),
        Wrong(
            "divided by sigma",
            right.given(sigma=lambda a: 1 / a.sigma),
            "You divide by sigma. Multiply by it: f is exp(-sigma * iou^2).",
            "A larger sigma lowers the scores more.",
        ),
        Wrong(
            "decay only",
            right.instead(lambda a: _decay(_overlap(a), a.scores, a.sigma)),
            "You return the decay factors. Multiply the scores by them.",
            "The best mask keeps its score, which is not 1.",
        ),
        Wrong(
            "of the smaller mask",
            _with_decay(_share_of_the_smaller),
            "You divide by the area of the smaller mask. The IoU divides by the area of the union.",
            "area_i + area_j - both",
        ),
        Wrong(
            "empty masks fail",
            _with_decay(_nan_if_empty),
            "Your IoU of two empty masks is 0 / 0. It should be 0.",
            "Keep the denominator above 0: clamp(min=1).",
        ),
    ],
)
