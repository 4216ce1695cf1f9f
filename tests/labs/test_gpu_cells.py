"""The training cells of labs at GPU scale, on the CPU, with smaller networks and a few iterations.

Each lab runs on the real images of `$SEGEDU_DATA`, and once more without them and without a connection. With
`SEGEDU_FIGURES=folder`, the figures are written there, to be looked at.
"""

from __future__ import annotations

import ast
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from exercises.lab_cells import COURSE

import segedu.training
from segedu.teaching.authoring import notebooks as authoring
from segedu.teaching.exercises import load

CPU = {'"gpu" if torch.cuda.is_available() else "cpu"': '"gpu"', '"cuda" if SCALE == "gpu" else "cpu"': '"cpu"'}
SMALLER = {  # lab -> what stands in its cells, and a smaller scale: first for real images, then for synthetic ones
    "05_fcn": {
        "((192, 192), None, 1000, 1500, 16)": "((96, 96), None, 24, 12, 4)",
        "((256, 256), 0.35, 400, 2000, 16)": "((96, 128), 0.35, 10, 16, 4)",
    },
    "06_unet": {
        "(256, 400, 32, 4, 1200, 8)": "(64, 48, 8, 3, 40, 8)",
        "(512, 96, 32, 4, 600, 8)": "(64, 48, 8, 3, 40, 8)",
        "(192, 256, 32, 600)": "(64, 32, 8, 40)",
    },
    "09_distances": {
        "(256, 400, 48, 32, 1200, 32)": "(96, 32, 8, 8, 60, 32)",
        "(256, 128, 24, 32, 1000, 32)": "(64, 32, 8, 8, 60, 32)",
    },
    "10_embeddings": {
        "(128, 800, 32, 800, 16)": "(128, 24, 8, 40, 4)",
        "(128, 512, 32, 800, 16)": "(64, 24, 8, 40, 4)",
        "get_data(32, 1)": "get_data(8, 1)",
    },
    "11_detection": {
        "(128, 4096, large, 128, 512, 1500, 16)": "(64, 32, small, 32, 128, 40, 4)",
        "192, 205, BLOOD": "192, 12, BLOOD",
        "get_data(64, 1)": "get_data(8, 1)",
    },
    "12_one_stage": {
        "(128, 4096, large, 1500, 16)": "(64, 32, small, 40, 4)",
        "192, 205, BLOOD": "192, 12, BLOOD",
        "get_data(64, 1)": "get_data(8, 1)",
    },
    "14_top_down": {
        "(256, 130, 40, 48, 14, 1200, 8)": "(64, 4, 6, 16, 7, 40, 4)",
        "(128, 2048, 200, 48, 14, 2000, 16)": "(64, 32, 8, 16, 7, 40, 4)",
    },
    "16_promptable": {
        '"gpu": (2, 63, 15, 16, 1500)': '"gpu": (1, 9, 3, 8, 40)',
        "95, 45, 32": "15, 5, 8",
    },
}
WHOLE = {  # cells that define more than functions and that the training uses
    "09_distances": ("picture",),
    "12_one_stage": ("picture",),
    "14_top_down": ("trainable",),
    "16_promptable": ("asking",),
}


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """An empty cache, and no connection."""
    monkeypatch.setenv("SEGEDU_CACHE", str(tmp_path / "cache"))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def runs(monkeypatch):
    """The losses of each training, one list per network."""
    train_steps, losses = segedu.training.train_steps, []

    def recorded(*args, **options):
        losses.append([])
        for loss in train_steps(*args, **options):
            losses[-1].append(loss)
            yield loss

    monkeypatch.setattr(segedu.training, "train_steps", recorded)
    return losses


@pytest.fixture
def figures(monkeypatch):
    """The figures of a lab with their alternative texts, written to the folder that SEGEDU_FIGURES names."""
    shown = []

    def show(fig, alt, vector=False):
        shown.append(alt)
        if folder := os.environ.get("SEGEDU_FIGURES"):
            test = os.environ["PYTEST_CURRENT_TEST"].partition("[")[2].partition("]")[0].replace(" ", "-")
            fig.savefig(Path(folder) / f"{test}-{len(shown)}.png", dpi=60)
        plt.close(fig)

    monkeypatch.setattr("segedu.viz.show", show)
    return shown


def only_definitions(source: str) -> str:
    """The imports, functions and classes of a cell."""
    kept = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
    return "\n".join(ast.unparse(node) for node in ast.parse(source).body if isinstance(node, kept))


def run_training(lab: str) -> None:
    """Run the training cells of a lab at GPU scale, made smaller, and what they need of the other cells."""
    cells = [cell for cell in authoring.read_source(COURSE, lab).cells if cell.cell_type == "code"]
    names = {exercise.name: exercise.reference for exercise in load(lab).exercises}
    names |= {"np": np, "plt": plt, "torch": torch, "use": lambda function: function}
    roles = {cell.metadata["segedu"]["name"]: cell.metadata["segedu"]["role"] for cell in cells}
    training = "\n".join(cell.source for cell in cells if roles[cell.metadata["segedu"]["name"]] == "train")
    for before in (*CPU, *SMALLER[lab]):
        assert training.count(before) == 1, before
    for cell in cells:
        name = cell.metadata["segedu"]["name"]
        source = cell.source
        for before, after in (CPU | SMALLER[lab]).items():
            source = source.replace(before, after)
        if roles[name] == "train" or name in WHOLE.get(lab, ()):
            exec(compile(source, f"{lab}:{name}", "exec"), names)
        elif roles[name] == "show":
            exec(only_definitions(source), names)


def check(runs: list[list[float]], figures: list[str]) -> None:
    assert runs and all(len(losses) >= 8 and np.isfinite(losses).all() for losses in runs)
    for losses in runs:
        quarter = len(losses) // 4
        assert np.mean(losses[-quarter:]) < np.mean(losses[:quarter]), losses
    assert figures and all(len(alt) > 20 for alt in figures)


@pytest.mark.prove
@pytest.mark.parametrize("lab", SMALLER)
def test_a_lab_learns_from_real_images(lab, shared_data, offline, runs, figures, monkeypatch, capsys):
    monkeypatch.setenv("SEGEDU_DATA", str(shared_data))
    run_training(lab)
    check(runs, figures)
    assert "uses synthetic scenes" not in capsys.readouterr().out


@pytest.mark.prove
@pytest.mark.parametrize("lab", SMALLER)
def test_without_a_connection_a_lab_learns_from_synthetic_scenes(lab, offline, runs, figures, monkeypatch, capsys):
    monkeypatch.delenv("SEGEDU_DATA", raising=False)
    run_training(lab)
    check(runs, figures)
    assert capsys.readouterr().out.count("so this cell uses synthetic scenes instead") == 1
