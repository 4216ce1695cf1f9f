"""Fixtures of all tests."""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib
import pytest
import torch

matplotlib.use("Agg")  # no test opens a window


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data: $SEGEDU_DATA, or ../shared/data beside the checkout. Skips where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SEGEDU_DATA") or beside)
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set SEGEDU_DATA to the folder that holds nuclei/ and others")
    return folder


@pytest.fixture(autouse=True)
def another_seed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `SEGEDU_TEST_SEED=3`, the tests marked `learns` train from other random weights than usual."""
    shift = 1000 * int(os.environ.get("SEGEDU_TEST_SEED", "0"))
    if shift and request.node.get_closest_marker("learns"):
        seed = torch.manual_seed
        monkeypatch.setattr(torch, "manual_seed", lambda number: seed(number + shift))
