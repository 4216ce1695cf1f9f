"""Networks of the recipes on real medical images, stored for the pages and as a start for other trainings.

The command in the log trains the network. `python -m segedu.weights.own.medical_recipes hippocampus_unet3d RUN`, with
the folder of that run, then makes hippocampus_unet3d.safetensors and its log, hippocampus_unet3d.json. The log has the
figures of the stored file, which is in half precision, on the held-out images, beside the plain baseline's.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from segedu.recipes.data import Sets
from segedu.recipes.recipe import Recipe, find_recipe
from segedu.recipes.task import Figures, Predict
from segedu.training.checkpoints import load_checkpoint
from segedu.weights.catalogue_medical import MEDICAL_FILES

FOLDER = Path(__file__).parent
OPTIONS = "--accelerator cpu --precision bf16-mixed"
SPLITS = {
    "hippocampus": "95 volumes of the split train; val (20) and test (45) were only measured",
}


def store(name: str, run: Path, folder: Path = FOLDER) -> Path:
    """Write the weights of a finished run in half precision, and their log.

    Args:
        name: data set and method, a key of `MEDICAL_FILES`.
        run: folder of the run.
        folder: for the two files.

    Returns:
        The path of the weights.

    Raises:
        ValueError: there is no such name, or the run is that of another recipe.
    """
    if name not in MEDICAL_FILES:
        raise ValueError(f"name is {name!r}, expected one of {', '.join(MEDICAL_FILES)}")
    data, method = name.split("_", 1)
    result = json.loads((run / "result.json").read_text())
    if (result["data"], result["method"]) != (data, method):
        raise ValueError(f"run is {run} of {result['method']} on {result['data']}, expected {method} on {data}")
    recipe, images = find_recipe(method, data)
    weights = load_checkpoint(run / "checkpoint.pt")["model"]
    halves = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    file = folder / f"{name}.safetensors"
    save_file({key: value.contiguous() for key, value in halves.items()}, file)
    model = recipe.build()
    model.load_state_dict(halves)
    predict = partial(recipe.task.predict, model.eval(), postprocess=recipe.postprocess)
    sets = recipe.sets(result["seed"], images)
    log = {
        "method": method,
        "data": data,
        "images": MEDICAL_FILES[name].images,
        "licence_of_the_images": MEDICAL_FILES[name].licence_of_the_images,
        "licence": MEDICAL_FILES[name].licence,
        "split": SPLITS[data],
        "command": f"segedu train {method} --data {data} {OPTIONS} --seed {result['seed']}",
        "script": f"python -m segedu.weights.own.medical_recipes {name} RUN",
        "steps": result["steps"],
        "seed": result["seed"],
        "cpu_seconds_of_training": result["training_cpu_seconds"],
        "metric": recipe.metric,
        "on_held_out_images": {
            next(iter(result["rows"])): next(iter(result["rows"].values())),
            "in half precision": recipe.task.measure(predict, sets, len(recipe.classes)),
        },
        "on_single_test_images": worst_median_best(recipe, predict, sets.held_out["test"]["all"]),
        "torch": torch.__version__,
    }
    file.with_suffix(".json").write_text(json.dumps(log, indent=2) + "\n")
    return file


def worst_median_best(recipe: Recipe, predict: Predict, pairs: Sequence[tuple[Tensor, Any]]) -> dict[str, Figures]:
    """All figures of the image with the lowest, the median and the highest metric."""
    singles = (Sets(None, {"test": {"all": [pair]}}) for pair in pairs)
    measured = (recipe.task.measure(predict, one, len(recipe.classes))["test"]["all"] for one in singles)
    ranked = sorted(measured, key=lambda figures: figures[recipe.metric])
    return {"worst": ranked[0], "median": ranked[len(ranked) // 2], "best": ranked[-1]}


if __name__ == "__main__":
    print(store(sys.argv[1], Path(sys.argv[2])))
