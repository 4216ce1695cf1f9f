"""What a lab measures beside the result, forged in the student's process: gradients, parameters, arguments.

Each forger hands in a solution that is right but for one property, and code that denies it. Beside it stands a solution
that has the property and looks like it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from segedu.grading.batch.batch import Job, grade_batch
from segedu.grading.batch.grader_threads import pool_of_threads
from segedu.grading.sandbox.kernel_pool import probe_levels
from segedu.grading.sandbox.provisioner import ForkServer

COURSE = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(
    not any(works and level >= 2 for level, works, _ in probe_levels()), reason="this machine offers no sandbox"
)

# each line stands at the end of the cell of the exercise
OVERWRITES = """
_right_{name} = {name}


def {name}(logits, *rest):
    value = _right_{name}(logits, *rest)
    with torch.no_grad():
        logits.add_(1)
    return value
"""
COPIES = """
_right_{name} = {name}


def {name}(logits, *rest):
    scratch = logits.clone()
    value = _right_{name}(logits, *rest)
    with torch.no_grad():
        scratch.add_(1)
    return value
"""
EXTRA = """
_right_{name} = {name}


def {name}(*args):
    net = _right_{name}(*args)
    net.unused = torch.nn.Parameter(torch.zeros(3))
    return net


from segedu.teaching.checks import probes
probes._dependence = lambda output, inputs: [9]
probes._after_call = lambda arguments, real=probes._after_call: real(arguments)
"""
RENAMES = """
_right_{name} = {name}


def {name}(*args):
    return torch.nn.Sequential(_right_{name}(*args))
"""


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    """One warm fork server for the batches of this file."""
    warm = ForkServer.share()
    yield warm
    warm.close()


def graded(lab: str, added: dict[str, str], exercises: tuple[str, ...], folder: Path) -> dict[str, dict[str, float]]:
    """Points by student and exercise, for the solution with something added to the cells of some exercises."""
    book = json.loads((COURSE / "solutions" / f"{lab}.ipynb").read_text())
    (folder / "subs").mkdir()
    for student, text in added.items():
        copy = json.loads(json.dumps(book))
        for cell in copy["cells"]:
            ours = cell["metadata"].get("segedu", {})
            if ours.get("role") == "solution" and ours["name"] in exercises:
                source = cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])
                cell["source"] = source + "\n" + text.format(name=ours["name"])
        (folder / "subs" / f"{student}.ipynb").write_text(json.dumps(copy))
    batch = grade_batch(
        Job(folder / "subs", lab, folder / "out", COURSE, cell_seconds=20.0), open_grader_pool=pool_of_threads
    )
    return {r["student"]: {e["name"]: e["points"] for e in r["exercises"]} for r in batch.records}


def test_a_loss_that_overwrites_its_logits_earns_nothing(tmp_path, server):
    losses = ("ce_from_logits", "weighted_ce", "focal", "soft_dice", "giou_loss")
    got = graded("07_losses", {"forger": OVERWRITES, "twin": COPIES}, losses, tmp_path)
    assert sum(got["twin"].values()) == 20
    assert [got["forger"][name] for name in losses] == [0] * 5 and sum(got["forger"].values()) > 0


def test_a_parameter_that_nothing_uses_is_counted_outside(tmp_path, server):
    nets = ("double_conv", "build_unet")
    got = graded("06_unet", {"forger": EXTRA, "twin": RENAMES}, nets, tmp_path)
    assert sum(got["twin"].values()) == 20
    assert [got["forger"][name] for name in nets] == [0, 0] and sum(got["forger"].values()) == 20 - 2 - 5
