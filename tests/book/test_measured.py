"""The table of measured claims: figures with their date, what is stale or missing said so."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "jupyter-book-config"))
from segedu_site.measured import markdown  # noqa: E402

from segedu.teaching.evidence.proofs import source_hash  # noqa: E402


@pytest.fixture
def course(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "source.txt").write_text("one")
    names = ("grading: speed", "grading: kills", "grading: fuzz", "other: thing")
    text = "".join(
        f'[[claim]]\nname = "{name}"\ncommand = "x"\nfigure = "(x)"\nsources = ["source.txt"]\n' for name in names
    )
    (tmp_path / "tests" / "claims.toml").write_text(text)
    now = source_hash(tmp_path, ["source.txt"])
    rows = ["claim,figure,command,seed,seconds,date,sources", f"grading: speed,7 a second,x,0,1,2026-01-02,{now}"]
    (tmp_path / "tests" / "proofs.csv").write_text("\n".join([*rows, "grading: kills,20,x,0,1,2026-01-03,old"]) + "\n")
    return tmp_path


def test_figures_stale_ones_and_missing_ones(course):
    assert markdown("grading", course).splitlines()[2:] == [
        "| speed | 7 a second | 2026-01-02 |",
        "| kills | 20 | 2026-01-03 † |",
        "| fuzz | *not yet* | |",
        "",
        "† Measured before the last change of its code.",
    ]


def test_a_prefix_that_nothing_is_named_by(course):
    with pytest.raises(ValueError, match="no claim in tests/claims.toml is named 'gradings'"):
        markdown("gradings", course)
