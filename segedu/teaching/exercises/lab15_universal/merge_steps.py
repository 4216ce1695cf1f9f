"""The questions that a merge asks, and what students ask in their place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

VOID = 255
Merged = tuple[Tensor, list[dict]]


@dataclass
class Merge:
    """A merge on its way: what is given, and what is made. Wrong answers change what it asks."""

    masks: Tensor
    labels: Tensor
    scores: Tensor
    semantic: Tensor
    things: list[int]
    score_threshold: float
    overlap_threshold: float
    stuff_area: int
    found: list[dict] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.seg = torch.zeros(self.semantic.shape, dtype=torch.int64)

    def add(self, mask: Tensor, category: int, isthing: bool) -> None:
        """A new segment; it may overwrite others."""
        self.found.append({"id": len(self.found) + 1, "category_id": category, "isthing": isthing})
        self.seg[mask] = len(self.found)


def _order(merge: Merge) -> list[int]:
    return merge.scores.argsort(descending=True, stable=True).tolist()


def _sure(merge: Merge, n: int) -> bool:
    return bool(merge.scores[n] >= merge.score_threshold)


def _free(merge: Merge, mask: Tensor) -> Tensor:
    return mask & (merge.seg == 0)


def _taken(merge: Merge, n: int) -> float:
    """Share of the pixels of instance n."""
    area = int(merge.masks[n].sum())
    return (area - int(_free(merge, merge.masks[n]).sum())) / max(1, area)


def _fits(merge: Merge, n: int) -> bool:
    return _taken(merge, n) <= merge.overlap_threshold


def _is_stuff(merge: Merge, category: int) -> bool:
    return category not in [*merge.things, VOID]


def _large(merge: Merge, category: int) -> bool:
    return int(_free(merge, merge.semantic == category).sum()) >= merge.stuff_area


def _merge(
    order: Callable[[Merge], list[int]] = _order,
    sure: Callable[[Merge, int], bool] = _sure,
    fits: Callable[[Merge, int], bool] = _fits,
    takes: Callable[[Merge, Tensor], Tensor] = _free,
    visible: Callable[[Tensor], bool] = lambda free: bool(free.any()),
    is_stuff: Callable[[Merge, int], bool] = _is_stuff,
    large: Callable[[Merge, int], bool] = _large,
    stuff_takes: Callable[[Merge, Tensor], Tensor] = _free,
    end: Callable[[Merge], Merged] = lambda merge: (merge.seg, merge.found),
) -> Callable[..., Merged]:
    """The right merge, each question replaced by another."""

    def answer(*args: Any) -> Merged:
        merge = Merge(*args)
        for n in order(merge):
            free = takes(merge, merge.masks[n])
            if sure(merge, n) and visible(free) and fits(merge, n):
                merge.add(free, int(merge.labels[n]), True)
                merge.kept.append(n)
        for category in merge.semantic.unique().tolist():
            taken = stuff_takes(merge, merge.semantic == category)
            if is_stuff(merge, category) and large(merge, category) and taken.any():
                merge.add(taken, category, False)
        return end(merge)

    return answer


def _boxes_taken(merge: Merge, n: int) -> bool:
    """Share of the box that lies in the boxes of those that are kept."""
    filled = [_box(mask) for mask in merge.masks[[*merge.kept, n]]]
    others = torch.stack([torch.zeros_like(filled[-1]), *filled[:-1]]).any(dim=0)
    return int((filled[-1] & others).sum()) <= merge.overlap_threshold * int(filled[-1].sum())


def _box(mask: Tensor) -> Tensor:
    filled = torch.zeros_like(mask)
    y, x = mask.nonzero().T
    filled[y.min() : y.max() + 1, x.min() : x.max() + 1] = True
    return filled


def _pair_by_pair(merge: Merge, n: int, whole: Callable[[Tensor, Tensor], Tensor]) -> bool:
    mask, kept = merge.masks[n], merge.masks[merge.kept]
    shares = [float((mask & other).sum() / whole(mask, other).sum()) for other in kept]
    return max(shares, default=0.0) <= merge.overlap_threshold


def _of_its_class(merge: Merge, n: int) -> bool:
    mask = merge.masks[n]
    taken = [s["id"] for s in merge.found if s["category_id"] == int(merge.labels[n])]
    return int((mask & torch.isin(merge.seg, torch.tensor(taken, dtype=torch.int64))).sum()) <= (
        merge.overlap_threshold * int(mask.sum())
    )


def _overlap_with_union(merge: Merge, n: int) -> bool:
    mask = merge.masks[n]
    return int((mask & (merge.seg > 0)).sum()) <= merge.overlap_threshold * int((mask | (merge.seg > 0)).sum())


def _blocks(merge: Merge, n: int) -> bool:
    """An instance that is dropped keeps its pixels, for nobody."""
    fits = _fits(merge, n)
    if not fits:
        merge.seg[_free(merge, merge.masks[n])] = -1
    return fits


def _renumbered(number: Callable[[dict, list[dict]], int]) -> Callable[[Merge], Merged]:
    """Segments with other numbers; segments that come to share one stay apart in the list."""

    def end(merge: Merge) -> Merged:
        new = {0: 0} | {s["id"]: number(s, merge.found) for s in merge.found}
        seg = torch.tensor([new[i] for i in merge.seg.flatten().tolist()]).reshape(merge.seg.shape)
        return seg, [s | {"id": new[s["id"]]} for s in merge.found]

    return end


def _stuff_first(merge: Merge) -> Merged:
    """Numbers from 1 for stuff, things after it."""
    turned = sorted(merge.found, key=lambda s: s["isthing"])
    new = {0: 0} | {s["id"]: i + 1 for i, s in enumerate(turned)}
    seg = torch.tensor([new[i] for i in merge.seg.flatten().tolist()]).reshape(merge.seg.shape)
    return seg, [s | {"id": new[s["id"]]} for s in turned]


def _with_gaps(merge: Merge) -> Merged:
    """Each instance has a number, the dropped ones, too; stuff after them."""
    places = {n: i + 1 for i, n in enumerate(_order(merge))}
    stuff = len(merge.found) - len(merge.kept)
    new = torch.tensor([0, *[places[n] for n in merge.kept], *[len(places) + 1 + i for i in range(stuff)]])
    return new[merge.seg], [s | {"id": int(new[s["id"]])} for s in merge.found]


def _whole_mask(merge: Merge, mask: Tensor) -> Tensor:
    return mask if _free(merge, mask).any() else torch.zeros_like(mask)


unsorted = _merge(order=lambda m: list(range(len(m.scores))))
lowest_first = _merge(order=lambda m: m.scores.argsort(stable=True).tolist())
last_of_equals = _merge(order=lambda m: m.scores.argsort(stable=True).flip(0).tolist())
largest_first = _merge(order=lambda m: m.masks.flatten(1).sum(1).argsort(descending=True, stable=True).tolist())
every_score = _merge(sure=lambda m, n: True)
above_the_score = _merge(sure=lambda m, n: bool(m.scores[n] > m.score_threshold))
by_boxes = _merge(fits=_boxes_taken)
any_overlap = _merge(fits=lambda m, n: _taken(m, n) == 0)
never_dropped = _merge(fits=lambda m, n: True)
below_the_share = _merge(fits=lambda m, n: _taken(m, n) < m.overlap_threshold)
intersection_over_union = _merge(fits=lambda m, n: _pair_by_pair(m, n, torch.logical_or))
pair_by_pair = _merge(fits=lambda m, n: _pair_by_pair(m, n, lambda mask, other: mask))
share_of_the_others = _merge(fits=lambda m, n: _pair_by_pair(m, n, lambda mask, other: other))
own_class_only = _merge(fits=_of_its_class)
over_the_union = _merge(fits=_overlap_with_union)
half_fixed = _merge(fits=lambda m, n: _taken(m, n) <= 0.5)
left_at_least = _merge(fits=lambda m, n: 1 - _taken(m, n) >= m.overlap_threshold)
dropped_blocks = _merge(fits=_blocks, end=lambda m: (m.seg.clamp(min=0), m.found))
free_share = _merge(fits=lambda m, n: 1 - _taken(m, n) <= m.overlap_threshold)
later_overwrites = _merge(takes=_whole_mask)
small_things_dropped = _merge(takes=lambda m, x: _free(m, x) & (_free(m, x).sum() >= m.stuff_area))
stuff_overwrites = _merge(large=lambda m, c: int((m.semantic == c).sum()) >= m.stuff_area, stuff_takes=lambda m, x: x)
small_kept = _merge(large=lambda m, c: True)
area_before = _merge(large=lambda m, c: int((m.semantic == c).sum()) >= m.stuff_area)
above_the_area = _merge(large=lambda m, c: int(_free(m, m.semantic == c).sum()) > m.stuff_area)
things_as_stuff = _merge(is_stuff=lambda m, c: c != VOID)
void_as_stuff = _merge(is_stuff=lambda m, c: c not in m.things)
zero_is_nothing = _merge(is_stuff=lambda m, c: _is_stuff(m, c) and c != 0)
no_stuff = _merge(is_stuff=lambda m, c: False)
category_for_number = _merge(end=_renumbered(lambda s, _: s["category_id"]))
one_number_a_class = _merge(
    end=_renumbered(lambda s, found: next(t["id"] for t in found if t["category_id"] == s["category_id"]))
)
from_zero = _merge(end=lambda m: (m.seg - 1, [s | {"id": s["id"] - 1} for s in m.found]))
with_gaps = _merge(end=_with_gaps)
all_things = _merge(end=lambda m: (m.seg, [s | {"isthing": True} for s in m.found]))
empty_kept = _merge(visible=lambda free: True, takes=_free)
stuff_first = _merge(end=_stuff_first)
map_only = _merge(end=lambda m: m.seg)
