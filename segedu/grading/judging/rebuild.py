"""Rebuild a submission from the lab's source: the student's cells in their order, with our probes in place of checks.

Grading runs the solution cells (known by their id), the student's own cells (as helpers), and the imports of the lab's
cells. It does not run the lab's drawing, training and check cells. If a cell fails or is left out, its definitions are
run on their own. A probe passes cases to the student's function and stores the outcomes. It stands where the student's
own check stood, and again where a later cell checks or defines the function again; the best attempt counts.
Around each probe stand two canaries: cells that must fail. If one does not, the notebook has changed how cells run.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from segedu.grading.judging import cell_definitions, student_code
from segedu.grading.judging.lab_source import Lab, LabCell
from segedu.grading.judging.missing_names import Cell, MissingNames
from segedu.grading.sandbox.steps import WORK, Step
from segedu.grading.submissions.notebook import StudentCell

MAX_NOTES = 100
# `globals` and every other name may have been rebound by the student, so each probe imports what it uses
_PROBE = "from IPython import get_ipython; from segedu.teaching.checks.remote import run_probe"
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


@dataclass
class Plan:
    """What will run for one submission.

    Attributes:
        steps: in order.
        state: exercise -> "answered", "blank" (still the stub) or "missing".
        notes: exercise (or "" for the notebook) -> remarks.
        nonces: name of a canary step -> the message that its error must have.
        attempts: exercise -> the positions of its probes, in order.
    """

    steps: list[Step] = field(default_factory=list)
    state: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    nonces: dict[str, str] = field(default_factory=dict)
    attempts: dict[str, list[int]] = field(default_factory=dict)


def probe_name(name: str, number: int) -> str:
    """Name the step that probes an exercise for the `number`-th time: `box_iou`, `box_iou 2`, ..."""
    return name if number == 1 else f"{name} {number}"


def out_folder(number: int) -> str:
    """Name the folder of an attempt's outcomes, below that of the exercise's cases: `out`, `out2`, ..."""
    return "out" if number == 1 else f"out{number}"


def rebuild(
    lab: Lab,
    cells: Sequence[StudentCell],
    hides: Sequence[str] = (),
    cell_seconds: float = 30.0,
    nonce: Callable[[], str] = lambda: secrets.token_hex(8),
) -> Plan:
    """Plan the run of one submission. The probes run only for exercises that are answered.

    Args:
        lab: as the course publishes it.
        cells: as the student submitted them.
        hides: library modules, and functions of other libraries, that the lab hides; importing one adds a note.
        cell_seconds: limit of each step.
        nonce: returns a canary's message.
    """
    return _Builder(lab, cells, hides, cell_seconds, nonce).build()


def solutions(lab: Lab, cells: Sequence[StudentCell]) -> dict[str, str]:
    """Return the source of each exercise's answer, chosen as in `rebuild`, without running anything.

    Blank and missing exercises are left out.
    """
    builder = _Builder(lab, cells, (), 0.0, str)
    builder.build()
    source_at = {cell.position: cell.source for cell in cells}
    return {name: source_at[builder.answers[name]] for name in lab.exercises if name in builder.answers}


class _Builder:
    def __init__(
        self, lab: Lab, cells: Sequence[StudentCell], hides: Sequence[str], cell_seconds: float, nonce: Callable
    ) -> None:
        self.lab, self.hides, self.seconds, self.nonce = lab, hides, cell_seconds, nonce
        self.plan = Plan()
        self.lab_cells = {key: cell for cell in lab.cells for key in (cell.name, cell.id)}
        self.lab_texts = {student_code.plain_text(cell.source) for cell in lab.cells if cell.role != "solution"}
        self.cells = [cell for cell in cells if cell.cell_type == "code"]
        self.matches = {cell.position: self._match(cell) for cell in self.cells}
        other_matches = [self._match(cell) for cell in cells if cell.cell_type != "code"]
        self.retyped = {match.name for match in other_matches if match and match.role == "solution"}
        self.solution_at: dict[int, str] = {}  # position of a solution cell -> its exercise
        self.edited_positions: set[int] = set()  # solution cells, including copies, that are more than the stub
        self.answers: dict[str, int] = {}  # exercise -> position of the answer
        self.has_star_import = False  # an executed star import may have replaced names that the lab's cells import

    def _match(self, cell: StudentCell) -> LabCell | None:
        return next((self.lab_cells[key] for key in cell.ids if key in self.lab_cells), None)

    def build(self) -> Plan:
        for name in self.lab.exercises:
            self._choose_answer(name)
        elsewhere = {name: self._find_elsewhere(name) for name, state in self.plan.state.items() if state != "answered"}
        in_own_cell = {name: position for position, name in self.solution_at.items()}
        self.answers = answers = in_own_cell | {n: p for n, p in elsewhere.items() if p}
        probes: dict[int, list[tuple[str, int]]] = defaultdict(list)
        for name in self.lab.exercises:
            if name in answers:
                self.plan.attempts[name] = self._probe_positions(name, answers[name])
                for number, position in enumerate(self.plan.attempts[name], 1):
                    probes[position].append((name, number))
        foreign = [name for name in self.hides if not name.startswith("segedu.")]
        if foreign:
            self._add("setup", "forbidden", f"from segedu.teaching.checks.hidden import hide; hide({foreign!r})")
        self._add("setup", "imports", self._imports())
        to_complete = self._exercises_to_complete()
        for cell in self.cells:
            for name in to_complete.get(cell.position, ()):
                self._add_missing_definitions(name, cell.position)
            self._add_student_cell(cell)
            for name, number in probes[cell.position]:
                self._add_probe(name, number)
        return self.plan

    def _choose_answer(self, name: str) -> None:
        """Choose the cell whose function the student's own check tested; copies of it run as helpers."""
        copies = [cell for cell in self.cells if self.matches[cell.position] == self.lab_cells[name]]
        stub = self.lab_cells[name].source
        edited = [
            cell for cell in copies if not student_code.is_empty(cell.source) and not self._is_stub(cell.source, stub)
        ]
        self.edited_positions |= {cell.position for cell in edited}
        self.plan.state[name] = "answered" if edited else "blank" if copies else "missing"
        if not edited:
            return
        defining = [cell for cell in edited if student_code.binds(cell.source, name)]
        check = min(
            (position for position, match in self.matches.items() if match and match.name == f"check_{name}"), default=0
        )
        chosen = ([cell for cell in defining if cell.position < check][-1:] or defining or edited)[0]
        self.solution_at[chosen.position] = name
        if len(copies) > 1:
            index = copies.index(chosen)
            which = ORDINALS[index] if index < len(ORDINALS) else "later one"
            times = "twice" if len(copies) == 2 else f"{len(copies)} times"
            self._note(name, f"{name} appears {times}, used the {which}, at position {chosen.position}")

    @staticmethod
    def _is_stub(source: str, stub: str) -> bool:
        return student_code.same_text(source, stub) or student_code.is_only_stub(source)

    def _find_elsewhere(self, name: str) -> int | None:
        """Look for the function by its name: a cell that was deleted and typed again has lost its id."""
        for cell in self.cells:
            if student_code.binds(self._sources(cell)[1], name):
                self.plan.state[name] = "answered"
                self._note(name, f"{name} was not in its own cell, used the one at position {cell.position}")
                return cell.position
        if self.plan.state[name] == "missing":
            text = "is no longer a code cell" if name in self.retyped else "was deleted, and no other cell defines it"
            self._note(name, f"the cell of {name} {text}")
        return None

    def _probe_positions(self, name: str, home: int) -> list[int]:
        """Return where the student's own check stood, so that the result they saw counts; else the answer's position.

        Also return where the function is last checked below, and where it is last defined after that check: this may be
        a second try, or a name that was reused by accident. The best attempt counts.
        """
        own = [p for p, m in self.matches.items() if m and m.role == "check" and m.name == f"check_{name}" and p > home]
        first = min(own, default=home)
        below = [cell for cell in self.cells if cell.position > first]
        checked = [cell.position for cell in below if student_code.calls_check(cell.source, name)][-1:]
        defined = [cell.position for cell in below if student_code.binds(self._sources(cell)[1], name)][-1:]
        if not checked or defined > checked:
            return [first, *checked, *defined]
        runs_between = any(self._sources(cell)[1] for cell in below if cell.position <= checked[0])
        return [first, *checked] if runs_between else [first]

    def _exercises_to_complete(self) -> dict[int, list[str]]:
        """Map positions of answers to their exercises, for `_add_missing_definitions`."""
        self.imported_names = {
            name for node in student_code.statements(self._imports()) for name in student_code.bound_names(node)
        }
        self.notebook_cells = [Cell(cell.position, *self._sources(cell)) for cell in self.cells]
        exercises_at: dict[int, list[str]] = defaultdict(list)
        for name, position in self.answers.items():
            exercises_at[position].append(name)
            for probe_position in self.plan.attempts[name][1:]:
                between = [cell for cell in self.notebook_cells if position < cell.position <= probe_position]
                redefined = [cell.position for cell in between if student_code.binds(cell.executed, name)][-1:]
                for answer_position in redefined:
                    exercises_at[answer_position] += [name] if name not in exercises_at[answer_position] else []
        return exercises_at

    def _sources(self, cell: StudentCell) -> tuple[str, str]:
        """Return what the student's kernel may have run of a cell, and what grading runs of it."""
        lab_cell = self.matches[cell.position]
        if lab_cell is None:
            return cell.source, "" if self._is_copy(cell.source) else cell.source
        if lab_cell.role == "solution":
            return (cell.source, cell.source) if cell.position in self.edited_positions else ("", "")
        if student_code.same_text(cell.source, lab_cell.source):
            return cell.source if lab_cell.role in ("setup", "show") else "", ""
        return cell.source, "\n\n".join(self._additions(cell, lab_cell))

    @staticmethod
    def _additions(cell: StudentCell, lab_cell: LabCell) -> list[str]:
        """Return what runs of an edited lab cell: everything new of a setup cell, else the new definitions."""
        return cell_definitions.new_definitions(cell.source, lab_cell.source, all_statements=lab_cell.role == "setup")

    def _add_missing_definitions(self, name: str, answer_position: int) -> None:
        """Run first what the answer uses but only a later cell, or a cell that grading leaves out, defines."""
        missing = MissingNames(self.notebook_cells, self.imported_names, answer_position)
        if missing.source:
            for used_name, position in [] if missing.has_star_import else missing.definitions[:5]:
                text = f"uses {used_name[:40]}, which only the cell at position {position} defines; that was run first"
                self._note(name, f"{name} {text}")
            self._add("helper", f"definitions used by {name}", missing.source)

    def _imports(self) -> str:
        cells = [cell for cell in self.lab.cells if cell.role in ("setup", "show")]
        lines = [line for cell in cells for line in student_code.imports_of(cell.source, self.lab.exercises)]
        return _import_each(lines)

    def _add_student_cell(self, cell: StudentCell) -> None:
        lab_cell = self.matches[cell.position]
        if self.has_star_import and lab_cell and lab_cell.role in ("setup", "show"):
            imports = _import_each(student_code.imports_of(lab_cell.source, self.lab.exercises))
            if imports:
                self._add("setup", f"imports of {lab_cell.name}", imports)
        if cell.position in self.solution_at:
            name = self.solution_at[cell.position]
            self._note_oddities(cell, name)
            if not student_code.binds(cell.source, name):
                self._note(name, f"the cell of {name}, at position {cell.position}, does not define {name}")
            self._add_cell("solution", name, cell.source)
        elif lab_cell and lab_cell.role == "solution":
            if cell.position in self.edited_positions:
                self._note_oddities(cell, "")
                self._add_cell("helper", f"cell {cell.position}", cell.source)
        elif lab_cell:
            self._add_edited_cell(cell, lab_cell)
        elif not student_code.is_empty(cell.source) and not self._is_copy(cell.source):
            self._note_oddities(cell, "")
            self._add_cell("helper", f"cell {cell.position}", cell.source)

    def _add_cell(self, kind: str, name: str, source: str) -> None:
        """Add a cell, and steps that save its definitions if it fails because of what grading leaves out."""
        self._add(kind, name, source)
        tree = student_code.parse(source)
        if tree and len(tree.body) > 1:
            text = student_code.strip_markers(source)
            code = f"from segedu.teaching.checks.rest_of_cell import run_rest; run_rest({text!r})"
            self._add("helper", f"rest of {name}", code, "error")
        self._add_recovery_steps(name, source)

    def _add_recovery_steps(self, name: str, source: str) -> None:
        """After a lost kernel, run a cell's definitions; if these lose it too, only those that call nothing."""
        tree = student_code.parse(source)
        every, plain = cell_definitions.definitions(source), cell_definitions.definitions(source, calls=False)
        for title, parts in (("definitions of", every), ("plain definitions of", plain if plain != every else [])):
            if parts and tree and len(parts) < len(tree.body):
                self._add("helper", f"{title} {name}", cell_definitions.each_in_try(parts), "loss")

    def _add_edited_cell(self, cell: StudentCell, lab_cell: LabCell) -> None:
        if student_code.same_text(cell.source, lab_cell.source):
            return
        added = self._additions(cell, lab_cell)
        text = f"the cell {lab_cell.name}, at position {cell.position}, was changed"
        if added:
            what = "what was added to it was" if lab_cell.role == "setup" else "the definitions added to it were"
            self._note("", f"{text}; only {what} run")
            source = "\n\n".join(added)
            self._note_oddities(replace(cell, source=source), "")
            self._add("helper", f"cell {cell.position}", cell_definitions.each_in_try(added))
            self._add_recovery_steps(f"cell {cell.position}", source)
        elif lab_cell.role in ("check", "setup"):
            not_parsed = "; Python cannot read it" if student_code.parse(cell.source) is None else ""
            self._note("", f"{text}{not_parsed}; ours was used")

    def _is_copy(self, source: str) -> bool:
        return student_code.plain_text(source) in self.lab_texts

    def _note_oddities(self, cell: StudentCell, exercise: str) -> None:
        self.has_star_import = self.has_star_import or bool(student_code.star_imports(cell.source))
        for phrase in student_code.oddities(cell.source, self.hides):
            self._note(exercise, f"the cell at position {cell.position} {phrase}")

    def _add_probe(self, name: str, number: int) -> None:
        step = probe_name(name, number)
        self._add_canary(f"{step} before")
        out = "" if number == 1 else f', out="{out_folder(number)}"'
        call = f'run_probe("{name}", "{WORK}/job/{name}", get_ipython().user_ns{out})'
        self._add("probe", step, f"{_PROBE}; {call}")
        self._add_canary(f"{step} after")

    def _add_canary(self, name: str) -> None:
        """Add a cell that fails twice, so that removing asserts from the student's cells is detected as well."""
        nonce = self.nonce()
        self.plan.nonces[name] = nonce
        self._add("canary", name, f'assert False, "{nonce}"\nraise RuntimeError("the assert was dropped")')

    def _add(self, kind: str, name: str, source: str, only_after: str = "") -> None:
        self.plan.steps.append(Step(kind, name, student_code.strip_markers(source), self.seconds, only_after))

    def _note(self, exercise: str, text: str) -> None:
        notes = self.plan.notes[exercise]
        if len(notes) < MAX_NOTES and text not in notes:
            notes.append(text if len(notes) < MAX_NOTES - 1 else "and more of this kind, not listed")


def _import_each(lines: Sequence[str]) -> str:
    """Join imports so that one that fails does not stop the others."""
    return cell_definitions.each_in_try(line for line in dict.fromkeys(lines) if not line.startswith("from __future__"))
