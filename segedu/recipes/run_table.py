"""What a run prints: its scores beside the baseline's, its cost, and the step from which it resumed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segedu.recipes.run_validation import validation_note
from segedu.recipes.task import INSTANCE_IOUS

COLUMNS = 4  # of a split in the table: all images, and up to three groups of them


def summary(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table that `segedu train` prints, the baseline first.

    Splits with more than `COLUMNS` groups of images have one column, for all of them.
    """
    first = next(iter(result["rows"].values()))
    splits = [(s, group) for s, groups in first.items() for group in (groups if len(groups) <= COLUMNS else ("all",))]
    header = ["method", *(split if group == "all" else f"{split} {group}" for split, group in splits)]
    lines = []
    for name, table in result["rows"].items():
        values = [table[split][group][result["metric"]] for split, group in splits]
        lines.append([name, *("-" if value is None else f"{value:.4f}" for value in values)])
    return header, lines


def print_result(result: dict[str, Any], out: Path) -> None:
    """Print the table, the cost of the run, and the paths of its files."""
    from rich.console import Console
    from rich.table import Table

    header, lines = summary(result)
    metric = result["metric"].replace("_", " ").replace("iou", "IoU").replace("ap", "AP")
    averaging = (
        "mean over images" if metric.startswith("instance") else "as COCO" if "AP" in metric else "pixels pooled"
    )
    table = Table(*header, title=f"{result['method']} on {result['data']}: {metric}, {averaging}")
    for line in lines:
        table.add_row(*line)
    console = Console(width=max(Console().width, 110))  # a narrow terminal must not truncate figures
    console.print(table)
    if result["metric"] == "instance_accuracy":
        console.print(higher_iou_scores(result), soft_wrap=True)
    elif line := all_figures(result):
        console.print(line, soft_wrap=True)
    goal = f"target {result['target']}; " if result["target"] else ""  # recipes of own images have none
    console.print(
        f"{goal}seed {result['seed']}, {result['steps']} steps, "
        f"{result['parameters']} parameters on {result['device']}: {result['training_cpu_seconds']} CPU-seconds of "
        f"training, {result['cpu_seconds']} in all, {result['wall_seconds']} s by the clock",
        soft_wrap=True,
    )
    for line in (validation_note(result), resume_note(result, out)):
        if line:
            console.print(line, soft_wrap=True)
    console.print(f"{out / 'result.json'}, {out / 'picture.png'}", soft_wrap=True)


def resume_note(result: dict[str, Any], out: Path) -> str:
    """A sentence about the checkpoint from which a run resumed; empty if there was none."""
    resumed_from, steps, extended = result["resumed_from"], result["steps"], result["extended"]
    lines = []
    if extended:
        taken, planned = extended[-1]
        lines.append(
            f"This run was planned with {planned} steps and now has {steps}: from step {taken} on, its learning rates "
            f"are those of a run of {steps} steps. A run of {steps} from the start (--fresh) gives different weights."
        )
    if resumed_from == steps:
        ended = (result.get("validation") or {}).get("stopped_early")
        first = "The training had ended early" if ended else "All steps were already taken"
        lines.append(f"{first}: {out / 'checkpoint.pt'} contains all {steps}; use --fresh to train again.")
    elif resumed_from:
        lines.append(f"It resumed from step {resumed_from} of {out / 'checkpoint.pt'}.")
    return " ".join(lines)


def higher_iou_scores(result: dict[str, Any]) -> str:
    """Instance accuracies on the last split, in one line, parts of which are separated by semicolons.

    First, for the baseline and the method, the mean over all images at rising IoU thresholds. Then, at IoU 0.5, pairs
    of the baseline's and the method's accuracy: `pooled` over the objects of all images, and of each group of images.
    """
    tables = {name: list(table.items())[-1] for name, table in result["rows"].items()}
    split, groups = next(iter(tables.values()))
    parts = []
    for name, (_, of_method) in tables.items():
        parts.append((name, [value for key, value in of_method["all"].items() if key.startswith("instance_accuracy")]))
    parts.append(("pooled", [of_method["all"]["pooled_accuracy"] for _, of_method in tables.values()]))
    for group in (group for group in groups if group != "all"):
        parts.append((group, [of_method[group]["instance_accuracy"] for _, of_method in tables.values()]))
    texts = [
        " ".join([name, *("-" if value is None else f"{value:.3f}" for value in values)]) for name, values in parts
    ]
    return f"{split} at IoU {', '.join(map(str, INSTANCE_IOUS))}: {'; '.join(texts)}"


def all_figures(result: dict[str, Any]) -> str:
    """Every figure on all images of the last split, such as those of each class; empty if there is only the metric."""
    texts = []
    for name, table in result["rows"].items():
        split, groups = list(table.items())[-1]
        figures = {key: value for key, value in groups["all"].items() if value is not None}
        if len(figures) < 2:
            return ""
        texts.append(f"{name} " + " ".join(f"{key} {value:.4f}" for key, value in figures.items()))
    return f"all figures on {split}: {'; '.join(texts)}"


def print_seeds(results: Sequence[dict[str, Any]]) -> None:
    """Print the scores of several seeds, one line per split, which the tables of the site are made of."""
    first = results[0]
    data = Path(first["folder"]).resolve().name if first.get("folder") else first["data"]
    baseline, method, metric = next(iter(first["rows"])), first["method"], first["metric"]
    seeds = ", ".join(str(result["seed"]) for result in results)
    cost = max(result["training_cpu_seconds"] for result in results)
    for split in first["rows"][baseline]:
        baselines, scores = (
            [f"{result['rows'][name][split]['all'][metric]:.4f}" for result in results] for name in (baseline, method)
        )
        print(
            f"{metric} on {data}, {split}, seeds {seeds}: "
            f"{baseline} {' '.join(baselines)}; {method} {' '.join(scores)}; least {min(scores)}, "
            f"target {first['target'] or 'none'}; {first['parameters']} parameters, {first['steps']} steps, "
            f"at most {cost} CPU-seconds of training"
        )
