"""Rebuild a submission from the lab's source: the student's cells in their order, our probes in place of checks.

What runs: solution cells, known by their id; the student's own cells, as helpers; imports of our cells. What does
not: our drawing, training and check cells. What a cell defines is saved where the cell stops or is stopped here.
A probe hands cases to the student's function and stores what it does. It stands where the student's own check stood,
and once more where a later cell checks the function again or defines it anew; the better of these attempts counts.
Two canaries stand around each probe: cells that must fail. If one does not, the notebook has changed how cells run.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from segedu.grading.judging import cell_definitions, student_code
from segedu.grading.judging.lab_source import Lab, LabCell
from segedu.grading.judging.missing_names import Cell, Missing
from segedu.grading.sandbox.steps import WORK, Step
from segedu.grading.submissions.notebook import StudentCell

MAX_NOTES = 100
# not `globals()`, and each name imported anew: a student may have given any of them another value
_PROBE = "from IPython import get_ipython; from segedu.teaching.checks.remote import run_probe"
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


@dataclass
class Plan:
    """What will run for one submission.

    Attributes:
        steps: in order.
        state: exercise -> "answered", "blank" (still the stub) or "missing".
        notes: exercise (or "" for the whole notebook) -> what was noticed.
        nonces: name of a canary step -> what its error must say.
        attempts: exercise -> the position of each of its probes, in order.
    """

    steps: list[Step] = field(default_factory=list)
    state: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    nonces: dict[str, str] = field(default_factory=dict)
    attempts: dict[str, list[int]] = field(default_factory=dict)


def attempt(name: str, number: int) -> str:
    """The name of the step that probes an exercise for the first, second or third time.

    Args:
        name: of the exercise.
        number: from 1.

    Returns:
        For example `box_iou` and `box_iou 2`.
    """
    return name if number == 1 else f"{name} {number}"


def out_folder(number: int) -> str:
    """The folder of an attempt's outcomes, below that of its exercise's cases.

    Args:
        number: from 1.

    Returns:
        For example `out` and `out2`.
    """
    return "out" if number == 1 else f"out{number}"


def rebuild(
    lab: Lab,
    cells: Sequence[StudentCell],
    hides: Sequence[str] = (),
    cell_seconds: float = 30.0,
    nonce: Callable[[], str] = lambda: secrets.token_hex(8),
) -> Plan:
    """Plan the run of one submission.

    Args:
        lab: as the course has it.
        cells: as the student left them.
        hides: modules of the course's library, and functions of others, that the lab hides; importing one is a note.
        cell_seconds: limit of each step.
        nonce: makes what a canary says.

    Returns:
        The plan; its steps run only for exercises that are answered.
    """
    return _Builder(lab, cells, hides, cell_seconds, nonce).build()


def solutions(lab: Lab, cells: Sequence[StudentCell]) -> dict[str, str]:
    """The student's answers alone, as `rebuild` chooses them; nothing runs.

    Args:
        lab: as the course has it.
        cells: as the student left them.

    Returns:
        Exercise -> source of the cell that counts; exercises that are blank or missing are left out.
    """
    builder = _Builder(lab, cells, (), 0.0, str)
    builder.build()
    source = {cell.position: cell.source for cell in cells}
    return {name: source[builder.homes[name]] for name in lab.exercises if name in builder.homes}


class _Builder:
    def __init__(
        self, lab: Lab, cells: Sequence[StudentCell], hides: Sequence[str], cell_seconds: float, nonce: Callable
    ) -> None:
        self.lab, self.hides, self.seconds, self.nonce = lab, hides, cell_seconds, nonce
        self.plan = Plan()
        self.table = {key: cell for cell in lab.cells for key in (cell.name, cell.id)}
        self.copies = {student_code.plain_text(cell.source) for cell in lab.cells if cell.role != "solution"}
        self.cells = [cell for cell in cells if cell.cell_type == "code"]
        self.ours = {cell.position: self._match(cell) for cell in self.cells}
        others = [self._match(cell) for cell in cells if cell.cell_type != "code"]
        self.retyped = {match.name for match in others if match and match.role == "solution"}
        self.used: dict[int, str] = {}  # position -> exercise whose solution cell it is
        self.written: set[int] = set()  # positions of solution cells, copies included, that are more than the stub
        self.homes: dict[str, int] = {}  # exercise -> position of the answer
        self.starred = False  # a cell that has run may have replaced what our cells import

    def _match(self, cell: StudentCell) -> LabCell | None:
        return next((self.table[key] for key in cell.ids if key in self.table), None)

    def build(self) -> Plan:
        for name in self.lab.exercises:
            self._choose(name)
        found = {name: self._find_elsewhere(name) for name, state in self.plan.state.items() if state != "answered"}
        used = {name: position for position, name in self.used.items()}
        self.homes = homes = used | {n: p for n, p in found.items() if p}
        probes: dict[int, list[tuple[str, int]]] = defaultdict(list)
        for name in self.lab.exercises:
            if name in homes:
                self.plan.attempts[name] = self._probe_places(name, homes[name])
                for number, position in enumerate(self.plan.attempts[name], 1):
                    probes[position].append((name, number))
        foreign = [name for name in self.hides if not name.startswith("segedu.")]
        if foreign:
            self._add("setup", "forbidden", f"from segedu.teaching.checks.hidden import hide; hide({foreign!r})")
        self._add("setup", "imports", self._imports())
        missing = self._missing()
        for cell in self.cells:
            for name in missing.get(cell.position, ()):
                self._run_first(name, cell.position)
            self._student_cell(cell)
            for name, number in probes[cell.position]:
                self._probe(name, number)
        return self.plan

    def _choose(self, name: str) -> None:
        """The cell whose function the student's own check saw is the answer; what copies of it define runs as well."""
        mine = [cell for cell in self.cells if self.ours[cell.position] == self.table[name]]
        stub = self.table[name].source
        written = [
            cell for cell in mine if not student_code.is_empty(cell.source) and not self._is_stub(cell.source, stub)
        ]
        self.written |= {cell.position for cell in written}
        self.plan.state[name] = "answered" if written else "blank" if mine else "missing"
        if not written:
            return
        defining = [cell for cell in written if student_code.binds(cell.source, name)]
        check = min((p for p, m in self.ours.items() if m and m.name == f"check_{name}"), default=0)
        chosen = ([cell for cell in defining if cell.position < check][-1:] or defining or written)[0]
        self.used[chosen.position] = name
        if len(mine) > 1:
            place = mine.index(chosen)
            which = ORDINALS[place] if place < len(ORDINALS) else "later one"
            times = "twice" if len(mine) == 2 else f"{len(mine)} times"
            self._note(name, f"{name} appears {times}, used the {which}, at position {chosen.position}")

    @staticmethod
    def _is_stub(source: str, stub: str) -> bool:
        return student_code.same_text(source, stub) or student_code.is_only_stub(source)

    def _find_elsewhere(self, name: str) -> int | None:
        """A cell that was deleted and typed again has lost its id: look for the function by its name."""
        for cell in self.cells:
            if student_code.binds(self._runs(cell)[1], name):
                self.plan.state[name] = "answered"
                self._note(name, f"{name} was not in its own cell, used the one at position {cell.position}")
                return cell.position
        if self.plan.state[name] == "missing":
            text = "is no longer a code cell" if name in self.retyped else "was deleted, and no other cell defines it"
            self._note(name, f"the cell of {name} {text}")
        return None

    def _probe_places(self, name: str, home: int) -> list[int]:
        """Where the student's own check stood, so that what they saw is what counts; else right after the answer.

        Below it, also where the function is checked for the last time, and where it is defined for the last time
        after that: a second try, or a name that was used again by accident. The better one counts.
        """
        own = [p for p, m in self.ours.items() if m and m.role == "check" and m.name == f"check_{name}" and p > home]
        first = min(own, default=home)
        below = [cell for cell in self.cells if cell.position > first]
        checked = [cell.position for cell in below if student_code.checks(cell.source, name)][-1:]
        bound = [cell.position for cell in below if student_code.binds(self._runs(cell)[1], name)][-1:]
        if not checked or bound > checked:
            return [first, *checked, *bound]
        anything = any(self._runs(cell)[1] for cell in below if cell.position <= checked[0])
        return [first, *checked] if anything else [first]

    def _missing(self) -> dict[int, list[str]]:
        """Position of an answer -> the exercises that are answered there, for `_run_first`."""
        self.there = {name for node in student_code.statements(self._imports()) for name in student_code.bound(node)}
        self.table_of_cells = [Cell(cell.position, *self._runs(cell)) for cell in self.cells]
        at: dict[int, list[str]] = defaultdict(list)
        for name, position in self.homes.items():
            at[position].append(name)
            for place in self.plan.attempts[name][1:]:
                above = [cell for cell in self.table_of_cells if position < cell.position <= place]
                again = [cell.position for cell in above if student_code.binds(cell.runs, name)][-1:]
                for there in again:
                    at[there] += [name] if name not in at[there] else []
        return at

    def _runs(self, cell: StudentCell) -> tuple[str, str]:
        """What the student's kernel may have run of a cell, and what is run here."""
        ours = self.ours[cell.position]
        if ours is None:
            return cell.source, "" if self._is_copy(cell.source) else cell.source
        if ours.role == "solution":
            return (cell.source, cell.source) if cell.position in self.written else ("", "")
        if student_code.same_text(cell.source, ours.source):
            return cell.source if ours.role in ("setup", "show") else "", ""
        return cell.source, "\n\n".join(self._added(cell, ours))

    @staticmethod
    def _added(cell: StudentCell, ours: LabCell) -> list[str]:
        """What runs of a cell of ours that was edited: of the setup cell all that is new, else the definitions."""
        return cell_definitions.new_definitions(cell.source, ours.source, everything=ours.role == "setup")

    def _run_first(self, name: str, home: int) -> None:
        """What the answer uses and only a later cell, or one of ours that is left out, defines."""
        missing = Missing(self.table_of_cells, self.there, home)
        if missing.source:
            for word, position in [] if missing.starred else missing.found[:5]:
                text = f"uses {word[:40]}, which only the cell at position {position} defines; that was run first"
                self._note(name, f"{name} {text}")
            self._add("helper", f"definitions used by {name}", missing.source)

    def _imports(self) -> str:
        wanted = [cell for cell in self.lab.cells if cell.role in ("setup", "show")]
        lines = [line for cell in wanted for line in student_code.imports_of(cell.source, self.lab.exercises)]
        return _each_once(lines)

    def _student_cell(self, cell: StudentCell) -> None:
        ours = self.ours[cell.position]
        if self.starred and ours and ours.role in ("setup", "show"):
            again = _each_once(student_code.imports_of(ours.source, self.lab.exercises))
            if again:
                self._add("setup", f"imports of {ours.name}", again)
        if cell.position in self.used:
            name = self.used[cell.position]
            self._look_at(cell, name)
            if not student_code.binds(cell.source, name):
                self._note(name, f"the cell of {name}, at position {cell.position}, does not define {name}")
            self._run("solution", name, cell.source)
        elif ours and ours.role == "solution":
            if cell.position in self.written:
                self._look_at(cell, "")
                self._run("helper", f"cell {cell.position}", cell.source)
        elif ours:
            self._edited(cell, ours)
        elif not student_code.is_empty(cell.source) and not self._is_copy(cell.source):
            self._look_at(cell, "")
            self._run("helper", f"cell {cell.position}", cell.source)

    def _run(self, kind: str, name: str, source: str) -> None:
        """A cell as it is, and what saves its definitions where it fails because of what stays out here."""
        self._add(kind, name, source)
        tree = student_code.parse(source)
        if tree and len(tree.body) > 1:
            text = student_code.strip_markers(source)
            rest = f"from segedu.teaching.checks.rest_of_cell import run_rest; run_rest({text!r})"
            self._add("helper", f"rest of {name}", rest, "error")
        self._after_loss(name, source)

    def _after_loss(self, name: str, source: str) -> None:
        """Where a cell took its kernel with it, its definitions alone; if these do too, those that call nothing."""
        whole = student_code.parse(source)
        every, short = cell_definitions.definitions(source), cell_definitions.definitions(source, calls=False)
        for title, parts in (("definitions of", every), ("plain definitions of", short if short != every else [])):
            if parts and whole and len(parts) < len(whole.body):
                self._add("helper", f"{title} {name}", cell_definitions.tried(parts), "loss")

    def _edited(self, cell: StudentCell, ours: LabCell) -> None:
        if student_code.same_text(cell.source, ours.source):
            return
        added = self._added(cell, ours)
        text = f"the cell {ours.name}, at position {cell.position}, was changed"
        if added:
            what = "what was added to it was" if ours.role == "setup" else "the definitions added to it were"
            self._note("", f"{text}; only {what} run")
            source = "\n\n".join(added)
            self._look_at(replace(cell, source=source), "")
            self._add("helper", f"cell {cell.position}", cell_definitions.tried(added))
            self._after_loss(f"cell {cell.position}", source)
        elif ours.role in ("check", "setup"):
            unread = "; Python cannot read it" if student_code.parse(cell.source) is None else ""
            self._note("", f"{text}{unread}; ours was used")

    def _is_copy(self, source: str) -> bool:
        return student_code.plain_text(source) in self.copies

    def _look_at(self, cell: StudentCell, exercise: str) -> None:
        self.starred = self.starred or bool(student_code.star_imports(cell.source))
        for phrase in student_code.oddities(cell.source, self.hides):
            self._note(exercise, f"the cell at position {cell.position} {phrase}")

    def _probe(self, name: str, number: int) -> None:
        step = attempt(name, number)
        self._canary(f"{step} before")
        out = "" if number == 1 else f', out="{out_folder(number)}"'
        call = f'run_probe("{name}", "{WORK}/job/{name}", get_ipython().user_ns{out})'
        self._add("probe", step, f"{_PROBE}; {call}")
        self._canary(f"{step} after")

    def _canary(self, name: str) -> None:
        """Fails twice over, so that dropping asserts from the student's cells shows as well."""
        word = self.nonce()
        self.plan.nonces[name] = word
        self._add("canary", name, f'assert False, "{word}"\nraise RuntimeError("the assert was dropped")')

    def _add(self, kind: str, name: str, source: str, only_after: str = "") -> None:
        self.plan.steps.append(Step(kind, name, student_code.strip_markers(source), self.seconds, only_after))

    def _note(self, exercise: str, text: str) -> None:
        notes = self.plan.notes[exercise]
        if len(notes) < MAX_NOTES and text not in notes:
            notes.append(text if len(notes) < MAX_NOTES - 1 else "and more of this kind, which is not listed")


def _each_once(lines: Sequence[str]) -> str:
    """Imports, each by itself: one that fails does not stop the others."""
    return cell_definitions.tried(line for line in dict.fromkeys(lines) if not line.startswith("from __future__"))
