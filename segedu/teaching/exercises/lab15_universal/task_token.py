"""task_token: OneFormer's one annotation for three tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong

Segments = list[dict]
Given = tuple[str, Tensor, Tensor]


def task_token(panoptic_seg: Tensor, segments: Segments, task: str) -> Given:
    """Make the task's text and its targets from one panoptic annotation.

    OneFormer is trained for all tasks at once: for each image a task is drawn, the network reads the text "the task is
    panoptic", "... instance" or "... semantic", and learns the targets of this task.

    - panoptic: each segment is a target;
    - instance: each segment that is a thing is a target;
    - semantic: each category is a target, whose mask holds all its segments; by rising category.

    Segments of which there is no pixel in the map are left out. Pixels of 0 belong to nothing.

    Args:
        panoptic_seg: (H, W) integers, the number of each pixel's segment, or 0.
        segments: a dict `{"id": number, "category_id": category, "isthing": True or False}` for each segment; each
            category of stuff has one segment at most. Perhaps none.
        task: "panoptic", "instance" or "semantic".

    Returns:
        The text; (N,) integers, the categories of the targets; and (N, H, W) bool, their masks. For panoptic and
        instance in the order of `segments`.

    Raises:
        ValueError: for any other task.

    Example: two things of one category.

        >>> both = [{"id": 1, "category_id": 7, "isthing": True}, {"id": 2, "category_id": 7, "isthing": True}]
        >>> task_token(torch.tensor([[0, 1, 2]]), both, "semantic")
        ('the task is semantic', tensor([7]), tensor([[[False,  True,  True]]]))
    """
    if task not in ("panoptic", "instance", "semantic"):
        raise ValueError(f"task is {task!r}, expected panoptic, instance or semantic")
    there = [s for s in segments if (panoptic_seg == s["id"]).any()]
    if task == "instance":
        there = [s for s in there if s["isthing"]]
    groups = _by_category(there) if task == "semantic" else [[s] for s in there]
    return f"the task is {task}", *_targets(panoptic_seg, groups)


def _by_category(segments: Segments) -> list[Segments]:
    categories = sorted({s["category_id"] for s in segments})
    return [[s for s in segments if s["category_id"] == category] for category in categories]


def _targets(panoptic_seg: Tensor, groups: list[Segments]) -> tuple[Tensor, Tensor]:
    """Labels (N,) and masks (N, H, W) of groups of segments; a group has one category."""
    labels = torch.tensor([group[0]["category_id"] for group in groups], dtype=torch.int64)
    masks = torch.zeros(len(groups), *panoptic_seg.shape, dtype=torch.bool)
    for mask, group in zip(masks, groups, strict=True):
        for segment in group:
            mask |= panoptic_seg == segment["id"]
    return labels, masks


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """One annotation under all three tasks; no thing, no stuff, nothing at all, segments without pixels, other tasks.

    Args:
        rng: of categories, numbers of segments and the map.

    Returns:
        The cases by group.
    """

    def scene(size: tuple[int, int], kinds: str, missing: tuple[int, ...] = ()) -> tuple[Tensor, Segments]:
        """`kinds`: a letter for each segment, capital for things, one letter one category; `missing` have no pixel."""
        letters = sorted(set(kinds))
        # categories in the inverse order of their letters, so that rising category is another order than the list's
        numbers = sorted(rng.choice(np.arange(0, 40), len(letters), replace=False).tolist(), reverse=True)
        ids = rng.choice(np.arange(41, 99), len(kinds), replace=False).tolist()
        category = dict(zip(letters, numbers, strict=True))
        segments = [
            {"id": i, "category_id": category[kind], "isthing": kind.isupper()}
            for i, kind in zip(ids, kinds, strict=True)
        ]
        shown = [0, *[i for n, i in enumerate(ids) if n not in missing]]
        pixels = np.concatenate([shown, rng.choice(shown, size[0] * size[1] - len(shown))])
        return torch.from_numpy(rng.permutation(pixels).reshape(size).astype(np.int64)), segments

    full, three = scene((5, 6), "ACaAbC"), ("panoptic", "instance", "semantic")
    hidden = scene((4, 5), "AaABb", missing=(0, 3, 4))
    return {
        "core": (1, [{"name": f"things and stuff, {task}", "args": [*full, task]} for task in three]),
        "edge": (
            1,
            [
                *[{"name": f"segments without pixels, {task}", "args": [*hidden, task]} for task in three],
                {"name": "no thing, instance", "args": [*scene((3, 4), "ab"), "instance"]},
                {"name": "things only, semantic", "args": [*scene((3, 4), "AABA"), "semantic"]},
                {"name": "nothing at all, panoptic", "args": [torch.zeros(2, 3, dtype=torch.int64), [], "panoptic"]},
                {"name": "another task", "args": [*full, "depth"]},
            ],
        ),
    }


def _made(
    wanted: Callable[[str, dict], bool] = lambda task, s: task != "instance" or s["isthing"],
    merged: Callable[[str], bool] = lambda task: task == "semantic",
    group: Callable[[Segments], list[Segments]] = _by_category,
    there: Callable[[Tensor, dict], bool] = lambda seg, s: bool((seg == s["id"]).any()),
    text: Callable[[str], str] = lambda task: f"the task is {task}",
    end: Callable[..., Any] = lambda text, labels, masks, groups: (text, labels, masks),
    refuse: bool = True,
) -> Callable[..., Any]:
    """The right answer, each question replaced by another."""

    def answer(panoptic_seg: Tensor, segments: Segments, task: str) -> Any:
        if refuse and task not in ("panoptic", "instance", "semantic"):
            raise ValueError(task)
        kept = [s for s in segments if wanted(task, s) and there(panoptic_seg, s)]
        groups = group(kept) if merged(task) else [[s] for s in kept]
        return end(text(task), *_targets(panoptic_seg, groups), groups)

    return answer


def _in_order(segments: Segments) -> list[Segments]:
    categories = list(dict.fromkeys(s["category_id"] for s in segments))
    return [[s for s in segments if s["category_id"] == category] for category in categories]


def _union(panoptic_seg: Tensor, segments: Segments, task: str) -> Given:
    """Panoptic is the targets of both other tasks, one after the other."""
    if task != "panoptic":
        return task_token(panoptic_seg, segments, task)
    text, labels, masks = task_token(panoptic_seg, segments, "semantic")
    _, more, others = task_token(panoptic_seg, segments, "instance")
    return text.replace("semantic", task), torch.cat([labels, more]), torch.cat([masks, others])


def _with_nothing(panoptic_seg: Tensor, segments: Segments, task: str) -> Given:
    """The pixels of 0 are a target, too."""
    text, labels, masks = task_token(panoptic_seg, segments, task)
    nothing = (panoptic_seg == 0)[None]
    return text, torch.cat([torch.zeros(1, dtype=torch.int64), labels]), torch.cat([nothing, masks])


def _fails_when_empty(panoptic_seg: Tensor, segments: Segments, task: str) -> Given:
    text, labels, masks = task_token(panoptic_seg, segments, task)
    return text, labels, torch.stack(list(masks))


def _numbered(text: str, labels: Tensor, masks: Tensor, groups: list[Segments]) -> Given:
    return text, torch.tensor([group[0]["id"] for group in groups], dtype=torch.int64), masks


def _map_of(text: str, labels: Tensor, masks: Tensor, groups: list[Segments]) -> Given:
    """One map, with the place of each target plus one."""
    return text, labels, (masks * torch.arange(1, len(masks) + 1)[:, None, None]).sum(dim=0)


semantic_not_merged = _made(merged=lambda task: False)
last_of_a_category = _made(group=lambda segments: [g[-1:] for g in _by_category(segments)])
first_of_a_category = _made(group=lambda segments: [g[:1] for g in _by_category(segments)])
in_order = _made(group=_in_order)
instance_keeps_stuff = _made(wanted=lambda task, s: True)
instance_merged = _made(merged=lambda task: task != "panoptic")
panoptic_merged = _made(merged=lambda task: task != "instance")
semantic_of_stuff = _made(wanted=lambda task, s: s["isthing"] == (task == "instance") or task == "panoptic")
semantic_of_things = _made(wanted=lambda task, s: s["isthing"] or task == "panoptic")
panoptic_of_things = _made(wanted=lambda task, s: s["isthing"] or task == "semantic")
only_stuff_for_instance = _made(wanted=lambda task, s: task != "instance" or not s["isthing"])
fixed_text = _made(text=lambda task: "the task is panoptic")
only_the_task = _made(text=lambda task: task)
no_text = _made(end=lambda text, labels, masks, groups: (labels, masks))
any_task = _made(refuse=False)
without_pixels = _made(there=lambda seg, s: True)
numbers_for_labels = _made(end=_numbered)
one_map = _made(end=_map_of)
masks_last = _made(end=lambda text, labels, masks, groups: (text, labels, masks.movedim(0, -1)))

TASKS = "panoptic: every segment. instance: things only, each by itself. semantic: one target for each category."
SEMANTIC = "mask |= panoptic_seg == segment['id'], for all segments of the category."
LISTED = "panoptic_seg == segment['id'] for one segment; its category is segment['category_id']."

exercise = Exercise(
    name="task_token",
    points=2,
    cases=cases,
    reference=task_token,
    kind="map",
    hides=["segedu.panoptic.oneformer", "segedu.layers.segments"],
    wrong=[
        Wrong(
            "semantic merges nothing",
            semantic_not_merged,
            "Your semantic targets are single segments: one target holds all segments of a category.",
            SEMANTIC,
        ),
        Wrong(
            "last of a category",
            last_of_a_category,
            "Your semantic mask holds the last segment of its category only: the others are overwritten.",
            SEMANTIC,
        ),
        Wrong(
            "first of a category",
            first_of_a_category,
            "Your semantic mask holds the first segment of its category only.",
            SEMANTIC,
        ),
        Wrong(
            "order of the list",
            in_order,
            "Your semantic targets come in the order of the segments: by rising category is asked for.",
            "sorted({...})",
        ),
        Wrong(
            "instance keeps stuff",
            instance_keeps_stuff,
            "Your instance targets hold stuff: only things have instances.",
            TASKS,
        ),
        Wrong(
            "instance merged",
            instance_merged,
            "You merge the instances of a category: each is a target of its own.",
            TASKS,
        ),
        Wrong(
            "instance is stuff",
            only_stuff_for_instance,
            "Your instance targets are the stuff: take what is a thing.",
            TASKS,
        ),
        Wrong(
            "panoptic = union",
            _union,
            "Your panoptic targets are those of both other tasks together: then a thing is there twice.",
            TASKS,
        ),
        Wrong(
            "panoptic merged",
            panoptic_merged,
            "You merge the things of a category for panoptic: each is a target of its own.",
            TASKS,
        ),
        Wrong("panoptic of things", panoptic_of_things, "Your panoptic targets are without stuff.", TASKS),
        Wrong(
            "semantic of stuff",
            semantic_of_stuff,
            "Your semantic targets are stuff only: things have a class, too.",
            TASKS,
        ),
        Wrong(
            "semantic of things",
            semantic_of_things,
            "Your semantic targets are things only: stuff has a class, too.",
            TASKS,
        ),
        Wrong(
            "fixed text",
            fixed_text,
            "Your text is always that of panoptic: then the network cannot know the task.",
            "The text names the task.",
        ),
        Wrong(
            "the task's name only",
            only_the_task,
            'Your text is the name of the task only: "the task is ..." comes before it.',
            'f"the task is {task}"',
        ),
        Wrong(
            "no text",
            no_text,
            "You return no text: text, labels and masks are asked for.",
            "return text, labels, masks",
        ),
        Wrong(
            "any task",
            any_task,
            "Your function takes any task: for one that does not exist a ValueError is asked for.",
            "A slip in a name would train the wrong task, in silence.",
        ),
        Wrong(
            "segments without pixels",
            without_pixels,
            "You keep segments of which there is no pixel.",
            "Where a picture was cut, the list may name what is no longer there.",
        ),
        Wrong(
            "pixels of nothing",
            _with_nothing,
            "You make a target of the pixels of 0: they belong to nothing.",
            "Go through the segments, not through the numbers in the map.",
        ),
        Wrong(
            "numbers for labels",
            numbers_for_labels,
            "Your labels are numbers of segments: categories are asked for.",
            LISTED,
        ),
        Wrong("one map", one_map, "You return one map: a mask for each target is asked for.", "(N, H, W), bool."),
        Wrong("targets last", masks_last, "Your masks are (H, W, N): they are (N, H, W).", LISTED),
        Wrong(
            "fails when empty",
            _fails_when_empty,
            "Your function fails where there is no target: then N is 0.",
            "torch.stack of nothing is an error; torch.zeros(0, H, W) is not.",
        ),
    ],
)
