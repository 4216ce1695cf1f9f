"""How good one click is on photographs that a SAM has not seen: the annotated photographs, and pets.

One click: the pixel of the object that is farthest from its outline. Of the three masks, the one with the highest
predicted IoU counts; the best of the three stands beside it. Pixels without a label (void, and the border of pets) are
ignored. `python -m segedu.weights.own.photo_sam_measures NAME` prints the figures of a network of the catalogue; those
on pets only if `$SEGEDU_DATA` has them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from segedu.datasets.data_folder import data_folder
from segedu.datasets.photos import NAMES, Photos
from segedu.datasets.sample import VOID
from segedu.ops.masks import boxes_from_masks
from segedu.promptable.sam.interactive import mask_iou
from segedu.promptable.sam.sam import SAM, postprocess
from segedu.weights import load
from segedu.weights.own.photo_sam_data import read_pets_with_border
from segedu.weights.own.shapes_sam import centre

ZOOM = 2.0  # side of the view of an object, as a multiple of the longer side of its box
LONGEST_SIDE = 256  # photographs are reduced to it by an integer factor before a view of the whole photograph
KEYS = ("chosen", "best", "box")


@torch.no_grad()
def prompt_ious(model: SAM, image: Tensor, masks: Tensor, valid: Tensor) -> dict[str, Tensor]:
    """IoU (N,) of the masks that a network predicts for a click in each object, and for its box.

    Args:
        model: a SAM in evaluation mode.
        image: (3, H, W).
        masks: (N, H, W) bool, the ground truth.
        valid: (H, W) bool, pixels that count.
    """
    embeddings, size = model.encode(image[None]), image.shape[-2:]
    points = torch.stack([centre(mask) for mask in masks])[None, :, None]
    labels = torch.ones(points.shape[:-1], dtype=torch.int64)
    clicked = model.decode(embeddings, size, point_coords=points, point_labels=labels)
    boxed = model.decode(embeddings, size, boxes=boxes_from_masks(masks)[None], multimask_output=False)
    ious = mask_iou(postprocess(clicked)[0] & valid, (masks & valid)[:, None])  # (N, 3)
    chosen = clicked["iou_scores"][0].argmax(1, keepdim=True)
    box = mask_iou(postprocess(boxed)[0, :, 0] & valid, masks & valid)
    return {"chosen": ious.gather(1, chosen)[:, 0], "best": ious.amax(1), "box": box}


def photographs() -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
    """Name, image, masks of the things, and valid pixels of the annotated photographs."""
    for name in NAMES:
        item = Photos([name])[0]
        tensors = (item[key].as_subclass(Tensor) for key in ("image", "masks", "semantic"))
        image, masks, semantic = tensors
        yield name, image, masks, semantic != VOID


def whole_photographs(model: SAM) -> dict[str, dict[str, float]]:
    """For each photograph the IoUs of its largest object, if the network sees the whole photograph."""
    rows = {}
    for name, image, masks, valid in photographs():
        step = -(-max(image.shape) // LONGEST_SIDE)
        largest = masks[int(masks.flatten(1).sum(1).argmax())]
        mask, valid = (one[step // 2 :: step, step // 2 :: step] for one in (largest, valid))
        image = interpolate(image[None], mask.shape, mode="area")[0]
        rows[name] = {key: float(iou) for key, iou in prompt_ious(model, image, mask[None], valid).items()}
    return rows


def zoomed_objects(model: SAM) -> dict[str, dict[str, list[float]]]:
    """For each photograph the IoUs of all its objects, if the reader has zoomed to a view of each object.

    The view is a square around the middle of the object's box, `ZOOM` times as long as the longer side of the box, and
    cropped to the photograph.
    """
    rows: dict[str, dict[str, list[float]]] = {}
    for name, image, masks, valid in photographs():
        rows[name] = {key: [] for key in KEYS}
        for mask, (x1, y1, x2, y2) in zip(masks, boxes_from_masks(masks).tolist(), strict=True):
            half = ZOOM * max(x2 - x1, y2 - y1) / 2
            view = tuple(
                slice(max(0, round((low + high) / 2 - half)), round((low + high) / 2 + half))
                for low, high in ((y1, y2), (x1, x2))
            )
            ious = prompt_ious(model, image[:, *view], mask[view][None], valid[view])
            for key, iou in ious.items():
                rows[name][key].append(float(iou))
    return rows


def pets(model: SAM, split: str = "test") -> dict[str, float]:
    """Mean IoUs over the photographs of a split of pets; the network sees each photograph whole."""
    rows = []
    for pixels, pet, border in read_pets_with_border(split):
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
        mask, valid = torch.from_numpy(pet), torch.from_numpy(~border)
        if pet.any():
            rows.append(prompt_ious(model, image, mask[None], valid))
    return {key: _mean(torch.cat([row[key] for row in rows]).tolist()) for key in KEYS}


def photographs_means(model: SAM) -> dict[str, dict[str, float]]:
    """Mean IoUs on the annotated photographs, rounded to four digits."""
    whole, zoomed = whole_photographs(model), zoomed_objects(model)
    everything = {key: [iou for row in zoomed.values() for iou in row[key]] for key in KEYS}
    return {
        "whole photographs, largest object": {key: _mean([row[key] for row in whole.values()]) for key in KEYS},
        "zoomed, all objects": {key: _mean(everything[key]) for key in KEYS},
        "zoomed, mean over photographs": {key: _mean([_mean(row[key]) for row in zoomed.values()]) for key in KEYS},
    }


def measure(model: SAM) -> dict[str, dict[str, float]]:
    """Mean IoUs on the annotated photographs, and on pets if the data are there."""
    means = photographs_means(model)
    try:
        data_folder("pets")
    except FileNotFoundError:
        return means
    return means | {f"pets, {split}": pets(model, split) for split in ("test", "test_other_breeds")}


def _mean(values: list[float]) -> float:
    return round(sum(values) / len(values), 4)


def table(name: str) -> str:
    """The measured means of a network of the catalogue on one line."""
    means = measure(load(name))
    return "; ".join(
        f"{what}: {', '.join(f'{key} {mean:.3f}' for key, mean in row.items())}" for what, row in means.items()
    )


if __name__ == "__main__":
    print(table(sys.argv[1]))
