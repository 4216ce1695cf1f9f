"""Networks of recipes on real photographs, stored for the pages and as a start for other trainings.

The command in the log trains the network; `python -m segedu.weights.own.photo_recipes pets_encoder_unet RUN`, with the
folder of that run, then makes pets_encoder_unet.safetensors and its log, pets_encoder_unet.json. The log has the
figures of the stored file, which is in half precision, on the held-out photographs, beside the plain baseline's.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file

from segedu.recipes.recipe import find_recipe
from segedu.training.checkpoints import load_checkpoint
from segedu.weights.catalogue_recipes import PHOTO_FILES, data_and_method

FOLDER = Path(__file__).parent
OPTIONS = "--accelerator cpu --precision bf16-mixed"
SPLITS = {
    "pets": "402 photographs of the split train; the network saw none of val, test and test_other_breeds",
}


def store(name: str, run: Path, folder: Path = FOLDER) -> Path:
    """Write the weights of a finished run in half precision, and their log.

    Args:
        name: data set and method, a key of `PHOTO_FILES`.
        run: folder of the run.
        folder: for the two files.

    Returns:
        The path of the weights.

    Raises:
        ValueError: the run is that of another recipe.
    """
    data, method = data_and_method(name)
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
    log = {
        "method": method,
        "data": data,
        "licence_of_the_images": PHOTO_FILES[name].licence_of_the_images,
        "split": SPLITS[data],
        "command": f"segedu train {method} --data {data} {OPTIONS} --seed {result['seed']}",
        "script": f"python -m segedu.weights.own.photo_recipes {name} RUN",
        "steps": result["steps"],
        "seed": result["seed"],
        "cpu_seconds_of_training": result["training_cpu_seconds"],
        "metric": recipe.metric,
        "on_held_out_photographs": {
            next(iter(result["rows"])): next(iter(result["rows"].values())),
            "in half precision": recipe.task.measure(predict, recipe.sets(result["seed"], images), len(recipe.classes)),
        },
        "torch": torch.__version__,
    }
    file.with_suffix(".json").write_text(json.dumps(log, indent=2) + "\n")
    return file


if __name__ == "__main__":
    print(store(sys.argv[1], Path(sys.argv[2])))
