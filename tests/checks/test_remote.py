"""The probe in the student's process: settings of PyTorch that a notebook changed do not reach the cases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from segedu.teaching.checks import codec
from segedu.teaching.checks.remote import reader, run_probe, write_files


def outcome_of(folder: Path, probe: str, function) -> dict:
    """What `function` does on one case, packed and probed as in grading."""
    (folder / "in").mkdir(exist_ok=True)
    (folder / "job.json").write_text(json.dumps({"probe": probe, "cases": 1}))
    write_files(folder / "in", "0", codec.pack({"args": [torch.ones(2, 3, dtype=torch.float32)], "grad": [0]}))
    run_probe("answer", str(folder), {"answer": function})
    return codec.unpack(reader(folder / "out", "0"))


def test_modules_have_the_dtype_of_the_cases(tmp_path):
    torch.set_default_dtype(torch.float64)
    try:
        outcome = outcome_of(tmp_path, "call", lambda x: torch.nn.Linear(3, 1)(x).detach() * 0)
        assert torch.get_default_dtype() == torch.float64  # the notebook keeps its own setting
    finally:
        torch.set_default_dtype(torch.float32)
    assert "raises" not in outcome and outcome["value"].shape == (2, 1)


@pytest.mark.parametrize("switch", [torch.inference_mode, torch.no_grad])
def test_gradients_are_computed_where_the_notebook_switched_them_off(tmp_path, switch):
    with switch():
        outcome = outcome_of(tmp_path, "call_grad", lambda x: (x**2).sum())
    assert "raises" not in outcome, outcome
    assert torch.equal(torch.as_tensor(outcome["grads"][0]), 2 * torch.ones(2, 3))
