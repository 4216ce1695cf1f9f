"""Devices: check that this machine has them, start Lightning Fabric on them, and move batches to them."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn


def check_devices(accelerator: str, devices: int) -> None:
    """Raise a ValueError unless this machine has the devices.

    Args:
        accelerator: cpu, cuda, mps, gpu for cuda or mps, or auto.
        devices: number of devices. Two processes on the CPU are allowed everywhere, so that anyone can try several.
    """
    available = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    available["cpu"] = max(2, os.cpu_count() or 1)
    if accelerator not in (*available, "gpu", "auto"):
        raise ValueError(f"accelerator is {accelerator!r}, expected one of cpu, cuda, mps and auto")
    choices = {"auto": ("cuda", "mps", "cpu"), "gpu": ("cuda", "mps")}.get(accelerator, (accelerator,))
    chosen = next((name for name in choices if available[name]), None)
    if chosen is None:
        raise ValueError(
            f"accelerator is {accelerator!r}, but PyTorch finds none on this machine: expected cpu or auto"
        )
    if not 1 <= devices <= available[chosen]:
        raise ValueError(f"devices is {devices}, expected 1 to {available[chosen]} of {chosen} on this machine")


def start_fabric(accelerator: str = "auto", devices: int = 1, precision: str = "32-true") -> Any:
    """Launch a Lightning Fabric for `fit`.

    Args:
        accelerator: cpu, cuda, mps, or auto for the fastest one available.
        devices: number of processes, one per device; each of them gets its share of every epoch.
        precision: 32-true, 64-true, 16-mixed, bf16-mixed and others, as Fabric names them.
    """
    check_devices(accelerator, devices)
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise ImportError("fit needs lightning-fabric: pip install 'segedu[train]'") from error
    fabric = Fabric(accelerator=accelerator, devices=devices, precision=precision)
    fabric.launch()
    return fabric


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's parameters; the CPU for a model without any."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def to_device(batch: Any, device: torch.device) -> Any:
    """Move a tensor, or the tensors in nested lists, tuples and dicts, to `device`; other values stay as they are."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, dict):
        return {name: to_device(value, device) for name, value in batch.items()}
    return type(batch)(to_device(value, device) for value in batch) if isinstance(batch, list | tuple) else batch
