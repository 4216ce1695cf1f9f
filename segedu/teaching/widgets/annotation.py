"""Label images with SAM, without a user interface: clicks and boxes in, masks out, every step can be undone.

`segedu.teaching.widgets.annotate` adds buttons and a picture; a script can use it directly.
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
from segedu.datasets.files import atomic_path
from segedu.ops.masks import boxes_from_masks
from segedu.promptable.sam.sam import SAM, postprocess

STEPS = 100  # steps that can be undone; each holds SAM's masks in memory


@dataclass(frozen=True)
class KeptObject:
    """An object that was kept: its class and its mask (H, W) bool."""

    label: int
    mask: Tensor


@dataclass(frozen=True)
class State:
    """Everything that an undo restores.

    `points` are (x, y, 1 or 0) and `box` is xyxy, in pixels with (0, 0) at the centre of the first one. `masks`
    (M, H, W) bool are SAM's masks for them, `scores` their predicted IoUs, `mask_logits` (M, h, w) their logits,
    `choice` the index of the mask that is shown.
    """

    image: int
    kept: tuple[tuple[KeptObject, ...], ...]
    points: tuple[tuple[float, float, int], ...] = ()
    box: tuple[float, float, float, float] | None = None
    masks: Tensor | None = None
    scores: tuple[float, ...] = ()
    mask_logits: Tensor | None = None
    choice: int = 0


class Annotation:
    """A set of images, the open one, its prompts, and the objects kept on each image.

    Args:
        model: a SAM; the small one of `segedu.weights.load("shapes_sam")` needs no download.
        images: (3, H, W) in [0, 1] by file name, as exports will name them.
        classes: `classes[label]`, the background first.
        kept: initial instances by file name, such as a detector's: `labels` (N,) and `masks` (N, H, W).

    Raises:
        TypeError: if an image is not a float tensor, or `classes` is a string.
        ValueError: if there is no image or no class, a class occurs twice, a shape is wrong, values are outside [0, 1],
            or `kept` does not fit the images.
    """

    def __init__(
        self,
        model: SAM,
        images: Mapping[str, Tensor],
        classes: Sequence[str],
        kept: Mapping[str, Mapping[str, Tensor]] | None = None,
    ) -> None:
        _check_images(images)
        if isinstance(classes, str):
            raise TypeError(f"classes is {classes!r}, expected a list of names, one for each label")
        self.model, self.classes, self.names = model.eval(), list(classes), list(images)
        self.images = [image.detach().as_subclass(Tensor).float().cpu().clamp(0, 1) for image in images.values()]
        self._embedded: dict[int, Tensor] = {}
        self._past: deque[State] = deque(maxlen=STEPS)
        self._future: list[State] = []
        self.state = State(0, self._initial_objects(kept or {}))

    def _initial_objects(self, kept: Mapping[str, Mapping[str, Tensor]]) -> tuple[tuple[KeptObject, ...], ...]:
        if unknown := [name for name in kept if name not in self.names]:
            raise ValueError(f"kept has the image {unknown[0]!r}, expected one of {', '.join(self.names)}")
        sizes = {name: tuple(image.shape[1:]) for name, image in zip(self.names, self.images, strict=True)}
        empty = {
            name: {"labels": torch.zeros(0, dtype=torch.int64), "masks": torch.zeros(0, *size, dtype=torch.bool)}
            for name, size in sizes.items()
        }
        check_annotated({**empty, **kept}, self.classes)  # fail now rather than when the user saves
        initial = []
        for name, instances in {**empty, **kept}.items():
            masks = instances["masks"]
            if tuple(masks.shape[1:]) != sizes[name]:
                raise ValueError(
                    f"kept[{name!r}] has masks of {tuple(masks.shape[1:])} pixels, expected {sizes[name]}, as the image"
                )
            initial.append(
                tuple(KeptObject(k, mask.cpu()) for k, mask in zip(instances["labels"].tolist(), masks, strict=True))
            )
        return tuple(initial)

    # --- user actions -----------------------------------------------------------------------------------

    def click(self, x: float, y: float, positive: bool = True) -> None:
        """Add a point on the object, or on the background.

        Args:
            x: column, from -0.5 to W - 0.5.
            y: row, from -0.5 to H - 0.5.
            positive: whether the point is on the object.
        """
        self._check_inside(x, y)
        self._prompt(replace(self.state, points=(*self.state.points, (float(x), float(y), int(bool(positive))))))

    def draw_box(self, x1: float, y1: float, x2: float, y2: float) -> None:
        """Draw a box around the object from two opposite corners in any order; it replaces an earlier box.

        Raises:
            ValueError: if a corner is outside the image, or the box has no area.
        """
        self._check_inside(x1, y1)
        self._check_inside(x2, y2)
        box = (float(min(x1, x2)), float(min(y1, y2)), float(max(x1, x2)), float(max(y1, y2)))
        if box[0] == box[2] or box[1] == box[3]:
            raise ValueError(f"box is {box}, expected a box with an area: drag from one corner to the opposite one")
        self._prompt(replace(self.state, box=box, mask_logits=None))

    def next_mask(self) -> None:
        """Show another of SAM's masks, such as a part instead of the object that contains it."""
        if len(self.state.scores) > 1:
            self._do(replace(self.state, choice=(self.state.choice + 1) % len(self.state.scores)))

    def keep(self, label: int) -> None:
        """Keep the mask that is shown as an object of class `label`, at least 1, and clear the prompts."""
        self._check_label(label)
        mask = self.mask
        if mask is None or not mask.any():
            raise ValueError("there is no mask to keep: click on an object or draw a box around it")
        self._do(State(self.state.image, self._replace_kept((*self.kept, KeptObject(int(label), mask)))))

    def remove(self, index: int) -> None:
        """Remove a kept object of the open image by its index."""
        self._check_index(index)
        self._do(replace(self.state, kept=self._replace_kept((*self.kept[:index], *self.kept[index + 1 :]))))

    def relabel(self, index: int, label: int) -> None:
        """Change the class, from 1 on, of a kept object of the open image."""
        self._check_index(index)
        self._check_label(label)
        if label != self.kept[index].label:
            renamed = replace(self.kept[index], label=int(label))
            self._do(
                replace(self.state, kept=self._replace_kept((*self.kept[:index], renamed, *self.kept[index + 1 :])))
            )

    def clear(self) -> None:
        """Clear the prompts."""
        if self.state.points or self.state.box:
            self._do(State(self.state.image, self.state.kept))

    def go(self, image: int) -> None:
        """Open another image; a mask that was not kept is dropped.

        Args:
            image: its index; indices outside the range wrap around. The index of the open image changes nothing.
        """
        if image % len(self.images) != self.state.image:
            self._do(State(image % len(self.images), self.state.kept))

    def undo(self) -> bool:
        """Undo the last step of any kind, up to `STEPS` of them; returns whether there was one."""
        if not self._past:
            return False
        self._future.append(self.state)
        self.state = self._past.pop()
        return True

    def redo(self) -> bool:
        """Redo a step that was undone; returns whether there was one."""
        if not self._future:
            return False
        self._past.append(self.state)
        self.state = self._future.pop()
        return True

    # --- results ----------------------------------------------------------------------------------------

    @property
    def image(self) -> Tensor:
        """The open image, (3, H, W)."""
        return self.images[self.state.image]

    @property
    def mask(self) -> Tensor | None:
        """The mask that is shown, (H, W) bool, or None without prompts."""
        return None if self.state.masks is None else self.state.masks[self.state.choice]

    @property
    def kept(self) -> tuple[KeptObject, ...]:
        """The objects of the open image, the oldest first."""
        return self.state.kept[self.state.image]

    def annotated(self) -> dict[str, dict[str, Tensor]]:
        """All kept objects as instances.

        Returns:
            By file name `boxes` (N, 4) float32 xyxy, `labels` (N,) int64 and `masks` (N, H, W) bool.
        """
        instances = {}
        for name, image, kept in zip(self.names, self.images, self.state.kept, strict=True):
            masks = torch.zeros(len(kept), *image.shape[1:], dtype=torch.bool)
            for i, item in enumerate(kept):
                masks[i] = item.mask
            labels = torch.tensor([item.label for item in kept], dtype=torch.int64)
            instances[name] = {"boxes": boxes_from_masks(masks), "labels": labels, "masks": masks}
        return instances

    def as_text(self, file_format: str) -> str:
        """Write all kept objects as text: `file_format` "coco" for COCO instances, "cvat" for CVAT for images 1.1."""
        if file_format == "coco":
            return json.dumps(to_coco(self.annotated(), self.classes))
        if file_format == "cvat":
            return to_cvat(self.annotated(), self.classes)
        raise ValueError(f"file_format is {file_format!r}, expected 'coco' or 'cvat'")

    def save(self, path: str | Path) -> None:
        """Write all kept objects to a .json file (COCO) or an .xml file (CVAT), never an incomplete one."""
        path = Path(path)
        formats = {".json": "coco", ".xml": "cvat"}
        if path.suffix not in formats:
            raise ValueError(f"path is {path.name!r}, expected a name that ends in .json for COCO or .xml for CVAT")
        text = self.as_text(formats[path.suffix])
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    # --- helpers -----------------------------------------------------------------------------------------------

    def _check_inside(self, x: float, y: float) -> None:
        height, width = self.image.shape[1:]
        if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
            raise ValueError(f"({x}, {y}) is outside the image of {width} x {height} pixels")

    def _check_label(self, label: int) -> None:
        if not 0 < label < len(self.classes):
            raise ValueError(f"label is {label}, expected 1 to {len(self.classes) - 1}")

    def _check_index(self, index: int) -> None:
        if not 0 <= index < len(self.kept):
            raise ValueError(f"index is {index}, expected one of the {len(self.kept)} objects of this image")

    def _replace_kept(self, kept: tuple[KeptObject, ...]) -> tuple[tuple[KeptObject, ...], ...]:
        """The objects of all images, with these on the open one."""
        image, kept_by_image = self.state.image, self.state.kept
        return (*kept_by_image[:image], kept, *kept_by_image[image + 1 :])

    def _do(self, state: State) -> None:
        self._past.append(self.state)
        self._future.clear()
        self.state = state

    @torch.no_grad()
    def _prompt(self, state: State) -> None:
        """Run SAM. One click is ambiguous, so it gets three masks; other prompts get one."""
        index, device = state.image, next(self.model.parameters()).device
        if index not in self._embedded:
            self._embedded[index] = self.model.encode(self.image[None].to(device))
        prompts: dict[str, Any] = {}
        if state.points:
            prompts["point_coords"] = torch.tensor([[point[:2] for point in state.points]], device=device)
            prompts["point_labels"] = torch.tensor([[point[2] for point in state.points]], device=device)
        if state.box:
            prompts["boxes"] = torch.tensor([state.box], device=device)
        if state.mask_logits is not None:  # as in its training, the previous mask is a prompt too
            prompts["mask_inputs"] = state.mask_logits[state.choice][None]
        one_click = len(state.points) == 1 and not state.box
        size = tuple(self.image.shape[1:])
        outputs = self.model.decode(self._embedded[index], size, **prompts, multimask_output=one_click)
        scores = outputs["iou_scores"][0]
        best = int(scores.argmax())
        self._do(
            replace(
                state,
                masks=postprocess(outputs)[0].cpu(),
                scores=tuple(scores.tolist()),
                mask_logits=outputs["mask_logits"][0],
                choice=best,
            )
        )


def _check_images(images: Mapping[str, Tensor]) -> None:
    if not isinstance(images, Mapping):
        raise TypeError(f"images has type {type(images).__name__}, expected a dict of images (3, H, W) by file name")
    if not images:
        raise ValueError("images is empty, expected at least one (3, H, W) by its file name")
    for name, image in images.items():
        if not isinstance(image, Tensor) or not image.is_floating_point():
            actual = image.dtype if isinstance(image, Tensor) else type(image).__name__
            raise TypeError(f"images[{name!r}] has type {actual}, expected a float tensor (3, H, W) in [0, 1]")
        if image.ndim != 3 or image.shape[0] != 3 or not image.numel():
            advice = (
                "; for a grey image (1, H, W) use image.expand(3, -1, -1)"
                if image.ndim == 3 and len(image) == 1
                else ""
            )
            raise ValueError(f"images[{name!r}] has shape {tuple(image.shape)}, expected (3, H, W){advice}")
        if not bool(((image >= -1e-6) & (image <= 1 + 1e-6)).all()):
            lowest, highest = image.min().item(), image.max().item()
            raise ValueError(f"images[{name!r}] has values from {lowest:g} to {highest:g}, expected values in [0, 1]")
