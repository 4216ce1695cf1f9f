"""task_token: the targets of three tasks from one panoptic annotation, as in OneFormer."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case

Segments = list[dict]
Targets = tuple[str, Tensor, Tensor]
TASKS = ("panoptic", "instance", "semantic")


def task_token(panoptic_seg: Tensor, segments: Segments, task: str) -> Targets:
    """Make the task text and the targets of one task from a panoptic annotation.

    OneFormer is trained for all tasks at once. A task is drawn for each image. The network reads the text "the task is
    panoptic", "the task is instance" or "the task is semantic", and it is trained on the targets of this task.

    - panoptic: each segment is a target;
    - instance: each segment that is a thing is a target;
    - semantic: each category is a target. Its mask is the union of its segments. The targets are in increasing order
      of the category.

    Segments without a pixel in the map are dropped. Pixels of value 0 belong to no segment.

    Args:
        panoptic_seg: (H, W) integers, the number of each pixel's segment, or 0.
        segments: a dict `{"id": number, "category_id": category, "isthing": True or False}` per segment. Each category
            of stuff has at most one segment. The list may be empty.
        task: "panoptic", "instance" or "semantic".

    Returns:
        The text; (N,) integers, the categories of the targets; and (N, H, W) bool, their masks. For panoptic and
        instance, the targets are in the order of `segments`.

    Raises:
        ValueError: for any other task.

    Example: two things of one category.

        >>> both = [{"id": 1, "category_id": 7, "isthing": True}, {"id": 2, "category_id": 7, "isthing": True}]
        >>> task_token(torch.tensor([[0, 1, 2]]), both, "semantic")
        ('the task is semantic', tensor([7]), tensor([[[False,  True,  True]]]))
    """
    if task not in ("panoptic", "instance", "semantic"):
        raise ValueError(f"task is {task!r}, expected panoptic, instance or semantic")
    visible = [s for s in segments if (panoptic_seg == s["id"]).any()]
    if task == "instance":
        visible = [s for s in visible if s["isthing"]]
    groups = _by_category(visible) if task == "semantic" else [[s] for s in visible]
    return f"the task is {task}", *_targets(panoptic_seg, groups)


def _by_category(segments: Segments) -> list[Segments]:
    categories = sorted({s["category_id"] for s in segments})
    return [[s for s in segments if s["category_id"] == category] for category in categories]


def _targets(panoptic_seg: Tensor, groups: list[Segments]) -> tuple[Tensor, Tensor]:
    """Labels (N,) and masks (N, H, W) of groups of segments. Each group has one category."""
    labels = torch.tensor([group[0]["category_id"] for group in groups], dtype=torch.int64)
    masks = torch.zeros(len(groups), *panoptic_seg.shape, dtype=torch.bool)
    for mask, group in zip(masks, groups, strict=True):
        for segment in group:
            mask |= panoptic_seg == segment["id"]
    return labels, masks


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """One annotation for all three tasks; no thing, no stuff, no segment; segments without pixels; an unknown task."""

    def scene(size: tuple[int, int], kinds: str, missing: tuple[int, ...] = ()) -> tuple[Tensor, Segments]:
        """One letter of `kinds` per segment: its category, a capital for things. `missing` segments have no pixel."""
        letters = sorted(set(kinds))
        # categories decrease along the alphabet, so that increasing category differs from the order of the list
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

    full = scene((5, 6), "ACaAbC")
    hidden = scene((4, 5), "AaABb", missing=(0, 3, 4))
    edge = [
        *[case(f"segments without pixels, {task}", *hidden, task) for task in TASKS],
        case("no thing, instance", *scene((3, 4), "ab"), "instance"),
        case("things only, semantic", *scene((3, 4), "AABA"), "semantic"),
        case("no segment, panoptic", torch.zeros(2, 3, dtype=torch.int64), [], "panoptic"),
        case("an unknown task", *full, "depth"),
    ]
    return {"core": (1, [case(f"things and stuff, {task}", *full, task) for task in TASKS]), "edge": (1, edge)}


right = Variants(task_token)


def _steps(
    keep: Callable[[str, bool], bool] = lambda task, isthing: task != "instance" or isthing,
    merged: Callable[[str], bool] = lambda task: task == "semantic",
    group: Callable[[Segments], list[Segments]] = _by_category,
    visible: Callable[[Tensor], bool] = lambda mask: bool(mask.any()),
    label: str = "category_id",
    known: Callable[[str], bool] = lambda task: task in TASKS,
) -> Callable[..., Targets]:
    """Other steps.

    Args:
        keep: `(task, isthing)` -> whether a segment is used.
        merged: task -> whether segments are grouped.
        group: segments -> groups of segments.
        visible: mask of a segment -> whether it is used.
        label: key of the labels.
        known: whether a task is accepted.
    """

    def compute(a: SimpleNamespace) -> Targets:
        if not known(a.task):
            raise ValueError(a.task)
        kept = [s for s in a.segments if keep(a.task, s["isthing"]) and visible(a.panoptic_seg == s["id"])]
        groups = group(kept) if merged(a.task) else [[s] for s in kept]
        labels = torch.tensor([group[0][label] for group in groups], dtype=torch.int64)
        return f"the task is {a.task}", labels, _targets(a.panoptic_seg, groups)[1]

    return right.instead(compute)


def _in_order(segments: Segments) -> list[Segments]:
    """Groups in the order of the segments."""
    categories = list(dict.fromkeys(s["category_id"] for s in segments))
    return [[s for s in segments if s["category_id"] == category] for category in categories]


def _union(out: Targets, a: SimpleNamespace) -> Targets:
    """Panoptic has the targets of both other tasks."""
    if a.task != "panoptic":
        return out
    pairs = [task_token(a.panoptic_seg, a.segments, task)[1:] for task in ("semantic", "instance")]
    return out[0], *[torch.cat(each) for each in zip(*pairs, strict=True)]


def _with_background(out: Targets, a: SimpleNamespace) -> Targets:
    """The pixels of 0 are the first target."""
    text, labels, masks = out
    return text, torch.cat([labels.new_zeros(1), labels]), torch.cat([(a.panoptic_seg == 0)[None], masks])


def _one_map(out: Targets, a: SimpleNamespace) -> Targets:
    """(H, W): the index of each pixel's target, plus one."""
    text, labels, masks = out
    return text, labels, (masks * torch.arange(1, len(masks) + 1)[:, None, None]).sum(dim=0)


last = _steps(group=lambda segments: [g[-1:] for g in _by_category(segments)])
first = _steps(group=lambda segments: [g[:1] for g in _by_category(segments)])
unsorted = _steps(group=_in_order)
with_stuff = _steps(keep=lambda task, isthing: True)
instance_merged = _steps(merged=lambda task: task != "panoptic")
instance_is_stuff = _steps(keep=lambda task, isthing: task != "instance" or not isthing)
union = right.then(_union)
pan_merged = _steps(merged=lambda task: task != "instance")
panoptic_of_things = _steps(keep=lambda task, isthing: isthing or task == "semantic")
stuff_only = _steps(keep=lambda task, isthing: isthing == (task == "instance") or task == "panoptic")
things_only = _steps(keep=lambda task, isthing: isthing or task == "panoptic")
fixed = right.then(lambda out, a: ("the task is panoptic", *out[1:]))
no_text = right.then(lambda out, a: out[1:])
by_id = _steps(label="id")
targets_last = right.then(lambda out, a: (*out[:2], out[2].movedim(0, -1)))

RULES = "panoptic: every segment. instance: each thing. semantic: one target per category."
SEMANTIC = "mask |= panoptic_seg == segment['id'], for all segments of the category."
LISTED = "panoptic_seg == segment['id'] for one segment. Its category is segment['category_id']."

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
            _steps(merged=lambda task: False),
            "Each of your semantic targets is a single segment. Merge the segments of a category into one target.",
            SEMANTIC,
        ),
        Wrong(
            "last of a category",
            last,
            "Your semantic mask has only the last segment of its category. It should be the union of all of them.",
            SEMANTIC,
        ),
        Wrong(
            "first of a category",
            first,
            "Your semantic mask has only the first segment of its category. It should be the union of all of them.",
            SEMANTIC,
        ),
        Wrong(
            "order of the list",
            unsorted,
            "Your semantic targets are in the order of the list. Sort them by increasing category.",
            "sorted({...})",
        ),
        Wrong("instance keeps stuff", with_stuff, "Your instance targets include stuff. Keep only things.", RULES),
        Wrong(
            "instance merged",
            instance_merged,
            'For the task "instance", you merge the things of a category. Make each thing a target of its own.',
            RULES,
        ),
        Wrong(
            "instance is stuff",
            instance_is_stuff,
            "Your instance targets are the stuff segments. They should be the things.",
            RULES,
        ),
        Wrong(
            "panoptic = union",
            union,
            "Your panoptic targets contain each thing twice. Each segment should be one target.",
            RULES,
        ),
        Wrong(
            "panoptic merged",
            pan_merged,
            'For the task "panoptic", you merge the things of a category. Make each segment a target of its own.',
            RULES,
        ),
        Wrong(
            "panoptic of things",
            panoptic_of_things,
            "Your panoptic targets contain only things. Include the stuff.",
            RULES,
        ),
        Wrong("semantic of stuff", stuff_only, "Your semantic targets contain only stuff. Include the things.", RULES),
        Wrong(
            "semantic of things", things_only, "Your semantic targets contain only things. Include the stuff.", RULES
        ),
        Wrong(
            "fixed text",
            fixed,
            'Your text is "the task is panoptic" for every task. It should name the given task.',
            "The text names the task.",
        ),
        Wrong(
            "the task's name only",
            right.then(lambda out, a: (a.task, *out[1:])),
            'Your text is only the name of the task. It should be "the task is ...".',
            'f"the task is {task}"',
        ),
        Wrong(
            "no text",
            no_text,
            "You do not return the text. Return the text, the categories and the masks.",
            "return text, labels, masks",
        ),
        Wrong(
            "any task",
            _steps(known=lambda task: True),
            "Your function accepts an unknown task. It should raise a ValueError.",
            "Otherwise a typo in the name would train another task without a warning.",
        ),
        Wrong(
            "segments without pixels",
            _steps(visible=lambda mask: True),
            "You make targets of segments without a pixel in the map. Drop these segments.",
            "After an image is cropped, its list may contain segments that are no longer visible.",
        ),
        Wrong(
            "pixels of nothing",
            right.then(_with_background),
            "You make a target of the pixels with value 0. They belong to no segment.",
            "Iterate over the segments, not over the values in the map.",
        ),
        Wrong(
            "numbers for labels",
            by_id,
            "Your labels are the numbers of the segments. They should be the categories.",
            LISTED,
        ),
        Wrong(
            "one map", right.then(_one_map), "You return a single map. Return one mask per target.", "(N, H, W), bool."
        ),
        Wrong(
            "targets last", targets_last, "Your masks have shape (H, W, N). They should have shape (N, H, W).", LISTED
        ),
        Wrong(
            "fails when empty",
            right.then(lambda out, a: (*out[:2], torch.stack(list(out[2])))),
            "Your function fails if there are no targets. It should then return masks of shape (0, H, W).",
            "torch.stack of an empty list is an error. torch.zeros(0, H, W) is not.",
        ),
    ],
)
