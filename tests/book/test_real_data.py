"""The tables of real data sets on the page of results: columns by data set, the baseline first, damaged rows refused."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "jupyter-book-config"))
from segedu_site.real_data import COLUMNS, real_data_table  # noqa: E402

from segedu.recipes.recipe import FAMILIES  # noqa: E402
from segedu.recipes.run_table import all_figures  # noqa: E402

PLAIN = "Otsu + components box_ap50 0.3020 box_ap 0.0974 box_ap50_1 0.2377 box_ap50_2 0.6664"


def course(folder: Path, **figures: str) -> Path:
    """A checkout with a measured row for each method on bccd."""
    (folder / "tests").mkdir()
    (folder / "net.py").write_text("x = 1\n")
    claim = '[[claim]]\nname = "{}"\ncommand = "x"\nfigure = "(x)"\nsources = ["net.py"]\n'
    names = [f"real: {method} on bccd, figures on test; seed 0" for method in figures]
    (folder / "tests" / "claims.toml").write_text("".join(map(claim.format, names)))
    rows = [f'"{name}",{figure},x,0,1,2026-01-01,old' for name, figure in zip(names, figures.values(), strict=True)]
    header = "claim,figure,command,seed,seconds,date,sources"
    (folder / "tests" / "proofs.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


def test_a_table_has_a_column_for_each_class(tmp_path: Path) -> None:
    one = f"{PLAIN}; one box_ap50 0.8000 box_ap 0.4000 box_ap50_1 0.7000 box_ap50_2 1.0000 1200 722736 198.4"
    folder = course(tmp_path, one=one)
    assert real_data_table("bccd", folder).splitlines() == [
        "|  | AP50, mean | red cells | white cells | platelets | AP, mean | parameters | steps | CPU (s) |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        "| *Otsu + components* | 30.2 | 23.8 | 66.6 | – | 9.7 |  |  |  |",
        "| **one** † | 80.0 | 70.0 | 100.0 | – | 40.0 | 722,736 | 1200 | 198.4 |",
    ]
    assert real_data_table("hippocampus", folder) == "No recipe on `hippocampus` has a measured row so far."
    with pytest.raises(ValueError, match="data is 'shapes', expected one of hippocampus"):
        real_data_table("shapes", folder)


@pytest.mark.parametrize(
    ("two", "message"),
    [
        (f"{PLAIN}; two box_ap50 0.8000", "two rows of figures and three counts"),
        (f"{PLAIN}; one box_ap50 0.8000 9 56 1.5", "two rows of figures and three counts"),
        (f"{PLAIN.replace('0.3020', '0.4')}; two box_ap50 0.8000 9 56 1.5", "one row"),
    ],
)
def test_damaged_rows_are_refused(tmp_path: Path, two: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        real_data_table("bccd", course(tmp_path, one=f"{PLAIN}; one box_ap50 0.8000 9 56 1.5", two=two))


def test_what_the_command_prints_fits_the_claims() -> None:
    """The figure of every claim, from what `segedu train` prints."""
    claims = [c for c in tomllib.loads((ROOT / "tests" / "claims.toml").read_text())["claim"] if "real:" in c["name"]]
    methods = [(m, d) for data_sets in FAMILIES.values() for d in data_sets if d in COLUMNS for m in data_sets[d]]
    assert len(claims) == len(methods)
    plain = {"hippocampus": "Position prior", "bccd": "Otsu + components", "pennfudan": "Mean boxes"}
    for claim, (method, data) in zip(claims, methods, strict=True):
        tables = {plain[data]: {"test": {"all": {"a": 0.5, "b": 0.25, "c": None}}}}
        line = all_figures({"rows": tables | {method: tables[plain[data]]}})
        cost = "target 0.75; seed 0, 20 steps, 1234 parameters on cpu: 35.2 CPU-seconds of training, 40 in all"
        groups = re.search(claim["figure"], f"{line}\n{cost}", re.M).groups()
        figures = f"{plain[data]} a 0.5000 b 0.2500; {method} a 0.5000 b 0.2500"
        assert claim["name"] == f"real: {method} on {data}, figures on test; seed 0"
        assert groups == (figures, "20", "1234", "35.2")
    assert all_figures({"rows": {"one": {"test": {"all": {"a": 0.5}}}}}) == ""
