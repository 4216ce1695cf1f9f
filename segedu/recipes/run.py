"""One run of a recipe: train, evaluate beside a plain baseline, write down what came out.

The folder of a run holds `checkpoint.pt` (a run that was stopped goes on from it, and one that is to be longer too),
`result.json` and `picture.png`: image, truth, prediction and errors of three held-out images. A checkpoint says which
data, recipe and network it is of, and a run of something else is refused.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segedu.metrics.boundary import boundary_f1
from segedu.metrics.coco import CocoEvaluation
from segedu.metrics.instance import match_instances
from segedu.metrics.panoptic import PanopticQuality
from segedu.metrics.semantic import dice_per_class_from_confusion, mean_iou_from_confusion
from segedu.recipes.data import Pair, Sets
from segedu.recipes.recipe import Recipe
from segedu.recipes.run_picture import save_picture, write
from segedu.recipes.run_plan import check_limits, describe, one_cycle, planned_steps
from segedu.recipes.run_table import OBJECT_THRESHOLDS
from segedu.recipes.run_table import print_result as print_result
from segedu.recipes.run_table import print_seeds as print_seeds
from segedu.recipes.run_table import stricter as stricter
from segedu.recipes.run_table import summary as summary
from segedu.training import Trained, evaluate, fit, shuffled_loader, to_device
from segedu.training.devices import check_devices, start_fabric


def scores(matrix: Tensor) -> dict[str, float | None]:
    """Mean IoU of all classes, mean Dice and IoU of the foreground, from pooled counts (K, K).

    `foreground_iou` is of all foreground classes against background, `dice` the mean over the foreground classes.
    None where there is nothing to score; JSON knows no NaN.
    """
    matrix = matrix.double()
    either = float(matrix.sum() - matrix[0, 0])  # pixels that are foreground in truth or prediction
    foreground = float(matrix[1:, 1:].sum()) / either if either else None
    mean, dice = float(mean_iou_from_confusion(matrix)), float(dice_per_class_from_confusion(matrix)[1:].nanmean())
    known = {name: None if np.isnan(value) else value for name, value in (("mean_iou", mean), ("dice", dice))}
    return known | {"foreground_iou": foreground}


def measure(model: nn.Module, sets: Sets, num_classes: int) -> dict[str, dict[str, dict[str, float | None]]]:
    """Scores of each split: of all its pixels (`all`) and of each of its groups.

    With two classes also `boundary_f1`, the mean over the images, boundaries 2 pixels apart counting as the same.
    """
    result = {}
    for split, groups in sets.held_out.items():
        counts, edges = {}, {}
        for name, pairs in groups.items():
            counts[name], edges[name] = _measure_group(model, pairs, num_classes)
        counts = {"all": torch.stack(list(counts.values())).sum(dim=0), **counts}
        edges = {"all": sum(edges.values(), []), **edges}
        result[split] = {name: scores(counts[name]) for name in counts}
        for name in counts if num_classes == 2 else ():
            result[split][name]["boundary_f1"] = float(np.mean(edges[name])) if edges[name] else None
    return result


def _measure_group(model: nn.Module, pairs: Sequence[Pair], num_classes: int) -> tuple[Tensor, list[float]]:
    """Pooled counts (K, K), and with two classes the boundary F1 of each image."""
    labels: list[Tensor] = []

    def predict(logits: Tensor) -> Tensor:
        labels.append(logits.argmax(dim=1)[0].cpu())
        return labels[-1][None]

    one_by_one = [(image[None], target[None]) for image, target in pairs]
    matrix = evaluate(model, one_by_one, num_classes, predict=predict)["confusion"]
    if num_classes > 2:
        return matrix, []
    truths = [target == 1 for _, target in pairs]
    return matrix, [boundary_f1(label == 1, truth, tolerance=2) for label, truth in zip(labels, truths, strict=True)]


Detections = dict[str, Tensor]
Predict = Callable[[Tensor], Tensor]  # image (C, H, W) -> classes or label map (H, W)
Detect = Callable[[Tensor], Detections]  # image (C, H, W) -> boxes, labels, scores and maybe masks


def measure_objects(predict: Predict, sets: Sets) -> dict[str, dict[str, dict[str, float | None]]]:
    """Instance accuracy TP / (TP + FP + FN) of each split: of all its images (`all`) and of each of its groups.

    `instance_accuracy` is at IoU 0.5 and the mean over images, `instance_accuracy_0.7` at 0.7, and so on;
    `pooled_accuracy` counts the objects of all images first, at IoU 0.5. An image without objects, true or found,
    has 1 in the mean; None is a group without images.
    """
    result = {}
    for split, groups in sets.held_out.items():
        counts = {name: [_counts(predict(image), truth) for image, truth in pairs] for name, pairs in groups.items()}
        counts = {"all": sum(counts.values(), []), **counts}
        result[split] = {name: _accuracies(np.array(tables)) for name, tables in counts.items()}
    return result


def _counts(preds: Tensor, truth: Tensor) -> list[tuple[int, int, int]]:
    return [match_instances(preds, truth, threshold) for threshold in OBJECT_THRESHOLDS]


def _accuracies(counts: np.ndarray) -> dict[str, float | None]:
    """From counts (images, thresholds, 3)."""
    names = ["instance_accuracy", *(f"instance_accuracy_{threshold}" for threshold in OBJECT_THRESHOLDS[1:])]
    if not len(counts):
        return dict.fromkeys([*names, "pooled_accuracy"])
    totals = counts.sum(axis=2)
    accuracy = np.where(totals > 0, counts[..., 0] / np.maximum(totals, 1), 1.0).mean(axis=0)
    pooled = counts[:, 0, 0].sum() / max(totals[:, 0].sum(), 1)
    return dict(zip(names, accuracy.tolist(), strict=True)) | {"pooled_accuracy": float(pooled)}


def measure_detections(detect: Detect, sets: Sets) -> dict[str, dict[str, dict[str, float | None]]]:
    """COCO's average precision of each split: of all its images (`all`) and of each of its groups.

    `box_ap` and `box_ap50` are of boxes, `mask_ap` and `mask_ap50` of masks, None where there are none.
    """
    result: dict[str, dict[str, dict[str, float | None]]] = {}
    for split, groups in sets.held_out.items():
        found = {name: [(detect(image), truth) for image, truth in pairs] for name, pairs in groups.items()}
        found = {"all": sum(found.values(), []), **found}
        result[split] = {name: _precisions(pairs) for name, pairs in found.items()}
    return result


def _precisions(pairs: Sequence[tuple[Detections, Detections]]) -> dict[str, float | None]:
    table: dict[str, float | None] = {}
    for kind, iou_type, key in (("box", "bbox", "boxes"), ("mask", "segm", "masks")):
        evaluation = CocoEvaluation(iou_type)
        for found, truth in pairs if all(key in found for found, _ in pairs) else ():
            evaluation.update(found, truth)
        numbers = evaluation.compute()
        for name, number in ((f"{kind}_ap50", numbers["AP50"]), (f"{kind}_ap", numbers["AP"])):
            table[name] = None if np.isnan(number) else float(number)
    return table


def measure_panoptic(segment: Detect, sets: Sets, num_classes: int) -> dict[str, dict[str, dict[str, float | None]]]:
    """Panoptic quality of each split: of all its images (`all`) and of each of its groups.

    `pq`, `sq` and `rq` are means over the classes, `pq_things` and `pq_stuff` over those classes; None where there
    are none.
    """
    result: dict[str, dict[str, dict[str, float | None]]] = {}
    for split, groups in sets.held_out.items():
        found = {name: [(segment(image), truth) for image, truth in pairs] for name, pairs in groups.items()}
        found = {"all": sum(found.values(), []), **found}
        result[split] = {name: _qualities(pairs, num_classes) for name, pairs in found.items()}
    return result


def _qualities(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]], num_classes: int) -> dict[str, float | None]:
    quality = PanopticQuality(num_classes)
    for preds, truth in pairs:
        quality.update(preds, truth)
    whole = quality.compute()
    table = {name: whole[name] for name in ("pq", "sq", "rq")}
    table |= {f"pq_{kind}": whole[kind]["pq"] for kind in ("things", "stuff")}
    return {name: None if np.isnan(value) else value for name, value in table.items()}


def predictor(model: nn.Module, recipe: Recipe) -> Predict | Detect:
    """The model of a recipe as a function of one image.

    Args:
        model: in any mode; is put into evaluation mode.
        recipe: says what its outputs are.

    Returns:
        image (C, ...) -> classes, or a label map, (...), or detections, or segments, on the CPU.
    """
    device = next(model.parameters()).device

    @torch.no_grad()
    def predict(image: Tensor) -> Tensor | Detections:
        model.eval()
        outputs = model(image[None].to(device))
        if recipe.detections is not None:
            return to_device(recipe.detections(outputs, tuple(image.shape[-2:]))[0], torch.device("cpu"))
        if recipe.panoptic is not None:
            segments = recipe.panoptic(outputs, tuple(image.shape[-2:]))[0]
            return {**segments, "panoptic_seg": segments["panoptic_seg"].cpu()}
        if recipe.label_maps is None:
            return outputs.argmax(dim=1)[0].cpu()
        return recipe.label_maps(outputs, tuple(image.shape[-2:]))[0].cpu()

    return predict


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
    fresh: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Train as the recipe says, measure, and write `out`; a run that was stopped or is to be longer goes on.

    Args:
        recipe: the row.
        out: folder to write.
        folder: of the data, where the recipe reads one.
        seed: of weights, order, augmentation and synthetic scenes.
        steps: instead of the recipe's.
        minutes: of CPU time for training, instead of a number of steps.
        devices: on how many devices to train.
        accelerator: cpu, cuda, mps or auto.
        fresh: begin anew; what `out` holds is deleted once data and devices are known to be right.
        progress: show a bar.

    Returns:
        What `result.json` holds.

    Raises:
        OSError: `out` cannot be written.
        Stopped: after Ctrl-C or SIGTERM, with the checkpoint written; a KeyboardInterrupt.
        ValueError: a limit, a device, a file of the data or the checkpoint in `out` is not as expected.
    """
    started, cpu = time.perf_counter(), time.process_time()
    check_limits(steps, minutes, seed)
    check_devices(accelerator, devices)
    torch.manual_seed(seed)
    model, sets = recipe.build(), recipe.sets(seed, folder)
    fabric = start_fabric(accelerator, devices)
    if fresh:
        _clear(out, fabric)
    trained, about = _train(recipe, model, sets, Path(out) / "checkpoint.pt", fabric, (seed, steps, minutes), progress)
    result = {
        "method": recipe.method,
        "data": recipe.data,
        "folder": None if folder is None else str(folder),
        "training_data": about["training_data"],
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
        "rows": rows(recipe, model, sets),
    }
    if fabric.is_global_zero:
        save_picture(Path(out) / "picture.png", predictor(model, recipe), sets, _kind(recipe))
        result["cpu_seconds"] = round(time.process_time() - cpu, 1)
        result["wall_seconds"] = round(time.perf_counter() - started, 1)
        write(Path(out) / "result.json", lambda path: path.write_text(json.dumps(result, indent=2) + "\n"))
    return result


def _clear(out: Path, fabric: Any) -> None:
    """Delete what a run wrote, the checkpoint first: no result may stay whose run is gone."""
    if fabric.is_global_zero:
        for name in ("checkpoint.pt", "result.json", "picture.png"):
            (Path(out) / name).unlink(missing_ok=True)
    fabric.barrier()


def _train(
    recipe: Recipe,
    model: nn.Module,
    sets: Sets,
    checkpoint: Path,
    fabric: Any,
    limits: tuple[int, int | None, float | None],
    progress: bool,
) -> tuple[Trained, dict[str, Any]]:
    """Train a model that was just built; how that went, and what the checkpoint says of it."""
    seed, steps, minutes = limits
    # the first process decides: each one measures another speed
    total = fabric.broadcast(planned_steps(recipe, model, sets, steps, minutes, checkpoint))
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=1e-4)
    about = describe(recipe, model, sets) | {"limits": {"minutes": minutes}}
    options = {"scheduler": one_cycle(optimizer, recipe.learning_rate, total), "clip_norm": 1.0, "fabric": fabric}
    options |= {"checkpoint": checkpoint, "about": about, "extend": True, "progress": progress}
    loader = shuffled_loader(sets.train, recipe.batch_size, seed=seed, collate_fn=recipe.collate)
    return fit(model, loader, recipe.loss, optimizer, steps=total, **options), about


def _finish(recipe: Recipe, model: nn.Module, sets: Sets) -> float:
    """What follows the steps of training, and the CPU-seconds that it took."""
    start = time.process_time()
    if recipe.finish is not None:
        recipe.finish(model, sets)
    return time.process_time() - start


def _kind(recipe: Recipe) -> str:
    kinds = {"detections": recipe.detections, "panoptic": recipe.panoptic, "objects": recipe.label_maps}
    return next((kind for kind, read_out in kinds.items() if read_out), "classes")


def rows(recipe: Recipe, model: nn.Module, sets: Sets) -> dict[str, Any]:
    """The two rows of the table: the plain baseline's figures, and the model's.

    Args:
        recipe: what is measured.
        model: trained.
        sets: with images held out.

    Returns:
        Figures of each split and group by the names of baseline and method.
    """
    num_classes = len(recipe.classes)
    baseline = recipe.baseline(sets.train.pairs, num_classes)
    if recipe.detections is not None:
        found = tuple(
            measure_detections(detect, sets)
            for detect in (lambda image: baseline(image[None])[0], predictor(model, recipe))
        )
    elif recipe.panoptic is not None:
        found = tuple(
            measure_panoptic(segment, sets, num_classes)
            for segment in (lambda image: baseline(image[None])[0], predictor(model, recipe))
        )
    elif recipe.label_maps is None:
        found = (measure(baseline, sets, num_classes), measure(model, sets, num_classes))
    else:
        found = (
            measure_objects(lambda image: baseline(image[None])[0], sets),
            measure_objects(predictor(model, recipe), sets),
        )
    return dict(zip((baseline.name, recipe.method), found, strict=True))
