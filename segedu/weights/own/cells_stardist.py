"""The small StarDist that learnt from drawn nuclei, and how; `cells_cellpose` is made in the same way.

`python -m segedu.weights.own.cells_stardist` makes cells_stardist.safetensors and its log, cells_stardist.json, anew:
32 rays on a grid of 2 x 2, 8 channels at the finest level, where the published networks have 32. Like those it brings
each image to its percentiles first, so that exposure does not matter. It has seen one kind of image, round fluorescent
nuclei of 6 to 10 pixels radius: scale others to that size, or go on training from here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from segedu.backbones.stardist_unet import StarDistUNet, percentile_normalize
from segedu.datasets.cells import CELLS_VERSION, Cells
from segedu.instance.stardist import StarDist, postprocess, stardist_loss, stardist_targets
from segedu.recipes.cells import RADIUS, Objects, Targets
from segedu.recipes.data import Pair, Sets, crop_flip_gamma, pairs_of
from segedu.recipes.task import measure_instances
from segedu.weights.own import making

FILE = Path(__file__).with_suffix(".safetensors")
SCENES_SEED, SCENES, STEPS, BATCH, RATE = 6_000_000, 128, 400, 8, 1e-2  # recipes draw with other seeds
HELD_OUT = (7_000_000, 32)  # seed and number of scenes for the number in the log
WINDOW = 64  # pixels, a quarter of a scene: four times as many steps for the same time

LabelMaps = Callable[[nn.Module, Tensor], Tensor]  # image (3, H, W) -> label map (H, W)


def cells_stardist(normalize: Callable | None = None) -> StarDist:
    """The network of the file, which `segedu.weights.load("cells_stardist")` fills.

    Args:
        normalize: what the images go through first. None: `percentile_normalize`, with which it was trained.

    Returns:
        The model, its weights drawn at random, its distances starting at a nucleus of usual size.
    """
    normalize = percentile_normalize if normalize is None else normalize
    model = StarDist(StarDistUNet(3, 8, batch_norm=True), width=32, normalize=normalize)
    nn.init.constant_(model.dist.bias, RADIUS)
    return model


def label_map_of(model: nn.Module, image: Tensor) -> Tensor:
    """What the model finds in an image (3, H, W)."""
    return postprocess(model(image[None]), image.shape[1:])[0]


def train(
    model: nn.Module, loss: Callable, targets: Targets, pairs: list[Pair], *, steps: int = STEPS, every: int = 100
) -> list[float]:
    """Train on windows of scenes, turned and mirrored, their brightness bent.

    Args:
        model: trained in place, and left in evaluation mode.
        loss: of outputs and targets.
        targets: of one label map.
        pairs: images and label maps.
        steps: of the optimizer, which moves in one cycle of the learning rate.
        every: steps for one number of the result.

    Returns:
        The mean loss of each `every` steps.
    """
    samples = Objects(pairs, partial(crop_flip_gamma, size=WINDOW), targets)
    return making.train(model, loss, samples, batch=BATCH, rate=RATE, steps=steps, every=every)


def accuracy(model: nn.Module, label_map_of: LabelMaps) -> float:
    """Instance accuracy at IoU 0.5 on new scenes: TP / (TP + FP + FN), the mean over them, to four digits."""
    seed, number = HELD_OUT
    sets = Sets(None, {"new": {"all": pairs_of(Cells(number, seed=seed), "label_map")}})
    with torch.no_grad():
        found = measure_instances(lambda image: label_map_of(model, image), sets)
    return round(found["new"]["all"]["instance_accuracy"], 4)


def make(build: Callable, loss: Callable, targets: Targets, label_map_of: LabelMaps, file: Path) -> None:
    """Draw, train, and write the file and its log beside it."""
    torch.set_num_threads(1)
    start = time.process_time()
    pairs = pairs_of(Cells(SCENES, seed=SCENES_SEED), "label_map")
    torch.manual_seed(making.SEED)
    model = build()
    losses = train(model, loss, targets, pairs)
    spent = round(time.process_time() - start)
    log = {
        "cells_version": CELLS_VERSION,
        "scenes": SCENES,
        "steps": STEPS,
        "seed": making.SEED,
        "losses_of_100_steps": losses,
        "cpu_seconds_of_training": spent,
        "instance_accuracy_on_new_scenes": accuracy(model, label_map_of),
    }
    making.write(model, file, log)


if __name__ == "__main__":
    make(cells_stardist, stardist_loss, stardist_targets, label_map_of, FILE)
