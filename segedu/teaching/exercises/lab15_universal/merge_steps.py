"""The steps of `merge_panoptic`, each replaceable, and wrong steps that need more than a line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

VOID = 255
Merged = tuple[Tensor, list[dict]]


@dataclass
class Merge:
    """The arguments and the state of a merge: map, segments, and the instances that are kept."""

    masks: Tensor
    labels: Tensor
    scores: Tensor
    semantic: Tensor
    things: list[int]
    score_threshold: float
    overlap_threshold: float
    stuff_area: int
    segments: list[dict] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.seg = torch.zeros(self.semantic.shape, dtype=torch.int64)

    def add(self, mask: Tensor, category: int, isthing: bool) -> None:
        """Add a segment, which may overwrite others."""
        self.segments.append({"id": len(self.segments) + 1, "category_id": category, "isthing": isthing})
        self.seg[mask] = len(self.segments)


def by_score(merge: Merge) -> list[int]:
    return merge.scores.argsort(descending=True, stable=True).tolist()


def free(merge: Merge, mask: Tensor) -> Tensor:
    return mask & (merge.seg == 0)


def taken(merge: Merge, n: int) -> float:
    """Fraction of the pixels of instance n that other segments have."""
    area = int(merge.masks[n].sum())
    return (area - int(free(merge, merge.masks[n]).sum())) / max(1, area)


def fits(merge: Merge, n: int) -> bool:
    return taken(merge, n) <= merge.overlap_threshold


def merge_by(
    order: Callable[[Merge], list[int]] = by_score,
    fits: Callable[[Merge, int], bool] = fits,
    takes: Callable[[Merge, Tensor], Tensor] = free,
    keep_empty: bool = False,
    void: int | None = VOID,
    counted: Callable[[Merge, Tensor], Tensor] = free,
    stuff_takes: Callable[[Merge, Tensor], Tensor] = free,
    end: Callable[[Merge], Merged] = lambda merge: (merge.seg, merge.segments),
) -> Callable[..., Merged]:
    """Other steps of the merge.

    Args:
        order: of the instances.
        fits: whether instance n has enough pixels left.
        takes: the pixels that an instance takes.
        keep_empty: whether instances without a pixel are kept.
        void: the category that is neither a thing nor stuff.
        counted: the pixels of stuff that are compared with `stuff_area`.
        stuff_takes: the pixels that stuff takes.
        end: the result.
    """

    def answer(*args: Any) -> Merged:
        merge = Merge(*args)
        for n in order(merge):
            pixels = takes(merge, merge.masks[n])
            if merge.scores[n] >= merge.score_threshold and (keep_empty or pixels.any()) and fits(merge, n):
                merge.add(pixels, int(merge.labels[n]), True)
                merge.kept.append(n)
        for category in merge.semantic.unique().tolist():
            pixels, area = (f(merge, merge.semantic == category) for f in (stuff_takes, counted))
            if category not in [*merge.things, void] and area.sum() >= merge.stuff_area and pixels.any():
                merge.add(pixels, category, False)
        return end(merge)

    return answer


def fits_by_boxes(merge: Merge, n: int) -> bool:
    """Compares the box of the instance with the boxes of the instances that are kept."""
    boxes = [_box(mask) for mask in merge.masks[[*merge.kept, n]]]
    others = torch.stack([torch.zeros_like(boxes[-1]), *boxes[:-1]]).any(dim=0)
    return int((boxes[-1] & others).sum()) <= merge.overlap_threshold * int(boxes[-1].sum())


def _box(mask: Tensor) -> Tensor:
    filled = torch.zeros_like(mask)
    y, x = mask.nonzero().T
    filled[y.min() : y.max() + 1, x.min() : x.max() + 1] = True
    return filled


def fits_by_pairs(whole: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Merge, int], bool]:
    """Divides the overlap with each instance that is kept by the area of `whole(mask, other mask)`."""

    def fits(merge: Merge, n: int) -> bool:
        mask = merge.masks[n]
        ratios = [float((mask & other).sum() / whole(mask, other).sum()) for other in merge.masks[merge.kept]]
        return max(ratios, default=0.0) <= merge.overlap_threshold

    return fits


def fits_by_own_class(merge: Merge, n: int) -> bool:
    mask = merge.masks[n]
    ids = [s["id"] for s in merge.segments if s["category_id"] == int(merge.labels[n])]
    overlap = mask & torch.isin(merge.seg, torch.tensor(ids, dtype=torch.int64))
    return int(overlap.sum()) <= merge.overlap_threshold * int(mask.sum())


def fits_by_union(merge: Merge, n: int) -> bool:
    mask, others = merge.masks[n], merge.seg > 0
    return int((mask & others).sum()) <= merge.overlap_threshold * int((mask | others).sum())


def fits_and_blocks(merge: Merge, n: int) -> bool:
    """Marks the pixels of a dropped instance as taken, by -1."""
    enough = fits(merge, n)
    if not enough:
        merge.seg[free(merge, merge.masks[n])] = -1
    return enough


def free_or_overwritten(merge: Merge, mask: Tensor) -> Tensor:
    """The whole mask, if at least one pixel is free."""
    return mask & free(merge, mask).any()


def numbered_with_gaps(merge: Merge) -> Merged:
    """Each instance gets a number, also if it is dropped, and then stuff."""
    order = by_score(merge)
    stuff = range(len(order) + 1, len(order) + 1 + len(merge.segments) - len(merge.kept))
    return _renumber(merge.seg, merge.segments, [*[order.index(n) + 1 for n in merge.kept], *stuff])


def renumbered(number: Callable[[dict, list[dict]], int]) -> Callable[[Merged, SimpleNamespace], Merged]:
    """Changes the result: each segment gets `number(segment, segments)`."""
    return lambda out, a: _renumber(*out, [number(s, out[1]) for s in out[1]])


def stuff_first(out: Merged, a: SimpleNamespace) -> Merged:
    """Numbers from 1 for stuff, then things."""
    order = sorted(out[1], key=lambda s: s["isthing"])
    seg, segments = _renumber(*out, [order.index(s) + 1 for s in out[1]])
    return seg, sorted(segments, key=lambda s: s["id"])


def _renumber(seg: Tensor, segments: list[dict], numbers: list[int]) -> Merged:
    """Segments 1, 2, 3 ... get other numbers."""
    return torch.tensor([0, *numbers])[seg], [s | {"id": n} for s, n in zip(segments, numbers, strict=True)]
