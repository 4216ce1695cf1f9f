"""One attack on the grader, and the honest twin that looks like it; the themes' files hold lists of them.

An attack stands before (or in) answers that are worthless, so that each point it gets is forged; or, where it is after
the machine and not after points, beside right answers, of which those that it does not touch keep theirs.
Words in capitals between `@` are filled in by the arena: `@BAIT@` is a folder of the host that all may write to,
`@SUBMISSIONS@`, `@OUT@` and `@COURSE@` are the grader's own, `@PID@` is a process of the host, `@PORT@`, `@SOCKET@` and
`@NAME@` (an abstract one) are sockets that listen there, `@QUEUE@`, `@SEMAPHORE@` and `@SEGMENT@` are its own of System V,
`@TOKEN@` is a word that only files of the host hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent, indent

NAMES = ("double", "total", "box_area")
EACH = 3.0
FULL = EACH * len(NAMES)
RIGHT = {
    "double": "def double(x):\n    return 2 * x",
    "total": "def total(values):\n    return float(np.sum(values))",
    "box_area": "def box_area(boxes):\n    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])",
}
SANDBOXED = (3, 2)
EVERYWHERE = (3, 2, 1)
FULL_SANDBOX = (3,)


def answering(body: str) -> dict[str, str]:
    """Three answers of one text; `x` is the argument.

    Args:
        body: of the functions.

    Returns:
        exercise -> source.
    """
    return {name: f"def {name}(x):\n{indent(dedent(body).strip(), '    ')}" for name in NAMES}


@dataclass(frozen=True)
class Attack:
    """What is handed in, and what the grader must make of it.

    Attributes:
        name: unique; `a07`, `m1`, `z2`, `n26` as in the list that the grader was designed against, `o..` are our own.
        boundary: which line of trust it attacks.
        tries: what it is after.
        right: what the grader has to do.
        cell: runs before the answers.
        body: of all three functions; worthless unless said otherwise.
        answers: exercise -> source, in place of the body.
        last: a cell behind everything.
        points: the right score.
        clean: its cell must run to its end; it raises where what it tries is not refused.
        crowd: it runs in a batch of its own, several at a time, beside honest notebooks that compute.
        own_loss: the attack may cost its own points; fewer than the right score are no fault.
        note: a part of some note, or of the problem, that must be there; or one of several between `|`.
        twin: the honest cell that looks like it.
        twin_answers: exercise -> source, in place of right answers.
        twin_last: the honest cell behind everything.
        levels: of the sandbox, at which the attack may run.
        twin_levels: at which what the twin does is possible.
        make: writes something else than a plain notebook below the folder and returns it.
        make_twin: the same, for the twin.
        hidden: the feedback page must not tell the hidden inputs.
    """

    name: str
    boundary: str
    tries: str
    right: str
    cell: str = ""
    body: str = "return 0"
    answers: Mapping[str, str] = field(default_factory=dict)
    last: str = ""
    points: float = 0.0
    own_loss: bool = False
    clean: bool = False
    crowd: bool = False
    note: str = ""
    twin: str = ""
    twin_answers: Mapping[str, str] = field(default_factory=dict)
    twin_last: str = ""
    levels: Sequence[int] = SANDBOXED
    twin_levels: Sequence[int] = EVERYWHERE
    make: Callable[[Path, str], Path] | None = None
    make_twin: Callable[[Path, str], Path] | None = None
    hidden: bool = False

    @property
    def sources(self) -> dict[str, str]:
        """The attack's answers."""
        return answering(self.body) | dict(self.answers)


def beside_right(name: str, boundary: str, tries: str, right: str, **more) -> Attack:
    """An attack that is not after points: its answers are right, but for those in `answers`.

    Args:
        name: see `Attack`.
        boundary: see `Attack`.
        tries: see `Attack`.
        right: see `Attack`.
        more: see `Attack`.

    Returns:
        The attack; its right score is that of the untouched answers.
    """
    touched = more.pop("answers", {})
    more.setdefault("points", FULL - EACH * len(touched))
    return Attack(name, boundary, tries, right, answers=RIGHT | touched, **more)
