"""Where attacks meet the grader: the tiny course, honest neighbours, a host with something to lose, and a referee.

A batch of one level holds every attack and twin, with honest neighbours between them. After each submission the
referee looks for harm: changed files, visited sockets, a killed process, processes left behind, a swollen grader.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from segedu.grading.batch.batch import Job, grade_batch
from segedu.grading.batch.grader_threads import pool_of_threads
from segedu.grading.batch.reports import all_notes, write_reports
from segedu.grading.sandbox import isolation_levels
from segedu.grading.sandbox.isolation_levels import IsolationLevel
from segedu.grading.sandbox.kernel_pool import KernelPool
from segedu.grading.sandbox.nbval_items import session
from segedu.grading.sandbox.provisioner import ForkServer
from segedu.grading.sandbox.staged_library import build_stage
from segedu.grading.submissions.find_submissions import find_entries

sys.path.append(str(Path(__file__).resolve().parents[1] / "grading"))
import tiny
from attack import FULL, NAMES, RIGHT, Attack
from host import Host, Referee, branded

SEED = 20_061
FIRST = "00-neighbour"  # is graded in a batch of its own, before
BRAND = ""
NEIGHBOURS = ("a15-neighbour", "n40-neighbour", "o20-neighbour", "zz-neighbour")
CROWD_JOBS = 3
COMPUTING = ("o115-a-neighbour", "o115-b-neighbour", "o116-neighbour", "zz-neighbour")  # start beside those of a crowd
COMPUTING_TOTAL = """import time
computed = []
def total(values):
    until = time.process_time() + {seconds}
    while not computed and time.process_time() < until:
        pass
    computed.append(True)
    return float(np.sum(values))"""


@dataclass(frozen=True)
class Row:
    """What became of one submission at one level.

    Attributes:
        attack: its name, with `-twin` for the honest twin.
        boundary: as the attack says.
        level: `3`, `3u` (with a user namespace), `2`, `1`.
        points: it got.
        right: it should have got.
        note: the first one of its record.
        faults: what is wrong; empty where the grader held.
        seconds: for this submission.
    """

    attack: str
    boundary: str
    level: str
    points: float
    right: float
    note: str = ""
    faults: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def forged(self) -> float:
        """Points above the right ones."""
        return max(0.0, self.points - self.right)


def level_name(isolation: IsolationLevel) -> str:
    """`3`, `3u`, `2`, `1`."""
    return f"{isolation.level}{'u' if isolation.user_namespace else ''}"


def possible_levels() -> dict[str, IsolationLevel]:
    """The levels that this machine has, best first."""
    return {level_name(isolation): isolation for isolation, works, _ in isolation_levels._probed() if works}


@contextlib.contextmanager
def one_course() -> Iterator[Path]:
    """The tiny course, installed for this process, and one warm fork server for all batches; its brand is kept."""
    global BRAND
    with tempfile.TemporaryDirectory(prefix="segedu-arena-") as folder, branded() as BRAND:
        Path(folder).chmod(0o755)
        with tiny.installed(tiny.make_course(Path(folder, "course"))) as course:
            server = ForkServer.share()
            try:
                yield course
            finally:
                server.close()


@contextlib.contextmanager
def own_temporary_files(folder: Path) -> Iterator[None]:
    """What this process makes for a while and has to remove lies in a folder of its own."""
    folder.mkdir()
    folder.chmod(0o711)
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def notebook(name: str, cell: str, answers: dict[str, str], last: str = "") -> str:
    """A submission of the tiny lab; its first answer carries its name for the referee.

    Args:
        name: of the row.
        cell: put behind the imports.
        answers: exercise -> source.
        last: put at the end.

    Returns:
        The text of the file.
    """
    cells = tiny.answered(**answers | {"double": f"# row: {name}\n{answers['double']}"})
    cells[2:2] = [tiny.cell("mine", cell)] * bool(cell)
    return tiny.notebook(cells + [tiny.cell("last", last)] * bool(last))


@dataclass
class Entry:
    """One submission of the batch: whose attack it is, or a twin's or neighbour's."""

    name: str
    path: Path
    right: float
    attack: Attack | None = None
    twin: bool = False
    student: str = ""


class Arena:
    """One batch of one level.

    Args:
        course: the tiny one.
        isolation: the level.
        attacks: to be run.
        cell_seconds: limit of each cell.
    """

    def __init__(
        self, course: Path, isolation: IsolationLevel, attacks: Sequence[Attack], cell_seconds: float = 6.0
    ) -> None:
        self.course, self.isolation, self.attacks, self.cell_seconds = course, isolation, attacks, cell_seconds
        self.level, self.crowd = level_name(isolation), any(attack.crowd for attack in attacks)
        self.entries: list[Entry] = []
        self.referee: Referee | None = None

    def run(self, jobs: int = 1, told=lambda row: None) -> list[Row]:
        """Grade everything and judge the grader.

        Args:
            jobs: submissions at a time; harm is found at the end only where there is more than one.
            told: each row, once the batch has ended.

        Returns:
            One row a submission.
        """
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="segedu-bout-"))
            host = stack.enter_context(Host(Path(folder, "host")))
            stack.enter_context(own_temporary_files(Path(folder, "tmp")))
            Path(folder).chmod(0o755)
            subs, out = Path(folder, "submissions"), Path(folder, "out")
            subs.mkdir()
            places = host.words | {"SUBMISSIONS": str(subs), "OUT": str(out), "COURSE": str(self.course)}
            self._write(subs, FIRST, notebook(FIRST, "", RIGHT), FULL)
            job = Job(subs, tiny.LAB, out, self.course, jobs, SEED, self.isolation.level, True, self.cell_seconds, 60.0)
            self.referee = Referee(host, [out / "seed.json", *self._course_files()], BRAND, watch_each=jobs == 1)
            grade_batch(job, open_grader_pool=partial(pool_of_threads, open_pools=self.pools))
            before = _records(out)
            self._hand_in(subs, places)
            self.referee.begin()
            stack.enter_context(contextlib.chdir(subs))  # the worst place to grade in
            session.cache_clear()
            batch = grade_batch(job, open_grader_pool=partial(pool_of_threads, open_pools=self.pools))
            write_reports(batch, out)
            self.referee.end()
            rows = self._rows(subs, out, batch, before)
        for row in rows:
            told(row)
        return rows

    def _course_files(self) -> list[Path]:
        return [self.course / "labs" / f"{tiny.LAB}.ipynb", *self.course.glob("exercises/*/*.py")]

    @contextlib.contextmanager
    def pools(self, assignment, hides: list[str], count: int) -> Iterator[list]:
        """What `grade_batch` opens: real pools of this level, each watched by the referee."""
        with tempfile.TemporaryDirectory(prefix="segedu-stage-") as folder, contextlib.ExitStack() as stack:
            Path(folder).chmod(0o711)
            stage = build_stage(hides, Path(folder, "stage"))
            pools = [stack.enter_context(KernelPool(stage, self.isolation)) for _ in range(count)]
            yield [Watched(pool, self.referee) for pool in pools]

    def _write(self, subs: Path, name: str, text: str, right: float, attack: Attack | None = None) -> None:
        path = subs / f"{name}.ipynb"
        path.write_text(text)
        self.entries.append(Entry(name, path, right, attack, name.endswith("-twin")))

    def _hand_in(self, subs: Path, places: dict[str, str]) -> None:
        def filled(text: str) -> str:
            for word, value in places.items():
                text = text.replace(f"@{word}@", value)
            return text

        for name in COMPUTING if self.crowd else NEIGHBOURS:
            total = COMPUTING_TOTAL.format(seconds=0.35 * self.cell_seconds) if self.crowd else RIGHT["total"]
            self._write(subs, name, notebook(name, "", RIGHT | {"total": total}), FULL)
        for attack in self.attacks:
            if self.isolation.level in attack.levels:
                self._one(subs, attack, filled)
            if self.isolation.level in attack.twin_levels:
                self._twin(subs, attack, filled)
        by_path = {entry.path: entry.student for entry in find_entries(subs)[0]}
        for entry in self.entries:
            entry.student = by_path.get(entry.path, "")

    def _one(self, subs: Path, attack: Attack, filled) -> None:
        if attack.make:
            path = attack.make(subs, attack.name)
            self.entries.append(Entry(attack.name, path, attack.points, attack))
            return
        head = f"# {attack.name} tries: {attack.tries}\n# right: {attack.right}\n"
        cell = head + attack.cell if attack.cell else ""
        answers = attack.sources
        if not cell:
            answers["double"] = head + answers["double"]
        text = notebook(attack.name, filled(cell), {n: filled(s) for n, s in answers.items()}, filled(attack.last))
        self._write(subs, attack.name, text, attack.points, attack)

    def _twin(self, subs: Path, attack: Attack, filled) -> None:
        name = f"{attack.name}-twin"
        if attack.make_twin:
            self.entries.append(Entry(name, attack.make_twin(subs, name), FULL, attack, True))
        elif attack.twin or attack.twin_answers or attack.twin_last:
            answers = RIGHT | dict(attack.twin_answers)
            self._write(subs, name, notebook(name, filled(attack.twin), answers, attack.twin_last), FULL, attack)

    def _rows(self, subs: Path, out: Path, batch, before: dict[str, bytes]) -> list[Row]:
        records = {record["student"]: record for record in batch.records}
        harm = self.referee.found
        after, rows = _records(out), []
        for entry in self.entries:
            record = records.pop(entry.student, None)
            faults = list(harm.pop(entry.name, ()))
            faults += _faults(entry, record)
            if entry.name == FIRST and before[f"{FIRST}.json"] != after.get(f"{FIRST}.json"):
                faults.append("the record of an earlier batch was changed")
            if record and entry.attack and entry.attack.hidden and not entry.twin:
                faults += self._told(out, record)
            notes = all_notes(record) if record else []
            boundary = entry.attack.boundary if entry.attack else "neighbour"
            seconds = record["measured"]["seconds"] if record else 0.0
            points = record["points"] if record else 0.0
            note = notes[0] if notes else ""
            rows.append(Row(entry.name, boundary, self.level, points, entry.right, note, tuple(faults), seconds))
        rest = [fault for faults in harm.values() for fault in faults]
        rest += [f"{name} has a record, but handed nothing in" for name in records]
        rest += self.referee.reports(out, len(self.entries))
        if rest:
            rows.append(Row("(the batch)", "batch", self.level, 0.0, 0.0, faults=tuple(rest)))
        return rows

    def _told(self, out: Path, record: dict) -> list[str]:
        page = (out / tiny.LAB / "feedback" / f"{record['student']}.html").read_text()
        told = sorted(secret for secret in self.referee.secrets if secret in page)
        return [f"FEEDBACK TELLS a hidden input: {told[0]}"] if told else []


class Watched:
    """A kernel pool that reports each run to the referee."""

    def __init__(self, pool: KernelPool, referee: Referee) -> None:
        self.pool, self.referee, self.isolation = pool, referee, pool.isolation

    def run(self, steps, files_in, wanted, limits):
        """As `KernelPool.run`."""
        found = [line for step in steps for line in step.source.splitlines() if line.startswith("# row: ")]
        name = found[0].removeprefix("# row: ") if found else ""
        self.referee.secrets |= {secret for data in files_in.values() for secret in _numbers(data)}
        self.referee.enter(name)
        try:
            return self.pool.run(steps, files_in, wanted, limits)
        finally:
            self.referee.leave(name, self.pool)


def _numbers(data: bytes) -> set[str]:
    """The numbers of a case as a page could tell them: as digits, as the bits of a float, in hexadecimal."""
    if not data.startswith(b"{"):
        return set()
    found: set[str] = set()

    def walk(node) -> None:
        if isinstance(node, float) and node != int(node):
            bits = int.from_bytes(_double(node), "little")
            digits = repr(abs(node)).replace(".", "").partition("e")[0]
            found.update({repr(node)[:10], digits[1:9], str(bits), _double(node).hex(), digits[::-1][:9]})
            found.update({letters(digits)[:10], f"{int(digits[:6])}, {int(digits[6:12])}"})
        for item in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            walk(item)

    walk(json.loads(data))
    return found


def letters(digits: str) -> str:
    """A number without a digit in it: where digits are not told, its letters may be."""
    return "".join("abcdefghij"[int(digit)] for digit in digits if digit.isdecimal())


def _double(value: float) -> bytes:
    import struct

    return struct.pack("<d", value)


def _faults(entry: Entry, record: dict | None) -> Iterator[str]:
    if record is None:
        yield "NO RECORD"
        return
    if record["status"] == "failed":
        yield f"THE GRADER FAILED: {record['problem']}"
    if record["points"] > entry.right:
        yield f"FORGED {record['points'] - entry.right:g} points"
    if record["points"] < entry.right and not (entry.attack and entry.attack.own_loss and not entry.twin):
        yield f"LOST {entry.right - record['points']:g} points"
    wanted = entry.attack.note if entry.attack and not entry.twin else ""
    if wanted and not any(part in note for part in wanted.split("|") for note in all_notes(record)):
        yield f"no note says {wanted!r}"
    tampered = [one["name"] for one in record["exercises"] if one["tampered"]]
    stopped = [note for note in all_notes(record) if "stopped with" in note]
    if stopped and entry.attack and entry.attack.clean and not entry.twin:
        yield f"what it tried was not refused: {stopped[0]}"
    if tampered and (entry.attack is None or entry.twin):
        yield f"an honest notebook was accused of tampering in {', '.join(tampered)}"


def _records(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / tiny.LAB / "records").glob("*.json")}


assert set(NAMES) == set(tiny.RIGHT)
