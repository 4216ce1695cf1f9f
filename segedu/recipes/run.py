"""One run of a recipe: train, evaluate beside a plain baseline, and write the results.

The folder of a run holds `checkpoint.pt`, from which a stopped run resumes and a longer run continues, `losses.csv`
with the loss of each step, `result.json`, and `picture.png`: image, ground truth and prediction of three held-out
images. With validations there is `validation.csv` too, the results are those of the weights with the best score, and
the checkpoint holds these as well as the last ones. A checkpoint records its data, recipe and network, and a run with
others refuses to resume from it.
"""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segedu.recipes.data import Sets
from segedu.recipes.recipe import Recipe
from segedu.recipes.run_picture import save_picture, write
from segedu.recipes.run_plan import check_limits, describe, one_cycle, planned_steps
from segedu.recipes.run_validation import Watch, plan_validation, validation_result, write_scores
from segedu.recipes.starting_weights import Start
from segedu.recipes.task import Predict, Table
from segedu.recipes.tensorboard_log import delete_logs, log_to
from segedu.training import Trained, fit, shuffled_loader
from segedu.training.devices import check_devices, start_fabric

NOTHING = Watch()


def run_recipe(
    recipe: Recipe,
    out: Path,
    *,
    folder: Path | None = None,
    seed: int = 0,
    steps: int | None = None,
    minutes: float | None = None,
    devices: int = 1,
    accelerator: str = "auto",
    precision: str = "32-true",
    workers: int = 0,
    start: Start | None = None,
    watch: Watch = NOTHING,
    fresh: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Train and evaluate a recipe, or resume or extend the run in `out`.

    Args:
        recipe: what to train.
        out: folder of the run.
        folder: of the data, if the recipe reads files.
        seed: of weights, order, augmentation and synthetic scenes.
        steps: instead of the recipe's.
        minutes: CPU time for training, instead of a number of steps.
        devices: number of devices to train on.
        accelerator: cpu, cuda, mps or auto.
        precision: 32-true, bf16-mixed, 16-mixed or another that Lightning Fabric knows.
        workers: number of processes that prepare batches; 0 is the training process itself.
        start: weights to start from in place of random ones, and layers that keep theirs.
        watch: validations during the training, early stopping, and logs.
        fresh: start again. The old run in `out` is deleted only after the data and the devices were found valid.
        progress: show a progress bar.

    Returns:
        The content of `result.json`.

    Raises:
        OSError: `out` cannot be written.
        Stopped: after Ctrl-C or SIGTERM, with the checkpoint written; a KeyboardInterrupt.
        ValueError: a limit, a device, a file of the data or the checkpoint in `out` is not as expected.
    """
    wall_start, cpu_start = time.perf_counter(), time.process_time()
    check_limits(steps, minutes, seed)
    check_devices(accelerator, devices)
    torch.manual_seed(seed)
    model, sets = recipe.build(), recipe.sets(seed, folder)
    about = {} if start is None else {"start": start.apply(model)}
    fabric = start_fabric(accelerator, devices, precision)
    if fresh:
        _clear(out, fabric)
    options = {"fabric": fabric, "workers": workers, "progress": progress, "about": about, "watch": watch}
    trained, metadata, about_val = _train(recipe, model, sets, Path(out), (seed, steps, minutes), **options)
    result = {
        "method": recipe.method,
        "data": recipe.data,
        "folder": None if folder is None else str(folder),
        "training_data": metadata["training_data"],
        "seed": seed,
        "steps": trained.step,
        "resumed_from": trained.resumed_from,
        "extended": trained.extended,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "device": str(fabric.device),
        "metric": recipe.metric,
        "target": recipe.target,
        "training_cpu_seconds": round(trained.cpu_seconds + _finish(recipe, model, sets), 1),
        "training_wall_seconds": round(trained.wall_seconds, 1),
        "validation": about_val,
        "rows": rows(recipe, model, sets),
    }
    if fabric.is_global_zero:
        write(Path(out) / "losses.csv", partial(_write_losses, trained.losses))
        if about_val is not None:
            write(Path(out) / "validation.csv", partial(write_scores, about_val["scores"], recipe.metric))
        save_picture(Path(out) / "picture.png", predictor(model, recipe), sets, recipe.task.draw)
        result["cpu_seconds"] = round(time.process_time() - cpu_start, 1)
        result["wall_seconds"] = round(time.perf_counter() - wall_start, 1)
        write(Path(out) / "result.json", lambda path: path.write_text(json.dumps(result, indent=2) + "\n"))
    return result


def _clear(out: Path, fabric: Any) -> None:
    """Delete the files of a run."""
    if fabric.is_global_zero:
        for name in ("checkpoint.pt", "losses.csv", "validation.csv", "result.json", "picture.png"):
            (Path(out) / name).unlink(missing_ok=True)
        delete_logs(Path(out))
    fabric.barrier()


def _train(
    recipe: Recipe,
    model: nn.Module,
    sets: Sets,
    out: Path,
    limits: tuple[int, int | None, float | None],
    *,
    fabric: Any,
    workers: int,
    progress: bool,
    about: dict[str, Any],
    watch: Watch,
) -> tuple[Trained, dict[str, Any], dict[str, Any] | None]:
    """Train a newly built model.

    Returns:
        The course of training, the description kept in the checkpoint, and what was measured during the training.
    """
    seed, steps, minutes = limits
    checkpoint = out / "checkpoint.pt"
    # the first process decides for all, because each one measures a different speed
    total = fabric.broadcast(planned_steps(recipe, model, sets, steps, minutes, checkpoint))
    validation = plan_validation(recipe, sets, total, watch, progress=progress and fabric.is_global_zero)
    torch.manual_seed(seed)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=1e-4)
    metadata = describe(recipe, model, sets) | about | {"limits": {"minutes": minutes}}
    if validation is not None:
        metadata["validations"] = watch.validations
    options = {"scheduler": one_cycle(optimizer, recipe.learning_rate, total), "clip_norm": 1.0, "fabric": fabric}
    options |= {"checkpoint": checkpoint, "metadata": metadata, "extend": True, "progress": progress}
    loader = shuffled_loader(sets.train, recipe.batch_size, seed=seed, collate_fn=recipe.collate, num_workers=workers)
    with log_to(out if watch.tensorboard and fabric.is_global_zero else None) as log:
        trained = fit(model, loader, recipe.loss, optimizer, steps=total, validation=validation, log=log, **options)
    return trained, metadata, validation_result(validation, trained.step, total)


def _write_losses(losses: list[float], path: Path) -> None:
    """Write a table with one row per training step."""
    path.write_text("step,loss\n" + "".join(f"{step},{loss:.6g}\n" for step, loss in enumerate(losses, 1)))


def _finish(recipe: Recipe, model: nn.Module, sets: Sets) -> float:
    """Fit what is not trained by gradients; returns the CPU-seconds that it took."""
    start = time.process_time()
    if recipe.finish is not None:
        recipe.finish(model, sets)
    return time.process_time() - start


def predictor(model: nn.Module, recipe: Recipe) -> Predict:
    """The model of a recipe as a function of one image (C, ...), in evaluation mode; its predictions are on the CPU."""
    return partial(recipe.task.predict, model, postprocess=recipe.postprocess)


def rows(recipe: Recipe, model: nn.Module, sets: Sets) -> dict[str, Table]:
    """The two rows of the table of results: figures of the plain baseline and of the trained model, by name."""
    num_classes = len(recipe.classes)
    baseline = recipe.baseline(sets.train.pairs, num_classes)
    return {
        baseline.name: recipe.task.measure(partial(recipe.task.predict, baseline), sets, num_classes),
        recipe.method: recipe.task.measure(predictor(model, recipe), sets, num_classes),
    }
