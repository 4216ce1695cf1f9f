"""Validation during a training: a score every so many steps, the weights with the best score, and early stopping.

`fit` takes a `Validation` and keeps its state in the checkpoint, so a resumed run has the same scores and the same best
weights as an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from segedu.training.checkpoints import random_state, set_random_state


class Validation:
    """Measures a network during its training and keeps the weights with the highest score.

    Args:
        score: network in evaluation mode -> a finite figure, higher is better.
        every: number of steps between two measurements. The last step is always measured.
        patience: the training ends after so many measurements in a row without a higher score; None for never.

    Attributes:
        scores: step -> score, in the order of the steps.
        best: copy of the weights with the highest score, on the CPU; of equal scores, the first.
    """

    def __init__(self, score: Callable[[nn.Module], float], every: int, patience: int | None = None) -> None:
        if every < 1:
            raise ValueError(f"every is {every}, expected at least 1 step")
        if patience is not None and patience < 1:
            raise ValueError(f"patience is {patience}, expected at least 1 measurement, or None")
        self.score, self.every, self.patience = score, every, patience
        self.scores: dict[int, float] = {}
        self.best: dict[str, Tensor] = {}

    @property
    def best_step(self) -> int:
        """The step with the highest score, the first of equal ones; 0 before the first measurement."""
        return max(self.scores, key=self.scores.__getitem__, default=0)

    @property
    def is_over(self) -> bool:
        """Whether the last `patience` measurements had no higher score than an earlier one."""
        later = sum(step > self.best_step for step in self.scores)
        return self.patience is not None and later >= self.patience

    def is_due(self, step: int, steps: int) -> bool:
        """Whether to measure after this step of a training of `steps` steps."""
        return step % self.every == 0 or step == steps

    def measure(self, model: nn.Module, step: int, fabric: Any = None) -> float:
        """Measure the network, and keep a copy of its weights if its score is the highest.

        The network is left in its previous mode, and the random numbers of the training stay what they would be without
        the measurement. Of several processes, the score of the first counts.

        Raises:
            ValueError: the score is not finite.
        """
        was_training, random_numbers = model.training, random_state()
        model.eval()
        try:
            value = self.score(model)
        finally:
            model.train(was_training)
            set_random_state(random_numbers)
        value = value if fabric is None else fabric.broadcast(value)
        if value is None or not math.isfinite(value):
            raise ValueError(f"the validation score after step {step} is {value}, expected a finite value")
        self.scores[step] = float(value)
        if self.best_step == step:
            self.best = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
        return self.scores[step]

    def load_best(self, model: nn.Module) -> None:
        """Copy the weights with the highest score into the network; without a measurement, it stays as it is."""
        if self.best:
            model.load_state_dict(self.best)

    def state_dict(self) -> dict[str, Any]:
        """Scores and best weights, as `fit` keeps them in a checkpoint."""
        return {"scores": dict(self.scores), "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.scores, self.best = dict(state["scores"]), dict(state["best"])


def best_weights(checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], int]:
    """The weights of a checkpoint of `fit` with the highest validation score, or else the last, and their step."""
    validation = Validation(lambda model: 0.0, every=1)
    validation.load_state_dict(checkpoint.get("validation") or {"scores": {}, "best": {}})
    if validation.best:
        return validation.best, validation.best_step
    return checkpoint["model"], checkpoint["trained"]["step"]
