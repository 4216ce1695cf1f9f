"""Validation during a run: which images it uses, what it prints, and its table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from tqdm.auto import tqdm

from segedu.recipes.data import Sets
from segedu.recipes.recipe import Recipe
from segedu.training import Validation

VAL = "val"  # the split that decides; the others are measured once, at the end
MOST_IMAGES = 32  # of the split val; more would take a large part of the time of a short training


@dataclass(frozen=True)
class Watch:
    """What is measured and logged during a run.

    Attributes:
        validations: number of times that the split val is measured; the weights with the best score are used. 0 for
            the weights of the last step.
        patience: end the training after so many validations in a row without a better score; None for never.
        tensorboard: write logs for TensorBoard into the folder `tensorboard` of the run.
    """

    validations: int = 0
    patience: int | None = None
    tensorboard: bool = False

    def __post_init__(self) -> None:
        if self.validations < 0:
            raise ValueError(f"validations is {self.validations}, expected at least 0")
        if self.patience is not None and not 1 <= self.patience < self.validations:
            raise ValueError(
                f"patience is {self.patience} and validations is {self.validations}, expected a patience of at least "
                f"1 validation, and more validations than that"
            )


def plan_validation(
    recipe: Recipe, sets: Sets, steps: int, watch: Watch, *, progress: bool = True
) -> Validation | None:
    """Measure the recipe's metric several times at equal distances on the split val; None without measurements.

    Of a large split, a part is measured: at most 32 images at equal distances in the list.

    Args:
        recipe: what is trained.
        sets: its data.
        steps: of the whole run.
        watch: number of measurements, and patience.
        progress: show a progress bar during each measurement.

    Raises:
        ValueError: there is no split val.
    """
    if not watch.validations:
        return None
    if VAL not in sets.held_out:
        raise ValueError(f"the data have the splits train, {', '.join(sets.held_out)}, expected val to validate on")
    pairs = [pair for group in sets.held_out[VAL].values() for pair in group]
    count = min(len(pairs), MOST_IMAGES)
    part = Sets(sets.train, {VAL: {"all": [pairs[i * len(pairs) // count] for i in range(count)]}})

    def score(model: nn.Module) -> float:
        predict = partial(recipe.task.predict, model, postprocess=recipe.postprocess)
        with tqdm(total=count, desc="validate", unit="image", leave=False, disable=not progress) as bar:

            def predict_and_count(image: Any) -> Any:
                bar.update()
                return predict(image)

            table = recipe.task.measure(predict_and_count, part, len(recipe.classes))
        return table[VAL]["all"][recipe.metric]

    return Validation(score, max(1, round(steps / watch.validations)), watch.patience)


def validation_result(validation: Validation | None, trained_steps: int, planned: int) -> dict[str, Any] | None:
    """What `result.json` says about the validations of a run; None without any."""
    if validation is None:
        return None
    return {
        "scores": {str(step): score for step, score in validation.scores.items()},
        "best_step": validation.best_step,
        "stopped_early": trained_steps < planned,
        "planned_steps": planned,
    }


def validation_note(result: dict[str, Any]) -> str:
    """A sentence about the best of the validations, and whether the training ended early; empty without validations."""
    about = result.get("validation")
    if not about:
        return ""
    best, scores = about["best_step"], about["scores"]
    text = (
        f"Validation: {len(scores)} measurements on val, the best after step {best} ({scores[str(best)]:.4f}). "
        f"The weights of that step are used."
    )
    if about["stopped_early"]:
        text += f" The training ended after {result['steps']} of {about['planned_steps']} steps (--patience)."
    return text


def write_scores(scores: dict[int, float], metric: str, path: Path) -> None:
    """Write a table with one row per validation."""
    path.write_text(f"step,{metric}\n" + "".join(f"{step},{score:.6g}\n" for step, score in scores.items()))
