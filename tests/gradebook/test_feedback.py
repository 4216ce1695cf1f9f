"""Feedback pages: what a student may know, in words that are theirs; nothing hidden, nothing of ours, no markup."""

from __future__ import annotations

import io
from html.parser import HTMLParser

import pytest
from rich.console import Console

from segedu.grading.gradebook.bookkeeping import rebuild
from segedu.grading.gradebook.command import GradebookOptions, gradebook
from segedu.grading.gradebook.feedback import feedback_page
from segedu.grading.gradebook.page import moment, page, printable
from segedu.grading.gradebook.policy import LabBook, read_instructor_files
from segedu.grading.gradebook.prompts import exercise_prompts, first_line

TAGS = {"html", "head", "meta", "title", "style", "body", "a", "main", "h1", "h2", "p", "div", "section", "ul", "li",
        "strong", "code", "span", "table", "thead", "tbody", "tr", "th", "td", "br", "wbr"}  # fmt: skip
ASKED = {"double": "Twice `x`.", "total": "Sum of <values>."}


class Tags(HTMLParser):
    """Collects tags and attributes."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


def page_of(out, student="anna"):
    book = LabBook(read_instructor_files(out), "00_tiny")
    student_result = next(one for one in book if one.student == student)
    return feedback_page(student_result, ASKED, book.policy)


def test_what_was_asked_what_came_which_misconception_and_a_hint(made, tmp_path):
    out = made.write(tmp_path, made.record(exercises=[made.exercise("double", 3), made.exercise("total", 1)]))
    text = page_of(out)
    assert "4 of 6 points" in text and "<h1>00_tiny: feedback for anna</h1>" in text
    assert "Task: Twice <code>x</code>." in text and "Task: Sum of &lt;values&gt;." in text
    assert '<span aria-hidden="true">\u2713</span> Correct' in text and "Partly correct" in text
    assert "core: 1 of 3 correct" in text and "<strong>You add 2.</strong>" in text and "Hint: Try 5." in text
    assert text.count("You add 2.") == 1 and "<h2>Attempts</h2>" not in text and "autograder" not in text


def test_a_second_misconception_is_told_too(made, tmp_path):
    wrongs = [
        {"name": n, "message": m, "hint": h} for n, m, h in (("a", "You add 2.", "x"), ("b", "You stop early.", ""))
    ]
    out = made.write(tmp_path, made.record(exercises=[made.exercise(named=wrongs), made.exercise("total")]))
    assert "<strong>You stop early.</strong></p></section>" in page_of(out).replace("</p><p", "</p>\n<p")


def test_lateness_comments_and_attempts(made, tmp_path):
    out = made.write(
        tmp_path,
        made.record(points=(3, 2), submitted="2026-10-07T01:59:00+02:00"),
        made.record(points=(0, 0), attempt=2, status="unreadable", problem="x.ipynb is empty"),
        policy='timezone = "Europe/Zurich"\n[late]\nafter = 0.5\n[labs.00_tiny]\ndue = "2026-10-05 23:59"\n',
        manual="lab,student,exercise,points,comment\n00_tiny,anna,,+1,Good <plots>\n00_tiny,anna,total,3,fine\n"
        "00_tiny,anna,double,,Read `np.where`\n",
        roster="student,name\nanna,Anna & Co\n",
    )
    text = page_of(out)
    assert "feedback for Anna &amp; Co" in text and '<p class="total">5.5 of 6 points</p>' in text
    assert (
        "<li>5 of 6 points from the autograder</li><li>26 h late: x 0.5: 2.5 points</li><li>manual change: +3</li>"
        in text
    )
    assert "<strong>From your instructor, +1 point</strong>: Good &lt;plots&gt;" in text
    assert "<strong>From your instructor, 3 points instead</strong>: fine" in text
    assert "<strong>From your instructor</strong>: Read <code>np.where</code>" in text
    assert ">1, counts</th>" in text and ">2</th>" in text and "Due 2026-10-05 23:59 CEST." in text
    assert f"{moment('2026-10-07 01:59 CEST')}<br>" in text and "not graded" in text
    assert text.count("26 h late") == 3  # an attempt without a time takes the latest that is known of its student


def test_it_holds_no_markup_of_the_student_and_no_secret(made, tmp_path):
    evil = [made.exercise(notes=[made.EVIL], first_line=made.EVIL, hint=made.EVIL), made.exercise("total")]
    bad = made.record("broken", status="unreadable", problem=made.EVIL, sandbox=None, submitted="2026-10-05T10:00:00Z")
    roster = 'student,name\nanna,"<img src=x onerror=alert(1)>\u202eannA"\n'
    manual = 'lab,student,exercise,points,comment\n00_tiny,anna,total,+1,"</p><script>=1+1</script>"\n'
    records = [made.record(), bad, made.record("=evil", notes=[made.EVIL], exercises=evil)]
    out = made.write(tmp_path, *records, roster=roster, manual=manual)
    for student in ("anna", "broken", "=evil"):
        text = page_of(out, student)
        tags = Tags()
        tags.feed(text)
        assert {tag for tag, _ in tags.seen} <= TAGS
        assert not any(key.startswith("on") or key == "src" for _, attrs in tags.seen for key in attrs)
        assert [attrs["href"] for tag, attrs in tags.seen if tag == "a"] == ["#top"]
        assert "secret" not in text and "default-src 'none'" in text and "\u202e" not in text and "\x00" not in text
        assert ("html", {"lang": "en"}) in tags.seen


@pytest.mark.parametrize(
    "path",
    [
        "/home/teacher/graded/anna.ipynb",
        "/tmp/x.py",
        "C:\\Users\\teacher\\x.ipynb",
        "\\\\server\\share\\x",
        "/opt/a/b/c.py",
    ],
)
def test_no_path_of_ours(made, tmp_path, path):
    problem = f"x cannot be read: '{path}': gone"
    exercises = [made.exercise(notes=[f"read {path}"], first_line=f"see {path}"), made.exercise("total")]
    out = made.write(tmp_path, made.record(exercises=exercises, notes=[path]))
    made.write(out, made.record("bert", status="unreadable", problem=problem))
    for student in ("anna", "bert"):
        text = page_of(out, student)
        assert "(a path)" in text and "teacher" not in text and "x.py" not in text and "share" not in text
    assert "mentions /proc/ and a/b and 3/4" in page_of(
        made.write(out, made.record("chris", notes=["mentions /proc/ and a/b and 3/4"])), "chris"
    )


def test_a_failure_of_ours_is_said_to_be_ours(made, tmp_path):
    trace = {"trace": "Traceback /srv/grader.py line 3", "problem": "the grader failed: OSError: /srv/grader.py"}
    out = made.write(tmp_path, made.record(status="failed", notes=["n"], **trace))
    text = page_of(out)
    assert "This is not your fault, and the notebook will be graded again." in text
    assert "OSError" not in text and "srv" not in text and "Traceback" not in text and "<section" not in text


def test_nothing_handed_in_is_a_page_too(made, tmp_path):
    manual = "lab,student,exercise,points,comment\n00_tiny,zoe,total,2,oral exam\n"
    out = made.write(tmp_path, made.record(), roster="student\nanna\nzoe\n", manual=manual)
    text = page_of(out, "zoe")
    assert (
        "Nothing was handed in." in text and "2 of 6 points" in text and "2 points instead</strong>: oral exam" in text
    )
    assert text.count("<section") == 1
    rebuild(out)
    assert (out / "00_tiny" / "feedback" / "zoe.html").read_text() != text  # there, no course says what was asked
    assert "Nothing was handed in." in (out / "00_tiny" / "feedback" / "zoe.html").read_text()


def test_what_is_asked_is_kept_where_the_course_is_not_at_hand(course, made, tmp_path):
    out = made.write(tmp_path, made.record())
    lines = {"double": "Twice x.", "total": "Sum of values.", "box_area": "(N, 4) -> (N,)"}
    assert exercise_prompts(out, "00_tiny", None) == {} == exercise_prompts(out, "00_tiny", tmp_path)
    assert exercise_prompts(out, "00_tiny", course) == lines == exercise_prompts(out, "00_tiny", None)
    (out / "00_tiny" / "asked.json").write_text("[]")
    assert exercise_prompts(out, "00_tiny", None) == {}
    rebuild(out, course=course)
    assert "Task: Twice x." in (out / "00_tiny" / "feedback" / "anna.html").read_text()


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ('def helper():\n    """No."""\n\ndef f(x):\n    """\n    Yes.\n\n    More.\n    """', "Yes."),
        ('class f:\n    """A class."""', "A class."),
        ('def other():\n    """The only one."""', "The only one."),
        ("def f(): pass", ""),
        ("def f(:", ""),
        ("x = 1", ""),
        ('def f():\n    "   "', ""),
    ],
)
def test_the_first_line_of_a_stub(source, line):
    assert first_line(source, "f") == line


def test_the_shell_of_a_page():
    text = page("<t>", "<p>x</p>")
    assert "<title>&lt;t&gt;</title>" in text and "<script" not in text and "http:" not in text and "https:" not in text
    assert "@media (prefers-color-scheme: dark)" in text and 'name="viewport"' in text
    assert printable("a\x00b\u2066c") == "a b c"


def test_a_lab_that_a_student_handed_in_does_not_say_what_is_asked(course, made, tmp_path):
    """`segedu gradebook` started in the inbox: its course is the working directory unless another is given."""
    out = made.write(tmp_path, made.record())
    rebuild(out, course=course)
    inbox = tmp_path / "inbox"
    (inbox / "labs").mkdir(parents=True)
    lab = (course / "labs" / "00_tiny.ipynb").read_text()
    (inbox / "labs" / "00_tiny.ipynb").write_text(lab.replace("Twice x.", "Visit my page."))
    assert exercise_prompts(tmp_path / "elsewhere", "00_tiny", inbox)["double"] == "Visit my page."
    gradebook(GradebookOptions(out, course=inbox), Console(file=io.StringIO()))
    assert "Task: Twice x." in (out / "00_tiny" / "feedback" / "anna.html").read_text()
    with pytest.raises(ValueError, match="the folder of the submissions"):
        gradebook(GradebookOptions(out, course=inbox, similarity=inbox), Console(file=io.StringIO()))
