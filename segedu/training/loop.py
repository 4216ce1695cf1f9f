"""Training in the open: one loop to read, and a fit that survives being killed.

`train_steps` is the loop. `train_one_epoch` runs it once over the data. `fit` runs it for a number of steps
and saves checkpoints from which a new process goes on exactly: on a CPU, with the same number of threads,
the weights at the end are the same bit by bit as if nothing had happened.

Three things make that true. The order of samples and the randomness inside each sample depend on nothing
but (seed, epoch, index): `shuffled_loader`. A checkpoint holds model, optimizer, schedule, position and the
state of every random generator (`segedu.training.checkpoints`). And it is written so that a whole one is always there.
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
from segedu.training.devices import start_fabric, to_device

Loss = Callable[[Any, Any], Tensor | dict[str, Tensor]]


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
        model: maps images to outputs; put into training mode here.
        loader: yields (images, targets). With a Fabric, one that `fabric.setup_dataloaders` returned.
        loss_function: (outputs, targets) -> a scalar, or a dict whose key `loss` holds the scalar.
        optimizer: of the model's parameters.
        scheduler: its learning rate schedule, moved after each step.
        clip_norm: gradients longer than this are scaled to it.
        fabric: a Lightning Fabric, for precision and several devices; None is plain PyTorch, on the
            device of the model.

    Returns:
        An iterator: each `next` takes one step and gives the loss before it, with several devices their mean.

    Raises:
        ValueError: the loss is not a finite number. The weights are those before the step.
    """
    model.train()
    device = _device(model)
    for images, targets in loader:
        images, targets = to_device(images, device), to_device(targets, device)
        losses = loss_function(model(images), targets)
        loss = losses["loss"] if isinstance(losses, dict) else losses
        value = _value(loss, fabric)
        if not np.isfinite(value):
            raise ValueError(f"the loss is {value}, expected a finite number: lower the learning rate")
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss) if fabric else loss.backward()
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        yield value


def _value(loss: Tensor, fabric: Any) -> float:
    """The loss of the whole batch: all devices see the same number, and stop together if it is not finite."""
    if fabric is None or fabric.world_size == 1:
        return float(loss.detach())
    return float(fabric.all_reduce(loss.detach(), reduce_op="mean"))


def _device(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def train_one_epoch(
    model: nn.Module,
    loader: Iterable,
    loss_function: Loss,
    optimizer: torch.optim.Optimizer,
    *,
    progress: bool = True,
    **options: Any,
) -> float:
    """Go over the data once.

    Args:
        model: as for `train_steps`.
        loader: as for `train_steps`.
        loss_function: as for `train_steps`.
        optimizer: as for `train_steps`.
        progress: show a bar with the time left.
        options: `scheduler`, `clip_norm` and `fabric` of `train_steps`.

    Returns:
        The mean loss of the steps.

    Raises:
        ValueError: `loader` gives no batch, or a loss is not finite.
    """
    steps = train_steps(model, loader, loss_function, optimizer, **options)
    total = len(loader) if hasattr(loader, "__len__") else None
    losses = list(tqdm(steps, total=total, desc="train", unit="step", disable=not progress))
    if not losses:
        raise ValueError("loader gives no batch, expected at least one (is drop_last on, and the data set small?)")
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
    """Metrics of a semantic model over a whole data set, from one confusion matrix of all its pixels.

    The model is put into evaluation mode and left in the mode in which it came.

    Args:
        model: maps images (B, C, H, W) to outputs.
        loader: yields (images, target), target (B, H, W) int64. Batches may differ in size.
        num_classes: K, background included.
        ignore_index: pixels with this target are not counted.
        predict: maps outputs to labels (B, H, W).

    Returns:
        `mean_iou` and `pixel_accuracy` (floats), `iou_per_class` (K floats, NaN where a class is absent from
        truth and prediction), `confusion` (K, K).

    Raises:
        ValueError: `loader` gives no batch, or prediction and target differ in shape.
    """
    total, batches = ConfusionMatrix(num_classes, ignore_index), 0
    was_training, device = model.training, _device(model)
    model.eval()
    try:
        for images, target in loader:
            total.update(predict(model(to_device(images, device))).cpu(), target.cpu())
            batches += 1
    finally:
        model.train(was_training)
    if not batches:
        raise ValueError("loader gives no batch, expected at least one")
    matrix = total.compute()
    return {
        "mean_iou": float(mean_iou_from_confusion(matrix)),
        "pixel_accuracy": float(pixel_accuracy_from_confusion(matrix)),
        "iou_per_class": [float(iou) for iou in iou_per_class_from_confusion(matrix)],
        "confusion": matrix,
    }


@dataclass
class Trained:
    """What `fit` did so far. Times add up over restarts; `losses` has one entry a step.

    `resumed_from` is the step from which this process went on. `extended` has an entry for each time that the run was
    given another number of steps: how many it had taken then, and how many it was to take before.
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
    """What `fit` was asked for, and what of it goes into every checkpoint."""

    path: str | Path | None
    every: int
    parts: dict[str, Any]  # model, optimizer, scheduler, precision
    run: dict[str, Any]
    about: dict[str, Any] | None
    extend: bool


def _timed(trained: Trained, steps: Iterator[float]) -> Iterator[float]:
    """Count the steps and the time they take, data and checkpoints included."""
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
    randoms = [random_state()]
    if fabric.world_size > 1:
        randoms = [None] * fabric.world_size
        torch.distributed.all_gather_object(randoms, random_state())
    if fabric.is_global_zero:
        states = {name: part.state_dict() for name, part in plan.parts.items() if part is not None}
        known = {"run": plan.run, "about": plan.about, "trained": asdict(trained), "random": randoms}
        save_checkpoint(plan.path, {**states, **known})
    fabric.barrier()


def _resume(plan: _Plan, fabric: Any) -> Trained:
    """Load a checkpoint into the parts; where there is none, write the first one, to learn whether it can be."""
    if plan.path is None or not Path(plan.path).exists():
        if plan.path is not None:
            _save(plan, Trained(), fabric)
        return Trained()
    state, path = load_checkpoint(plan.path), plan.path
    check_same_run(path, state, plan.run, plan.about, plan.extend)
    given, held = {name for name, part in plan.parts.items() if part is not None}, state.keys() & plan.parts.keys()
    if given != held:
        raise ValueError(f"checkpoint {path} holds {sorted(held)}, expected {sorted(given)}")
    trained = Trained(**state["trained"])
    trained.resumed_from = trained.step
    if plan.run["steps"] != state["run"]["steps"]:
        trained.extended.append([trained.step, state["run"]["steps"]])
        _reschedule(plan.parts, state, trained.step)
    try:
        for name in given:
            plan.parts[name].load_state_dict(state[name])
    except (KeyError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"checkpoint {path} does not fit this model and optimizer: {reason}") from error
    set_random_state(state["random"][fabric.global_rank])
    return trained


def _reschedule(parts: dict[str, Any], state: dict[str, Any], step: int) -> None:
    """Give an extended run the learning rate that the schedule of all its steps has at `step`.

    The optimizer keeps its moments; learning rates and momenta in `state` become those of the new schedule.
    """
    if parts["scheduler"] is None:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the schedule moves here without the optimizer
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
    about: dict[str, Any] | None = None,
    extend: bool = False,
    every: int = 100,
    progress: bool = True,
) -> Trained:
    """Train for `steps` steps, going on from `checkpoint` where it exists.

    Exact on a CPU with the same number of threads and devices. On a GPU some kernels of PyTorch add in an
    order that is not fixed, so two runs differ in the last bits with or without a restart.

    With a checkpoint, the first Ctrl-C or SIGTERM ends the current step, writes the checkpoint and raises `Stopped`.

    Args:
        model: trained in place; left on the device of `fabric`.
        loader: from `shuffled_loader`.
        loss_function: as for `train_steps`.
        optimizer: as for `train_steps`.
        steps: of the optimizer, in all: a run that resumes does what is left of them.
        scheduler: as for `train_steps`.
        clip_norm: as for `train_steps`.
        fabric: from `start_fabric`; None: one device, chosen by what is there.
        checkpoint: file to go on from and to write. None: no checkpoints.
        about: plain values that say what the run is of, such as a digest of its data; they are kept in the checkpoint,
            and a checkpoint that says something else is refused. None: what the loader and `steps` say is enough.
        extend: go on also from a checkpoint of fewer or more steps, and of another `about["limits"]`. The schedule
            continues where the one of `steps` steps would be, so that a run of 12 steps, extended to 40, is not the
            same as one of 40.
        every: steps from one checkpoint to the next; the last step is always written.
        progress: show a bar with the time left.

    Returns:
        How far the run came, its losses and its cost.

    Raises:
        OSError: the checkpoint cannot be written. An unwritable folder shows before the first step.
        Stopped: after Ctrl-C or SIGTERM; a KeyboardInterrupt.
        ValueError: the loader is of another kind, the checkpoint of another run, or a loss not finite.
    """
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, EpochSampler):
        raise ValueError(f"loader has the sampler {type(sampler).__name__}, expected a loader of shuffled_loader")
    if steps < 1 or every < 1:
        raise ValueError(f"steps is {steps} and every is {every}, expected at least 1")
    fabric = fabric or start_fabric()
    sampler.rank, sampler.world = fabric.global_rank, fabric.world_size
    run = {"steps": steps, "seed": sampler.seed, "samples": sampler.length, "batch_size": loader.batch_size}
    run["world"] = fabric.world_size
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "precision": fabric.strategy.precision}
    plan = _Plan(checkpoint, every, parts, run, about, extend)
    wrapped, wrapped_optimizer = fabric.setup(model, optimizer)
    batches = fabric.setup_dataloaders(loader, use_distributed_sampler=False)
    trained = _resume(plan, fabric)
    options = {"scheduler": scheduler, "clip_norm": clip_norm, "fabric": fabric}
    hidden = not progress or fabric.global_rank > 0
    bar = tqdm(total=steps, initial=trained.step, desc="train", unit="step", disable=hidden)
    with bar, StopRequest(active=checkpoint is not None) as request:
        while trained.step < steps:
            sampler.epoch, sampler.first = trained.epoch, trained.batch * loader.batch_size
            before = trained.step
            losses = train_steps(wrapped, batches, loss_function, wrapped_optimizer, **options)
            if _train_epoch(_timed(trained, losses), plan, trained, fabric, bar, request):
                if trained.step == before and trained.batch == 0:
                    raise ValueError("loader gives no batch, expected at least one in each epoch")
                trained.epoch, trained.batch = trained.epoch + 1, 0
    return trained


def _train_epoch(
    losses: Iterator[float], plan: _Plan, trained: Trained, fabric: Any, bar: tqdm, request: StopRequest
) -> bool:
    """Take the steps that are left of an epoch or of the run; True where the epoch came to its end first."""
    steps = plan.run["steps"]
    for loss in losses:
        bar.update()
        bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        stop = plan.path is not None and _anyone_stops(request, fabric)
        if plan.path and (trained.step % plan.every == 0 or trained.step == steps or stop):
            _save(plan, trained, fabric)
        if stop:
            raise Stopped(plan.path, trained.step, steps, stop)
        if trained.step == steps:
            return False
    return True


def _anyone_stops(request: StopRequest, fabric: Any) -> int:
    """The signal that this process or another one got, or 0: all of them stop after the same step."""
    if fabric.world_size == 1:
        return request.signal
    total = fabric.all_reduce(torch.tensor(float(request.signal), device=fabric.device), reduce_op="sum")
    return request.signal or int(float(total) > 0) * signal.SIGTERM
