"""Pages for the instructor: one per lab with histograms, misconceptions and students, and one for all labs.

With more than `PAGE` students the table is split over several pages, each written as soon as it is full.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from segedu.grading.gradebook import charts
from segedu.grading.gradebook.atomic_files import points_text, write_derived
from segedu.grading.gradebook.page import breakable, link, moment, page, row, table, text
from segedu.grading.gradebook.policy import LabBook
from segedu.grading.gradebook.statistics import EXAMPLES, LabStatistics
from segedu.grading.gradebook.student_result import NOTHING, StudentResult

PAGE = 2000
_STYLE = (
    charts.STYLE
    + """
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem; margin: 1rem 0; }
.facts div { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .5rem .9rem; }
.facts dt { color: var(--soft); font-size: .9rem; } .facts dd { margin: 0; font-size: 1.25rem; font-weight: 600; }
.chart { max-width: 34rem; } .look { list-style: none; padding: .25rem 1rem; } .look li { padding: .35rem 0; }
.look li + li { border-top: 1px solid var(--line); } .look .who { display: block; }
.prose td:last-child { min-width: 14rem; } .students td:last-child { min-width: 11rem; }
.students td:nth-child(3) { min-width: 8.5rem; } .students th[scope=row] { min-width: 5rem; }
.flag { display: inline-block; border: 1px solid; border-radius: .75rem; padding: 0 .55rem; font-size: .85rem;
  white-space: nowrap; margin: 0 .2rem .2rem 0; }
.bad { color: var(--bad); font-weight: 600; } .mild { color: var(--part); }
.pages a { display: inline-block; padding: .25rem .5rem .25rem 0; }
"""
)
_SERIOUS = ("tampered", "failed", "unreadable", "name clash", "several names", "time unknown", "not on roster")
_ADVICE = {
    "tampered": "a cell that must fail did not fail: read the notebook",
    "failed": "the grader failed: grade the submission again",
    "unreadable": "the file is not a notebook of this lab",
    "name clash": "another submission has the same name or number: read the notes and decide whose work it is",
    "several names": "work under several names counts for one student: read the notes and check that all is theirs",
    "time unknown": "submitted.csv has no time for the attempt that counts: add a row",
    "not on roster": "the submission belongs to nobody on the roster: add its name there as an alias",
    "late": "points were deducted for lateness",
    "manual change": "manual.csv changes the points or adds a comment",
    NOTHING: "on the roster, without a submission",
}


def flag(word: str) -> str:
    """A framed word. The colour shows how serious the flag is."""
    return f'<span class="flag {"bad" if word in _SERIOUS else "mild"}">{text(word)}</span>'


class Overview:
    """`index.html` of a lab, and `students-1.html`, ... if there are many students.

    Args:
        book: results of the lab.
        folder: folder of the lab in the output folder.
        statistics: filled by the caller, complete when `close` is called.
        prompts: the task description of each exercise.
    """

    def __init__(self, book: LabBook, folder: Path, statistics: LabStatistics, prompts: dict[str, str]) -> None:
        self.book, self.folder, self.statistics, self.prompts = book, folder, statistics, prompts
        self.names = [name for name, _ in book.exercises]
        self.numeric = (1, *range(4, 4 + len(self.names)))  # columns of the table of students
        self.rows: list[str] = []
        self.ends = ("", "")  # first and last student of the rows
        self.pages: list[tuple[str, str, str]] = []  # file, first and last student

    def add(self, student_result: StudentResult) -> None:
        """Add the row of one student. If the page is full already, it is written first."""
        if len(self.rows) == PAGE:
            self._write_page(more=True)
        self.ends = (self.ends[0] if self.rows else student_result.student, student_result.student)
        self.rows.append(self._row(student_result))

    def close(self) -> list[Path]:
        """Write the remaining pages, and return the path of the index."""
        if self.pages:
            self._write_page(more=False)
        kept = {name for name, _, _ in self.pages}
        for old in self.folder.glob("students-*.html"):
            if old.name not in kept:
                old.unlink(missing_ok=True)
        path = self.folder / "index.html"
        write_derived(path, page(f"{self.book.lab}: gradebook", self._body(), _STYLE, wide=True).encode())
        return [path]

    def _row(self, student_result: StudentResult) -> str:
        person, chosen = student_result.person, student_result.chosen
        points = {exercise.name: points_text(exercise.autograded_points) for exercise in student_result.exercises}
        name = text(person.name if person else "")
        name += f'<br><span class="soft">{text(person.section)}</span>' if person and person.section else ""
        more = f" of {len(student_result.attempts)}" if len(student_result.attempts) > 1 else ""
        flags = "".join(map(flag, student_result.flags))
        exercises = [points.get(exercise, "") if chosen else "" for exercise in self.names]
        total = f"<strong>{points_text(student_result.final)}</strong>"
        cells = [link(f"feedback/{student_result.file}.html", student_result.student), total, name, flags, *exercises]
        attempt = f"{chosen.number}{more}" if chosen else ""
        return row([*cells, attempt, text(student_result.late_explanation)], self.numeric)

    def _table(self) -> str:
        header = ["Student", f"Points of {points_text(self.book.max_points)}", "Name", "Flags"]
        header += [f"{breakable(name)} ({points_text(maximum)})" for name, maximum in self.book.exercises]
        students = table([*header, "Attempt", "Lateness"], self.rows, self.numeric, "Students")
        return f'<div class="students">{students}</div>'

    def _write_page(self, more: bool) -> None:
        number = len(self.pages) + 1
        name, (first, last) = f"students-{number}.html", self.ends
        self.pages.append((name, first, last))
        links = [link("index.html", "Gradebook of the lab")]
        links += [link(f"students-{number - 1}.html", "Previous page")] if number > 1 else []
        links += [link(f"students-{number + 1}.html", "Next page")] if more else []
        nav = f'<nav class="pages" aria-label="Pages">{" ".join(links)}</nav>'
        title = f"{self.book.lab}: students, page {number}"
        body = f"<h1>{text(title)}</h1><p>{text(first)} to {text(last)}</p>"
        document = page(title, f"{nav}{body}{self._table()}{nav}", _STYLE, wide=True)
        write_derived(self.folder / name, document.encode())
        self.rows = []

    def _body(self) -> str:
        lab = text(self.book.lab)
        parts = [f"<nav>{link('../index.html', 'All labs')}</nav><h1>{lab}: gradebook</h1>", self._facts()]
        parts += [f'<p class="soft">{text(remark)}</p>' for remark in self.book.remarks]
        parts += [self._attention(), self._totals(), self._exercises(), self._misconceptions()]
        parts.append(f'<h2 id="students">Students</h2>{self._page_links() if self.pages else self._table()}')
        parts.append(
            '<p class="soft">The columns of the exercises hold autograded points, before late penalties and changes by '
            f"hand. The same data: {link('grades.csv', 'grades.csv')} and {link('exercises.csv', 'exercises.csv')}.</p>"
        )
        return "\n".join(part for part in parts if part)

    def _facts(self) -> str:
        statistics, policy = self.statistics, self.book.policy
        maximum = points_text(statistics.max_points)
        facts = [("Students", statistics.students), ("Handed in", statistics.handed), ("Full points", statistics.full)]
        facts += [("Mean", f"{points_text(statistics.mean)} of {maximum}")]
        facts += [("Median", f"{points_text(statistics.median)} of {maximum}")]
        facts += [("Due", moment(policy.shown(policy.due)))] if policy.due else []
        items = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
        return f'<dl class="facts">{items}</dl>'

    def _attention(self) -> str:
        """All flags, each with its meaning and the first students who have it."""
        items = []
        for word in [word for word in _ADVICE if self.statistics.flags[word]]:
            count = self.statistics.flags[word]
            students = ", ".join(link(f"feedback/{file}.html", name) for name, file in self.statistics.examples[word])
            students += f" and {count - EXAMPLES} more" if count > EXAMPLES else ""
            meaning = f"{flag(word)} <strong>{count}</strong> {text(_ADVICE[word])}"
            items.append(f'<li>{meaning}<span class="who">{students}</span></li>')
        return f'<h2>Needs attention</h2><ul class="card look">{"".join(items)}</ul>' if items else ""

    def _totals(self) -> str:
        chart = charts.histogram(
            self.statistics.bins, self.statistics.max_points, "Final points, all exercises", "all", 150
        )
        bins = len(self.statistics.bins) - 1
        spans = [
            (charts.span_of(i, bins, self.statistics.max_points), count) for i, count in enumerate(self.statistics.bins)
        ]
        rows = [row([text(span), str(count)], (1,)) for span, count in spans]
        counts = table(["Points", "Students"], rows, (1,), "Points")
        details = f"<details><summary>The same as a table</summary>{counts}</details>"
        return f'<h2>Points</h2><div class="card chart">{chart}{details}</div>'

    def _exercises(self) -> str:
        rows, cards = [], []
        for name, statistics in self.statistics.hardest():
            wrong = statistics.misconceptions.most_common(1)
            misconception = f"{text(wrong[0][0])} ({wrong[0][1]})" if wrong else ""
            prompt = f'<br><span class="soft">{text(self.prompts[name])}</span>' if name in self.prompts else ""
            solved, tried = (_fraction(n, statistics.graded) for n in (statistics.solved, statistics.attempted))
            percentages = [_percent(fraction) for fraction in (statistics.mean_fraction, solved, tried)]
            rows.append(row([f"{breakable(name)}{prompt}", *percentages, misconception], (1, 2, 3)))
        for number, (name, statistics) in enumerate(self.statistics.exercises.items(), 1):
            label = f"{name}: autograded points"
            chart = charts.histogram(statistics.bins, statistics.max_points, label, f"e{number}")
            cards.append(f'<div class="card"><h3>{breakable(name)}</h3>{chart}</div>')
        header = ["Exercise, hardest first", "Mean points", "Solved", "Tried", "Most frequent misconception"]
        exercises = table(header, rows, (1, 2, 3), "Exercises")
        return f'<h2>Exercises</h2>{exercises}<div class="charts" style="margin-top: .75rem">{"".join(cards)}</div>'

    def _misconceptions(self) -> str:
        rows = [
            row([f"{text(name)}", str(count), breakable(exercise), text(message)], (1,))
            for count, exercise, name, message in self.statistics.misconceptions()
        ]
        if not rows:
            return "<h2>Misconceptions</h2><p>No misconception was recognised.</p>"
        header = ["Misconception", "Students", "Exercise", "Message to students"]
        misconceptions = table(header, rows, (1,), "Misconceptions")
        return f'<h2>Misconceptions, most frequent first</h2><div class="prose">{misconceptions}</div>'

    def _page_links(self) -> str:
        items = [f"<li>{link(name, f'{first} to {last}')}</li>" for name, first, last in self.pages]
        return f'<ol class="pages">{"".join(items)}</ol>'


def _fraction(count: int, total: int) -> Decimal:
    return Decimal(count) / total if total else Decimal(0)


def _percent(fraction: Decimal) -> str:
    return f"{fraction * 100:.0f} %"


def write_front(out: Path, statistics_of_labs: list[LabStatistics], course: tuple[int, Decimal]) -> Path:
    """Write `index.html` of the output folder, a table of its labs, and return its path.

    Args:
        out: the output folder.
        statistics_of_labs: statistics of all labs with records.
        course: the number of students, and the mean of their points over all labs.
    """
    rows, numeric = [], tuple(range(1, 8))
    for statistics in statistics_of_labs:
        serious = sum(statistics.flags[word] for word in _SERIOUS)
        cells = [link(f"{statistics.lab}/index.html", statistics.lab), f"{statistics.handed} of {statistics.students}"]
        cells += [points_text(points) for points in (statistics.mean, statistics.median, statistics.max_points)]
        rows.append(row([*cells, *map(str, (statistics.full, statistics.flags["late"], serious))], numeric))
    students, mean = course
    maximum = sum((statistics.max_points for statistics in statistics_of_labs), Decimal(0))
    last = ["All labs", str(students), points_text(mean), "", points_text(maximum), "", "", ""]
    rows.append(row([f"<strong>{cell}</strong>" if cell else "" for cell in last], numeric))
    header = ["Lab", "Handed in", "Mean", "Median", "Maximum", "With full points", "Late", "Needs attention"]
    files = [link("totals.csv", "totals.csv"), link("gradebook.sqlite", "gradebook.sqlite")]
    body = f"<h1>Gradebook</h1>{table(header, rows, numeric, 'Labs')}"
    body += (
        '<p class="soft">Mean and median of a lab include the students who handed something in; the mean of all labs '
        f"includes all students. Points of every student in all labs: {files[0]}; for queries: {files[1]}.</p>"
    )
    path = out / "index.html"
    write_derived(path, page("Gradebook", body, _STYLE, wide=True).encode())
    return path
