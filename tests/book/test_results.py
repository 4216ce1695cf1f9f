"""The page of results: rows of proofs become tables, baseline first; damaged rows are refused."""

from __future__ import annotations

import html
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "jupyter-book-config"))
from segedu_site import charts  # noqa: E402
from segedu_site.results import (  # noqa: E402
    markdown,
    microscopes_table,
    one_table,
    photographs_table,
    read_results,
    read_unmeasured,
)

from segedu.recipes.run_table import print_seeds  # noqa: E402

PRINTED = (
    "mean_iou on street, val, seeds 0, 1, 2: Forest on 5x5 windows 0.4700 0.4800 0.4600; net 0.7300 0.7100 0.7200; "
    "least 0.7100, target 0.7; 12345 parameters, 900 steps, at most 98.7 CPU-seconds of training\n"
)
CLAIM = """[[claim]]
name = "results: net on street: mean IoU, three seeds"
command = "segedu train net --data street --seeds 3"
figure = 'mean_iou on street[^:]*: (.+?); net ([\\d. ]+); least ([\\d.]+), target ([\\d.]+); (\\d+) parameters, (\\d+) steps, at most ([\\d.]+)'
sources = ["net.py"]
"""


def course(folder: Path, figure: str) -> Path:
    (folder / "tests").mkdir()
    (folder / "tests" / "claims.toml").write_text(CLAIM)
    (folder / "net.py").write_text("x = 1\n")
    rows = f"claim,figure,command,seed,seconds,date,sources\nresults: net on street: mean IoU, three seeds,{figure}"
    rows = rows.replace(
        "results: net on street: mean IoU, three seeds", '"results: net on street: mean IoU, three seeds"'
    )
    (folder / "tests" / "proofs.csv").write_text(rows + ",segedu train net,0,1,2026-01-01,0123456789ab\n")
    return folder


def test_what_the_command_prints_becomes_a_table(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    split = {"all": {"mean_iou": 0.0}}
    results = [
        {
            "metric": "mean_iou", "data": "street", "method": "net", "seed": seed, "target": 0.7, "steps": 900,
            "parameters": 12345, "training_cpu_seconds": 90.0 + seed,
            "rows": {
                "Forest on 5x5 windows": {"val": {"all": {"mean_iou": plain}}},
                "net": {"val": {"all": {"mean_iou": reached}}, "test": split},
            },
        }
        for seed, (plain, reached) in enumerate([(0.47, 0.73), (0.48, 0.71), (0.46, 0.72)])
    ]  # fmt: skip
    print_seeds(results)
    printed = capsys.readouterr().out
    assert printed == PRINTED.replace("98.7", "92.0")
    figure = re.search(tomllib.loads(CLAIM)["claim"][0]["figure"], printed)
    text = markdown(read_results(course(tmp_path, " ".join(figure.groups()))))
    assert "## Mean IoU on `street`" in text
    baseline, net = text.splitlines()[4:6]
    assert baseline.startswith("| *Forest on 5x5 windows* | 0.470 | 0.480 | 0.460 | 0.460 |")
    assert net.startswith("| **net** † | 0.730 | 0.710 | 0.720 | 0.710 | 0.7 | 12,345 | 92.0 |")


def test_one_table_is_that_of_all_without_its_heading(tmp_path: Path) -> None:
    folder = course(tmp_path, "Forest 0.4 0.4 0.4 0.7 0.7 0.7 0.7 0.7 12 900 98.7")
    lines = markdown(read_results(folder)).splitlines()
    assert one_table("mean IoU on street", folder).splitlines() == lines[2:]
    with pytest.raises(ValueError, match="'Dice on street' are not measured, expected one of mean IoU on street"):
        one_table("Dice on street", folder)


def test_what_is_not_measured_is_named(tmp_path: Path) -> None:
    folder = course(tmp_path, "Forest 0.4 0.4 0.4 0.7 0.7 0.7 0.7 0.7 12 900 98.7")
    assert read_unmeasured(folder) == []
    (folder / "tests" / "proofs.csv").write_text("claim,figure,command,seed,seconds,date,sources\n")
    assert read_unmeasured(folder) == ["net on street"]


@pytest.mark.parametrize("figure", ["0.1 0.2", "Forest 0.4 0.4 0.4 0.7 0.7 0.7 0.6 0.7 12 900 98.7"])
def test_a_damaged_row_is_refused(tmp_path: Path, figure: str) -> None:
    with pytest.raises(ValueError, match="row 'results: net|not enough values"):
        read_results(course(tmp_path, figure))


ON_REAL_IMAGES = (
    "nuclei_grouped: {}, instance accuracy at IoU 0.5, 0.9 on the test images, pooled, and of each kind; steps"
)


def microscopes(folder: Path, **figures: str) -> Path:
    (folder / "tests").mkdir()
    (folder / "net.py").write_text("x = 1\n")
    claim = '[[claim]]\nname = "{}"\ncommand = "x"\nfigure = "(x)"\nsources = ["net.py"]\n'
    names = [ON_REAL_IMAGES.format(method) for method in figures]
    (folder / "tests" / "claims.toml").write_text("".join(map(claim.format, names)))
    rows = [f'"{name}",{figure},x,0,1,2026-01-01,old' for name, figure in zip(names, figures.values(), strict=True)]
    header = "claim,figure,command,seed,seconds,date,sources"
    (folder / "tests" / "proofs.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


ONE = "Otsu + water 0.6 0.1; one 0.8 0.3; pooled 0.5 0.7; in_red 0.4 0.6; in_blue 0.7 0.9 20 35.2"
TWO = ONE.replace("one 0.8", "two 0.7")


def test_real_images_have_a_column_for_each_threshold_and_for_each_kind(tmp_path: Path) -> None:
    root = microscopes(tmp_path, one=ONE, two=TWO)
    assert microscopes_table("nuclei_grouped", root).splitlines() == [
        "|  | IoU 0.5 | IoU 0.9 | pooled | steps | CPU (s) |",
        "|---|---:|---:|---:|---:|---:|",
        "| *Otsu + water* | 0.6 | 0.1 | 0.5 |  |  |",
        "| **one** † | 0.8 | 0.3 | 0.7 | 20 | 35.2 |",
        "| **two** † | 0.7 | 0.3 | 0.7 | 20 | 35.2 |",
    ]
    assert microscopes_table("nuclei_grouped by kind", root).splitlines() == [
        "|  | in red | in blue |",
        "|---|---:|---:|",
        "| *Otsu + water* | 0.4 | 0.7 |",
        "| **one** † | 0.6 | 0.9 |",
        "| **two** † | 0.6 | 0.9 |",
    ]
    assert microscopes_table("phase_cells", root) == "No method has been measured on `phase_cells` so far."


@pytest.mark.parametrize(
    ("two", "message"),
    [
        (TWO.replace("two 0.7 0.3", "two 0.7"), "a score for each"),
        (TWO.replace("in_red 0.4 0.6", "in_red 0.4"), "a score for each"),
        (TWO.replace("two", "three"), "scores of 'three', expected 'two'"),
        (TWO.replace("water 0.6", "water 0.5"), "one row"),
        (TWO.replace("in_red 0.4", "in_red 0.3"), "one row"),
    ],
)
def test_damaged_rows_of_real_images_are_refused(tmp_path: Path, two: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        microscopes_table("nuclei_grouped", microscopes(tmp_path, one=ONE, two=two))


def photographs(folder: Path, **figures: str) -> Path:
    """A checkout with a measured row for each method."""
    microscopes(folder, **figures)
    for file in ("claims.toml", "proofs.csv"):
        path = folder / "tests" / file
        text = path.read_text()
        for method in figures:
            text = text.replace(
                ON_REAL_IMAGES.format(method), f"photos: {method} on pets, mean IoU on val, test; seed 0"
            )
        path.write_text(text)
    return folder


def test_photographs_have_a_column_for_each_split(tmp_path: Path) -> None:
    forest = "Forest on windows │ 0.5 │ 0.4 │"
    folder = photographs(
        tmp_path, one=f"{forest} one      │ 0.8 │ 0.7 │ 20 1234 35.2", two=f"{forest} two │ 0.7 │ 0.6 │ 9 56 1.5"
    )
    assert photographs_table("pets", folder).splitlines() == [
        "|  | val | test | parameters | steps | CPU (s) |",
        "|---|---:|---:|---:|---:|---:|",
        "| *Forest on windows* | 0.5 | 0.4 |  |  |  |",
        "| **one** † | 0.8 | 0.7 | 1,234 | 20 | 35.2 |",
        "| **two** † | 0.7 | 0.6 | 56 | 9 | 1.5 |",
    ]
    assert photographs_table("aerial", folder) == "No recipe on `aerial` has a measured row so far."


@pytest.mark.parametrize(
    ("two", "message"),
    [
        ("Forest on windows │ 0.5 │ 0.4 │ two │ 0.7 │ 9 56 1.5", "a score for each"),
        ("Forest on windows │ 0.5 │ 0.3 │ two │ 0.7 │ 0.6 │ 9 56 1.5", "one row"),
    ],
)
def test_damaged_rows_of_photographs_are_refused(tmp_path: Path, two: str, message: str) -> None:
    one = "Forest on windows │ 0.5 │ 0.4 │ one │ 0.8 │ 0.7 │ 20 1234 35.2"
    with pytest.raises(ValueError, match=message):
        photographs_table("pets", photographs(tmp_path, one=one, two=two))


def test_what_the_command_prints_about_photographs_fits_the_claims() -> None:
    """The figure of every claim on photographs, from a table as `segedu train` prints it."""
    claims = [c for c in tomllib.loads((ROOT / "tests" / "claims.toml").read_text())["claim"] if "photos:" in c["name"]]
    assert len(claims) == 10
    for claim in claims:
        method = claim["command"].split()[2]
        printed = (
            f"│ Forest on 5x5 windows, longest side 64 │ 0.5000 │\n│ {method}   │ 0.8000 │\n└──┘\n"
            "target 0.75; seed 0, 20 steps, 1234 parameters on cpu: 35.2 CPU-seconds of training, 40 in all"
        )
        groups = re.search(claim["figure"], printed, re.M).groups()
        assert groups == (printed.splitlines()[0][2:], printed.splitlines()[1][2:], "20", "1234", "35.2")


def test_every_recipe_is_claimed() -> None:
    """A recipe without a row on the page would be a promise that nobody checks."""
    from segedu.recipes.recipe import NAMES

    claims = (ROOT / "tests" / "claims.toml").read_text()
    for method, data in NAMES:
        if data not in ("shapes", "cells"):
            assert f'"results: {method} on {data}: ' in claims, method
            assert re.search(rf"segedu train {method} --data {data} .*--seeds 3", claims), method


def test_measured_rows_are_of_today_s_recipes_and_keep_what_they_promise() -> None:
    from segedu.recipes.recipe import load_recipe

    for (data, _), results in read_results().items():
        for row in results:
            recipe = load_recipe(row.method, data)
            parameters = sum(parameter.numel() for parameter in recipe.build().parameters())
            assert (row.steps, row.target, row.parameters) == (recipe.steps, str(recipe.target), parameters), row.method
            assert float(row.least) >= recipe.target > max(map(float, row.plain)), row.method
            assert float(row.cpu_seconds) <= 60 * recipe.cpu_minutes, row.method


def test_a_long_name_in_a_chart_has_two_lines() -> None:
    long = "Gaussian filter + Otsu's threshold + connected components"
    drawn = charts.svg(charts.Bar(long, (0.2,)), [charts.Bar("unet", (0.9,))], 1)
    lines = re.findall(r'<text x="\S+" y="(\S+)" text-anchor="end">([^<]*)</text>', drawn)
    assert " ".join(text for _, text in lines) == f"{html.escape(long)} unet"
    assert all(len(html.unescape(text)) <= charts.CHARACTERS for _, text in lines)
    heights = [float(y) for y, _ in lines]
    assert all(charts.LINE <= below - above for above, below in zip(heights, heights[1:], strict=False))
