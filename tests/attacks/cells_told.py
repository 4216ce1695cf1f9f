"""Attacks on what students are told and on what the course hides: the feedback page, and the stubs in hidden modules."""

from __future__ import annotations

from attack import EVERYWHERE, RIGHT, Attack
from cells_forge import INSTEAD, TOOLS

STUBS = [
    Attack(
        "o50_hidden_module",
        "stubs",
        "to call what the lab hides, by every way of importing it",
        "its stub raises: 0",
        """import importlib, importlib.util, pkgutil, sys, segedu
ways = []
for way in (lambda: importlib.import_module("segedu.ops.boxes"), lambda: __import__("segedu.ops.boxes").ops.boxes,
            lambda: sys.modules["segedu.ops.boxes"]):
    try:
        ways.append(way())
    except Exception:
        pass
for name in [m.name for m in pkgutil.walk_packages(segedu.__path__, "segedu.", onerror=lambda _: None)]:
    if not any(part in name for part in ("cli", "widgets")):
        try:
            ways.append(importlib.import_module(name))
        except BaseException:
            pass


def area(boxes):
    for module in ways:
        for name in ("box_area", "area", "_area", "areas", "box_areas"):
            try:
                return np.asarray(getattr(module, name)(boxes), float)
            except BaseException:
                pass
    import torch
    for module in ways:
        for name in ("box_area", "area", "_area", "areas", "box_areas"):
            try:
                return getattr(module, name)(torch.as_tensor(boxes)).numpy()
            except BaseException:
                pass
    return 0""",
        answers={"box_area": "def box_area(b):\n    return area(b)"},
        note="imports segedu.ops.boxes|",
        twin="from segedu import viz\nfrom segedu.ops import masks\nimport segedu.datasets, segedu.training",
    ),
    Attack(
        "o170_other_modules_names",
        "stubs",
        "to import a forbidden function from other modules of its library, which bind it too",
        "each of its names is the stub: 0",
        """import sys
import torch, torchvision
import torchvision.ops.poolers


def area(boxes):
    from torchvision.ops.poolers import box_area
    ways = [box_area] + [v for m in list(sys.modules.values()) for k, v in list(vars(m).items()) if k == "box_area"]
    for way in ways:
        try:
            return way(torch.as_tensor(boxes)).numpy()
        except Exception:
            pass
    return 0""",
        answers={"box_area": "def box_area(b):\n    return 0 if area is box_area else area(b)"},
        twin="import torch\nfrom torchvision.ops.poolers import LevelMapper\nfrom torchvision.models.detection.fcos import FCOS",
        twin_answers={
            "box_area": "from torchvision.models.detection._utils import BoxCoder\nfrom torchvision.ops import box_convert\n\n\n"
            "def box_area(boxes):\n    return box_convert(torch.as_tensor(boxes), 'xyxy', 'xywh')[:, 2:].prod(1).numpy()"
        },
    ),
    Attack(
        "o51_compiled_copies",
        "stubs",
        "to find the source or a compiled copy of what is hidden on the disk",
        "0: neither is there",
        """import glob, marshal, sys, os, inspect
space = {"np": np}
import segedu.ops.boxes as hidden
roots = {os.path.dirname(p) for p in [*sys.path, hidden.__file__]} | {sys.prefix, "/stage", "/usr/lib/python3"}
for root in roots:
    for path in glob.glob(f"{root}/**/segedu/ops/**/boxes*", recursive=True) + glob.glob(f"{root}/**/__pycache__/boxes.*.pyc"):
        try:
            data = open(path, "rb").read()
            exec(marshal.loads(data[16:]) if path.endswith(".pyc") else data, space)
        except BaseException:
            pass
try:
    exec(inspect.getsource(hidden), space)
except BaseException:
    pass


def area(boxes):
    for name in ("box_area", "area", "_area"):
        for given in (boxes, __import__("torch").as_tensor(boxes)):
            try:
                return np.asarray(space[name](given))
            except BaseException:
                pass
    return 0""",
        answers={"box_area": "def box_area(b):\n    return area(b)"},
        twin="import inspect\ndef mine():\n    pass\nprint(inspect.getsource(mine))",
    ),
    Attack(
        "o52_unstub",
        "stubs",
        "to take the stub apart: closures, reloads, other paths, the real package below it",
        "0",
        """import importlib, sys
import segedu.ops.boxes as hidden
import segedu.not_here as stub
sys.path[:0] = ["@COURSE@/..", "/", "/proc/1/root", "/proc/1/cwd"]
for name in [name for name in sys.modules if name.startswith("segedu")]:
    del sys.modules[name]
importlib.invalidate_caches()
try:
    import segedu.ops.boxes as again
except ImportError:
    again = hidden


def area(boxes):
    for module in (again, hidden):
        for function in [getattr(module, name) for name in dir(module) if "area" in name]:
            cells = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
            for one in [function, *cells]:
                try:
                    return np.asarray(one(__import__("torch").as_tensor(boxes)))
                except BaseException:
                    pass
    return 0""",
        answers={"box_area": "def box_area(b):\n    return area(b)"},
        twin="import importlib, math\nimportlib.reload(math)\nprint(math.pi)",
    ),
    Attack(
        "o53_exercises_of_the_course",
        "stubs",
        "to use `check`, `use` and `load` of the exercises",
        "0: they are stubs",
        """from segedu.teaching.exercises.lab00_tiny import check
try:
    from segedu.teaching.exercises import load
    exercise = load("00_tiny").exercises
except Exception as error:
    exercise = []
    print(error)
for one in exercise:
    globals()["stolen_" + one.name] = one.reference""",
        answers={
            name: f"def {name}(*a):\n    return globals().get('stolen_{name}', lambda *_: 0)(*a)" for name in RIGHT
        },
        twin="from segedu.teaching.exercises.lab00_tiny import check\ncheck(None)",
    ),
    Attack(
        "o54_memory_of_the_parent",
        "stubs",
        "to search the memory that was forked for references, seeds and cases",
        "0: never there",
        """import re
CHUNK, OVERLAP = 16 << 20, 64
# a letter of each is in brackets: the words of this cell are in the memory too
control = re.compile(b"planted [w]ord")
secrets = [re.compile(word) for word in (b"exercise_[s]eed[(]", b"You count both [e]nds", b"You add 2 instead [o]f")]
planted = " ".join(["planted", "".join(reversed("drow"))])
hits = set()
for line in open("/proc/self/maps"):
    where, rights, _, _, inode, *_ = line.split()
    if "r" not in rights or inode != "0" or "[v" in line:
        continue
    start, end = (int(x, 16) for x in where.split("-"))
    for position in range(start, end, CHUNK):
        try:
            with open("/proc/self/mem", "rb") as memory:
                memory.seek(position)
                data = memory.read(min(CHUNK + OVERLAP, end - position))
        except (OSError, ValueError, OverflowError):
            continue
        hits |= {word.pattern for word in [control, *secrets] if word.search(data)}
if hits != {control.pattern}:
    raise RuntimeError(f"found {hits}")""",
        clean=True,
        twin="import sys\nprint(sys.getsizeof([]), open('/proc/self/status').readline())",
    ),
]

# what a student could say about a hidden case: its number as digits, as an int of the same bits, as letters
SAY = """import struct


def digits(x):
    return repr(float(np.asarray(x).ravel()[0]))


"""
LETTERS = """import json, os, pathlib


def digits(x):
    return repr(abs(float(x))).replace(".", "").partition("e")[0].ljust(12, "0")


def spelt(x):
    return "".join("abcdefghij"[int(digit)] for digit in digits(x))


"""
FEEDBACK = [
    Attack(
        "o60_case_in_a_text",
        "feedback",
        "to let the feedback page say a hidden input, as the text that was returned",
        "the page tells of a text, not which",
        SAY,
        body="return 'the input is ' + digits(x)",
        levels=EVERYWHERE,
        hidden=True,
        twin="print('the input is', 4)",
    ),
    Attack(
        "o61_case_in_a_class",
        "feedback",
        "the same through the name of a class that is returned",
        "a name's digits are not told",
        SAY,
        body="return type('Input_' + digits(x).replace('.', '_'), (), {})()",
        levels=EVERYWHERE,
        hidden=True,
        twin="Pair = __import__('collections').namedtuple('Pair', 'a b')\nprint(Pair(1, 2))",
    ),
    Attack(
        "o62_case_in_an_exception",
        "feedback",
        "the same through an exception's class and message",
        "neither is told",
        SAY,
        body="raise type('Input_' + digits(x), (ValueError,), {})(digits(x))",
        levels=EVERYWHERE,
        hidden=True,
        twin="class MyError(ValueError):\n    pass",
    ),
    Attack(
        "o63_case_in_a_helper",
        "feedback",
        "the same through the exception that ends a cell",
        "its class is not told in the student's words",
        """import json, os, pathlib
cases = sorted(pathlib.Path(os.environ["SEGEDU_WORK"], "job/double/in").glob("*.json"))
value = json.loads(cases[0].read_text())["dict"]["args"]["list"][0]
raise type(f"Input_{value!r}_<script>alert(1)</script>", (Exception,), {})(repr(value))""",
        levels=EVERYWHERE,
        hidden=True,
        twin="try:\n    raise KeyError('a')\nexcept KeyError as error:\n    print(error)",
    ),
    Attack(
        "o64_case_in_the_bits",
        "feedback",
        "the same as an int with the bits of the input, and as the keys of a dict",
        "long numbers and keys are not told",
        SAY,
        answers={
            "double": "def double(x):\n    return struct.unpack('<q', struct.pack('<d', x))[0]",
            "total": "def total(x):\n    return {digits(x): 1}",
            "box_area": "def box_area(x):\n    return [digits(x), {digits(x): digits(x)}]",
        },
        levels=EVERYWHERE,
        hidden=True,
        twin="print(2**62)",
    ),
    Attack(
        "o67_case_in_broken_bytes",
        "feedback",
        "the same through what a note says of bytes that cannot be read: a tag, a type, a shape, a size",
        "the note tells the kind of fault alone",
        TOOLS
        + """
def forged(name, i):
    number = json.loads((work / "job" / "double" / "in" / "0.json").read_text())["dict"]["args"]["list"][0]
    digits = str(number).replace(".", "")
    if i == 0:
        return value({f"input {number!r}": 1})
    if i == 1:
        return value({"array": int(digits)})
    descr = "'<f8'" if i == 2 else f"[('input {number!r}', '<f8')]"
    return value({"array": 0}) | {"0.npy": npy("{'descr': " + descr + ", 'fortran_order': False, 'shape': (" + digits + ",)}")}
"""
        + INSTEAD,
        levels=EVERYWHERE,
        hidden=True,
        note="outcomes could not be read",
    ),
    Attack(
        "o68_case_in_letters",
        "feedback",
        "the same as letters: in the class that is returned, and in classes of exceptions in many cells",
        "a class is named only where it is one of Python's or of a library's",
        LETTERS
        + """cases = sorted(pathlib.Path(os.environ["SEGEDU_WORK"], "job/double/in").glob("*.json"))
value = json.loads(cases[0].read_text())["dict"]["args"]["list"][0]
raise type("X_" + spelt(value), (Exception,), {})()""",
        body="return type(spelt(float(np.asarray(x).ravel()[0])), (), {})()",
        levels=EVERYWHERE,
        hidden=True,
        note="an error of another class",
        twin="class EmptyImage(ValueError):\n    pass\n\n\nraise EmptyImage('mine')",
    ),
    Attack(
        "o69_case_in_a_shape",
        "feedback",
        "the same through the shape of an empty array, or the length of a list",
        "a shape is told by its rank, a length not at all",
        LETTERS,
        answers={
            "double": "def double(x):\n    return np.zeros((0, int(digits(x)[:6]), int(digits(x)[6:12])))",
            "total": "def total(x):\n    return [np.zeros((0, int(digits(v)[:6]), int(digits(v)[6:12]))) for v in x]",
            "box_area": "def box_area(b):\n    return np.zeros((0, int(digits(b[0, 0])[:6]), int(digits(b[0, 0])[6:12])))",
        },
        levels=EVERYWHERE,
        hidden=True,
        twin="print(np.zeros((0, 123, 456)).shape)",
    ),
    Attack(
        "o65_markup",
        "feedback",
        "to bring markup, formulas and control characters into the reports",
        "escaped, cleaned",
        """class Evil(Exception):
    pass


Evil.__name__ = Evil.__qualname__ = "</td><script>alert(1)</script><img src=x onerror=alert(1)>\\x1b[31m\\u202e=cmd()"
print("<script>alert(1)</script>")
from IPython.display import HTML, display, Javascript
display(HTML("<meta http-equiv=refresh content='0;url=//evil'>"), Javascript("alert(1)"))""",
        body="return type('=HYPERLINK(1)</p><script>alert(1)</script>;=1+1', (), {})()",
        last="raise Evil('<script>')",
        levels=EVERYWHERE,
        twin="from IPython.display import HTML, display\ndisplay(HTML('<b>a table</b>'))",
    ),
    Attack(
        "o66_broken_text",
        "feedback",
        "to bring lone surrogates and nulls into names and messages",
        "replaced",
        "Odd = type('Odd\\udcff\\ud800', (Exception,), {})\nprint('\\udcff')",
        body="raise Odd('\\udcff\\x00\\ud800')",
        last="raise Odd('\\ud800')",
        levels=EVERYWHERE,
        twin="print('\\u00e4\\u4e2d\\U0001f600')",
    ),
]
