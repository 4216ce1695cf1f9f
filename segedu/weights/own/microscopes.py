"""Small networks trained on real microscope images, and how the weights of a run become a file with a card.

    segedu train stardist --data nuclei_grouped --accelerator cpu --precision bf16-mixed --out runs/stardist
    python -m segedu.weights.own.microscopes nuclei_stardist runs/stardist

make nuclei_stardist.safetensors and its card, nuclei_stardist.json, again. The weights are stored in half precision.
The card names the data, their licence and split, the command, and the accuracy of the stored file on the held-out
images. The networks take images of any exposure and stain: they normalise them with `normalize_exposure`. They know
objects of the sizes that their cards give, so resize other images first.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from segedu.recipes.data import normalize_exposure
from segedu.recipes.recipe import Recipe, find_recipe, load_recipe
from segedu.training.checkpoints import load_checkpoint

FOLDER = Path(__file__).parent
COMMAND = "segedu train {method} --data {data} --accelerator cpu --precision bf16-mixed"
NETWORKS = {  # name of the file -> method and data set of its recipe
    "nuclei_stardist": ("stardist", "nuclei_grouped"),
    "nuclei_cellpose": ("cellpose", "nuclei_grouped"),
}
SOURCES = {
    "nuclei_grouped": {
        "data": "2018 Data Science Bowl, stage 1 (BBBC038), 564 images with corrected masks",
        "licence_of_data": "CC0 1.0",
        "split": "splits/*.txt of the folder nuclei_grouped: crops of one field of view are in one split",
        "citation": "Caicedo et al., Nature Methods 16, 2019, doi 10.1038/s41592-019-0612-7",
        "objects": "nuclei, bright on dark after normalisation, 5 to 60 pixels across",
    },
}


class NormalizedExposure(nn.Module):
    """`normalize_exposure` of each image of a batch (B, 3, H, W)."""

    def forward(self, images: Tensor) -> Tensor:
        normalized = [normalize_exposure(image.detach().float().cpu()) for image in images]
        return torch.stack(normalized).to(images)


def build(name: str) -> nn.Module:
    """The network of a name in `NETWORKS`, which normalises its images itself."""
    model = load_recipe(*NETWORKS[name]).build()
    model.normalize = NormalizedExposure()
    return model


def measure(model: nn.Module, recipe: Recipe, sets: Any) -> dict[str, Any]:
    """The accuracies of a network on the held-out images of a recipe."""
    predict = partial(recipe.task.predict, model.eval(), postprocess=recipe.postprocess)
    return recipe.task.measure(predict, sets, len(recipe.classes))


def store(name: str, run: Path, folder: Path = FOLDER) -> Path:
    """Write the weights of a run in half precision, and their card.

    Args:
        name: a key of `NETWORKS`.
        run: folder of the finished run of its recipe.
        folder: for the two files.

    Returns:
        The path of the weights.

    Raises:
        ValueError: the run is of another recipe.
    """
    method, data = NETWORKS[name]
    recipe, images = find_recipe(method, data)
    result = json.loads((run / "result.json").read_text())
    if (result["method"], result["data"]) != (method, data):
        raise ValueError(f"run is of {result['method']} on {result['data']}, expected {method} on {data}")
    weights = load_checkpoint(run / "checkpoint.pt")["model"]
    halves = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    file = folder / f"{name}.safetensors"
    save_file({key: value.contiguous() for key, value in halves.items()}, file)
    model = build(name)
    model.load_state_dict(halves)
    card = {
        "method": method,
        **SOURCES[data],
        "licence": "MIT",
        "command": f"{COMMAND.format(method=method, data=data)} --seed {result['seed']}",
        "script": "segedu/weights/own/microscopes.py",
        "steps": result["steps"],
        "seed": result["seed"],
        "parameters": result["parameters"],
        "cpu_seconds_of_training": result["training_cpu_seconds"],
        "metric": recipe.metric,
        "on_held_out_images": {
            next(iter(result["rows"])): next(iter(result["rows"].values())),
            "in half precision": measure(model, recipe, recipe.sets(result["seed"], images)),
        },
        "torch": torch.__version__,
    }
    file.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    return file


if __name__ == "__main__":
    print(store(sys.argv[1], Path(sys.argv[2])))
