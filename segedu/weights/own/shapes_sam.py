"""A small SAM for three kinds of synthetic scenes: shapes, cells and streets.

`python -m segedu.weights.own.shapes_sam` makes shapes_sam.safetensors and its log, shapes_sam.json, again. A click can
mean two things: an object, or the clump of objects that touch it. Images are resized to 96 pixels. The weights are
saved in half precision.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn
from torch.utils.data import Dataset

from segedu.datasets.cells import CELLS_VERSION, draw_cells
from segedu.datasets.shapes import SHAPES_VERSION, draw_shapes
from segedu.datasets.street import STREET_VERSION, draw_street
from segedu.layers.layer_norm import LayerNorm2d
from segedu.layers.normalize import IMAGENET_MEAN
from segedu.ops.masks import boxes_from_masks, connected_components
from segedu.promptable.sam.image_encoder import ImageEncoder
from segedu.promptable.sam.interactive import add_points, best_logits, interactive_loss, mask_iou
from segedu.promptable.sam.mask_decoder import MaskDecoder, TwoWayTransformer
from segedu.promptable.sam.prompt_encoder import PromptEncoder
from segedu.promptable.sam.sam import SAM, fit_images, fitted_size, full_size, postprocess
from segedu.weights.own import making

FILE = Path(__file__).with_suffix(".safetensors")
SIZE, PATCH, WIDTH = 96, 8, 64
SCENES_SEED, SCENES, BATCH, OBJECTS = 10_000_000, 4096, 16, 4  # OBJECTS per scene in a step
CLUMPS = 0.25  # probability that a clump is meant, if the scene has one
SMALLEST, SMALLEST_STUFF = 24, 120  # pixels of an object, or of a connected piece of stuff
# Focal loss with alpha = 1/4 lowers the logits below those of probabilities. Chosen on scenes of seed 9,000,000.
THRESHOLD = -0.8
CORRECTIONS = 3  # clicks after the first one when corrections are evaluated
HELD_OUT = (11_000_000, 40)  # seed, and number of scenes of each kind for the figures in the log
KINDS: dict[str, tuple[Callable, tuple[int, int]]] = {
    "shapes": (draw_shapes, (64, 64)),
    "cells": (draw_cells, (64, 64)),
    "shapes, large": (draw_shapes, (SIZE, SIZE)),
    "street": (draw_street, (64, SIZE)),
}


class Cycle(NamedTuple):
    """One rise and fall of the learning rate, on new scenes."""

    steps: int
    rate: float  # highest learning rate
    points: int = 1  # clicks after the first prompt
    kinds: tuple[str, ...] = tuple(KINDS)  # kinds of scenes, in turn


# The first two cycles learn what an object is. The third learns from corrections, with twice as many street scenes.
CYCLES = (Cycle(2000, 1e-3), Cycle(2600, 8e-4), Cycle(2400, 8e-4, points=3, kinds=(*KINDS, "street")))


def shapes_sam() -> SAM:
    """Build the network whose weights `segedu.weights.load("shapes_sam")` loads."""
    encoder = ImageEncoder(SIZE, PATCH, 96, 5, 4, WIDTH, SIZE // PATCH // 2, (2, 4))
    # With few scenes, three small convolutions learn faster than one large one: Xiao et al. 2021, arXiv 2106.14881.
    encoder.patch_embed = nn.Sequential(*_halve(3, 24), *_halve(24, 48), nn.Conv2d(48, 96, 3, stride=2, padding=1))
    decoder = MaskDecoder(TwoWayTransformer(WIDTH, 2, 4, 128), iou_hidden=WIDTH)
    prompts = PromptEncoder(WIDTH, SIZE // PATCH, SIZE, 8)
    return SAM(encoder, prompts, decoder, mask_threshold=THRESHOLD)


def _halve(in_channels: int, channels: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(in_channels, channels, 3, stride=2, padding=1), LayerNorm2d(channels), nn.GELU()


def readings(sample: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Masks that a click on a synthetic scene can refer to: objects, and clumps of objects that touch each other.

    Returns bool masks (N, H, W) of the objects (things and connected pieces of stuff) and (M, H, W) of the clumps.
    """
    masks = list(sample["masks"])
    no_masks = torch.zeros(0, *sample["label_map"].shape, dtype=torch.bool)
    if "panoptic_seg" in sample:
        for segment in sample["segments_info"]:
            if not segment["isthing"]:
                pieces = _pieces(sample["panoptic_seg"] == segment["id"])
                masks += [piece for piece in pieces if piece.sum() >= SMALLEST_STUFF]
        clumps = []
    else:
        clumps = [clump for clump in _pieces(sample["label_map"] > 0) if len(sample["label_map"][clump].unique()) > 1]
    large = ([mask for mask in some if mask.sum() >= SMALLEST] for some in (masks, clumps))
    objects, clumps = (torch.stack(some) if some else no_masks for some in large)
    return objects, clumps


def _pieces(mask: Tensor) -> list[Tensor]:
    pieces, count = connected_components(mask)
    return [pieces == i for i in range(1, count + 1)]


class Clicks(Dataset):
    """Scenes in memory, padded to squares. Each access chooses some objects or clumps of a scene at random.

    Args:
        length: number of scenes.
        seed: seed of the scenes.
        kinds: kinds of scenes, keys of `KINDS`, in turn.
    """

    def __init__(self, length: int, seed: int, kinds: Sequence[str] = tuple(KINDS)) -> None:
        self.scenes = []
        for i in range(length):
            draw, size = KINDS[kinds[i % len(kinds)]]
            sample = draw((seed, i), size=size)
            objects, clumps = readings(sample)
            if len(objects):
                self.scenes.append((_byte(_square(sample["image"])), _square_masks(objects), _square_masks(clumps)))

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], Tensor]:
        image, objects, clumps = self.scenes[index]
        chosen = [self._choose(objects, clumps) for _ in range(OBJECTS)]
        image, masks = image.float() / 255, torch.stack(chosen)
        if torch.rand(()) < 0.5:
            image, masks = image.flip(-1), masks.flip(-1)
        return {"images": image, "masks": masks}, masks

    @staticmethod
    def _choose(objects: Tensor, clumps: Tensor) -> Tensor:
        some = clumps if len(clumps) and torch.rand(()) < CLUMPS else objects
        return some[int(torch.randint(len(some), ()))]


def _square(image: Tensor) -> Tensor:
    """Resize and pad as `SAM.encode` does, but before normalisation, which maps the padded mean colour to 0."""
    image = fit_images(image[None], SIZE)[0]
    square = torch.tensor(IMAGENET_MEAN)[:, None, None].repeat(1, SIZE, SIZE)
    square[:, : image.shape[1], : image.shape[2]] = image
    return square


def _square_masks(masks: Tensor) -> Tensor:
    h, w = fitted_size(masks.shape[-2:], SIZE)
    if not len(masks):
        return torch.zeros(0, SIZE, SIZE, dtype=torch.bool)
    fitted = F.interpolate(masks[:, None].float(), size=(h, w), mode="nearest")[:, 0].bool()
    return F.pad(fitted, (0, SIZE - w, 0, SIZE - h))


def _byte(image: Tensor) -> Tensor:
    return (255 * image).round().byte()


class Clicked(nn.Module):
    """SAM in training. Its input has the ground-truth masks, from which prompts are sampled."""

    def __init__(self, model: SAM, points: int) -> None:
        super().__init__()
        self.model, self.points = model, points

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return interactive_loss(self.model, batch["images"], batch["masks"], num_points=self.points)


def train(model: SAM, scenes: Dataset, cycle: Cycle, every: int = 100) -> list[float]:
    """`making.train` for one cycle."""
    options = {"batch": BATCH, "rate": cycle.rate, "steps": cycle.steps, "every": every}
    return making.train(Clicked(model, cycle.points), lambda losses, _: losses, scenes, **options)


def centre(mask: Tensor) -> Tensor:
    """The pixel (x, y) furthest from the outline of a mask (H, W), where the paper's evaluation clicks."""
    distance = ndimage.distance_transform_edt(F.pad(mask, (1, 1, 1, 1)).numpy())[1:-1, 1:-1]
    y, x = divmod(int(distance.argmax()), mask.shape[1])
    return torch.tensor([x, y], dtype=torch.float32)


@torch.no_grad()
def prompt_ious(model: SAM, image: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """IoU of the masks predicted for a click and for a box with the ground truth.

    Args:
        model: a SAM in evaluation mode.
        image: (3, H, W).
        masks: (N, H, W) bool, the ground truth.

    Returns:
        IoUs (N,). For a click in the centre: `one`, the mask for unambiguous prompts; `first`, `chosen` and `best` of
        the three masks: the first, the one with the highest predicted IoU, and the one with the highest IoU; and
        `corrected`, the mask after more clicks. `box`: the mask for the ground-truth box.
    """
    embeddings, size = model.encode(image[None]), image.shape[-2:]
    points = torch.stack([centre(mask) for mask in masks])[None, :, None]
    clicks = {"point_coords": points, "point_labels": torch.ones(points.shape[:-1], dtype=torch.int64)}
    clicked = model.decode(embeddings, size, **clicks, multimask_output=None)
    boxed = model.decode(embeddings, size, boxes=boxes_from_masks(masks)[None], multimask_output=False)
    iou = mask_iou(postprocess(clicked)[0], masks[:, None])  # (N, 4)
    chosen = 1 + clicked["iou_scores"][0, :, 1:].argmax(1)
    logits = clicked["mask_logits"][:, torch.arange(len(masks)), chosen]  # (1, N, h, w)
    return {
        "one": iou[:, 0],
        "first": iou[:, 1],
        "chosen": iou.gather(1, chosen[:, None])[:, 0],
        "best": iou[:, 1:].amax(1),
        "corrected": corrected(model, embeddings, masks, logits, clicks),
        "box": mask_iou(postprocess(boxed)[0, :, 0], masks),
    }


def corrected(model: SAM, embeddings: Tensor, masks: Tensor, logits: Tensor, prompts: dict[str, Tensor]) -> Tensor:
    """IoU (N,) after `CORRECTIONS` more clicks, each in the centre of the wrong pixels.

    Args:
        model: a SAM in evaluation mode.
        embeddings: image embeddings of one image.
        masks: (N, H, W) bool, the ground truth.
        logits: (1, N, h, w) of the masks predicted so far.
        prompts: the prompts from which these logits were predicted.
    """
    size = tuple(masks.shape[-2:])
    for _ in range(CORRECTIONS):
        wrong = (full_size(logits, model.image_size, size)[0] > model.mask_threshold) ^ masks
        points = torch.stack([centre(some if some.any() else mask) for some, mask in zip(wrong, masks, strict=True)])
        labels = torch.stack([mask[y, x] for mask, (x, y) in zip(masks, points.long(), strict=True)])
        prompts = add_points(prompts, points[None], labels[None].to(torch.int64))
        logits = best_logits(model.decode(embeddings, size, **prompts, mask_inputs=logits, multimask_output=False))
    return mask_iou(full_size(logits, model.image_size, size)[0] > model.mask_threshold, masks)


def measure(model: SAM) -> dict[str, dict[str, float]]:
    """Mean IoU over all objects and clumps of new scenes: of all kinds of scenes together, and of each kind."""
    seed, number = HELD_OUT
    ious_of: dict[str, list[dict[str, Tensor]]] = {}
    for kind, (draw, size) in KINDS.items():
        for i in range(number):
            sample = draw((seed, i), size=size)
            for what, masks in zip(("objects", "clumps"), readings(sample), strict=True):
                if len(masks):
                    ious = prompt_ious(model, sample["image"], masks)
                    for name in ("all", kind, f"all {what}"):
                        ious_of.setdefault(name, []).append(ious)
    return {name: _means(some) for name, some in ious_of.items()}


def _means(some: Sequence[dict[str, Tensor]]) -> dict[str, float]:
    means = {name: round(float(torch.cat([ious[name] for ious in some]).mean()), 4) for name in some[0]}
    return {**means, "number": sum(len(ious["one"]) for ious in some)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(making.SEED)
    model, losses, seconds = shapes_sam(), [], 0.0
    for number, cycle in enumerate(CYCLES):
        scenes, start = Clicks(SCENES, SCENES_SEED + number, cycle.kinds), time.process_time()
        if number:  # so that a single cycle can be repeated, starting from the weights of the previous cycle
            torch.manual_seed(making.SEED + number)
        losses += train(model, scenes, cycle)
        seconds += time.process_time() - start
        model.half().float()  # the precision of the file
    log = {
        "shapes_version": SHAPES_VERSION,
        "cells_version": CELLS_VERSION,
        "street_version": STREET_VERSION,
        "scenes": len(CYCLES) * SCENES,
        "steps": sum(cycle.steps for cycle in CYCLES),
        "seed": making.SEED,
        "mask_threshold": THRESHOLD,
        "losses_of_100_steps": losses,
        "cpu_seconds_of_training": round(seconds),
        "mean_iou_on_new_scenes": measure(model),
    }
    making.write(model.half(), FILE, log)
