"""How fast three networks with queries learn to find drawn shapes: box AP50 on new scenes over steps of training.

`python -m segedu.weights.own.shapes_convergence` trains each for 500 steps from random weights, on the same scenes in
the same order, with a narrow VGG as body, batches of 16 and a rate that rises to 1e-3 and falls, and writes
shapes_convergence.json. DETR: a set, whose queries look everywhere. Mask2Former, twice: a set of masks, whose queries
look everywhere, or only where their mask was one layer before; compared are the boxes around the masks. All have three
layers of 64 numbers for 12 queries, and DETR two more over the places.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segedu.datasets.shapes import CLASSES, SHAPES_VERSION, Shapes
from segedu.panoptic.inference import instance_inference
from segedu.panoptic.mask2former.loss import mask2former_loss
from segedu.panoptic.mask2former.mask2former import Mask2Former, MaskedDecoder
from segedu.panoptic.mask2former.pixel_decoder import PixelDecoder
from segedu.recipes.shapes import Example, Examples, examples, features, stack
from segedu.weights.own import making, shapes_detr
from segedu.weights.own.shapes_mask_rcnn import SCENES_SEED

LOG = Path(__file__).with_suffix(".json")
SCENES, STEPS, BATCH, RATE, EVERY = 1024, 500, 16, 1e-3, 50
WATCHED = (10_000_000, 32)  # seed and number of the new scenes


def mask_net(masked: bool) -> Mask2Former:
    """As wide as the small DETR, as many layers of the decoder and as many queries."""
    body = features(4)
    pixels = PixelDecoder(body.channels, 64, 4, layers=0)  # a pyramid alone, for time's sake
    return Mask2Former(body, pixels, MaskedDecoder(len(CLASSES), 12, 64, 4, layers=3, hidden=128, masked=masked))


def boxes_of_masks(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """The boxes around the masks that a Mask2Former finds."""
    (found,) = instance_inference(model(image[None]), range(1, len(CLASSES)))
    return {key: found[key] for key in ("boxes", "labels", "scores")}


mask_loss = partial(mask2former_loss, points=256)
NETS: dict[str, tuple[Callable, Callable, Callable]] = {  # builder, loss, what is found
    "DETR": (shapes_detr.shapes_detr, shapes_detr.loss, shapes_detr.detect),
    "Mask2Former, looks everywhere": (partial(mask_net, False), mask_loss, boxes_of_masks),
    "Mask2Former, masked attention": (partial(mask_net, True), mask_loss, boxes_of_masks),
}


def curve(name: str, samples: Examples, new: list[Example], steps: int = STEPS, every: int = EVERY) -> dict[str, Any]:
    """Train one of the three.

    Args:
        name: a key of `NETS`.
        samples: to learn from.
        new: to measure on.
        steps: of training.
        every: steps for one number.

    Returns:
        `box_ap50` after each `every` steps, and `cpu_seconds` of training.
    """
    build, loss, detect = NETS[name]
    torch.manual_seed(making.SEED)
    model, found, watched = build(), [], 0.0
    start = time.process_time()

    def watch(step: int) -> None:
        nonlocal watched
        before = time.process_time()
        found.append(shapes_detr.precision(model, new, detect)["box_ap50"])
        watched += time.process_time() - before

    options = {"batch": BATCH, "rate": RATE, "steps": steps, "every": every, "collate": stack, "watch": watch}
    making.train(model, loss, samples, **options)
    result = {"box_ap50": found, "cpu_seconds": round(time.process_time() - start - watched)}
    print(name, result, flush=True)
    return result


def main() -> None:
    """Train all three and write the log."""
    torch.set_num_threads(1)
    samples = Examples(examples(Shapes(SCENES, seed=SCENES_SEED)))
    seed, number = WATCHED
    new = examples(Shapes(number, seed=seed))
    log = {"shapes_version": SHAPES_VERSION, "scenes": SCENES, "seed": making.SEED, "every": EVERY}
    log |= {"curves": {name: curve(name, samples, new) for name in NETS}, "torch": torch.__version__}
    LOG.write_text(json.dumps(log, indent=2) + "\n")


if __name__ == "__main__":
    main()
