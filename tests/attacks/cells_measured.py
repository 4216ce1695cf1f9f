"""Attacks on what is measured beside the result: whether arguments were changed.

The probe runs beside the student's code, so that code can replace it. It records raw values, and the comparing process
decides. What remains is that a replaced probe may hand copies to the function: one line of an honest answer does that
too, so nothing is gained by it.
"""

from __future__ import annotations

from attack import EVERYWHERE, FULL, Attack
from cells_forge import INSTEAD, TOOLS

# right values, and arguments that are not what they were; a number cannot be overwritten, so `double` is simply right
OVERWRITING = {
    "double": "def double(x):\n    return 2 * x",
    "total": "def total(values):\n    value = float(np.sum(values))\n    values[:] = 0\n    return value",
    "box_area": "def box_area(boxes):\n    boxes -= 1\n    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])",
}
DENY = """from segedu.teaching.checks import codec, outcomes, probes, remote
probes._changed = lambda before, after: []
for module in (outcomes, probes, codec):
    for name in ("value_difference", "first_difference", "same_outcome", "_same"):
        if hasattr(module, name):
            setattr(module, name, lambda *args: None)
"""
COPY = """import copy
from segedu.teaching.checks import probes, remote


def on_copies(function, case, real=probes.call):
    return real(lambda *args: function(*copy.deepcopy(args)), case)


remote.PROBES["call"] = on_copies
"""
COPIES = {
    "total": "def total(values):\n    values = values.copy()\n    values[1:] += values[:1]\n"
    "    return float(np.sum(values) - (len(values) - 1) * values[0])",
    "box_area": "def box_area(boxes):\n    boxes = np.array(boxes)\n    boxes[:, 2:] -= boxes[:, :2]\n"
    "    return boxes[:, 2] * boxes[:, 3]",
}

MEASURED = [
    Attack(
        "o140_overwrites_and_denies_it",
        "probe",
        "to overwrite the arguments and to replace whatever in the process could notice",
        "0 for the two answers that overwrite: the comparing process sees the arguments as they are after the call",
        DENY,
        answers=OVERWRITING,
        points=3.0,
        levels=EVERYWHERE,
        twin="from segedu.teaching.checks import outcomes\nprint(outcomes.plain([1, 2]))",
        twin_answers=COPIES,
    ),
    Attack(
        "o141_nothing_changed_by_its_own_word",
        "codec",
        "to write right values, other arguments, and that nothing was changed",
        "0: only the arguments themselves count, and where they are missing the outcome cannot be read",
        TOOLS
        + """
def forged(name, i):
    case = json.loads((work / "job" / name / "in" / f"{i}.json").read_text())["dict"]["args"]["list"][0]
    right = {"json": {"dict": {"value": 0, "mutated": {"list": []}}}}
    if name == "double":
        right["json"]["dict"] |= {"value": 2 * case, "arguments": {"list": [case + 1]}}
    return right
"""
        + INSTEAD,
        note="outcomes could not be read",
        levels=EVERYWHERE,
        twin="case = {'args': [1.0]}\nprint(case | {'mutated': []})",
    ),
    Attack(
        "o142_probe_hands_over_copies",
        "probe",
        "to replace the probe by one that hands copies of the arguments to the answers",
        "full points, as for the honest twin, whose answers copy their arguments in one line each",
        COPY,
        answers=OVERWRITING,
        points=FULL,
        levels=EVERYWHERE,
        twin="import copy\nprint(copy.deepcopy([1]))",
        twin_answers=COPIES,
    ),
]
