"""Tests that a row of `tests/proofs.csv` stands for: they run only if the sources of the row changed since."""

from pathlib import Path

import pytest

from segedu.teaching.evidence import proofs

STALE = frozenset(proofs.stale(Path(__file__).resolve().parents[1]))  # once: it parses every source of every claim
SITE = "site: built whole without a warning, every page seen in a browser; tests passed"
ALWAYS = ("04_metrics", "06_unet")  # two labs run in every case


def notebooks_of(lab: str) -> str:
    """The claim about a lab's notebooks."""
    return f"lab {int(lab[:2])}: its notebooks blank, solved, wrong, broken and in JupyterLab; tests passed"


def unless_proven(claim: str) -> pytest.MarkDecorator:
    """Skip a test if `make prove` ran it and its sources are unchanged."""
    return pytest.mark.skipif(claim not in STALE, reason="unchanged since make prove ran it")


def each_lab(labs: list[str]) -> pytest.MarkDecorator:
    """Parametrize with `lab`, and skip the labs whose notebooks are unchanged since `make prove` ran them."""
    marks = {lab: () if lab in ALWAYS else unless_proven(notebooks_of(lab)) for lab in labs}
    return pytest.mark.parametrize("lab", [pytest.param(lab, marks=mark) for lab, mark in marks.items()])
