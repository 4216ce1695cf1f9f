"""Every attack, in the order of the table, and the numbers of the list that make no sense for this grader."""

from __future__ import annotations

from archives import ARCHIVES
from cells_attempts import ATTEMPTS
from cells_forge import CODEC, PROBES
from cells_kernel import KERNEL
from cells_limits import LIMITS
from cells_machine import CROWD, MACHINE
from cells_measured import MEASURED
from cells_reach import REACH
from cells_returns import HONEST, RETURNS
from cells_score import SCORE
from cells_shared import SHARED
from cells_silent import SILENT
from cells_told import FEEDBACK, STUBS
from files import NOTEBOOKS
from files_reading import READING
from inbox import INBOX

CELLS = [*SCORE, *RETURNS, *HONEST, *CODEC, *PROBES, *MEASURED, *LIMITS, *MACHINE, *CROWD, *REACH, *KERNEL, *SILENT]
CELLS += [*SHARED, *STUBS, *FEEDBACK, *ATTEMPTS]
ATTACKS = [*CELLS, *NOTEBOOKS, *READING, *ARCHIVES, *INBOX]

# number -> why there is no row
NO_ROW = {
    "a20": "there is no log server and nothing is unpickled: o12 tries the one place where bytes of students are read",
    "a21": "outcomes are not pickled: patching pickle.dump reaches nothing; o29 patches what writes them",
    "n53": "outputs and prose of students are in no report: o65 tries what is",
    "n54": "the same: o65",
    "n64": "a kernel spec with a command of its own: m3 holds it",
}
assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)
