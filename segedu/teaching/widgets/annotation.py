"""Labelling images with SAM, without a screen: clicks and boxes in, masks out, everything can be undone.

`segedu.teaching.widgets.annotate` puts buttons and a picture on it; a script can use it as it is.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segedu.datasets.coco import check_annotated, to_coco
from segedu.datasets.cvat import to_cvat
from segedu.datasets.files import replacing
from segedu.ops.masks import boxes_from_masks
from segedu.promptable.sam.sam import SAM, postprocess

STEPS = 100  # that can be undone: each keeps the masks that SAM gave


@dataclass(frozen=True)
class Kept:
    """An object that was kept: its class and its mask (H, W) bool."""

    label: int
    mask: Tensor


@dataclass(frozen=True)
class State:
    """All that an undo brings back.

    `points` are (x, y, 1 or 0) and `box` is xyxy, in pixels with (0, 0) in the middle of the first; `masks` (M, H, W)
    bool is the answer to them, `scores` what IoU SAM thinks each has, `low` (M, h, w) their logits, `choice` the one
    that is shown.
    """

    image: int
    kept: tuple[tuple[Kept, ...], ...]
    points: tuple[tuple[float, float, int], ...] = ()
    box: tuple[float, float, float, float] | None = None
    masks: Tensor | None = None
    scores: tuple[float, ...] = ()
    low: Tensor | None = None
    choice: int = 0


class Annotation:
    """Images, one of them open, prompts on it, and what was kept of each.

    Args:
        model: a SAM; with the small one of `segedu.weights.load("shapes_sam")` nothing is fetched.
        images: (3, H, W) in [0, 1] by file name, as exports will name them.
        classes: `classes[label]`, the background first.
        kept: instances to begin with, by file name, such as a detector's: `labels` (N,) and `masks` (N, H, W).

    Raises:
        TypeError: an image is no tensor of floats, or classes are no names.
        ValueError: no image or no class, a class twice, a wrong shape, values outside [0, 1], or `kept` does not fit.
    """

    def __init__(
        self,
        model: SAM,
        images: Mapping[str, Tensor],
        classes: Sequence[str],
        kept: Mapping[str, Mapping[str, Tensor]] | None = None,
    ) -> None:
        _check_pictures(images)
        if isinstance(classes, str):
            raise TypeError(f"classes is {classes!r}, expected a list of names, one for each label")
        self.model, self.classes, self.names = model.eval(), list(classes), list(images)
        self.images = [image.detach().as_subclass(Tensor).float().cpu().clamp(0, 1) for image in images.values()]
        self._embedded: dict[int, Tensor] = {}
        self._past: deque[State] = deque(maxlen=STEPS)
        self._future: list[State] = []
        self.state = State(0, self._first(kept or {}))

    def _first(self, kept: Mapping[str, Mapping[str, Tensor]]) -> tuple[tuple[Kept, ...], ...]:
        if unknown := [name for name in kept if name not in self.names]:
            raise ValueError(f"kept names {unknown[0]!r}, which is none of the images {', '.join(self.names)}")
        sizes = {name: tuple(image.shape[1:]) for name, image in zip(self.names, self.images, strict=True)}
        nothing = {
            name: {"labels": torch.zeros(0, dtype=torch.int64), "masks": torch.zeros(0, *size, dtype=torch.bool)}
            for name, size in sizes.items()
        }
        check_annotated({**nothing, **kept}, self.classes)  # better now than when it is to be saved
        found = []
        for name, given in {**nothing, **kept}.items():
            masks = given["masks"]
            if tuple(masks.shape[1:]) != sizes[name]:
                raise ValueError(
                    f"kept[{name!r}] has masks of {tuple(masks.shape[1:])} pixels, expected {sizes[name]}, as the image"
                )
            found.append(tuple(Kept(k, mask.cpu()) for k, mask in zip(given["labels"].tolist(), masks, strict=True)))
        return tuple(found)

    # --- what a person does -----------------------------------------------------------------------------------

    def click(self, x: float, y: float, positive: bool = True) -> None:
        """A point on the object, or on what is not the object.

        Args:
            x: column, from -0.5 to W - 0.5.
            y: row, from -0.5 to H - 0.5.
            positive: whether the object is there.

        Raises:
            ValueError: the point is outside the image.
        """
        self._inside(x, y)
        self._prompt(replace(self.state, points=(*self.state.points, (float(x), float(y), int(bool(positive))))))

    def draw_box(self, x1: float, y1: float, x2: float, y2: float) -> None:
        """A box around the object, its corners in any order; it replaces an earlier one.

        Args:
            x1: of one corner.
            y1: of one corner.
            x2: of the other.
            y2: of the other.

        Raises:
            ValueError: a corner is outside the image, or the box has no area.
        """
        self._inside(x1, y1)
        self._inside(x2, y2)
        box = (float(min(x1, x2)), float(min(y1, y2)), float(max(x1, x2)), float(max(y1, y2)))
        if box[0] == box[2] or box[1] == box[3]:
            raise ValueError(f"box is {box}, expected one with an area: pull from one corner to the other")
        self._prompt(replace(self.state, box=box, low=None))

    def next_mask(self) -> None:
        """Another of SAM's answers: the part in place of the whole, or the other way round."""
        if len(self.state.scores) > 1:
            self._do(replace(self.state, choice=(self.state.choice + 1) % len(self.state.scores)))

    def keep(self, label: int) -> None:
        """Keep the mask that is shown as an object of this class, and forget the prompts.

        Args:
            label: 1 to the number of classes.

        Raises:
            ValueError: there is no such class, no mask, or it is empty.
        """
        self._known(label)
        mask = self.mask
        if mask is None or not mask.any():
            raise ValueError("there is no mask to keep: click on an object or draw a box around it")
        self._do(State(self.state.image, self._with((*self.kept, Kept(int(label), mask)))))

    def remove(self, index: int) -> None:
        """Take an object away that was kept.

        Args:
            index: of the open image, from 0.

        Raises:
            ValueError: there is no such object.
        """
        self._there(index)
        self._do(replace(self.state, kept=self._with((*self.kept[:index], *self.kept[index + 1 :]))))

    def relabel(self, index: int, label: int) -> None:
        """Give an object that was kept another class.

        Args:
            index: of the open image, from 0.
            label: 1 to the number of classes.

        Raises:
            ValueError: there is no such object, or no such class.
        """
        self._there(index)
        self._known(label)
        if label != self.kept[index].label:
            renamed = replace(self.kept[index], label=int(label))
            self._do(replace(self.state, kept=self._with((*self.kept[:index], renamed, *self.kept[index + 1 :]))))

    def clear(self) -> None:
        """Forget the prompts."""
        if self.state.points or self.state.box:
            self._do(State(self.state.image, self.state.kept))

    def go(self, image: int) -> None:
        """Open another image; an answer that was not kept is forgotten.

        Args:
            image: its number, from 0; numbers outside go round. That of the open image changes nothing.
        """
        if image % len(self.images) != self.state.image:
            self._do(State(image % len(self.images), self.state.kept))

    def undo(self) -> bool:
        """Take the last step back, whatever it was; the last `STEPS` are remembered.

        Returns:
            Whether there was one.
        """
        if not self._past:
            return False
        self._future.append(self.state)
        self.state = self._past.pop()
        return True

    def redo(self) -> bool:
        """Take an undo back.

        Returns:
            Whether there was one.
        """
        if not self._future:
            return False
        self._past.append(self.state)
        self.state = self._future.pop()
        return True

    # --- what there is ----------------------------------------------------------------------------------------

    @property
    def image(self) -> Tensor:
        """(3, H, W), the open one."""
        return self.images[self.state.image]

    @property
    def mask(self) -> Tensor | None:
        """(H, W) bool, the answer that is shown, or None where nothing was asked."""
        return None if self.state.masks is None else self.state.masks[self.state.choice]

    @property
    def kept(self) -> tuple[Kept, ...]:
        """The objects of the open image, the oldest first."""
        return self.state.kept[self.state.image]

    def annotated(self) -> dict[str, dict[str, Tensor]]:
        """Everything that was kept, as instances.

        Returns:
            By file name `boxes` (N, 4) float32 xyxy, `labels` (N,) int64 and `masks` (N, H, W) bool.
        """
        found = {}
        for name, image, kept in zip(self.names, self.images, self.state.kept, strict=True):
            masks = torch.zeros(len(kept), *image.shape[1:], dtype=torch.bool)
            for i, one in enumerate(kept):
                masks[i] = one.mask
            labels = torch.tensor([one.label for one in kept], dtype=torch.int64)
            found[name] = {"boxes": boxes_from_masks(masks), "labels": labels, "masks": masks}
        return found

    def as_text(self, kind: str) -> str:
        """A file of what was kept.

        Args:
            kind: "coco", instances in JSON, or "cvat", CVAT for images 1.1 in XML.

        Returns:
            The text.

        Raises:
            ValueError: another kind.
        """
        if kind == "coco":
            return json.dumps(to_coco(self.annotated(), self.classes))
        if kind == "cvat":
            return to_cvat(self.annotated(), self.classes)
        raise ValueError(f"kind is {kind!r}, expected 'coco' or 'cvat'")

    def save(self, path: str | Path) -> None:
        """Write what was kept; a file that is there is replaced only when the new one is whole.

        Args:
            path: ends in .json for COCO, in .xml for CVAT.

        Raises:
            ValueError: another ending.
            OSError: the file cannot be written.
        """
        path = Path(path)
        kinds = {".json": "coco", ".xml": "cvat"}
        if path.suffix not in kinds:
            raise ValueError(f"path is {path.name!r}, expected a name that ends in .json for COCO or .xml for CVAT")
        text = self.as_text(kinds[path.suffix])
        with replacing(path) as part:
            part.write_text(text, encoding="utf-8")

    # --- within -----------------------------------------------------------------------------------------------

    def _inside(self, x: float, y: float) -> None:
        height, width = self.image.shape[1:]
        if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
            raise ValueError(f"({x}, {y}) is outside the image of {width} x {height} pixels")

    def _known(self, label: int) -> None:
        if not 0 < label < len(self.classes):
            raise ValueError(f"label is {label}, expected 1 to {len(self.classes) - 1}")

    def _there(self, index: int) -> None:
        if not 0 <= index < len(self.kept):
            raise ValueError(f"index is {index}, expected one of the {len(self.kept)} objects of this image")

    def _with(self, kept: tuple[Kept, ...]) -> tuple[tuple[Kept, ...], ...]:
        """The objects of all images, with these on the open one."""
        image, before = self.state.image, self.state.kept
        return (*before[:image], kept, *before[image + 1 :])

    def _do(self, state: State) -> None:
        self._past.append(self.state)
        self._future.clear()
        self.state = state

    @torch.no_grad()
    def _prompt(self, state: State) -> None:
        """Ask SAM. One click may mean several things, so it gets three answers; more than that means one thing."""
        number, device = state.image, next(self.model.parameters()).device
        if number not in self._embedded:
            self._embedded[number] = self.model.encode(self.image[None].to(device))
        asked: dict[str, Any] = {}
        if state.points:
            asked["point_coords"] = torch.tensor([[point[:2] for point in state.points]], device=device)
            asked["point_labels"] = torch.tensor([[point[2] for point in state.points]], device=device)
        if state.box:
            asked["boxes"] = torch.tensor([state.box], device=device)
        if state.low is not None:  # as in its training: the answer before is part of the question
            asked["mask_inputs"] = state.low[state.choice][None]
        one_click = len(state.points) == 1 and not state.box
        size = tuple(self.image.shape[1:])
        found = self.model.decode(self._embedded[number], size, **asked, multimask_output=one_click)
        scores = found["iou_scores"][0]
        best = int(scores.argmax())
        self._do(
            replace(
                state,
                masks=postprocess(found)[0].cpu(),
                scores=tuple(scores.tolist()),
                low=found["mask_logits"][0],
                choice=best,
            )
        )


def _check_pictures(images: Mapping[str, Tensor]) -> None:
    if not isinstance(images, Mapping):
        raise TypeError(f"images has type {type(images).__name__}, expected a dict of images (3, H, W) by file name")
    if not images:
        raise ValueError("images is empty, expected at least one (3, H, W) by its file name")
    for name, image in images.items():
        if not isinstance(image, Tensor) or not image.is_floating_point():
            kind = image.dtype if isinstance(image, Tensor) else type(image).__name__
            raise TypeError(f"images[{name!r}] is no tensor of floats but {kind}, expected (3, H, W) in [0, 1]")
        if image.ndim != 3 or image.shape[0] != 3 or not image.numel():
            grey = "; of a grey one, (1, H, W), image.expand(3, -1, -1)" if image.ndim == 3 and len(image) == 1 else ""
            raise ValueError(f"images[{name!r}] has shape {tuple(image.shape)}, expected (3, H, W){grey}")
        if not bool(((image >= -1e-6) & (image <= 1 + 1e-6)).all()):
            low, high = image.min().item(), image.max().item()
            raise ValueError(f"images[{name!r}] runs from {low:g} to {high:g}, expected values in [0, 1]")
