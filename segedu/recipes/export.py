"""Write the network of a run as an ONNX file, which other programs and languages can run without PyTorch."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segedu.datasets.files import atomic_path
from segedu.recipes.trained_run import TrainedRun


def export_onnx(run: TrainedRun, out: Path, size: tuple[int, int]) -> None:
    """Write an ONNX file with the input `images` (1, 3, height, width), float32 in [0, 1].

    The file has the outputs of the network, such as logits (1, K, height, width); it includes neither the preparation
    of an image nor `postprocess`. Its metadata `segedu` is a JSON text with the method, the names of the classes and
    the preparation.

    Args:
        run: the trained network.
        out: path of the file; an existing one is replaced.
        size: (height, width) of the images, which an ONNX program fixes.

    Raises:
        ImportError: onnx or onnxscript is not installed.
        ValueError: the size is below 32 pixels.
    """
    check_exporter(size)
    about = {"method": run.recipe.method, "classes": list(run.classes), "steps": run.steps}
    about["preparation"] = None if run.preparation is None else asdict(run.preparation)
    write_program(run.model, {"images": torch.zeros(1, 3, *size)}, out, about)


def check_exporter(size: tuple[int, int]) -> None:
    """Check that an ONNX file can be written, for images of a size (height, width).

    Raises:
        ImportError: onnx or onnxscript is not installed.
        ValueError: the size is below 32 pixels.
    """
    for package in ("onnx", "onnxscript"):
        if find_spec(package) is None:
            raise ImportError(f"{package} is not installed: pip install onnx onnxscript")
    if min(size) < 32:
        raise ValueError(f"size is {tuple(size)}, expected a height and a width of at least 32 pixels")


def write_program(
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    out: Path,
    about: Mapping[str, Any],
    outputs: list[str] | None = None,
    dynamic_shapes: Mapping[str, Any] | None = None,
) -> None:
    """Write one ONNX file, with `about` as JSON text in its metadata `segedu`.

    Args:
        model: the network; it is set to evaluation mode.
        inputs: for each input its name and an example.
        out: path of the file; an existing one is replaced.
        about: what a program must know about the network.
        outputs: names of the outputs; None: the exporter's names.
        dynamic_shapes: of `torch.onnx.export`; None: all shapes are those of the examples.
    """
    with _without_warnings():
        program = torch.onnx.export(
            model.eval(),
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=dynamic_shapes,
            dynamo=True,
            verbose=False,
        )
    program.model.metadata_props["segedu"] = json.dumps(about)
    with atomic_path(out) as part:
        program.save(str(part))


@contextmanager
def _without_warnings() -> Iterator[None]:
    """The exporter warns about its own parts, and reports what it could not simplify."""
    logger = logging.getLogger("onnxscript")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
