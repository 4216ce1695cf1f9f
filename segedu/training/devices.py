"""Where to train: which devices this machine has, and Lightning Fabric started on them; batches moved there."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor


def check_devices(accelerator: str, devices: int) -> None:
    """Refuse devices that this machine does not have, before anything is started on them; batches moved there.

    Args:
        accelerator: cpu, cuda, mps, gpu for either of these two, or auto.
        devices: how many of them. Of processors two are allowed everywhere, to try what several do.

    Raises:
        ValueError: the accelerator has another name or is not there, or there are fewer devices.
    """
    numbers = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    numbers["cpu"] = max(2, os.cpu_count() or 1)
    if accelerator not in (*numbers, "gpu", "auto"):
        raise ValueError(f"accelerator is {accelerator!r}, expected one of cpu, cuda, mps and auto")
    choices = {"auto": ("cuda", "mps", "cpu"), "gpu": ("cuda", "mps")}.get(accelerator, (accelerator,))
    kind = next((kind for kind in choices if numbers[kind]), None)
    if kind is None:
        raise ValueError(
            f"accelerator is {accelerator!r}, but PyTorch finds none on this machine: expected cpu or auto"
        )
    if not 1 <= devices <= numbers[kind]:
        raise ValueError(f"devices is {devices}, expected 1 to {numbers[kind]}: this machine has no more of {kind}")


def start_fabric(accelerator: str = "auto", devices: int = 1, precision: str = "32-true") -> Any:
    """Launch a Lightning Fabric for `fit`.

    Args:
        accelerator: where to train: cpu, cuda, mps, or auto for the best that is there.
        devices: on how many; above 1, each process sees its share of every epoch.
        precision: 32-true, 64-true, 16-mixed, bf16-mixed and others, as Fabric names them.

    Returns:
        The Fabric.

    Raises:
        ImportError: lightning-fabric is not installed.
        ValueError: this machine does not have these devices.
    """
    check_devices(accelerator, devices)
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise ImportError("fit needs lightning-fabric: pip install 'segedu[train]'") from error
    fabric = Fabric(accelerator=accelerator, devices=devices, precision=precision)
    fabric.launch()
    return fabric


def to_device(batch: Any, device: torch.device) -> Any:
    """Move the tensors of a batch.

    Args:
        batch: a tensor, or lists, tuples and dicts of them; anything else stays as it is.
        device: where to.

    Returns:
        The same structure.
    """
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, dict):
        return {name: to_device(value, device) for name, value in batch.items()}
    return type(batch)(to_device(value, device) for value in batch) if isinstance(batch, list | tuple) else batch
