"""The quizzes of the chapters, read from their pages and exported for Moodle and Anki.

A question is a paragraph in bold under the heading "Quiz", followed by a folded answer:

    **4. What is the Dice of a mask with an IoU of 1/2?**

    ```{dropdown} Answer
    % key: 2/3
    D = 2J / (1 + J) = 1 / 1.5 = 2/3.
    ```

The line `% key:` is optional. It lists the numbers that an answer has to contain, separated by semicolons. The site and
Moodle mark such answers themselves; all others are compared with the sample answer by the reader, or by a grader.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree

QUESTION = re.compile(
    r"^\*\*(?P<number>\d+)\. (?P<question>.+?)\*\*\n\n```\{dropdown\} Answer\n(?P<answer>.+?)\n```$",
    re.DOTALL | re.MULTILINE,
)
KEY = re.compile(r"^% key: *(.+)\n", re.MULTILINE)
TOLERANCE = 0.01  # relative, of a number in an answer
ANKI_MODEL, ANKI_DECKS = 1_847_203_911, 1_847_204_000  # Anki knows cards and decks of earlier exports by them


@dataclass(frozen=True)
class Question:
    """One question with its sample answer, both in the Markdown of the pages, and the numbers of its key."""

    chapter: str
    number: int
    question: str
    answer: str
    key: tuple[float, ...]

    @property
    def name(self) -> str:
        """Chapter and number, such as "6 2"."""
        return f"{self.chapter} {self.number}"


def read_key(text: str) -> tuple[float, ...]:
    """The numbers of a key, of which each may be a fraction.

    Raises:
        ValueError: if one of them is not a number.

    >>> read_key("2/3; 4800; -3.89")
    (0.6666666666666666, 4800.0, -3.89)
    """
    try:
        return tuple(float(Fraction(part.strip())) for part in text.split(";"))
    except ValueError:
        raise ValueError(f"key is {text!r}, expected numbers separated by semicolons") from None


def read_quiz(path: Path) -> list[Question]:
    """The questions of a chapter's first page, in order; empty if the page has no quiz.

    Raises:
        ValueError: if the questions are not numbered 1, 2, 3 and so on.
    """
    _, found, section = path.read_text(encoding="utf-8").partition("\n## Quiz\n")
    section = section.partition("\n## ")[0] if found else ""
    questions = []
    for match in QUESTION.finditer(section):
        key = KEY.search(match["answer"])
        answer = KEY.sub("", match["answer"])
        numbers = read_key(key[1]) if key else ()
        questions.append(Question(path.parent.name, int(match["number"]), match["question"], answer, numbers))
    numbers = [question.number for question in questions]
    if numbers != list(range(1, len(numbers) + 1)):
        raise ValueError(f"{path} has the questions {numbers}, expected 1, 2, 3 and so on")
    return questions


def read_quizzes(course: Path) -> list[Question]:
    """All questions of the course, chapter by chapter.

    Raises:
        ValueError: if no page has a quiz.
    """
    pages = sorted((course / "course").glob("[0-9][0-9]-*/index.md"))
    questions = [question for page in pages for question in read_quiz(page)]
    if not questions:
        raise ValueError(f"{course / 'course'} has no page NN-*/index.md with a quiz")
    return questions


def to_html(text: str) -> str:
    r"""Markdown of the pages as HTML for other programs: without roles and links, formulas as MathJax reads them.

    >>> to_html("The {term}`IoUs <IoU>` are $x^2$, see [page 4](boxes.md).")
    '<p>The IoUs are \\(x^2\\), see page 4.</p>'
    """
    from markdown_it import MarkdownIt

    text = re.sub(r"\{[\w:]+\}`([^`<]+?)(?: <[^`>]+>)?`", r"\1", text)
    text = re.sub(r"\[([^\]]+)\]\([^)]+\)", lambda found: " ".join(found[1].split()), text)
    formulas = re.findall(r"\$([^$]+)\$", text)
    for number, formula in enumerate(formulas):
        text = text.replace(f"${formula}$", f"\0{number}\0".replace("\0", "%%"), 1)
    rendered = MarkdownIt("commonmark").render(text).strip()
    for number, formula in enumerate(formulas):
        rendered = rendered.replace(f"%%{number}%%", rf"\({html.escape(formula)}\)")
    return rendered


def moodle_xml(questions: list[Question]) -> str:
    """Questions in Moodle's XML format, one category per chapter.

    A question whose key is one number is numerical. All others are essays: the sample answer is the general feedback,
    and the information for graders.
    """
    quiz, chapter = ElementTree.Element("quiz"), ""
    for one in questions:
        if one.chapter != chapter:
            chapter = one.chapter
            category = ElementTree.SubElement(quiz, "question", type="category")
            _text(ElementTree.SubElement(category, "category"), f"$course$/Image segmentation/{chapter}")
        numerical = len(one.key) == 1
        element = ElementTree.SubElement(quiz, "question", type="numerical" if numerical else "essay")
        _text(ElementTree.SubElement(element, "name"), one.name)
        _text(ElementTree.SubElement(element, "questiontext", format="html"), to_html(one.question))
        _text(ElementTree.SubElement(element, "generalfeedback", format="html"), to_html(one.answer))
        if numerical:
            answer = ElementTree.SubElement(element, "answer", fraction="100", format="plain_text")
            _text(answer, f"{one.key[0]:.10g}")
            ElementTree.SubElement(answer, "tolerance").text = f"{max(TOLERANCE * abs(one.key[0]), 0.005):.4g}"
        else:
            _text(ElementTree.SubElement(element, "graderinfo", format="html"), to_html(one.answer))
            ElementTree.SubElement(element, "responseformat").text = "editor"
    ElementTree.indent(quiz)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(quiz, encoding="unicode") + "\n"


def _text(element: ElementTree.Element, text: str) -> None:
    ElementTree.SubElement(element, "text").text = text


def write_anki(questions: list[Question], path: Path) -> None:
    """Write a deck of cards for Anki, one per question. The same question keeps its identity from export to export.

    Raises:
        ImportError: if genanki is not installed.
    """
    try:
        import genanki
    except ImportError:
        raise ImportError("genanki is not installed: pip install 'segedu[author]'") from None
    template = {"name": "Question", "qfmt": "{{Front}}", "afmt": "{{FrontSide}}<hr id=answer>{{Back}}"}
    fields = [{"name": "Front"}, {"name": "Back"}]
    model = genanki.Model(ANKI_MODEL, "segedu quiz", fields=fields, templates=[template])
    decks = {}
    for one in questions:
        name = f"Image segmentation::{one.chapter}"
        deck = decks.setdefault(one.chapter, genanki.Deck(ANKI_DECKS + int(one.chapter[:2]), name))
        identity = genanki.guid_for("segedu", one.chapter, one.number)
        sides = [to_html(one.question), to_html(one.answer)]
        deck.add_note(genanki.Note(model, sides, guid=identity, tags=[one.chapter]))
    genanki.Package(list(decks.values())).write_to_file(str(path))


def export_quizzes(course: Path, moodle: Path | None, anki: Path | None) -> None:
    """Write the questions of all chapters to the files that are given, and print how many there are.

    Args:
        course: the checkout.
        moodle: file of Moodle's XML.
        anki: file of an Anki deck.
    """
    questions = read_quizzes(course)
    if moodle:
        moodle.write_text(moodle_xml(questions), encoding="utf-8")
    if anki:
        write_anki(questions, anki)
    marked = sum(bool(question.key) for question in questions)
    files = ", ".join(str(path) for path in (moodle, anki) if path)
    print(f"{len(questions)} questions, {marked} of them with a key" + (f", written to {files}" if files else ""))
