"""A small DETR for synthetic shapes, trained on the scenes of `shapes_mask_rcnn` for longer.

`python -m segedu.weights.own.shapes_detr` makes shapes_detr.safetensors and its log, shapes_detr.json, again. It has
learned the balls, squares and triangles of `segedu.datasets.shapes` in images of 64 x 64, and nothing else. To learn
this from random weights within minutes on a CPU, the transformer needs a backbone of stride 8 with trainable batch
normalisation, no dropout, 12 queries for at most 7 objects, a learning rate that rises and falls, and higher weights
of "no object" and of the class than in the paper, whose network sees several hundred times as many images.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segedu.datasets.shapes import CLASSES, SHAPES_VERSION, Shapes
from segedu.detection.detr import DETR, detr_loss, postprocess
from segedu.layers.transformer import Transformer
from segedu.recipes.data import Sets
from segedu.recipes.shapes import Example, Examples, examples, features, stack
from segedu.recipes.task import measure_detections
from segedu.weights.own import making
from segedu.weights.own.shapes_mask_rcnn import HELD_OUT, SCENES, SCENES_SEED, Detect

FILE = Path(__file__).with_suffix(".safetensors")
STEPS, BATCH, RATE, EVERY = 4500, 16, 1e-3, 250
loss = partial(detr_loss, no_object_weight=0.3, class_weight=2.0)


def shapes_detr() -> DETR:
    """Build the network whose weights `segedu.weights.load("shapes_detr")` loads."""
    transformer = Transformer(64, 4, encoder_layers=2, decoder_layers=3, hidden=128, dropout=0.0)
    return DETR(features(), transformer, len(CLASSES), num_queries=12)


def detect(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """The detections in an image (3, H, W)."""
    return postprocess(model(image[None]))[0]


def new_scenes() -> list[Example]:
    """The scenes for the figures in the log."""
    seed, number = HELD_OUT
    return examples(Shapes(number, seed=seed))


@torch.no_grad()
def precision(model: nn.Module, scenes: list[Example], detect: Detect = detect) -> dict[str, float]:
    """COCO's average precision of boxes on these scenes, rounded to four digits."""
    table = measure_detections(lambda image: detect(model, image), Sets(None, {"new": {"all": scenes}}))["new"]["all"]
    return {name: round(table[name], 4) for name in ("box_ap50", "box_ap")}


def train(model: DETR, samples: Examples, steps: int = STEPS, every: int = EVERY, watch: Any = None) -> list[float]:
    """`making.train` with the settings of this network."""
    options = {"batch": BATCH, "rate": RATE, "steps": steps, "every": every, "collate": stack, "watch": watch}
    return making.train(model, loss, samples, **options)


def make() -> None:
    """Draw the scenes, train, and write the file and its log, with the average precision over steps and seconds."""
    torch.set_num_threads(1)
    samples, held_out = Examples(examples(Shapes(SCENES, seed=SCENES_SEED))), new_scenes()
    torch.manual_seed(making.SEED)
    model, curve, watch_seconds = shapes_detr(), [], 0.0
    start = time.process_time()

    def watch(step: int) -> None:
        nonlocal watch_seconds
        before = time.process_time()
        curve.append({"step": step, "cpu_seconds": round(before - start - watch_seconds), **precision(model, held_out)})
        watch_seconds += time.process_time() - before
        print(curve[-1], flush=True)

    losses = train(model, samples, watch=watch)
    model.half().float()  # the precision of the file
    log = {
        "shapes_version": SHAPES_VERSION,
        "scenes": SCENES,
        "steps": STEPS,
        "seed": making.SEED,
        "losses_of_250_steps": losses,
        "cpu_seconds_of_training": round(time.process_time() - start - watch_seconds),
        "on_new_scenes": precision(model, held_out),
        "curve": curve,
    }
    making.write(model.half(), FILE, log)


if __name__ == "__main__":
    make()
