"""A small StarDist for synthetic nuclei; `cells_cellpose` is trained in the same way.

`python -m segedu.weights.own.cells_stardist` makes cells_stardist.safetensors and its log, cells_stardist.json, again:
32 rays on a grid of 2 x 2, and 8 channels at the finest level, where the published networks have 32. Like those it
normalises each image by its percentiles, so exposure does not matter. It was trained on one kind of image only, round
fluorescent nuclei with a radius of 6 to 10 pixels: resize other images to that size, or fine-tune it.
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
SCENES_SEED, SCENES, STEPS, BATCH, RATE = 6_000_000, 128, 400, 8, 1e-2  # the scenes of the recipes have other seeds
HELD_OUT = (7_000_000, 32)  # seed and number of scenes for the accuracy in the log
WINDOW = 64  # pixels; a window is a quarter of a scene, so four times as many iterations take the same time

LabelMaps = Callable[[nn.Module, Tensor], Tensor]  # image (3, H, W) -> label map (H, W)


def cells_stardist(normalize: Callable | None = None) -> StarDist:
    """Build the network whose weights `segedu.weights.load("cells_stardist")` loads.

    `normalize` is applied to the images. None: `percentile_normalize`, as in training. Before training, the predicted
    distances are the radius of a nucleus of usual size.
    """
    normalize = percentile_normalize if normalize is None else normalize
    model = StarDist(StarDistUNet(3, 8, batch_norm=True), width=32, normalize=normalize)
    nn.init.constant_(model.dist.bias, RADIUS)
    return model


def label_map_of(model: nn.Module, image: Tensor) -> Tensor:
    """The predicted label map (H, W) of an image (3, H, W)."""
    return postprocess(model(image[None]), image.shape[1:])[0]


def train(
    model: nn.Module, loss: Callable, targets: Targets, pairs: list[Pair], *, steps: int = STEPS, every: int = 100
) -> list[float]:
    """`making.train` on windows of scenes, flipped at random and with random gamma.

    `targets` makes the targets of a label map; `pairs` are images and label maps.
    """
    samples = Objects(pairs, partial(crop_flip_gamma, size=WINDOW), targets)
    return making.train(model, loss, samples, batch=BATCH, rate=RATE, steps=steps, every=every)


def accuracy(model: nn.Module, label_map_of: LabelMaps) -> float:
    """Instance accuracy TP / (TP + FP + FN) at IoU 0.5, averaged over new scenes and rounded to four digits."""
    seed, number = HELD_OUT
    sets = Sets(None, {"new": {"all": pairs_of(Cells(number, seed=seed), "label_map")}})
    with torch.no_grad():
        table = measure_instances(lambda image: label_map_of(model, image), sets)
    return round(table["new"]["all"]["instance_accuracy"], 4)


def make(build: Callable, loss: Callable, targets: Targets, label_map_of: LabelMaps, file: Path) -> None:
    """Draw the scenes, train, and write the file and its log."""
    torch.set_num_threads(1)
    start = time.process_time()
    pairs = pairs_of(Cells(SCENES, seed=SCENES_SEED), "label_map")
    torch.manual_seed(making.SEED)
    model = build()
    losses = train(model, loss, targets, pairs)
    spent = round(time.process_time() - start)
    model.half().float()  # the precision of the file
    log = {
        "cells_version": CELLS_VERSION,
        "scenes": SCENES,
        "steps": STEPS,
        "seed": making.SEED,
        "losses_of_100_steps": losses,
        "cpu_seconds_of_training": spent,
        "instance_accuracy_on_new_scenes": accuracy(model, label_map_of),
    }
    making.write(model.half(), file, log)


if __name__ == "__main__":
    make(cells_stardist, stardist_loss, stardist_targets, label_map_of, FILE)
