"""Attacks on how points are made: on checks, comparisons, messages and what a function returns."""

from __future__ import annotations

from attack import EVERYWHERE, Attack
from cells import ALWAYS_EQUAL, ATTACKS, BLANK_CELLS, DROP_ASSERTS, FORGE_REPLIES, SILENCE, WRITE_SCORES

BOUNDARY = "checks"


def one(name: str, tries: str, right: str, cell: str = "", **more) -> Attack:
    """An attack after points; it harms nothing, so it runs at every level."""
    return Attack(name, BOUNDARY, tries, right, cell, **{"levels": EVERYWHERE} | more)


SCORE = [
    one(
        "a01_silence",
        "to show no error",
        "0, and a note",
        SILENCE,
        note=ATTACKS["a01_silence"][2],
        twin="""import traceback
try:
    1 / 0
except ZeroDivisionError:
    print(traceback.format_exc())""",
    ),
    one(
        "a02_drop_asserts",
        "to drop every assert",
        "0, and tampering is seen",
        DROP_ASSERTS,
        note=ATTACKS["a02_drop_asserts"][2],
        twin="""import ast
tree = ast.parse("assert 1 == 1\\nx = 3")
print(ast.dump(ast.NodeTransformer().visit(tree)))""",
    ),
    one(
        "a03_blank_cells",
        "to blank every later cell",
        "0, and tampering is seen",
        BLANK_CELLS,
        note=ATTACKS["a03_blank_cells"][2],
        twin="print(len(get_ipython().input_transformers_cleanup))",
    ),
    one(
        "a04_always_equal",
        "to return what equals everything",
        "0: such an object is refused by name",
        ALWAYS_EQUAL,
        body="return Equal()",
        note=ATTACKS["a04_always_equal"][2],
        twin="""class Point:
    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return self.x == other.x

print(Point(1) == Point(1))""",
    ),
    one(
        "a05_forged_result",
        "to show a number as the result of each check",
        "0: output is never read for points",
        """from IPython.display import publish_display_data


def forge(*_):
    publish_display_data({"text/plain": "2"})
    get_ipython().displayhook(3.0)


get_ipython().events.register("pre_run_cell", forge)
get_ipython().events.register("post_run_cell", forge)""",
        twin="2 + 1",
    ),
    Attack(
        "a09_write_scores",
        "records",
        "to find gradebook, records and seed, and to write full marks",
        "0: none of them can be reached, and a forged outcome is no outcome",
        WRITE_SCORES,
        note=ATTACKS["a09_write_scores"][2],
        twin="""import json, sqlite3
book = sqlite3.connect("mine.sqlite")
book.execute("create table t (x)")
json.dump({"points": 9}, open("mine.json", "w"))""",
    ),
    one(
        "a24_forge_replies",
        "to let every reply say ok",
        "0, and tampering is seen",
        FORGE_REPLIES,
        note=ATTACKS["a24_forge_replies"][2],
        twin="print(get_ipython().kernel.session.username is not None)",
    ),
    one(
        "a25_read_the_check",
        "to find expected values in frames, memory and the cells that ran",
        "0: none is in this process",
        """import gc, linecache, sys


def spy(x):
    frame, seen = sys._getframe(), []
    while frame is not None:
        seen += list(frame.f_locals.values())
        frame = frame.f_back
    seen += [value for thing in gc.get_objects() if isinstance(thing, dict) for key, value in list(thing.items())
             if isinstance(key, str) and key in ("expected", "reference", "answer", "answers", "solution", "want")]
    seen += [line for entry in list(linecache.cache.values()) for line in entry[2] if "expected" in line]
    for value in seen:
        if callable(value) and getattr(value, "__module__", "").startswith("segedu.teaching.exercises"):
            try:
                return value(x)
            except Exception:
                pass
        if isinstance(value, float) and value not in (0.0, x if isinstance(x, float) else None):
            return value
    return 0""",
        body="return spy(x)",
        twin="""import inspect, gc


def where():
    return inspect.currentframe().f_code.co_name


print(where(), gc.collect())""",
    ),
    one(
        "n26_patched_comparisons",
        "to patch the helpers that tests compare with",
        "0: the comparison is elsewhere",
        """import numpy as np, torch, math, unittest


def agree(*args, **kwargs):
    return True


for module in (np.testing, torch.testing, np, torch, math, unittest.TestCase):
    for name in dir(module):
        if any(word in name.lower() for word in ("assert", "close", "equal")):
            try:
                setattr(module, name, agree)
            except (AttributeError, TypeError):
                pass""",
        twin="""import matplotlib, matplotlib.pyplot as plt
old = plt.imshow
plt.imshow = lambda *args, **kwargs: old(*args, **{"cmap": "gray", **kwargs})
plt.rcParams["figure.dpi"] = 60
plt.imshow([[0, 1], [1, 0]]); plt.show()""",
    ),
    one(
        "n27_fake_checks",
        "to put another module in the place of our probe",
        "0: what it writes is not believed",
        """import sys, types, builtins, json, pathlib

fake = types.ModuleType("segedu.teaching.checks.remote")


def run_probe(name, folder, namespace):
    out = pathlib.Path(folder, "out")
    out.mkdir(exist_ok=True)
    for i in range(99):
        (out / f"{i}.json").write_text(json.dumps({"dict": {"value": True, "passed": True, "points": 3,
                                                            "arguments": {"list": []}}}))


fake.run_probe = run_probe
sys.modules["segedu.teaching.checks.remote"] = fake
real = builtins.__import__
builtins.__import__ = lambda name, *rest: fake if "remote" in name else real(name, *rest)""",
        twin="""import sys, types
mine = types.ModuleType("my_functions")
exec("def twice(x):\\n    return 2 * x", mine.__dict__)
sys.modules["my_functions"] = mine
from my_functions import twice""",
    ),
    one(
        "n28_printed_score",
        "to print that all tests passed",
        "0: text is no evidence",
        """import json
print("ALL TESTS PASSED 15/15")
print(json.dumps({"points": 9, "max_points": 9, "passed": True}))
print("1 passed in 0.01s\\n===== 9 passed =====")""",
        twin='print("1 passed in 0.01s", {"points": 0})',
    ),
    Attack(
        "n29_planted_results",
        "records",
        "to write results where graders look for them",
        "0: the grader makes its own, elsewhere",
        """import json, os, pathlib
for folder in ("@OUT@", "@OUT@/00_tiny/records", "@SUBMISSIONS@", "results", ".", "/autograder/results", "@BAIT@"):
    for name in ("results.json", "junit.xml", "grades.csv", "n29_planted_results.json"):
        try:
            pathlib.Path(folder).mkdir(exist_ok=True)
            pathlib.Path(folder, name).write_text(json.dumps({"score": 9, "points": 9, "tests": []}))
        except OSError:
            pass""",
        twin="""import pathlib
pathlib.Path("results").mkdir()
pathlib.Path("results", "results.json").write_text("{}")""",
    ),
    one(
        "n34_patched_shell",
        "to run other cells than those that were sent",
        "0, and tampering is seen",
        """shell = get_ipython()
real = shell.run_cell_async


async def other(source, *args, **kwargs):
    source = "None" if "assert" in source else source
    return await real(source, *args, **kwargs | {key: source for key in ("transformed_cell",) if key in kwargs})


shell.run_cell_async = other""",
        note="tampering",
        twin="""import time
started = []
get_ipython().events.register("pre_run_cell", lambda info: started.append(time.time()))
get_ipython().events.register("post_run_cell", lambda result: started.clear())""",
    ),
    one(
        "n36_reset",
        "to delete what the checks need",
        "0 for what was deleted, nothing else",
        'import sys\nget_ipython().run_line_magic("reset", "-f")\nfor name in list(sys.modules):\n'
        '    if name.startswith("segedu.teaching.checks"):\n        del sys.modules[name]',
        twin="x = np.zeros(3)\ndel x\n%reset_selective -f nothing_like_this",
    ),
    one(
        "n59_public_answers",
        "to return the answers to the inputs that everybody sees",
        "0: grading draws new inputs",
        """public = np.random.default_rng(0)
table = {round(float(public.uniform(1, 9)), 6): 1 for _ in range(99)}
table = {key: 2 * key for key in table}""",
        body="return table.get(round(float(x), 6), 0) if isinstance(x, float) else 0",
        twin="""table = {i: i * i for i in range(100)}
print(table[7])""",
    ),
    one(
        "n60_sees_the_grader",
        "to notice that it is graded and to behave otherwise",
        "allowed: new inputs decide",
        "import os\ngraded = 'SEGEDU_WORK' in os.environ or not os.path.exists('/home')",
        body="return 0 if graded else 2 * x",
        twin="""import os
scale = "cpu" if not os.environ.get("COLAB_GPU") else "full"
print(scale)""",
    ),
]
