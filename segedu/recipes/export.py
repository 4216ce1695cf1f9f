"""Write the network of a run as an ONNX file, which other programs and languages can run without PyTorch."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import torch

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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own parts
        program = torch.onnx.export(
            run.model, (torch.zeros(1, 3, *size),), input_names=["images"], dynamo=True, verbose=False
        )
    about = {"method": run.recipe.method, "classes": list(run.classes), "steps": run.steps}
    about["preparation"] = None if run.preparation is None else asdict(run.preparation)
    program.model.metadata_props["segedu"] = json.dumps(about)
    with atomic_path(out) as part:
        program.save(str(part))


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
