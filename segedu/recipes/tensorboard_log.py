"""Logs of a training for TensorBoard, which shows curves of several runs while they train."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from segedu.training.loop import Log

FOLDER = "tensorboard"  # of the logs, in the folder of a run


def check_tensorboard() -> None:
    """Raise an ImportError that says how to install TensorBoard if it is missing."""
    if find_spec("tensorboard") is None:
        raise ImportError("tensorboard is not installed: pip install tensorboard, or train without --tensorboard")


@contextmanager
def log_to(run: Path | None) -> Iterator[Log | None]:
    """Open a log in the folder of a run, for `fit`; None for no log.

    A run that resumes repeats the steps since its checkpoint, and TensorBoard then shows the last value of each step.
    """
    if run is None:
        yield None
        return
    check_tensorboard()
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run / FOLDER))
    try:
        yield writer.add_scalar
    finally:
        writer.close()


def delete_logs(run: Path) -> None:
    """Delete the logs of a run."""
    shutil.rmtree(run / FOLDER, ignore_errors=True)
