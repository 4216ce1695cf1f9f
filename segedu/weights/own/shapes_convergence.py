"""Convergence of three networks with queries on synthetic shapes: box AP50 on new scenes over training steps.

`python -m segedu.weights.own.shapes_convergence` trains each of them for 500 steps from random weights, on the same
scenes in the same order, with a narrow VGG as backbone, a batch size of 16 and a learning rate that rises to 1e-3 and
falls, and writes shapes_convergence.json. In DETR, the queries attend to the whole image. Mask2Former is trained twice:
its queries attend to the whole image, or only inside the mask that they predicted one layer earlier; the bounding boxes
of its masks are compared. All three have three decoder layers with 12 queries of 64 features, and DETR also has two
encoder layers.
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
WATCHED = (10_000_000, 32)  # seed and number of new scenes


def mask_net(masked: bool) -> Mask2Former:
    """A Mask2Former with the width, decoder layers and queries of the small DETR."""
    backbone = features(4)
    pixel_decoder = PixelDecoder(backbone.channels, 64, 4, layers=0)  # only a feature pyramid, to save time
    decoder = MaskedDecoder(len(CLASSES), 12, 64, 4, layers=3, hidden=128, masked=masked)
    return Mask2Former(backbone, pixel_decoder, decoder)


def boxes_of_masks(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """The detections of a Mask2Former, with the bounding boxes of its masks."""
    (detections,) = instance_inference(model(image[None]), range(1, len(CLASSES)))
    return {key: detections[key] for key in ("boxes", "labels", "scores")}


mask_loss = partial(mask2former_loss, num_points=256)
NETS: dict[str, tuple[Callable, Callable, Callable]] = {  # builder, loss, detections
    "DETR": (shapes_detr.shapes_detr, shapes_detr.loss, shapes_detr.detect),
    "Mask2Former, looks everywhere": (partial(mask_net, False), mask_loss, boxes_of_masks),
    "Mask2Former, masked attention": (partial(mask_net, True), mask_loss, boxes_of_masks),
}


def curve(name: str, samples: Examples, new: list[Example], steps: int = STEPS, every: int = EVERY) -> dict[str, Any]:
    """Train the network `name` of `NETS` on `samples`, and measure it on `new` scenes.

    Returns `box_ap50` after every `every` steps, and `cpu_seconds` of training.
    """
    build, loss, detect = NETS[name]
    torch.manual_seed(making.SEED)
    model, precisions, watched = build(), [], 0.0
    start = time.process_time()

    def watch(step: int) -> None:
        nonlocal watched
        before = time.process_time()
        precisions.append(shapes_detr.precision(model, new, detect)["box_ap50"])
        watched += time.process_time() - before

    options = {"batch": BATCH, "rate": RATE, "steps": steps, "every": every, "collate": stack, "watch": watch}
    making.train(model, loss, samples, **options)
    result = {"box_ap50": precisions, "cpu_seconds": round(time.process_time() - start - watched)}
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
