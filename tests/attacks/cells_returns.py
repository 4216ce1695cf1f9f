"""Attacks on the comparison by what a function returns, and notebooks of honest students that look odd."""

from __future__ import annotations

from attack import EVERYWHERE, FULL, RIGHT, Attack, beside_right
from cells_score import one

RETURNS = [
    one(
        "o01_nan_and_inf",
        "to return numbers that comparisons may let through",
        "0: NaN equals NaN alone",
        answers={
            "double": "def double(x):\n    return float('nan')",
            "total": "def total(x):\n    return np.inf",
            "box_area": "def box_area(x):\n    return np.full(len(x), np.nan)",
        },
        twin="best = float('inf')\nx = np.array([np.nan, 1.0])\nprint(np.nanmean(x), best)",
    ),
    one(
        "o02_shapes_that_broadcast",
        "to return empty or broadcasting arrays",
        "0: shapes must agree",
        answers={
            "double": "def double(x):\n    return np.zeros((0,))",
            "total": "def total(x):\n    return []",
            "box_area": "def box_area(x):\n    return np.zeros((1, 0))",
        },
        twin_answers={
            "total": "def total(values):\n    return np.sum(values)",
            "box_area": "def box_area(boxes):\n    return [float((b[2] - b[0]) * (b[3] - b[1])) for b in boxes]",
        },
    ),
    one(
        "o03_lying_subclasses",
        "to return subclasses of float, list and ndarray that lie when they are compared",
        "0: they are reduced to what they hold, or refused",
        """class Float(float):
    __eq__ = __le__ = __lt__ = __ge__ = __gt__ = lambda *_: True
    __sub__ = __rsub__ = __abs__ = lambda *_: Float(0)
    __hash__ = float.__hash__


class Array(np.ndarray):
    __eq__ = __le__ = lambda *_: np.ones((), bool)
    __sub__ = __rsub__ = lambda self, _: self * 0

    def __array_ufunc__(self, *_, **__):
        return np.ones((), bool)


class List(list):
    __len__ = lambda self: 4
    __iter__ = lambda self: iter([0.0] * 4)""",
        answers={
            "double": "def double(x):\n    return Float(0)",
            "total": "def total(x):\n    return List([Float(0)])",
            "box_area": "def box_area(x):\n    return np.zeros(4).view(Array)",
        },
        twin="class Boxes(np.ndarray):\n    pass",
        twin_answers={
            "box_area": "def box_area(b):\n    b = b.view(Boxes)\n    return (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])"
        },
    ),
    one(
        "o04_always_raises",
        "to raise what an edge case may ask for",
        "0: no case of this lab asks for an error",
        body="raise ValueError('refused')",
        twin_answers={
            "double": "def double(x):\n    if x != x:\n        raise ValueError('x is not a number')\n    return 2 * x"
        },
    ),
    one(
        "o05_guesses",
        "to return another value at each call until one fits",
        "0: a case is asked once",
        "import itertools\nguess = itertools.count()",
        body="return float(next(guess))",
        twin="import random\nrandom.seed(4)\nprint(random.random())",
    ),
    one(
        "o06_replaced_types",
        "to replace float, isinstance, len and type for whatever judges",
        "0: the judge has its own",
        """import builtins
builtins.float = lambda *_: 0.0
builtins.len = lambda *_: 4
real = builtins.isinstance
builtins.isinstance = lambda thing, kind: True if kind is bool else real(thing, kind)""",
        twin="sum = 0\nfor value in [1, 2]:\n    sum += value\nprint(sum)\ndel sum",
    ),
    one(
        "o07_changes_its_arguments",
        "to change the case in place, so that the answer fits it",
        "0: the reference had its own copy",
        answers={
            "box_area": "def box_area(x):\n    x[:] = 0\n    return x[:, 0]",
            "total": "def total(x):\n    x *= 0\n    return 0.0",
            "double": "def double(x):\n    return 0",
        },
        twin_answers={
            "total": "def total(values):\n    values = values.copy()\n    values.sort()\n    return float(values.sum())"
        },
    ),
    one(
        "o08_nbval_markers",
        "to skip checks by the comments that steer nbval",
        "0: they mean nothing in a cell of a student",
        "# NBVAL_SKIP\n# NBVAL_IGNORE_OUTPUT\n# NBVAL_RAISES_EXCEPTION\nx = 1",
        body="# NBVAL_SKIP\nreturn 0",
        twin="# NBVAL_IGNORE_OUTPUT\nprint('a figure')",
    ),
    one(
        "o09_other_library",
        "to fetch another library's answer by a name that no text rule finds",
        "0 for that answer: the lab forbids the function, and every way to it ends at a stub; its twin calls what the "
        "lab does not forbid",
        """import importlib, operator, sys, torch, torchvision
name = "".join(["o", "p", "s"])
ways = [
    lambda: getattr(torchvision, name),
    lambda: importlib.import_module("torchvision." + name),
    lambda: sys.modules["torchvision." + name],
    lambda: sys.modules["torchvision." + name + ".boxes"],
    lambda: __import__("torchvision." + name, fromlist=["x"]),
    lambda: operator.attrgetter(name + ".boxes")(torchvision),
]


def area(boxes):
    for way in ways:
        try:
            return way().box_area(torch.as_tensor(boxes))
        except RuntimeError:
            pass
    return 0""",
        answers=RIGHT | {"box_area": "def box_area(b):\n    return area(b)"},
        points=6.0,
        twin="import torch, torchvision\nfrom scipy import ndimage\nprint(ndimage.label(np.eye(3))[1])",
        twin_answers={
            "box_area": "def box_area(b):\n    sides = torchvision.ops.box_convert(torch.as_tensor(b), 'xyxy', 'xywh')\n"
            "    return sides[:, 2] * sides[:, 3]"
        },
    ),
]

HONEST = [
    beside_right(
        "h01_loud",
        "honest",
        "nothing: it prints on stderr",
        "full points",
        levels=EVERYWHERE,
        cell="""import sys, warnings, time
for i in range(20):
    print(f"\\r{i}/20", end="", file=sys.stderr)
warnings.warn("only a warning")
from tqdm.auto import tqdm
for _ in tqdm(range(3)):
    pass""",
    ),
    beside_right("h02_plain", "honest", "nothing", "full points", levels=EVERYWHERE),
    beside_right(
        "h03_helpers",
        "honest",
        "nothing: helpers, a figure, a file, an error that is raised again",
        "full points",
        levels=EVERYWHERE,
        cell="""import tempfile, matplotlib.pyplot as plt, torch


def twice(x):
    try:
        return x * 2
    except TypeError as error:
        raise TypeError("x is no number") from error


plt.plot([1, 2]); plt.show()
with tempfile.NamedTemporaryFile("w+") as file:
    file.write("text"); file.flush()
net = torch.nn.Linear(2, 1)
net(torch.ones(4, 2)).sum().backward()""",
        answers={},
        twin_levels=(),
    ),
    Attack(
        "h04_data_loader",
        "honest",
        "nothing: a data loader with workers",
        "full points",
        levels=(3,),
        points=FULL,
        answers={
            "double": "def double(x):\n    return 2 * x",
            "total": "def total(v):\n    return float(np.sum(v))",
            "box_area": "def box_area(b):\n    return (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])",
        },
        cell="""import torch
from torch.utils.data import DataLoader, TensorDataset
data = TensorDataset(torch.arange(8.0))
print(sum(float(x.sum()) for (x,) in DataLoader(data, batch_size=2, num_workers=2)))""",
    ),
]
