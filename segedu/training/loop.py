"""The training loop, and a `fit` that resumes exactly after it was stopped.

`train_steps` is the loop. `train_one_epoch` runs it once over the data. `fit` runs it for a number of steps and saves
checkpoints, from which a new process resumes: on a CPU with the same number of threads, the final weights are bit by
bit those of an uninterrupted run.

Three things make this possible. The order of samples and their random transforms depend only on (seed, epoch, index):
see `shuffled_loader`. A checkpoint holds model, optimizer, schedule, position and the state of every random number
generator (`segedu.training.checkpoints`). And a complete checkpoint is on the disk at every moment.
"""

from __future__ import annotations

import signal
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from segedu.layers.labels import highest_class
from segedu.metrics.confusion import ConfusionMatrix
from segedu.metrics.semantic import (
    iou_per_class_from_confusion,
    mean_iou_from_confusion,
    pixel_accuracy_from_confusion,
)
from segedu.training.best_weights import Validation
from segedu.training.checkpoints import (
    EpochSampler,
    Stopped,
    StopRequest,
    check_same_run,
    load_checkpoint,
    random_state,
    save_checkpoint,
    set_random_state,
)
from segedu.training.devices import device_of, start_fabric, to_device

Loss = Callable[[Any, Any], Tensor | dict[str, Tensor]]
Log = Callable[[str, float, int], None]  # name, value, step


def train_steps(
    model: nn.Module,
    loader: Iterable,
    loss_function: Loss,
    optimizer: torch.optim.Optimizer,
    *,
    scheduler: Any = None,
    clip_norm: float | None = None,
    fabric: Any = None,
) -> Iterator[float]:
    """Take one step of the optimizer for each batch of `loader`.

    Args:
        model: maps images to outputs; put into training mode.
        loader: yields (images, targets). With a Fabric, it has to come from `fabric.setup_dataloaders`.
        loss_function: (outputs, targets) -> a scalar, or a dict whose key `loss` holds the scalar.
        optimizer: updates the model's parameters.
        scheduler: the learning rate schedule; it advances after each step.
        clip_norm: largest norm of the gradients; longer gradients are scaled to it.
        fabric: a Lightning Fabric, for precision and several devices; None is plain PyTorch, on the
            device of the model.

    Returns:
        An iterator. Each `next` takes one step and returns the loss before that step, averaged over the devices.

    Raises:
        ValueError: the loss is not finite. The weights are then those before the step.
    """
    model.train()
    device = device_of(model)
    for images, targets in loader:
        images, targets = to_device(images, device), to_device(targets, device)
        losses = loss_function(model(images), targets)
        loss = losses["loss"] if isinstance(losses, dict) else losses
        value = _mean_over_devices(loss, fabric)
        if not np.isfinite(value):
            raise ValueError(f"the loss is {value}, expected a finite value: lower the learning rate")
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss) if fabric else loss.backward()
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        yield value


def _mean_over_devices(loss: Tensor, fabric: Any) -> float:
    """The mean loss over the devices: all of them get the same value, and stop together if it is not finite."""
    if fabric is None or fabric.world_size == 1:
        return float(loss.detach())
    return float(fabric.all_reduce(loss.detach(), reduce_op="mean"))


def train_one_epoch(
    model: nn.Module,
    loader: Iterable,
    loss_function: Loss,
    optimizer: torch.optim.Optimizer,
    *,
    progress: bool = True,
    **options: Any,
) -> float:
    """Train on every batch of `loader` once, and return the mean loss of the steps.

    The arguments, also `options`, are those of `train_steps`; `progress` shows a progress bar.

    Raises:
        ValueError: `loader` has no batch, or a loss is not finite.
    """
    steps = train_steps(model, loader, loss_function, optimizer, **options)
    total = len(loader) if hasattr(loader, "__len__") else None
    losses = list(tqdm(steps, total=total, desc="train", unit="step", disable=not progress))
    if not losses:
        raise ValueError("loader has no batch, expected at least one (is the data set smaller than a batch?)")
    return float(np.mean(losses))


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loader: Iterable,
    num_classes: int,
    *,
    ignore_index: int | None = 255,
    predict: Callable[[Any], Tensor] = highest_class,
) -> dict[str, Any]:
    """Metrics of a semantic model over a data set, from the confusion matrix of all pixels.

    The model is evaluated in evaluation mode and afterwards put back into its previous mode.

    Args:
        model: maps images (B, C, H, W) to outputs.
        loader: yields (images, target), target (B, H, W) int64. Batches may differ in size.
        num_classes: K, background included.
        ignore_index: pixels with this target are not counted.
        predict: maps outputs to classes (B, H, W).

    Returns:
        `mean_iou` and `pixel_accuracy` (floats), `iou_per_class` (K floats, NaN for a class in neither the ground truth
        nor the prediction), `confusion` (K, K).

    Raises:
        ValueError: `loader` has no batch, or prediction and target differ in shape.
    """
    total, batches = ConfusionMatrix(num_classes, ignore_index), 0
    was_training, device = model.training, device_of(model)
    model.eval()
    try:
        for images, target in loader:
            total.update(predict(model(to_device(images, device))).cpu(), target.cpu())
            batches += 1
    finally:
        model.train(was_training)
    if not batches:
        raise ValueError("loader has no batch, expected at least one")
    matrix = total.compute()
    return {
        "mean_iou": float(mean_iou_from_confusion(matrix)),
        "pixel_accuracy": float(pixel_accuracy_from_confusion(matrix)),
        "iou_per_class": [float(iou) for iou in iou_per_class_from_confusion(matrix)],
        "confusion": matrix,
    }


@dataclass
class Trained:
    """Progress of `fit`. Times add up over restarts; `losses` has one entry per step.

    `resumed_from` is the step from which this process resumed. `extended` has an entry for each change of the number of
    steps: the steps taken until then, and the previous number.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    resumed_from: int = 0
    extended: list[list[int]] = field(default_factory=list)


@dataclass(frozen=True)
class _Plan:
    """Arguments of `fit` that decide when and what it writes."""

    path: str | Path | None
    checkpoint_every: int
    parts: dict[str, Any]  # model, optimizer, scheduler, precision, validation
    run: dict[str, Any]
    metadata: dict[str, Any] | None
    extend: bool
    log: Log | None

    def is_over(self, step: int) -> bool:
        """Whether all steps were taken, or the validation ends the training earlier."""
        validation = self.parts["validation"]
        return step >= self.run["steps"] or (validation is not None and validation.is_over)


def _timed(trained: Trained, steps: Iterator[float]) -> Iterator[float]:
    """Count the steps and their time, which includes loading data and writing checkpoints."""
    cpu, wall = time.process_time(), time.perf_counter()
    for loss in steps:
        now_cpu, now_wall = time.process_time(), time.perf_counter()
        trained.cpu_seconds += now_cpu - cpu
        trained.wall_seconds += now_wall - wall
        cpu, wall = now_cpu, now_wall
        trained.step, trained.batch = trained.step + 1, trained.batch + 1
        trained.losses.append(loss)
        yield loss


def _save(plan: _Plan, trained: Trained, fabric: Any) -> None:
    random_states = [random_state()]
    if fabric.world_size > 1:
        random_states = [None] * fabric.world_size
        torch.distributed.all_gather_object(random_states, random_state())
    if fabric.is_global_zero:
        states = {name: part.state_dict() for name, part in plan.parts.items() if part is not None}
        record = {"run": plan.run, "about": plan.metadata, "trained": asdict(trained), "random": random_states}
        save_checkpoint(plan.path, {**states, **record})
    fabric.barrier()


def _resume(plan: _Plan, fabric: Any) -> Trained:
    """Load the checkpoint into model, optimizer and so on. Without one, write the first, to test the path."""
    if plan.path is None or not Path(plan.path).exists():
        if plan.path is not None:
            _save(plan, Trained(), fabric)
        return Trained()
    state, path = load_checkpoint(plan.path), plan.path
    check_same_run(path, state, plan.run, plan.metadata, plan.extend)
    expected = {name for name, part in plan.parts.items() if part is not None}
    saved = state.keys() & plan.parts.keys()
    if expected != saved:
        raise ValueError(f"checkpoint {path} contains {sorted(saved)}, expected {sorted(expected)}")
    trained = Trained(**state["trained"])
    trained.resumed_from = trained.step
    if plan.run["steps"] != state["run"]["steps"]:
        trained.extended.append([trained.step, state["run"]["steps"]])
        _reschedule(plan.parts, state, trained.step)
    try:
        for name in expected:
            plan.parts[name].load_state_dict(state[name])
    except (KeyError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"checkpoint {path} does not fit this model and optimizer: {reason}") from error
    set_random_state(state["random"][fabric.global_rank])
    return trained


def _reschedule(parts: dict[str, Any], state: dict[str, Any], step: int) -> None:
    """Advance the schedule of an extended run to `step`, and put its learning rates and momenta into `state`.

    The optimizer keeps its moments.
    """
    if parts["scheduler"] is None:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the schedule advances without the optimizer here
        for _ in range(step):
            parts["scheduler"].step()
    state["scheduler"] = parts["scheduler"].state_dict()
    state["optimizer"] = {**parts["optimizer"].state_dict(), "state": state["optimizer"]["state"]}


def fit(
    model: nn.Module,
    loader: DataLoader,
    loss_function: Loss,
    optimizer: torch.optim.Optimizer,
    *,
    steps: int,
    scheduler: Any = None,
    clip_norm: float | None = None,
    fabric: Any = None,
    checkpoint: str | Path | None = None,
    metadata: dict[str, Any] | None = None,
    extend: bool = False,
    checkpoint_every: int = 100,
    validation: Validation | None = None,
    log: Log | None = None,
    progress: bool = True,
) -> Trained:
    """Train for `steps` steps, and resume from `checkpoint` if it exists.

    Resuming is exact on a CPU with the same number of threads and devices. On a GPU some kernels of PyTorch add in an
    order that is not fixed, so two runs differ in the last bits with or without a restart.

    With a checkpoint, the first Ctrl-C or SIGTERM ends the current step, writes the checkpoint and raises `Stopped`.

    Args:
        model: trained in place; left on the device of `fabric`.
        loader: from `shuffled_loader`.
        loss_function: as in `train_steps`.
        optimizer: as in `train_steps`.
        steps: total number of steps; a resumed run takes the remaining ones.
        scheduler: as in `train_steps`.
        clip_norm: as in `train_steps`.
        fabric: from `start_fabric`; None for one device, the fastest available.
        checkpoint: file to resume from and to write; None for no checkpoints.
        metadata: description of the run as plain values, such as a digest of its data. It is kept in the checkpoint,
            and a run with another description refuses to resume from it. With None, only the loader and `steps` are
            compared.
        extend: resume also if the number of steps or `metadata["limits"]` differ. The schedule continues as that of
            `steps` steps would, so a run of 12 steps that is extended to 40 differs from a run of 40.
        checkpoint_every: number of steps between checkpoints; the last step is always saved.
        validation: measures the model during the training, and may end it early. The model is then left with the
            weights of the highest score. The checkpoint holds both the last and the best weights.
        log: called as `log("loss", value, step)` after each step, and as `log("validation", score, step)`.
        progress: show a progress bar.

    Raises:
        OSError: the checkpoint cannot be written. An unwritable folder is detected before the first step.
        Stopped: Ctrl-C or SIGTERM was received. It is a KeyboardInterrupt.
        ValueError: the loader is not from `shuffled_loader`, the checkpoint belongs to another run, or a loss is not
            finite.
    """
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, EpochSampler):
        raise ValueError(f"loader has the sampler {type(sampler).__name__}, expected a loader from shuffled_loader")
    if steps < 1 or checkpoint_every < 1:
        raise ValueError(f"steps is {steps} and checkpoint_every is {checkpoint_every}, expected at least 1")
    fabric = fabric or start_fabric()
    sampler.rank, sampler.world_size = fabric.global_rank, fabric.world_size
    run = {"steps": steps, "seed": sampler.seed, "samples": sampler.length, "batch_size": loader.batch_size}
    run["world"] = fabric.world_size
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "precision": fabric.strategy.precision}
    parts["validation"] = validation
    plan = _Plan(checkpoint, checkpoint_every, parts, run, metadata, extend, log)
    wrapped, wrapped_optimizer = fabric.setup(model, optimizer)
    batches = fabric.setup_dataloaders(loader, use_distributed_sampler=False)
    trained = _resume(plan, fabric)
    options = {"scheduler": scheduler, "clip_norm": clip_norm, "fabric": fabric}
    hidden = not progress or fabric.global_rank > 0
    bar = tqdm(total=steps, initial=trained.step, desc="train", unit="step", disable=hidden)
    with bar, StopRequest(active=checkpoint is not None) as request:
        while not plan.is_over(trained.step):
            sampler.epoch, sampler.first = trained.epoch, trained.batch * loader.batch_size
            before = trained.step
            losses = train_steps(wrapped, batches, loss_function, wrapped_optimizer, **options)
            if _train_epoch(_timed(trained, losses), plan, trained, fabric, bar, request):
                if trained.step == before and trained.batch == 0:
                    raise ValueError("loader has no batch, expected at least one per epoch")
                trained.epoch, trained.batch = trained.epoch + 1, 0
    if validation is not None:
        validation.load_best(model)
    return trained


def _train_epoch(
    losses: Iterator[float], plan: _Plan, trained: Trained, fabric: Any, bar: tqdm, request: StopRequest
) -> bool:
    """Take the remaining steps of the epoch or of the run; True if the epoch ended first."""
    steps = plan.run["steps"]
    for loss in losses:
        bar.update()
        bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        _validate_and_log(loss, plan, trained.step, fabric)
        stop, is_over = plan.path is not None and _stop_signal(request, fabric), plan.is_over(trained.step)
        if plan.path and (trained.step % plan.checkpoint_every == 0 or is_over or stop):
            _save(plan, trained, fabric)
        if stop:
            raise Stopped(plan.path, trained.step, steps, stop)
        if is_over:
            return False
    return True


def _validate_and_log(loss: float, plan: _Plan, step: int, fabric: Any) -> None:
    """Measure the model if it is due, and pass the loss and the score to the log of the first process."""
    validation, log = plan.parts["validation"], plan.log if fabric.is_global_zero else None
    if log is not None:
        log("loss", loss, step)
    if validation is not None and validation.is_due(step, plan.run["steps"]):
        score = validation.measure(plan.parts["model"], step, fabric)
        if log is not None:
            log("validation", score, step)


def _stop_signal(request: StopRequest, fabric: Any) -> int:
    """The signal that this or another process received, or 0; all processes then stop after the same step."""
    if fabric.world_size == 1:
        return request.signal
    total = fabric.all_reduce(torch.tensor(float(request.signal), device=fabric.device), reduce_op="sum")
    return request.signal or int(float(total) > 0) * signal.SIGTERM
