"""matrix_nms: lower the scores of masks that a better mask covers, all at once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong


def matrix_nms(masks: Tensor, labels: Tensor, scores: Tensor, sigma: float) -> Tensor:
    """Lower the score of each mask by the better masks of its class that overlap it, as SOLOv2 does.

    With f(iou) = exp(-sigma * iou^2), the score of mask j is multiplied by

        the smallest of  f(iou_ij) / f(worst_i)  over all better masks i,  where
        worst_i = the largest iou_ki  over all masks k that are better than i.

    A mask i that was itself covered by a better one has a large worst_i, and lowers others less. "Better" is a higher
    score. An IoU with a mask of another class counts as 0, and so does that of two empty masks; worst is 0 where
    nothing is better. The best mask keeps its score.

    Args:
        masks: (N, H, W) bool. Perhaps N = 0.
        labels: (N,) integers.
        scores: (N,) floats, in any order; no two are equal.
        sigma: how strong the decay is, above 0.

    Returns:
        (N,) floats: the lowered scores, in the order of the arguments. Nothing is left out.

    Example: two equal masks. The second keeps exp(-2) = 0.135 of its score.

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
    """(N,); row i and column j of `overlap`: masks i and j."""
    pulls, worst = _pulls(overlap, scores)
    ratios = torch.exp(-sigma * (pulls**2 - worst[:, None] ** 2))
    return torch.cat([ratios, torch.ones_like(scores)[None]]).amin(dim=0)


def _pulls(overlap: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """IoUs where i is better than j, else 0; and the largest in each column."""
    pulls = overlap * (scores[:, None] > scores)
    return pulls, torch.cat([pulls, torch.zeros_like(scores)[None]]).amax(dim=0)


Part = tuple[int, int, int, int]  # first row, first column, one after the last of both


def painted(shapes: list[list[Part]]) -> Tensor:
    """Masks made of rectangles.

    Args:
        shapes: the parts of each mask.

    Returns:
        (N, 12, 13) bool.
    """
    masks = torch.zeros(len(shapes), 12, 13, dtype=torch.bool)
    for mask, parts in zip(masks, shapes, strict=True):
        for top, left, bottom, right in parts:
            mask[top:bottom, left:right] = True
    return masks


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Chains of masks that cover one another, two classes, hooked masks; empty masks, one mask, none.

    Args:
        rng: of sizes, order and scores.

    Returns:
        The cases by group. Masks come with the best first only by chance, and never in the first case.
    """

    def case(name: str, shapes: list[list[Part]], labels: list[int], sigma: float = 2.0, shuffle: bool = True) -> Case:
        """`shapes`: the parts of each mask, best mask first."""
        masks = painted(shapes)
        scores = torch.from_numpy(np.sort(rng.choice(np.arange(30, 99), len(shapes), replace=False))[::-1] / 100)
        order = torch.from_numpy(rng.permutation(len(shapes)))
        if shuffle and len(order) > 1 and order[0] < order[-1]:
            order = order.flip(0)
        return {"name": name, "args": [masks[order], torch.tensor(labels)[order].long(), scores[order].float(), sigma]}

    low, right = (int(n) for n in rng.integers((7, 7), (9, 10)))
    # each covers the next one more than the one after it
    chain = [[(1, 1, low, right)], [(2, 1, low + 1, right)], [(3, 2, low + 2, right)], [(4, 3, low + 3, right + 2)]]
    beside = [(0, 11, low, 13)]
    # the second is covered a little by the first, and covers most of the third
    little = [[(0, 2, 5, right)], [(3, 2, low + 2, right)], [(4, 2, low + 3, right)]]
    pixel = [(11, 12, 12, 13)]
    # two hooks: their boxes are nearly one, but they share little more than a corner
    hook = [(0, 0, 9, 2), (0, 0, 2, right)], [(7, 1, 9, right), (1, right - 2, 9, right)]
    inside = [[(0, 0, 8, right)], [(2, 2, 5, 5)], [(1, 1, 8, right)]]
    return {
        "core": (
            1,
            [
                case("a chain of masks", [*chain, beside], [1, 1, 1, 1, 1]),
                case("two classes", [chain[0], chain[1], chain[2], chain[1], chain[3]], [1, 2, 1, 1, 2]),
                case("a mask that is covered a little", [*little, beside], [1, 1, 1, 1]),
                case("hooks, and a weak decay", [*hook, [(0, 0, 4, right)]], [3, 3, 3], sigma=0.5),
            ],
        ),
        "edge": (
            1,
            [
                case("a small mask in a large one", inside, [2, 2, 2], sigma=3.0),
                case("sorted already", chain[:3], [1, 1, 1], shuffle=False),
                case("empty masks, and two of one pixel", [[], chain[0], pixel, [], pixel], [1, 1, 1, 1, 1]),
                case("one mask", [chain[0]], [1]),
                case("no mask", [], []),
            ],
        ),
    }


def _overlap(masks: Tensor, labels: Tensor) -> Tensor:
    return _iou(masks) * (labels[:, None] == labels)


def _keeps(masks: Tensor, labels: Tensor, scores: Tensor, only_kept: bool) -> Tensor:
    """Above an IoU of 1/2 the worse one goes; `only_kept`: only by one that stays."""
    overlap, kept = _overlap(masks, labels), torch.ones_like(scores)
    for j in scores.argsort(descending=True):
        for i in scores.argsort(descending=True):
            if scores[i] > scores[j] and overlap[i, j] > 0.5 and (kept[i] or not only_kept):
                kept[j] = 0
    return scores * kept


def hard(masks: Tensor, labels: Tensor, scores: Tensor, sigma: float) -> Tensor:
    """Greedy suppression at 1/2."""
    return _keeps(masks, labels, scores, only_kept=True)


def hard_at_once(masks: Tensor, labels: Tensor, scores: Tensor, sigma: float) -> Tensor:
    """Suppression at 1/2 by any better one, kept or not: YOLACT's Fast NMS."""
    return _keeps(masks, labels, scores, only_kept=False)


def no_compensation(masks: Tensor, labels: Tensor, scores: Tensor, sigma: float) -> Tensor:
    """f(iou) alone."""
    _, worst = _pulls(_overlap(masks, labels), scores)
    return scores * torch.exp(-sigma * worst**2)


def nothing_lowered(masks: Tensor, labels: Tensor, scores: Tensor, sigma: float) -> Tensor:
    """f(worst_j) below the line; or both triangles; or the diagonal: no quotient is below 1."""
    return scores.clone()


def worse_ones(masks: Tensor, labels: Tensor, scores: Tensor, sigma: float) -> Tensor:
    """The other triangle: masks with lower scores lower those with higher ones."""
    return scores * _decay(_overlap(masks, labels), -scores, sigma)


def order_as_it_comes(masks: Tensor, labels: Tensor, scores: Tensor, sigma: float) -> Tensor:
    """triu(1) of masks that are not sorted."""
    return scores * _decay(_overlap(masks, labels), -torch.arange(len(scores)).to(scores), sigma)


def left_sorted(masks: Tensor, labels: Tensor, scores: Tensor, sigma: float) -> Tensor:
    """The best mask first."""
    return matrix_nms(masks, labels, scores, sigma)[scores.argsort(descending=True)]


def boxes(masks: Tensor, labels: Tensor, scores: Tensor, sigma: float) -> Tensor:
    """The IoU of the boxes around the masks."""
    filled = torch.zeros_like(masks)
    for mask, box in zip(masks, filled, strict=True):
        y, x = mask.nonzero().T
        if len(y):
            box[y.min() : y.max() + 1, x.min() : x.max() + 1] = True
    return matrix_nms(filled, labels, scores, sigma)


def classes_together(masks: Tensor, labels: Tensor, scores: Tensor, sigma: float) -> Tensor:
    """A mask of another class lowers, too."""
    return matrix_nms(masks, torch.zeros_like(labels), scores, sigma)


def multiplied(masks: Tensor, labels: Tensor, scores: Tensor, sigma: float) -> Tensor:
    """The product over all better masks, as in soft suppression."""
    pulls, _ = _pulls(_overlap(masks, labels), scores)
    return scores * torch.exp(-sigma * pulls**2).prod(dim=0)


def linear(masks: Tensor, labels: Tensor, scores: Tensor, sigma: float) -> Tensor:
    """f(iou) = 1 - iou, the other decay of the paper."""
    pulls, worst = _pulls(_overlap(masks, labels), scores)
    ratios = (1 - pulls) / (1 - worst[:, None])
    return scores * torch.cat([ratios, torch.ones_like(scores)[None]]).amin(dim=0)


def not_squared(masks: Tensor, labels: Tensor, scores: Tensor, sigma: float) -> Tensor:
    """exp(-sigma * iou)."""
    return scores * _decay(_overlap(masks, labels).sqrt(), scores, sigma)


def divided_by_sigma(masks: Tensor, labels: Tensor, scores: Tensor, sigma: float) -> Tensor:
    """exp(-iou^2 / sigma)."""
    return matrix_nms(masks, labels, scores, 1 / sigma)


def decay_only(masks: Tensor, labels: Tensor, scores: Tensor, sigma: float) -> Tensor:
    """What the scores should be multiplied by."""
    return _decay(_overlap(masks, labels), scores, sigma)


def of_the_smaller(masks: Tensor, labels: Tensor, scores: Tensor, sigma: float) -> Tensor:
    """Common pixels over those of the smaller mask."""
    pixels = masks.flatten(1).float()
    area = pixels.sum(dim=1)
    share = (pixels @ pixels.T) / torch.minimum(area[:, None], area).clamp(min=1)
    return scores * _decay(share * (labels[:, None] == labels), scores, sigma)


def empty_fails(masks: Tensor, labels: Tensor, scores: Tensor, sigma: float) -> Tensor:
    """0 / 0 of two empty masks."""
    area = masks.flatten(1).sum(dim=1)
    overlap = _overlap(masks, labels)
    overlap[(area[:, None] + area) == 0] = torch.nan
    return scores * _decay(overlap, scores, sigma)


MATRIX = "Sort by score. In the matrix of IoUs row i lowers column j where i is above the diagonal: triu(1)."
FORMULA = "Best mask: worst 0. Second: worst is its IoU with the best. Write f(iou_ij) / f(worst_i) for the third."

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
            hard,
            "You throw masks away at a threshold: nothing is thrown away here, scores are lowered.",
            FORMULA,
        ),
        Wrong(
            "hard, all at once",
            hard_at_once,
            "You throw masks away wherever a better one covers half of them, as Fast NMS does: lower the scores.",
            FORMULA,
        ),
        Wrong(
            "no compensation",
            no_compensation,
            "You leave out f(worst_i): a mask that was itself covered lowers others less.",
            FORMULA,
        ),
        Wrong(
            "nothing lowered",
            nothing_lowered,
            "You lower nothing: worst_i counts i itself or worse masks, too, or you divide by f(worst_j).",
            MATRIX + " Not triu(0), and worst belongs to the rows: worst[:, None].",
        ),
        Wrong(
            "wrong triangle",
            worse_ones,
            "Your worse masks lower the better ones: it is the other way round.",
            MATRIX,
        ),
        Wrong(
            "not sorted",
            order_as_it_comes,
            "You take the masks that come first for the better ones: the scores say which are better.",
            MATRIX,
        ),
        Wrong(
            "left sorted",
            left_sorted,
            "Your scores come best first: put them back into the order of the arguments.",
            "result[order] = lowered.",
        ),
        Wrong(
            "boxes", boxes, "You take the IoU of boxes: take that of the masks.", "Pixels in both, pixels in either."
        ),
        Wrong(
            "classes together",
            classes_together,
            "Masks of another class lower a score: only those of its own class do.",
            "labels[:, None] == labels.",
        ),
        Wrong(
            "product",
            multiplied,
            "You multiply the decays of all better masks: take the smallest f(iou_ij) / f(worst_i).",
            FORMULA,
        ),
        Wrong(
            "linear",
            linear,
            "Your f is 1 - iou: here it is exp(-sigma * iou^2).",
            "The paper has both.",
        ),
        Wrong("not squared", not_squared, "Your IoU is not squared: f is exp(-sigma * iou^2).", FORMULA),
        Wrong(
            "divided by sigma",
            divided_by_sigma,
            "You divide by sigma: here it multiplies, exp(-sigma * iou^2).",
            "A larger sigma lowers more.",
        ),
        Wrong(
            "decay only",
            decay_only,
            "You return the factors: multiply the scores by them.",
            "The best mask keeps its score; it is not 1.",
        ),
        Wrong(
            "of the smaller mask",
            of_the_smaller,
            "You divide by the smaller mask: IoU divides by the pixels in either.",
            "area_i + area_j - both.",
        ),
        Wrong(
            "empty masks fail",
            empty_fails,
            "The IoU of two empty masks is 0 / 0 in your answer: it counts as 0.",
            "Make sure that nothing is divided by 0: clamp(min=1).",
        ),
    ],
)
