"""A small Mask R-CNN for synthetic shapes; `shapes_yolact` is trained in the same way.

`python -m segedu.weights.own.shapes_mask_rcnn` makes shapes_mask_rcnn.safetensors and its log, shapes_mask_rcnn.json,
again: the network of the recipe, trained for longer. It has learned the balls, squares and triangles of
`segedu.datasets.shapes`, as large as circles 15 to 26 pixels wide, in images of 64 x 64, and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from segedu.datasets.shapes import SHAPES_VERSION, Shapes
from segedu.instance.mask_rcnn import MaskRCNN, mask_rcnn_loss, postprocess
from segedu.recipes.data import Sets
from segedu.recipes.detectors import small_mask_rcnn
from segedu.recipes.shapes import Examples, WithTargets, examples, stack_with_targets
from segedu.recipes.task import measure_detections
from segedu.weights.own import making

FILE = Path(__file__).with_suffix(".safetensors")
SCENES_SEED, SCENES, STEPS, BATCH, RATE = 6_000_000, 4096, 1200, 16, 3e-3  # recipes draw scenes with other seeds
HELD_OUT = (7_000_000, 64)  # seed and number of scenes for the figures in the log

Detect = Callable[[nn.Module, Tensor], dict[str, Tensor]]  # image (3, H, W) -> boxes, labels, scores, masks


def shapes_mask_rcnn() -> MaskRCNN:
    """Build the network whose weights `segedu.weights.load("shapes_mask_rcnn")` loads."""
    return small_mask_rcnn()


def detect(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """The detections in an image (3, H, W)."""
    return postprocess(model(image[None]))[0]


@torch.no_grad()
def precision(model: nn.Module, detect: Detect) -> dict[str, float]:
    """COCO's average precision of boxes and masks on new scenes, rounded to four digits."""
    seed, number = HELD_OUT
    sets = Sets(None, {"new": {"all": examples(Shapes(number, seed=seed))}})
    table = measure_detections(lambda image: detect(model, image), sets)["new"]["all"]
    return {name: round(table[name], 4) for name in ("box_ap50", "mask_ap50", "mask_ap")}


def make(build: Callable, train: Callable, detect: Detect, file: Path) -> None:
    """Draw the scenes, train, and write the file and its log.

    Args:
        build: () -> the model.
        train: (model, samples) -> mean loss of each 100 iterations.
        detect: (model, image) -> detections.
        file: path of the weights file to write.
    """
    torch.set_num_threads(1)
    samples = Examples(examples(Shapes(SCENES, seed=SCENES_SEED)))
    torch.manual_seed(making.SEED)
    model, start = build(), time.process_time()
    losses = train(model, samples)
    model.half().float()  # the precision of the file
    log = {
        "shapes_version": SHAPES_VERSION,
        "scenes": SCENES,
        "steps": STEPS,
        "seed": making.SEED,
        "losses_of_100_steps": losses,
        "cpu_seconds_of_training": round(time.process_time() - start),
        "on_new_scenes": precision(model, detect),
    }
    making.write(model.half(), file, log)


def train(model: MaskRCNN, samples: Examples, steps: int = STEPS, every: int = 100) -> list[float]:
    """`making.train` with the settings of this network."""
    options = {"batch": BATCH, "rate": RATE, "steps": steps, "every": every, "collate": stack_with_targets}
    return making.train(WithTargets(model), mask_rcnn_loss, samples, **options)


if __name__ == "__main__":
    make(shapes_mask_rcnn, train, detect, FILE)
