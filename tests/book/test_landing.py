"""The home page: facts of chapters, their map, their cards and pictures, and measured numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image
from segedu_site import chapter_map, claims, landing
from segedu_site.chapters import Chapter, direct, level, read_chapters

from segedu.teaching.evidence.proofs import Row

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = read_chapters()


def chapter(folder: str, *before: str) -> Chapter:
    return Chapter(folder, f"Title {folder}: more", "advanced", 10, 20, before, (f"course/{folder}/a",), "")


def test_a_chapter_builds_on_what_its_first_page_names():
    assert [int(folder[:2]) for folder in CHAPTERS] == list(range(1, 17))
    assert CHAPTERS["14-top-down"].builds_on == ("05-fcn", "11-detection", "12-one-stage")
    assert CHAPTERS["09-distances"].builds_on == ("02-clustering", "04-metrics", "06-unet")  # 2 by a link to one page
    assert (CHAPTERS["06-unet"].minutes, CHAPTERS["06-unet"].lab_minutes) == (65, 80)
    assert "course/06-unet/sizes" in CHAPTERS["06-unet"].pages


def test_an_edge_that_follows_from_others_is_not_drawn():
    chapters = {c.folder: c for c in (chapter("01-a"), chapter("02-b", "01-a"), chapter("03-c", "01-a", "02-b"))}
    assert direct(chapters) == {"01-a": (), "02-b": ("01-a",), "03-c": ("02-b",)}
    assert [level(chapters, folder) for folder in chapters] == [0, 1, 2]


def test_boxes_of_the_map_do_not_overlap_and_chapters_stand_below_their_prerequisites():
    where = chapter_map.places(CHAPTERS)
    boxes = list(where.values())
    for number, (x, y) in enumerate(boxes):
        assert all(abs(x - u) >= chapter_map.WIDTH or abs(y - v) >= chapter_map.HEIGHT for u, v in boxes[:number])
    for folder, one in CHAPTERS.items():
        assert all(where[before][1] < where[folder][1] for before in one.builds_on)


def test_no_line_of_the_map_passes_behind_a_box_of_another_row():
    where, before = chapter_map.places(CHAPTERS), direct(CHAPTERS)
    for folder, names in before.items():
        for name in names:
            x = chapter_map.lane(where[name], where[folder], list(where.values()))
            rows = [place for place in where.values() if where[name][1] < place[1] < where[folder][1]]
            assert all(abs(x - place[0]) > chapter_map.WIDTH / 2 for place in rows), (name, folder)


def test_the_map_links_every_chapter_and_the_part_map_all_but_the_own_one():
    whole = chapter_map.whole_map(CHAPTERS, lambda docname: f"{docname}.html")
    assert set(re.findall(r'href="([^"]+)"', whole)) == {f"{c.docname}.html" for c in CHAPTERS.values()}
    part = chapter_map.part_map(CHAPTERS, "06-unet", lambda docname: docname)
    assert set(re.findall(r'href="course/(\d\d)', part)) == {"05", "09", "16"}


def test_every_chapter_has_a_card_whose_figure_exists():
    text = (ROOT / "course" / "index.md").read_text()
    cards = landing.read_cards(re.search(r"```\{chapter-cards\}\n(.*?)```", text, re.DOTALL)[1], "index.md")
    for folder, card in cards.items():
        pages = "\n".join(page.read_text() for page in (ROOT / "course" / folder).glob("*.md"))
        assert f"name: {card['figure']}\n" in pages, folder
        assert len(card["alt"]) > 20
        left, top, right, bottom = card.get("crop", [0, 0, 1, 1])
        assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "no entry for 01-tasks"), ("01-tasks: {learn: a, figure: b}", "no entry for 02-clustering")],
)
def test_a_missing_card_is_an_error(text: str, message: str):
    with pytest.raises(ValueError, match=message):
        landing.read_cards(text, "index.md:1")


def test_a_picture_is_the_chosen_part_of_the_figure(tmp_path: Path):
    picture = Image.new("RGB", (200, 100), "red")
    picture.paste("blue", (100, 0, 200, 100))
    picture.save(tmp_path / "figure.png")
    part = landing.cut(tmp_path / "figure.png", [0.5, 0, 1, 1], (44, 26))
    assert part.size == (44, 26) and part.getcolors() == [(44 * 26, (0, 0, 255))]
    whole = landing.cut(tmp_path / "figure.png", [0, 0, 1, 1], (44, 26), whole=True)
    assert whole.size == (44, 26) and whole.getpixel((22, 0)) == (255, 255, 255)
    assert whole.getpixel((2, 13)) == (255, 0, 0) and whole.getpixel((41, 13)) == (0, 0, 255)


def test_a_chapter_has_a_time_for_its_lab():
    assert all(chapter.lab_minutes for chapter in CHAPTERS.values() if chapter.lab)


def row(claim: str, figure: str) -> Row:
    return Row(claim, figure, "x", "0", "1", "2026-01-01", "0")


ROWS = {name: row(name, figure) for name, figure in {"lab 1: s": "5.1 7", "lab 2: s": "68.0 9", "other": "1"}.items()}
ITEM = {
    "claim": r"lab \d+: s",
    "find": r"^(?P<number>[\d.]+) (?P<more>\d)",
    "show": "{number:.0f} s",
    "text": "{more:g}",
}


def test_the_largest_number_of_several_rows_is_shown():
    assert claims.read_number(ITEM, ROWS) == ("68 s", "9", "lab 2: s")


@pytest.mark.parametrize(
    ("change", "message"), [({"claim": "lab x"}, "no row"), ({"find": "(?P<number>z)"}, "holds '5.1")]
)
def test_a_number_that_was_not_measured_is_an_error(change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        claims.read_number(ITEM | change, ROWS)


def test_rows_of_a_table_are_read_as_statements():
    printed = "Forest │ 0.66 │ 0.63     │ unet   │ 0.69 │ 0.70     │ 800 1941122 94.1"
    assert (
        claims.readable(printed)
        == "Forest: 0.66, 0.63; unet: 0.69, 0.70; steps, parameters, CPU-seconds: 800, 1941122, 94.1"
    )
    assert claims.readable("20 kills: none lost") == "20 kills: none lost"
