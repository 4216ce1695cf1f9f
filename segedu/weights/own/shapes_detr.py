"""The small DETR that learnt from drawn scenes, and how: on the scenes of `shapes_mask_rcnn`, for longer.

`python -m segedu.weights.own.shapes_detr` makes shapes_detr.safetensors and its log, shapes_detr.json, anew. It knows
the balls, squares and triangles of `segedu.datasets.shapes` in images of 64 x 64, and nothing else. What a transformer
from random weights needs to learn this within minutes on a CPU: a body of stride 8 whose batch normalisation learns, no
dropout, 12 queries for at most 7 objects, a rate that rises and falls, and "no object" and the class weighted higher
than in the paper, whose network sees several hundred times as many images.
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
    """The network of the file, which `segedu.weights.load("shapes_detr")` fills.

    Returns:
        The model, its weights drawn at random.
    """
    transformer = Transformer(64, 4, encoder_layers=2, decoder_layers=3, hidden=128, dropout=0.0)
    return DETR(features(), transformer, len(CLASSES), num_queries=12)


def detect(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """What the model finds in an image (3, H, W)."""
    return postprocess(model(image[None]))[0]


def new_scenes() -> list[Example]:
    """The scenes that the numbers in the log are from."""
    seed, number = HELD_OUT
    return examples(Shapes(number, seed=seed))


@torch.no_grad()
def precision(model: nn.Module, scenes: list[Example], detect: Detect = detect) -> dict[str, float]:
    """COCO's precision of boxes on these scenes, to four digits."""
    table = measure_detections(lambda image: detect(model, image), Sets(None, {"new": {"all": scenes}}))["new"]["all"]
    return {name: round(table[name], 4) for name in ("box_ap50", "box_ap")}


def train(model: DETR, samples: Examples, steps: int = STEPS, every: int = EVERY, watch: Any = None) -> list[float]:
    """Train in place; the mean loss of each `every` steps."""
    options = {"batch": BATCH, "rate": RATE, "steps": steps, "every": every, "collate": stack, "watch": watch}
    return making.train(model, loss, samples, **options)


def make() -> None:
    """Draw, train, and write the file and its log beside it, with the curve of precision over steps and seconds."""
    torch.set_num_threads(1)
    samples, held_out = Examples(examples(Shapes(SCENES, seed=SCENES_SEED))), new_scenes()
    torch.manual_seed(making.SEED)
    model, curve, watched = shapes_detr(), [], 0.0
    start = time.process_time()

    def watch(step: int) -> None:
        nonlocal watched
        before = time.process_time()
        curve.append({"step": step, "cpu_seconds": round(before - start - watched), **precision(model, held_out)})
        watched += time.process_time() - before
        print(curve[-1], flush=True)

    losses = train(model, samples, watch=watch)
    log = {
        "shapes_version": SHAPES_VERSION,
        "scenes": SCENES,
        "steps": STEPS,
        "seed": making.SEED,
        "losses_of_250_steps": losses,
        "cpu_seconds_of_training": round(time.process_time() - start - watched),
        "on_new_scenes": precision(model, held_out),
        "curve": curve,
    }
    making.write(model, FILE, log)


if __name__ == "__main__":
    make()
