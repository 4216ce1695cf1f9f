"""Cells of a lab's source run by themselves, with the references in the place of the student's functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from segedu.teaching.authoring import notebooks as authoring
from segedu.teaching.exercises import load

COURSE = Path(__file__).resolve().parents[2]


def sources(lab: str) -> dict[str, str]:
    """The cells of a lab by their names."""
    return {cell.metadata["segedu"]["name"]: cell.source for cell in authoring.read_source(COURSE, lab).cells}


def seeds(seed: int, *drawn: str) -> dict[str, str]:
    """Changes that give weights this seed, and the scenes of training and those of the end seeds of their own.

    Args:
        seed: of the weights; scenes are drawn with 2 * seed and 2 * seed + 1.
        drawn: the beginnings of the two calls that draw scenes, such as `draw_data(length, `, in front of 0 and of 1.
    """
    scenes = {f"{call}{i}": f"{call}{2 * seed + i}" for i, call in enumerate(drawn)}
    return {"manual_seed(0)": f"manual_seed({seed})", **scenes}


def run_cells(
    monkeypatch: pytest.MonkeyPatch, lab: str, cells: Iterable[str], changes: Mapping[str, str], **other: Any
) -> dict[str, Any]:
    """Run cells on the CPU and one thread.

    Args:
        monkeypatch: hides a GPU.
        lab: its name.
        cells: names of cells, in the order in which they run.
        changes: texts of the source and what stands there instead.
        other: further names that the cells know.

    Returns:
        All names afterwards.
    """
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("segedu.viz.show", lambda fig, alt: plt.close(fig))
    source = sources(lab)
    names = {exercise.name: exercise.reference for exercise in load(lab).exercises}
    names |= {"np": np, "plt": plt, "torch": torch, "use": lambda function: function, **other}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name in cells:
            text = source[name]
            for before, after in changes.items():
                text = text.replace(before, after)
            exec(text, names)
    finally:
        torch.set_num_threads(threads)
    return names
