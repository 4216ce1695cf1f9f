"""Tests that a row of `tests/proofs.csv` stands for: they run only if the sources of the row changed since."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from segedu.teaching.evidence import proofs

COURSE = Path(__file__).resolve().parents[1]
OTHER_CPU = "SEGEDU_OTHER_CPU"  # set by `other_cpus.py`
NUMERICAL = ("backbones equal", "recipes learn", "small weights:", "training on")  # a CPU may decide these tests


def claims_to_run(environment: Mapping[str, str]) -> frozenset[str]:
    """Names of the claims whose tests run: all while a claim is proven, numerical ones as another CPU, stale ones."""
    names = [claim.name for claim in proofs.read_claims(COURSE)]
    if proofs.PROVING in environment:
        return frozenset(names)
    numerical = [name for name in names if name.startswith(NUMERICAL)] if OTHER_CPU in environment else []
    return frozenset([*numerical, *proofs.stale(COURSE)])


STALE = claims_to_run(os.environ)  # once, because it parses every source of every claim
SITE = "site: built whole without a warning, every page seen in a browser; tests passed"
ALWAYS = ("04_metrics",)  # one lab runs in every case


def notebooks_of(lab: str) -> str:
    """The claim about a lab's notebooks."""
    return f"lab {int(lab[:2])}: its notebooks blank, solved, wrong, broken and in JupyterLab; tests passed"


def needs_site(item: pytest.Item) -> bool:
    """Whether a test looks at the built site."""
    return "site" in getattr(item, "fixturenames", ())


def unless_proven(claim: str) -> pytest.MarkDecorator:
    """Skip a test if `make prove` ran it and its sources are unchanged."""
    return pytest.mark.skipif(claim not in STALE, reason="unchanged since make prove ran it")


def each_lab(labs: list[str]) -> pytest.MarkDecorator:
    """Parametrize with `lab`, and skip the labs whose notebooks are unchanged since `make prove` ran them."""
    marks = {lab: () if lab in ALWAYS else unless_proven(notebooks_of(lab)) for lab in labs}
    return pytest.mark.parametrize("lab", [pytest.param(lab, marks=mark) for lab, mark in marks.items()])


def proven_files() -> dict[str, str]:
    """The test files that are run whole by a claim: path in the checkout -> name of the claim."""
    return {
        file: claim.name
        for claim in proofs.read_claims(COURSE)
        if re.fullmatch(r"python -m pytest -q( tests/\S+\.py)+ -m 'not prove'", claim.command)
        for file in re.findall(r"tests/\S+\.py", claim.command)
    }
