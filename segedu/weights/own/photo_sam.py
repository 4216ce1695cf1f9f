"""A small SAM for photographs, of which one click should select an object of any class.

`torchrun --nproc-per-node 2 -m segedu.weights.own.photo_sam` makes photo_sam.safetensors and its log, photo_sam.json,
again; it reads the data sets of `photo_sam_data` in `$SEGEDU_DATA`. The prompt encoder and the mask decoder start from
the weights of `shapes_sam`. The image encoder is convolutional, because convolutions need fewer images than a ViT, and
starts from the encoder of `pets_encoder_unet`. Images are resized to 128 pixels. The weights are saved in half
precision, and have the licence of the photographs with the strictest one: CC BY-SA 4.0.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from segedu.backbones.vgg import VGG
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD
from segedu.promptable.sam.image_encoder import neck
from segedu.promptable.sam.interactive import (
    add_points,
    best_logits,
    noisy_boxes,
    sam_loss,
    sample_correction_points,
    sample_points,
)
from segedu.promptable.sam.mask_decoder import MaskDecoder, TwoWayTransformer
from segedu.promptable.sam.prompt_encoder import PromptEncoder
from segedu.promptable.sam.sam import SAM, full_size
from segedu.semantic.encoder_unet import Up
from segedu.weights import load
from segedu.weights.catalogue import STREET_VGG_STAGES
from segedu.weights.own import making
from segedu.weights.own.photo_sam_data import (
    LICENCES,
    SMALLEST,
    SYNTHETIC,
    Labelled,
    change_colours,
    collage,
    draw_objects,
    pad,
    read_objects,
    resize,
    window,
)
from segedu.weights.own.photo_sam_measures import measure

FILE = Path(__file__).with_suffix(".safetensors")
SIZE, STRIDE, WIDTH, UP_WIDTHS = 128, 8, 64, (32, 48)
THRESHOLD = -0.8
BATCH, OBJECTS = 16, 3  # OBJECTS per image
SCENES_SEED, SCENES = 20_000_000, 300  # of synthetic scenes
CLICKS = 0.7  # probability that the first prompt is a click, and not a box
# images of each source in a batch of 16; "collages" paste objects and textures onto photographs
SOURCES = {
    "pets": 5, "coco_panoptic": 4, "collages": 3, "nuclei_grouped": 1, "phase_cells": 1, "aerial": 1, "synthetic": 1,
}  # fmt: skip


class Cycle(NamedTuple):
    """One rise and fall of the learning rate."""

    steps: int
    rate: float  # highest learning rate
    size: int  # of the images
    smallest: float  # lowest ratio of the longer side of an object to that of a view


# Images of 96 pixels take half the time of images of 128 pixels, so most is learned on them.
CYCLES = (Cycle(2000, 1.5e-3, 96, 0.2), Cycle(700, 6e-4, SIZE, 0.12))


class ConvEncoder(nn.Module):
    """A VGG, two steps of a U-Net back up to stride 8, and the neck of SAM's encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = VGG(STREET_VGG_STAGES, batch_norm=True)
        *_, s8, s16, s32 = self.backbone.channels
        self.expanding = nn.ModuleList([Up(s32, s16, UP_WIDTHS[0]), Up(UP_WIDTHS[0], s8, UP_WIDTHS[1])])
        self.neck = neck(UP_WIDTHS[1], WIDTH)

    def forward(self, images: Tensor) -> Tensor:
        *_, s8, s16, x = self.backbone(images)
        for step, skip in zip(self.expanding, (s16, s8), strict=True):
            x = step(x, skip.shape[-2:], skip)
        return self.neck(x)  # (B, 64, S / 8, S / 8)


def photo_sam() -> SAM:
    """Build the network whose weights `segedu.weights.load("photo_sam")` loads."""
    decoder = MaskDecoder(TwoWayTransformer(WIDTH, 2, 4, 128), iou_hidden=WIDTH)
    prompts = PromptEncoder(WIDTH, SIZE // STRIDE, SIZE, 8)
    return SAM(ConvEncoder(), prompts, decoder, mask_threshold=THRESHOLD)


def start(model: SAM) -> None:
    """Copy the decoder of `shapes_sam` and the convolutions of `pets_encoder_unet` into a network."""
    old = load("shapes_sam")
    model.mask_decoder.load_state_dict(old.mask_decoder.state_dict())
    model.prompt_encoder.load_state_dict(old.prompt_encoder.state_dict())
    pets = load("pets_encoder_unet").network
    encoder = model.image_encoder
    encoder.backbone.load_state_dict(pets.backbone.state_dict())
    first, mean, std = encoder.backbone.features[0], torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    with torch.no_grad():  # that network takes images that are not normalised
        first.bias += (first.weight.sum((2, 3)) * mean).sum(1)
        first.weight *= std[:, None, None]


class Views:
    """Random views of the training images, resized and padded to squares, with the masks of `OBJECTS` objects.

    Args:
        split: split of the data sets.
    """

    def __init__(self, split: str = "train") -> None:
        real = [name for name in SOURCES if name not in ("collages", "synthetic")]
        self.images = {name: read_objects(name, split) for name in real}
        self.images["synthetic"] = [draw_objects(list(SYNTHETIC)[i % 3], (SCENES_SEED, i)) for i in range(SCENES)]
        self.images["collages"] = [one for name in ("pets", "coco_panoptic", "aerial") for one in self.images[name]]
        self.pasted = [*self.images["pets"], *4 * self.images["coco_panoptic"], *self.images["nuclei_grouped"][:60]]

    def batch(self, cycle: Cycle, count: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """`images` (count, 3, S, S) and `masks` (count, OBJECTS, S, S) of random views."""
        images, masks = zip(*(self.sample(cycle, rng) for _ in range(count)), strict=True)
        return {"images": torch.stack(images), "masks": torch.stack(masks)}

    def sample(self, cycle: Cycle, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """An image (3, S, S), and the masks (OBJECTS, S, S) of some of its objects."""
        while True:
            view = self.view(cycle, rng)
            areas = np.bincount(view.label_map.ravel())[1:]
            large = np.flatnonzero(areas >= SMALLEST) + 1
            if len(large):
                break
        # larger objects are chosen more often: most small ones are parts of a crowd
        weights = np.sqrt(areas[large - 1])
        chosen = rng.choice(large, OBJECTS, p=weights / weights.sum())
        image, label_map = view
        if rng.random() < 0.5:
            image, label_map = image[:, ::-1], label_map[:, ::-1]
        image = torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255
        return image, torch.from_numpy(label_map[None] == chosen[:, None, None])

    def view(self, cycle: Cycle, rng: np.random.Generator) -> Labelled:
        """A random view of a random source."""
        names, shares = list(SOURCES), np.array(list(SOURCES.values()))
        name = names[rng.choice(len(names), p=shares / shares.sum())]
        labelled = self.images[name][rng.integers(len(self.images[name]))]
        if labelled.label_map.max() == 0:
            return labelled
        if name in ("nuclei_grouped", "phase_cells"):
            labelled = window(labelled, rng, 0.08, 0.9)
            if rng.random() < 0.3:
                labelled = Labelled(255 - labelled.image, labelled.label_map)
        elif rng.random() < 0.65:
            labelled = window(labelled, rng, cycle.smallest, 1.3)
        labelled = resize(labelled, cycle.size)
        if name == "collages" or (name == "pets" and rng.random() < 0.2):
            labelled = collage(labelled, self.pasted, rng)
        return pad(Labelled(change_colours(labelled.image, rng), labelled.label_map), cycle.size)


class Clicked(nn.Module):
    """SAM in training. Its input has the ground-truth masks, from which prompts are sampled."""

    def __init__(self, model: SAM) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        model, images, masks = self.model, batch["images"], batch["masks"]
        with torch.autocast("cpu", torch.bfloat16):  # the decoder is faster in single precision
            embeddings, size = model.encode(images), images.shape[-2:]
        embeddings, prompts = embeddings.float(), first_click_or_box(masks)
        outputs = model.decode(embeddings, size, **prompts, multimask_output=None)
        one, three = (
            {**outputs, **{key: outputs[key][:, :, part] for key in ("mask_logits", "iou_scores")}}
            for part in (slice(0, 1), slice(1, None))
        )
        loss = 0.5 * sam_loss(one, masks)["loss"] + sam_loss(three, masks)["loss"]
        if torch.rand(()) < 0.6:  # one correction
            logits = best_logits(three if torch.rand(()) < 0.7 else one)
            preds = full_size(logits, model.image_size, size) > model.mask_threshold
            prompts = add_points(prompts, *sample_correction_points(preds, masks))
            outputs = model.decode(embeddings, size, **prompts, mask_inputs=logits, multimask_output=False)
            loss = loss + 0.5 * sam_loss(outputs, masks)["loss"]
        return loss


def first_click_or_box(masks: Tensor) -> dict[str, Tensor]:
    """Prompts for a batch of masks (B, N, H, W): clicks inside the masks, or their boxes with noise."""
    if torch.rand(()) < CLICKS:
        points = sample_points(masks)[:, :, None]
        return {"point_coords": points, "point_labels": torch.ones(points.shape[:-1], dtype=torch.int64)}
    return {"boxes": noisy_boxes(masks)}


def set_size(model: SAM, size: int) -> None:
    """Change the size to which a network resizes images. No parameter depends on it."""
    prompts = model.prompt_encoder
    prompts.image_size, prompts.embedding_size, prompts.mask_size = size, size // STRIDE, size // 2


def train(
    model: SAM, views: Views, cycle: Cycle, seed: int, watch: Callable[[int], None] | None = None, every: int = 100
) -> list[float]:
    """Train for one cycle, and return the mean loss of each `every` iterations.

    With several processes, each computes the gradients of its part of every batch, and all take the same step.
    """
    workers, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
    torch.manual_seed(seed + 1000 * rank)
    rng = np.random.default_rng((seed, rank))
    optimizer = torch.optim.AdamW(model.parameters(), lr=cycle.rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, cycle.rate, total_steps=cycle.steps, pct_start=0.1)
    set_size(model, cycle.size)
    clicked, losses = Clicked(model).train(), torch.zeros(cycle.steps)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for step in range(cycle.steps):
        loss = clicked(views.batch(cycle, BATCH // workers, rng))
        optimizer.zero_grad(set_to_none=False)  # every process averages the same gradients, also those that are 0
        loss.backward()
        _average([parameter.grad for parameter in model.parameters()], workers)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses[step] = loss.detach()
        if watch is not None and (step + 1) % every == 0:
            watch(step + 1)
    model.eval()
    set_size(model, SIZE)
    _average([buffer for buffer in model.buffers() if buffer.is_floating_point()], workers)
    return [round(float(part.mean()), 4) for part in losses.split(every)]


def _average(tensors: list[Tensor], workers: int) -> None:
    """Replace tensors by their means over all processes."""
    if workers > 1:
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor) / workers)


def main() -> None:
    """Read the images, train, and write the file and its log. `torchrun` starts several processes."""
    torch.set_num_threads(1)
    if dist.is_torchelastic_launched():
        dist.init_process_group("gloo")
    views, started = Views(), time.process_time()
    torch.manual_seed(making.SEED)
    model, losses = photo_sam(), []
    start(model)
    for number, cycle in enumerate(CYCLES):
        losses += train(model, views, cycle, seed=number + 1)
    spent = round(time.process_time() - started)
    if not dist.is_initialized() or dist.get_rank() == 0:
        model.half().float()  # the precision of the file
        log = log_of(model, views, losses, spent)
        making.write(model.half(), FILE, log)


def log_of(model: SAM, views: Views, losses: list[float], spent: int) -> dict[str, Any]:
    """The log: what the network was trained on, and how good one click is on images that it has not seen."""
    return {
        "method": "Segment Anything with a VGG and two steps of a U-Net as the image encoder",
        "data": {name: f"{len(views.images[name])} images; {LICENCES[name]}" for name in LICENCES},
        "split": "train; the network saw none of val and test, and none of the annotated photographs",
        "licence_of_the_weights": "CC BY-SA 4.0",
        "script": "torchrun --nproc-per-node 2 -m segedu.weights.own.photo_sam",
        "starts_from": ["shapes_sam", "pets_encoder_unet"],
        "cycles": [cycle._asdict() for cycle in CYCLES],
        "seed": making.SEED,
        "mask_threshold": THRESHOLD,
        "losses_of_100_steps": losses,
        "cpu_seconds_of_training_per_process": spent,
        "mean_iou": measure(model),
    }


if __name__ == "__main__":
    main()
