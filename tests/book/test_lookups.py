"""The page of wrong answers in parts, and charts beside tables of results."""

from __future__ import annotations

from pathlib import Path

import pytest
from segedu_site import lookups
from segedu_site.charts import Bar, bars_of, chart

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "course" / "wrong-answers.md").read_text()
PAGES = {path.relative_to(ROOT).with_suffix("").as_posix() for path in (ROOT / "course" / "wrong-answers").glob("*.md")}


def test_every_lab_has_a_page_with_its_wrong_answers():
    _, sections = lookups.split_wrong_answers(TEXT)
    assert {f"course/wrong-answers/lab-{lab}" for lab in sections} == PAGES
    for lab in sections:
        assert f"```{{wrong-answers}} {lab}\n" in (ROOT / f"course/wrong-answers/lab-{lab}.md").read_text()


def test_the_overview_keeps_the_anchors_of_the_sections_and_counts_all_rows():
    page = lookups.overview(TEXT, PAGES)
    _, sections = lookups.split_wrong_answers(TEXT)
    for lab, tables in sections.items():
        assert f'id="lab-{lab}"' in page
        exercises, wrong, made, refused = lookups.count_rows(tables)
        assert f"| {exercises} | {wrong} | {made} | {refused} |" in page
        assert wrong == tables.count("| yes | yes |") and exercises == 6
    assert "one_hot" not in page


def test_a_lab_without_a_page_keeps_its_section():
    page = lookups.overview(TEXT, PAGES - {"course/wrong-answers/lab-01"})
    assert "\n## Lab 01\n" in page and "one_hot" in page


def test_columns_that_say_yes_everywhere_are_left_out():
    table = "| e | m | s | refused | named |\n|---|---|---|---|---|\n| `f` | late | Late. | yes | yes |"
    assert lookups.without_yes(table).splitlines() == ["| e | m | s |", "|---|---|---|", "| `f` | late | Late. |"]
    assert lookups.without_yes(table + "\n| `f` | new | New. | NO | NO |").count("yes") == 2


def test_text_without_labs_is_an_error():
    with pytest.raises(ValueError, match="no section"):
        lookups.split_wrong_answers("# Nothing")


TABLE = "|  | seed 0 | seed 1 | steps |\n|---|---:|---:|---:|\n| *Otsu* | 0.2 | 0.25 |  |\n| **net** (old) | 0.9 | 0.8 | 7 |"


def test_a_chart_shows_the_lowest_seed_and_the_baseline():
    baseline, bars = bars_of(TABLE, ["seed 0", "seed 1"])
    assert (baseline, bars) == (Bar("Otsu", (0.2, 0.25)), [Bar("net", (0.9, 0.8))])
    (drawn,) = chart("Mean IoU", baseline, bars)
    text = drawn.astext()
    assert 'aria-label="Bar chart: net 0.8; baseline Otsu 0.2"' in text and text.count('class="seed"') == 4
    assert "The dashed line is the baseline, Otsu." in text


def test_methods_of_a_chart_are_sorted_by_their_score():
    text = chart("IoU", Bar("plain", (0.1,)), [Bar("low", (0.3,)), Bar("high", (0.6,))])[0].astext()
    assert text.index(">high<") < text.index(">low<") and "three seeds" not in text
