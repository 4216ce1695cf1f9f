"""The quizzes of the chapters, and their export to Moodle and Anki."""

from __future__ import annotations

import sqlite3
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from segedu.cli import app
from segedu.teaching.quizzes import moodle_xml, read_key, read_quiz, read_quizzes, to_html, write_anki

ROOT = Path(__file__).resolve().parents[2]
PAGE = """# 4 Metrics

## Quiz

**1. What is the {term}`Dice <Dice>` of an IoU of $1/2$?**

```{dropdown} Answer
% key: 2/3
It is 2/3, see [page 4](boxes.md).
```

**2. Why?**

```{dropdown} Answer
Because.
```

## Reading
"""


@pytest.fixture
def course(tmp_path: Path) -> Path:
    (tmp_path / "course" / "04-metrics").mkdir(parents=True)
    (tmp_path / "course" / "04-metrics" / "index.md").write_text(PAGE)
    return tmp_path


def test_every_answer_of_the_course_is_a_question_of_the_quiz():
    questions = read_quizzes(ROOT)
    for page in sorted((ROOT / "course").glob("[0-9]*-*/index.md")):
        section = page.read_text().partition("\n## Quiz\n")[2].partition("\n## ")[0]
        mine = [question for question in questions if question.chapter == page.parent.name]
        assert len(mine) == section.count("{dropdown} Answer") >= 5, page
        assert sum(bool(question.key) for question in mine) == section.count("\n% key:"), page
    assert sum(bool(question.key) for question in questions) >= 20


def test_a_quiz_is_read_with_its_keys(course: Path):
    first, second = read_quiz(course / "course" / "04-metrics" / "index.md")
    assert (first.key, second.key) == ((pytest.approx(2 / 3),), ())
    assert "key" not in first.answer and second.answer == "Because."


def test_questions_out_of_order_and_keys_without_numbers_are_errors(course: Path):
    page = course / "course" / "04-metrics" / "index.md"
    page.write_text(PAGE.replace("**2. Why", "**3. Why"))
    with pytest.raises(ValueError, match=r"the questions \[1, 3\], expected 1, 2, 3"):
        read_quiz(page)
    with pytest.raises(ValueError, match="key is 'two', expected numbers"):
        read_key("two")


def test_moodle_marks_one_number_and_shows_the_model_answer_of_others(course: Path):
    tree = ElementTree.fromstring(moodle_xml(read_quizzes(course)))
    assert [question.get("type") for question in tree] == ["category", "numerical", "essay"]
    assert float(tree[1].findtext("answer/text")) == pytest.approx(2 / 3)
    assert float(tree[1].findtext("answer/tolerance")) == pytest.approx(0.00667, abs=1e-4)
    assert tree[1].findtext("questiontext/text") == r"<p>What is the Dice of an IoU of \(1/2\)?</p>"
    assert tree[2].findtext("graderinfo/text") == "<p>Because.</p>"


def test_no_markup_of_the_pages_is_left_in_an_export():
    for question in read_quizzes(ROOT):
        for text in (to_html(question.question), to_html(question.answer)):
            assert not {"{term}", "](", "%%", "$"} & {mark for mark in ("{term}", "](", "%%", "$") if mark in text}, (
                text
            )


def test_a_deck_for_anki_has_a_note_per_question(course: Path, tmp_path: Path):
    pytest.importorskip("genanki")
    write_anki(read_quizzes(course), tmp_path / "deck.apkg")
    with zipfile.ZipFile(tmp_path / "deck.apkg") as archive:
        archive.extract("collection.anki2", tmp_path)
    notes = sqlite3.connect(tmp_path / "collection.anki2").execute("select flds from notes").fetchall()
    assert len(notes) == 2 and any("Because." in fields for (fields,) in notes)


def test_the_command_writes_the_file(tmp_path: Path):
    done = CliRunner().invoke(app, ["quizzes", "--course", str(ROOT), "--moodle", str(tmp_path / "quiz.xml")])
    assert done.exit_code == 0, done.output
    assert f"{len(read_quizzes(ROOT))} questions" in done.output
    assert ElementTree.parse(tmp_path / "quiz.xml").getroot().tag == "quiz"
