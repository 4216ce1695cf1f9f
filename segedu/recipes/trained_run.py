"""A trained network with everything that its predictions need, read from the checkpoint of a run.

`load_run("runs/unet-leaves-0")` returns it. `run.predict(image)` takes an image of any size, prepares it as in the
training, predicts it in tiles if it is large, and returns the prediction at the size of the image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from segedu.datasets.box_folder import BOXES
from segedu.datasets.folder import LABELS, MASKS
from segedu.recipes.data import normalize_exposure, resize
from segedu.recipes.own_boxes import rescaled
from segedu.recipes.own_images import OWN, Preparation
from segedu.recipes.own_recipe import recipe_for
from segedu.recipes.recipe import FAMILIES, NAMES, Recipe, load_recipe
from segedu.recipes.reduced_network import Reduced
from segedu.recipes.run_plan import network_digest
from segedu.recipes.task import DETECTION, INSTANCES, SEMANTIC
from segedu.semantic.unet import predict_tiles
from segedu.training import load_checkpoint
from segedu.training.best_weights import best_weights
from segedu.training.devices import device_of

TILE = 1024  # pixels: larger images are predicted in tiles of this side
MARGIN = 96  # pixels at the border of a tile of a photograph whose logits are not used
OVERLAP = 128  # pixels by which tiles of a microscope image overlap: objects up to this diameter stay whole


@dataclass(frozen=True)
class TrainedRun:
    """A trained network and how to use it.

    Attributes:
        recipe: of the training.
        model: the network with its trained weights, in evaluation mode.
        classes: their names, background included.
        preparation: of an image; None for recipes that are not for own images.
        steps: number of training steps that the network has taken, with validations until its best score.
        path: of the checkpoint.
    """

    recipe: Recipe
    model: nn.Module
    classes: tuple[str, ...]
    preparation: Preparation | None
    steps: int
    path: Path

    @property
    def kind(self) -> str:
        """ "masks" if the predictions are classes, "labels" if they are label maps, "boxes" if they are detections."""
        return {SEMANTIC: MASKS, INSTANCES: LABELS, DETECTION: BOXES}[self.recipe.task]

    @torch.no_grad()
    def predict(self, image: Tensor) -> Any:
        """Predict an image (3, H, W) in [0, 1].

        Returns:
            (H, W): classes, int64, or a label map, int32. Of a detector, a dict of `boxes` (N, 4), `labels`, `scores`
            and, if it predicts them, `masks` (N, H, W).
        """
        size = tuple(image.shape[-2:])
        if self.kind == BOXES:
            small = self._prepared(image)
            found = self.recipe.task.predict(self.model, small, self.recipe.postprocess)
            return rescaled(found, tuple(small.shape[-2:]), size)
        if self.kind == MASKS:
            logits = self._logits(self._prepared(image))
            logits = logits if tuple(logits.shape[-2:]) == size else interpolate(logits[None], size, mode="bilinear")[0]
            return logits.argmax(dim=0).cpu()
        label_map = predict_in_tiles(self._label_map, self._prepared(image), TILE, OVERLAP)
        return resize(label_map[None, None], size, "nearest")[0, 0]

    def _prepared(self, image: Tensor) -> Tensor:
        if self.preparation is not None:
            return self.preparation(image)
        return normalize_exposure(image) if self.recipe.data in FAMILIES["microscopes"] else image

    def _logits(self, image: Tensor) -> Tensor:
        image = image.to(device_of(self.model))
        if max(image.shape[-2:]) <= TILE or isinstance(self.model, Reduced):  # which reduces large images itself
            return self.model(image[None])[0]
        return predict_tiles(self.model, image, tile_size=TILE, stride=TILE - 2 * MARGIN, margin=MARGIN)

    def _label_map(self, image: Tensor) -> Tensor:
        return self.recipe.task.predict(self.model, image, self.recipe.postprocess)


def predict_in_tiles(predict: Callable[[Tensor], Tensor], image: Tensor, tile: int, overlap: int) -> Tensor:
    """A label map int32 (H, W) of an image (C, H, W) of any size, from predictions of overlapping tiles.

    The tiles overlap by `overlap` pixels. An object at the border between two tiles is taken from the tile that sees
    it whole, which one of them does if the object is not larger than the overlap; a larger object stays in pieces.
    A prediction is dropped if more than half of its pixels already belong to objects of other tiles.

    Args:
        predict: image (C, h, w) -> label map (h, w).
        image: to predict.
        tile: side of a tile in pixels.
        overlap: below `tile`.
    """
    height, width = image.shape[-2:]
    if max(height, width) <= tile:
        return predict(image)
    total, cut = torch.zeros((height, width), dtype=torch.int32), []
    for top in _starts(height, tile, overlap):
        for left in _starts(width, tile, overlap):
            window = (slice(top, min(top + tile, height)), slice(left, min(left + tile, width)))
            label_map = predict(image[(..., *window)])
            at_border = torch.tensor(
                _labels_at_inner_borders(label_map, window, (height, width)), dtype=label_map.dtype
            )
            is_cut = torch.isin(label_map, at_border)
            _add_objects(total[window], label_map.where(~is_cut, 0), first=int(total.max()) + 1)
            cut.append((window, label_map.where(is_cut, 0)))
    for window, label_map in cut:  # what no tile saw whole
        _add_objects(total[window], label_map, first=int(total.max()) + 1)
    return total


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    if length <= tile:
        return [0]
    step = tile - overlap
    return [*range(0, length - tile, step), length - tile]


def _labels_at_inner_borders(label_map: Tensor, window: tuple[slice, slice], size: tuple[int, int]) -> list[int]:
    rows, columns = window
    borders = []
    if rows.start > 0:
        borders.append(label_map[0])
    if rows.stop < size[0]:
        borders.append(label_map[-1])
    if columns.start > 0:
        borders.append(label_map[:, 0])
    if columns.stop < size[1]:
        borders.append(label_map[:, -1])
    return [label for label in torch.cat(borders).unique().tolist() if label] if borders else []


def _add_objects(total: Tensor, label_map: Tensor, first: int) -> None:
    """Number the objects of `label_map` from `first` on and write them into `total`, where it is still 0."""
    areas = label_map.flatten().long().bincount()
    taken = label_map[total > 0].flatten().long().bincount(minlength=len(areas))
    new = torch.zeros(len(areas), dtype=torch.int32)
    for label in range(1, len(areas)):
        if areas[label] and 2 * taken[label] <= areas[label]:
            new[label], first = first, first + 1
    total[:] = torch.where(total > 0, total, new[label_map.long()])


def load_run(path: str | Path) -> TrainedRun:
    """Load the network of a run.

    Args:
        path: the folder of a run of `segedu train`, or its checkpoint.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: the file is not a checkpoint, does not describe its run, is of a task other than semantic or
            instance segmentation of images, or its network has been changed since.
    """
    path = Path(path) / "checkpoint.pt" if Path(path).is_dir() else Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, expected the folder of a run of segedu train")
    state = load_checkpoint(path)
    about = state.get("about") or {}
    recipe, preparation = _recipe_of(about, path)
    of_masks = recipe.task in (SEMANTIC, INSTANCES) and recipe.data not in ("prostate", "volume")
    if not of_masks and recipe.data != OWN:
        raise ValueError(
            f"{path} is a run of {recipe.method} on {recipe.data}, expected one of semantic or instance segmentation "
            f"of images, or of your own boxes: its predictions cannot be written as masks"
        )
    model = recipe.build()
    if network_digest(model) != about["network"]:
        raise ValueError(f"{path} has a network that this version of segedu builds differently: train it again")
    weights, step = best_weights(state)
    model.load_state_dict(weights)
    return TrainedRun(recipe, model.eval(), tuple(about["classes"]), preparation, step, path)


def _recipe_of(about: dict, path: Path) -> tuple[Recipe, Preparation | None]:
    if about.get("data") == OWN:
        preparation = Preparation(**about["preparation"])
        return recipe_for(about["method"], tuple(about["classes"]), preparation), preparation
    name = about.get("method"), about.get("data")
    if name not in NAMES:
        raise ValueError(f"{path} does not say what it was trained for, expected a checkpoint of segedu train")
    if "preparation" not in about:
        return load_recipe(*name), None
    return load_recipe(*name), replace(Preparation(**about["preparation"]), longest_side=None)  # `Reduced` reduces
