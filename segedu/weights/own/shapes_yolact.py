"""The small YOLACT that learnt from drawn scenes: on the scenes, and in the way, of `shapes_mask_rcnn`.

`python -m segedu.weights.own.shapes_yolact` makes shapes_yolact.safetensors and its log, shapes_yolact.json, anew.
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
    """The network of the file, which `segedu.weights.load("shapes_yolact")` fills.

    Returns:
        The model, its weights drawn at random.
    """
    return small_yolact()


def detect(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """What the model finds in an image (3, H, W)."""
    return postprocess(model(image[None]))[0]


def train(model: YOLACT, samples: Examples, steps: int = STEPS, every: int = 100) -> list[float]:
    """Train in place; the mean loss of each `every` steps."""
    options = {"batch": BATCH, "rate": RATE, "steps": steps, "every": every, "collate": stack}
    return making.train(model, yolact_loss, samples, **options)


if __name__ == "__main__":
    make(shapes_yolact, train, detect, FILE)
