"""A small YOLACT for synthetic shapes, trained on the scenes of `shapes_mask_rcnn` and in the same way.

`python -m segedu.weights.own.shapes_yolact` makes shapes_yolact.safetensors and its log, shapes_yolact.json, again.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from segedu.instance.yolact import YOLACT, postprocess, yolact_loss
from segedu.recipes.detectors import small_yolact
from segedu.recipes.shapes import Examples, stack
from segedu.weights.own import making
from segedu.weights.own.shapes_mask_rcnn import BATCH, RATE, STEPS, make

FILE = Path(__file__).with_suffix(".safetensors")


def shapes_yolact() -> YOLACT:
    """Build the network whose weights `segedu.weights.load("shapes_yolact")` loads."""
    return small_yolact()


def detect(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """The detections in an image (3, H, W)."""
    return postprocess(model(image[None]))[0]


def train(model: YOLACT, samples: Examples, steps: int = STEPS, every: int = 100) -> list[float]:
    """`making.train` with the settings of this network."""
    options = {"batch": BATCH, "rate": RATE, "steps": steps, "every": every, "collate": stack}
    return making.train(model, yolact_loss, samples, **options)


if __name__ == "__main__":
    make(shapes_yolact, train, detect, FILE)
