"""The networks of the recipes, trained once, for the pages that show what a trained network predicts.

`python -m segedu.weights.own.recipes street_fcn8` makes street_fcn8.safetensors and its log, street_fcn8.json, again:
the run of `segedu train fcn8 --data street --accelerator cpu`, stored in half precision. Without a name, it
makes those that are missing. The log has the figures of the stored file on new scenes, beside the plain baseline's.
"""

from __future__ import annotations

import json
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from segedu.recipes.recipe import find_recipe, load_recipe
from segedu.recipes.run import run_recipe
from segedu.training.checkpoints import load_checkpoint
from segedu.weights.catalogue_recipes import FILES, data_and_method
from segedu.weights.own.making import SEED

FOLDER = Path(__file__).parent


def build(method: str, data: str) -> nn.Module:
    """Build the network of a recipe."""
    return load_recipe(method, data).build()


def make(name: str, folder: Path = FOLDER, steps: int | None = None) -> Path:
    """Train the network of a recipe, and write its weights and its log.

    Args:
        name: data set and method, such as "street_fcn8".
        folder: for the two files.
        steps: instead of the recipe's.

    Returns:
        The path of the weights.
    """
    data, method = data_and_method(name)
    recipe, _ = find_recipe(method, data)
    with tempfile.TemporaryDirectory() as run:
        result = run_recipe(recipe, Path(run), seed=SEED, steps=steps, accelerator="cpu")
        weights = load_checkpoint(Path(run) / "checkpoint.pt")["model"]
    file = folder / f"{name}.safetensors"
    halves = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    save_file({key: value.contiguous() for key, value in halves.items()}, file)
    model = build(method, data)
    model.load_state_dict(halves)
    sets, predict = recipe.sets(SEED, None), partial(recipe.task.predict, model.eval(), postprocess=recipe.postprocess)
    log = {
        "method": method,
        "data": data,
        "steps": result["steps"],
        "seed": SEED,
        "cpu_seconds_of_training": result["training_cpu_seconds"],
        "metric": recipe.metric,
        "on_new_scenes": {
            next(iter(result["rows"])): next(iter(result["rows"].values())),
            "in half precision": recipe.task.measure(predict, sets, len(recipe.classes)),
        },
        "torch": torch.__version__,
    }
    file.with_suffix(".json").write_text(json.dumps(log, indent=2) + "\n")
    return file


if __name__ == "__main__":
    for name_or_missing in sys.argv[1:] or [name for name in FILES if not (FOLDER / f"{name}.safetensors").is_file()]:
        print(make(name_or_missing))
