"""Pages for the instructor: one a lab with histograms, misconceptions and students, and one for all labs.

With more than `PAGE` students the table is split over pages, which are written as the students come by.
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
    "tampered": "a cell that must fail did not: read the notebook",
    "failed": "the grader failed: run it again",
    "unreadable": "the file is no notebook of this lab",
    "name clash": "another submission has the same name or number: read the notes, decide whose work it is",
    "several names": "work under several names counts for one student: read the notes, is all of it theirs?",
    "time unknown": "submitted.csv has no time of the attempt that counts: add its row",
    "not on roster": "the submission is nobody's on the roster: give it an alias there",
    "late": "points were taken off for lateness",
    "by hand": "with points or a comment in manual.csv",
    NOTHING: "on the roster, without a submission",
}


def flag(word: str) -> str:
    """A flag: a word in a frame; colour only underlines how serious it is."""
    return f'<span class="flag {"bad" if word in _SERIOUS else "mild"}">{text(word)}</span>'


class Overview:
    """`index.html` of a lab, and `students-1.html`, ... where there are many.

    Args:
        book: of the lab.
        folder: of the lab, in the output folder.
        statistics: counted elsewhere, complete when `close` is called.
        prompts: what each exercise asks.
    """

    def __init__(self, book: LabBook, folder: Path, statistics: LabStatistics, prompts: dict[str, str]) -> None:
        self.book, self.folder, self.statistics, self.prompts = book, folder, statistics, prompts
        self.names = [name for name, _ in book.exercises]
        self.numbers = (1, *range(4, 4 + len(self.names)))
        self.rows: list[str] = []
        self.ends = ("", "")  # first and last student of the rows
        self.parts: list[tuple[str, str, str]] = []  # file, first and last student

    def add(self, student_result: StudentResult) -> None:
        """Keep the row of one student; a full page is written when one more comes."""
        if len(self.rows) == PAGE:
            self._write_part(more=True)
        self.ends = (self.ends[0] if self.rows else student_result.student, student_result.student)
        self.rows.append(self._row(student_result))

    def close(self) -> list[Path]:
        """Write the last pages.

        Returns:
            The index.
        """
        if self.parts:
            self._write_part(more=False)
        kept = {name for name, _, _ in self.parts}
        for old in self.folder.glob("students-*.html"):
            if old.name not in kept:
                old.unlink(missing_ok=True)
        path = self.folder / "index.html"
        write_derived(path, page(f"{self.book.lab}: gradebook", self._body(), _STYLE, wide=True).encode())
        return [path]

    def _row(self, student_result: StudentResult) -> str:
        person, chosen = student_result.person, student_result.chosen
        points = {line.name: points_text(line.auto) for line in student_result.lines}
        name = text(person.name if person else "")
        name += f'<br><span class="soft">{text(person.section)}</span>' if person and person.section else ""
        more = f" of {len(student_result.attempts)}" if len(student_result.attempts) > 1 else ""
        flags = "".join(map(flag, student_result.flags))
        lines = [points.get(exercise, "") if chosen else "" for exercise in self.names]
        words = text(student_result.words)
        total = f"<strong>{points_text(student_result.final)}</strong>"
        cells = [link(f"feedback/{student_result.file}.html", student_result.student), total, name, flags, *lines]
        return row([*cells, f"{chosen.number}{more}" if chosen else "", words], self.numbers)

    def _table(self) -> str:
        header = ["Student", f"Points of {points_text(self.book.max)}", "Name", "Flags"]
        header += [f"{breakable(name)} ({points_text(worth)})" for name, worth in self.book.exercises]
        whole = table([*header, "Attempt", "Lateness"], self.rows, self.numbers, "Students")
        return f'<div class="students">{whole}</div>'

    def _write_part(self, more: bool) -> None:
        number = len(self.parts) + 1
        name, (first, last) = f"students-{number}.html", self.ends
        self.parts.append((name, first, last))
        ways = [link("index.html", "Gradebook of the lab")]
        ways += [link(f"students-{number - 1}.html", "Page before")] if number > 1 else []
        ways += [link(f"students-{number + 1}.html", "Next page")] if more else []
        nav = f'<nav class="pages" aria-label="Pages">{" ".join(ways)}</nav>'
        body = f"<h1>{text(self.book.lab)}: students, page {number}</h1><p>{text(first)} to {text(last)}</p>"
        title = f"{self.book.lab}: students, page {number}"
        whole = page(title, f"{nav}{body}{self._table()}{nav}", _STYLE, wide=True)
        write_derived(self.folder / name, whole.encode())
        self.rows = []

    def _body(self) -> str:
        lab = text(self.book.lab)
        parts = [f"<nav>{link('../index.html', 'All labs')}</nav><h1>{lab}: gradebook</h1>", self._facts()]
        parts += [f'<p class="soft">{text(remark)}</p>' for remark in self.book.remarks]
        parts += [self._attention(), self._totals(), self._exercises(), self._misconceptions()]
        parts.append(f'<h2 id="students">Students</h2>{self._pages() if self.parts else self._table()}')
        parts.append(
            '<p class="soft">Columns of exercises show what the autograder gave, before lateness and changes by hand. '
            f"The same in {link('grades.csv', 'grades.csv')} and {link('exercises.csv', 'exercises.csv')}.</p>"
        )
        return "\n".join(part for part in parts if part)

    def _facts(self) -> str:
        statistics, policy = self.statistics, self.book.policy
        most = points_text(statistics.max)
        facts = [("Students", statistics.students), ("Handed in", statistics.handed), ("Full points", statistics.full)]
        facts += [
            ("Mean", f"{points_text(statistics.mean)} of {most}"),
            ("Median", f"{points_text(statistics.median)} of {most}"),
        ]
        facts += [("Due", moment(policy.shown(policy.due)))] if policy.due else []
        items = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
        return f'<dl class="facts">{items}</dl>'

    def _attention(self) -> str:
        """Flags with the students who have them; the first few, where there are many."""
        items = []
        for word in [word for word in _ADVICE if self.statistics.flags[word]]:
            count = self.statistics.flags[word]
            who = ", ".join(link(f"feedback/{file}.html", name) for name, file in self.statistics.examples[word])
            who += f" and {count - EXAMPLES} more" if count > EXAMPLES else ""
            what = f"{flag(word)} <strong>{count}</strong> {text(_ADVICE[word])}"
            items.append(f'<li>{what}<span class="who">{who}</span></li>')
        return f'<h2>To look at</h2><ul class="card look">{"".join(items)}</ul>' if items else ""

    def _totals(self) -> str:
        chart = charts.histogram(
            self.statistics.bins, self.statistics.max, "Points that count, all exercises", "all", 150
        )
        bins = len(self.statistics.bins) - 1
        spans = [(charts.span_of(i, bins, self.statistics.max), count) for i, count in enumerate(self.statistics.bins)]
        rows = [row([text(span), str(count)], (1,)) for span, count in spans]
        numbers = (
            f"<details><summary>The numbers</summary>{table(['Points', 'Students'], rows, (1,), 'Points')}</details>"
        )
        return f'<h2>Points</h2><div class="card chart">{chart}{numbers}</div>'

    def _exercises(self) -> str:
        rows, cards = [], []
        for name, statistics in self.statistics.hardest():
            wrong = statistics.wrong.most_common(1)
            common = f"{text(wrong[0][0])} ({wrong[0][1]})" if wrong else ""
            prompt = f'<br><span class="soft">{text(self.prompts[name])}</span>' if name in self.prompts else ""
            cells = [
                f"{breakable(name)}{prompt}",
                _percent(statistics.share),
                _percent(_part(statistics.solved, statistics.graded)),
            ]
            rows.append(row([*cells, _percent(_part(statistics.tried, statistics.graded)), common], (1, 2, 3)))
        for number, (name, statistics) in enumerate(self.statistics.exercises.items(), 1):
            label = f"{name}: autograded points"
            chart = charts.histogram(statistics.bins, statistics.max, label, f"e{number}")
            cards.append(f'<div class="card"><h3>{breakable(name)}</h3>{chart}</div>')
        header = ["Exercise, the hardest first", "Mean share", "Solved", "Tried", "Commonest misconception"]
        whole = table(header, rows, (1, 2, 3), "Exercises")
        return f'<h2>Exercises</h2>{whole}<div class="charts" style="margin-top: .75rem">{"".join(cards)}</div>'

    def _misconceptions(self) -> str:
        found = self.statistics.misconceptions()
        rows = [
            row([f"{text(name)}", str(count), breakable(exercise), text(message)], (1,))
            for count, exercise, name, message in found
        ]
        if not rows:
            return "<h2>Misconceptions</h2><p>None was recognised.</p>"
        header = ["Misconception", "Students", "Exercise", "What students are told"]
        whole = table(header, rows, (1,), "Misconceptions")
        return f'<h2>Misconceptions, the commonest first</h2><div class="prose">{whole}</div>'

    def _pages(self) -> str:
        items = [f"<li>{link(name, f'{first} to {last}')}</li>" for name, first, last in self.parts]
        return f'<ol class="pages">{"".join(items)}</ol>'


def _part(count: int, of: int) -> Decimal:
    return Decimal(count) / of if of else Decimal(0)


def _percent(share: Decimal) -> str:
    return f"{share * 100:.0f} %"


def write_front(out: Path, statistics_of_labs: list[LabStatistics], course: tuple[int, Decimal]) -> Path:
    """Write `index.html` of the output folder: its labs with totals.

    Args:
        out: the instructor's `--out`.
        statistics_of_labs: of the labs that have records.
        course: number of students, and mean of their points over all labs.

    Returns:
        The page.
    """
    rows = []
    for statistics in statistics_of_labs:
        look = sum(statistics.flags[word] for word in _SERIOUS)
        cells = [link(f"{statistics.lab}/index.html", statistics.lab), f"{statistics.handed} of {statistics.students}"]
        cells += [
            points_text(statistics.mean),
            points_text(statistics.median),
            points_text(statistics.max),
            str(statistics.full),
        ]
        rows.append(row([*cells, str(statistics.flags["late"]), str(look)], tuple(range(1, 8))))
    students, mean = course
    most = sum((statistics.max for statistics in statistics_of_labs), Decimal(0))
    last = ["All labs", str(students), points_text(mean), "", points_text(most), "", "", ""]
    rows.append(row([f"<strong>{cell}</strong>" if cell else "" for cell in last], tuple(range(1, 8))))
    header = ["Lab", "Handed in", "Mean", "Median", "Of", "Full points", "Late", "To look at"]
    files = [link("totals.csv", "totals.csv"), link("gradebook.sqlite", "gradebook.sqlite")]
    body = f"<h1>Gradebook</h1>{table(header, rows, tuple(range(1, 8)), 'Labs')}"
    body += (
        '<p class="soft">Mean and median of a lab are of those who handed something in; the last mean is of everybody. '
        f"Every student with points of all labs: {files[0]}; for queries: {files[1]}.</p>"
    )
    path = out / "index.html"
    write_derived(path, page("Gradebook", body, _STYLE, wide=True).encode())
    return path
