"""Forms that an honest student's notebook may take by accident; each is right, and must cost nothing."""

from __future__ import annotations

import copy
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import tiny

DOUBLE, TOTAL, AREA = tiny.RIGHT["double"], tiny.RIGHT["total"], tiny.RIGHT["box_area"]
OUTPUTS = [
    {"output_type": "stream", "name": "stderr", "text": ["a warning\n"]},
    {"output_type": "execute_result", "execution_count": 3, "data": {"text/plain": "1", "text/html": ["<b>1</b>"]}, "metadata": {}},
    {"output_type": "display_data", "data": {"image/png": "iVBORw0KGgo=", "application/vnd.jupyter.widget-view+json": {"model_id": "x"}}, "metadata": {}},
    {"output_type": "error", "ename": "NameError", "evalue": "name 'x'", "traceback": ["\x1b[31mNameError\x1b[0m"]},
]  # fmt: skip

# what the student typed in the place of `double`, the rest being right
SOLUTIONS = {
    "crlf": DOUBLE.replace("\n", "\r\n"),
    "old_mac_line_ends": DOUBLE.replace("\n", "\r"),
    "tabs": DOUBLE.replace("    ", "\t"),
    "trailing_spaces": DOUBLE.replace("\n", "  \n") + "\n\n\n   ",
    "time_magic": "%%time\n" + DOUBLE,
    "capture_magic": "%%capture\n" + DOUBLE + "\nprint(double(2))",
    "line_magics": "%matplotlib inline\n%load_ext autoreload\n%autoreload 2\n" + DOUBLE + "\n%timeit -n1 -r1 double(3)\ndouble?",
    "shell_line": "!echo hello\nfiles = !ls\n" + DOUBLE,
    "future": "from __future__ import annotations\n\n" + DOUBLE.replace("(x)", "(x: NotDefined) -> AlsoNot"),
    "coding_cookie": "# -*- coding: latin-1 -*-\ngröße = 2\n\n\ndef double(x):\n    return größe * x",
    "non_ascii": "def double(größe):\n    π = 2  # ✓ 中文\n    return π * größe",
    "full_width": "def ｄｏｕｂｌｅ(x):\n    return 2 * x",
    "type_hints": "from typing import Any, TypeVar\n\nT = TypeVar('T')\n\n\ndef double(x: T, *rest: Any, **named: dict[str, T]) -> T:\n    y: T = 2 * x\n    return y",
    "torch_no_grad": "import torch\n\n\n@torch.no_grad()\ndef double(x):\n    return 2 * x",
    "lru_cache": "import functools\n\n\n@functools.lru_cache\ndef double(x):\n    return 2 * x",
    "own_decorator": "import functools\n\n\ndef loud(f):\n    @functools.wraps(f)\n    def inner(*a, **k):\n        print('called')\n        return f(*a, **k)\n    return inner\n\n\n@loud\ndef double(x):\n    return 2 * x",
    "vectorize": "@np.vectorize\ndef double(x):\n    return 2 * x",
    "lambda": "double = lambda x: 2 * x",
    "default_argument": "FACTOR = 2\n\n\ndef double(x, factor=FACTOR, *, cache={}):\n    return factor * x",
    "callable_object": "class Doubler:\n    __name__ = 'double'\n\n    def __call__(self, x):\n        return 2 * x\n\n\ndouble = Doubler()",
    "partial": "from functools import partial\nfrom operator import mul\n\ndouble = partial(mul, 2)",
    "nested": "def double(x):\n    def twice(y):\n        def again(z):\n            return z + z\n        return again(y)\n    return twice(x)",
    "async_inside": "import asyncio\n\n\nasync def later(x):\n    return 2 * x\n\n\ndef double(x):\n    loop = asyncio.new_event_loop()\n    try:\n        return 2 * x\n    finally:\n        loop.close()\n\n\nawait asyncio.sleep(0)",
    "generator": "def double(x):\n    def parts():\n        yield x\n        yield x\n    return sum(parts())",
    "walrus": "def double(x):\n    if (y := x) is not None:\n        return y + y",
    "match": "def double(x):\n    match x:\n        case None:\n            return 0\n        case _:\n            return 2 * x",
    "global": "calls = 0\n\n\ndef double(x):\n    global calls\n    calls += 1\n    return 2 * x",
    "in_if": "try:\n    import cupy\nexcept ImportError:\n    cupy = None\nif cupy is None:\n    def double(x):\n        return 2 * x\nelse:\n    def double(x):\n        return cupy.multiply(2, x)",
    "in_main": "if __name__ == '__main__':\n    def double(x):\n        return 2 * x\n    print(double(4))",
    "two_names": "double, twice = (lambda x: 2 * x), None",
    "tested_below": DOUBLE + "\n\nassert double(2) == 4\nassert double(2) == 5, 'an old test'",
    "fails_above": "print(a_name_of_a_figure)\n\n" + DOUBLE,
    "lambda_below_a_failure": "print(a_name_of_a_figure)\ndouble = lambda x: 2 * x",
    "two_attempts": "def double(x):\n    return x\n\n\n" + DOUBLE,
    "stub_above": tiny.STUBS["double"] + "\n\n\n" + DOUBLE,
    "commented_code": "# " + DOUBLE.replace("\n", "\n# ") + "\n" + DOUBLE + "\n'''\nold code\n'''",
    "form_feed": DOUBLE.replace("\n", "\n\x0c\n", 1).replace("\x0c\n", "\x0c\n"),
    "markers": "# NBVAL_SKIP\n" + DOUBLE + "\n# NBVAL_RAISES_EXCEPTION",
    "prints_much": DOUBLE + "\nfor i in range(3000):\n    print(i, 'x' * 20)",
    "progress": "from tqdm.auto import tqdm\nimport sys, warnings\n\nwarnings.warn('careful')\nfor _ in tqdm(range(3)):\n    pass\nprint('bad', file=sys.stderr)\n" + DOUBLE,
    "shadows": "from numpy import *\nlist = [1]\ncheck = print\nstr = 'x'\n" + DOUBLE,
    "strict": "import warnings\n\nwarnings.simplefilter('error')\nnp.seterr(all='raise')\n" + DOUBLE,
    "other_floats": "import torch\n\ntorch.set_default_dtype(torch.float64)\ntorch.set_printoptions(precision=2)\nnp.set_printoptions(precision=1)\n" + DOUBLE,
    "stays_away": "import os, tempfile\n\nos.makedirs('figures', exist_ok=True)\nopen('figures/a.txt', 'w').write('x')\nos.chdir('figures')\n" + DOUBLE,
    "exits": DOUBLE + "\nimport sys\nsys.exit()",
    "asks": "name = input('your name?')\n\n" + DOUBLE,
    "thread": "import threading\n\nthreading.Thread(target=print, args=('x',)).start()\n" + DOUBLE,
    "script": "import torch\n\n\n@torch.jit.script\ndef twice(x: torch.Tensor) -> torch.Tensor:\n    return 2 * x\n\n\ndef double(x):\n    return float(twice(torch.tensor(x, dtype=torch.float64)))",
    "dataclass": "from dataclasses import dataclass\n\n\n@dataclass\nclass Pair:\n    a: float\n    b: float\n\n\ndef double(x):\n    pair = Pair(x, x)\n    return pair.a + pair.b",
    "returns_numpy": "def double(x):\n    return np.float64(2 * x)",
    "returns_tensor": "import torch\n\n\ndef double(x):\n    return torch.tensor(2 * x, dtype=torch.float64)",
    "import_and_constant_below_a_failure": "print(a_name_of_a_figure)\nimport operator as op\nTWO = len([1, 1])\n\n\ndef double(x):\n    return op.mul(TWO, x)",
    "better_below_a_failure": "def double(x):\n    return x\n\n\nprint(a_name_of_a_figure)\n\n\n" + DOUBLE,
    "worse_below_a_failed_assert": DOUBLE + "\n\nassert double(2) == 5\n\n\ndef double(x):\n    return x",
    "flood": DOUBLE + "\n\nfor i in range(3):\n    print('x' * 3_000_000)",
    "endless_demo": "import time\nTWO = 2\nmodel = time.sleep(0)\nwhile True:\n    time.sleep(1)\n\n\ndef double(x):\n    return TWO * x",
    "endless_training": "import time\nTWO = 2\nmodel = time.sleep(1000)\n\n\ndef double(x):\n    return TWO * x",
    "takes_the_kernel_with_it": "import os\n\n" + DOUBLE + "\n\nos._exit(1)",
    "long_double": "def double(x):\n    return np.longdouble(2 * x)",
    "long_double_array": "def double(x):\n    return np.asarray(2 * x, np.longdouble)",
    "names_of_ours": "globals, run_probe, get_ipython = {'two': 2}, None, 3\n\n\ndef double(x):\n    return globals['two'] * x",
    "del_at_end": "import math\n\n" + DOUBLE + "\ndel math",
}  # fmt: skip


def _book(cells: list[dict], minor: int = 5, **metadata: object) -> dict:
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": minor}


def _right() -> list[dict]:
    return tiny.answered(**tiny.RIGHT)


def _place(cells: list[dict], cell_id: str) -> int:
    return next(i for i, cell in enumerate(cells) if cell["id"] == cell_id)


def _helper(source: str, cell_id: str = "mine") -> dict:
    return {"cell_type": "code", "id": cell_id, "metadata": {}, "source": source, "outputs": [], "execution_count": 9}


def _without_ids(cells: list[dict], metadata: bool = True) -> list[dict]:
    """As old Jupyter saves: no ids; and where `metadata` is False, no metadata either."""
    for cell in cells:
        cell.pop("id")
        if not metadata:
            cell["metadata"] = {}
    return cells


def _colab() -> dict:
    cells = _without_ids(_right(), metadata=False)
    for i, cell in enumerate(cells):
        cell["metadata"] = {
            "id": f"aB3{i}xYz",
            "colab": {"base_uri": "https://localhost:8080/"},
            "executionInfo": {"elapsed": 3},
        }
        cell["source"] = cell["source"].splitlines(keepends=True)
        if cell["cell_type"] == "code":
            cell["outputs"] = OUTPUTS
    return _book(
        cells,
        0,
        colab={"provenance": []},
        kernelspec={"name": "python3", "display_name": "Python 3"},
        accelerator="GPU",
    )


def _vscode() -> dict:
    cells = _right()
    for cell in cells:
        cell["metadata"]["vscode"] = {"languageId": "python"}
        cell["source"] = cell["source"].splitlines(keepends=True)
        if cell["cell_type"] == "code":
            cell["outputs"] = OUTPUTS
    return _book(cells, 2, language_info={"name": "python"}, kernelspec={"name": "my-env", "display_name": "my env"})


def _merged(first: str, last: str) -> list[dict]:
    """All cells from one to another are one, with the first one's id, as JupyterLab merges them."""
    cells = _right()
    low, high = _place(cells, first), _place(cells, last)
    cells[low]["source"] = "\n\n".join(cell["source"] for cell in cells[low : high + 1])
    del cells[low + 1 : high + 1]
    return cells


def _split(part: Callable[[dict], list[dict]], cell_id: str = "00-total") -> list[dict]:
    cells = _right()
    place = _place(cells, cell_id)
    cells[place : place + 1] = part(cells[place])
    return cells


def _with(source: str, before: str = "", after: str = "", **answers: str) -> list[dict]:
    cells = tiny.answered(**tiny.RIGHT | answers)
    place = _place(cells, before or after) + (not before)
    cells.insert(place, _helper(source))
    return cells


def _moved(cell_id: str, before: str) -> list[dict]:
    cells = _right()
    cell = cells.pop(_place(cells, cell_id))
    cells.insert(_place(cells, before), cell)
    return cells


def _changed(cell_id: str, source: str, **answers: str) -> list[dict]:
    cells = tiny.answered(**tiny.RIGHT | answers)
    cells[_place(cells, cell_id)]["source"] = source
    return cells


def _lost(answer: str) -> list[dict]:
    """Its cell was deleted, and the function typed into a new one, whose id is new."""
    cells = _right()
    cells[_place(cells, "00-double")] = _helper(answer)
    return cells


FIRST = "def double(x):\n    return x  # a first try"
SETUP = next(cell["source"] for cell in tiny.lab_cells() if cell["id"] == "00-setup")
TABLE = "def double(x):\n    return TABLE['two'] * x"
LATER = "def double(x):\n    return clip(2 * x)"
HELP = "BOUND = compute()\n\n\ndef clip(x):\n    return min(x, BOUND)"
DEFINE = "def compute():\n    return float(np.inf)"


def _stories() -> dict[str, dict | list[dict]]:
    """Whole notebooks."""
    late = _with(HELP, after="00-check-total", double=LATER)
    late.insert(_place(late, "mine") + 2, _helper(DEFINE, "mine2"))
    copied = tiny.answered(**tiny.RIGHT | {"double": TABLE})
    copied.insert(3, copy.deepcopy(copied[_place(copied, "00-check-total")]) | {"source": "TABLE = dict(two=int('2'))"})
    doubled = _right()
    doubled.insert(4, copy.deepcopy(doubled[_place(doubled, "00-double")]))
    other = _right()
    stub = _place(other, "00-total")
    other[stub] = {**other[stub], "source": tiny.STUBS["total"]}
    other.insert(stub + 1, {**other[_place(other, "00-double")], "id": "copy", "source": TOTAL})
    tries = tiny.answered(**tiny.RIGHT | {"double": "import math\nTWO = len([1, 1])\n\n\ndef double(x):\n    return x"})
    tries.insert(3, {**tries[2], "id": "copy", "source": "def double(x):\n    return math.fsum([TWO * x])"})
    both = tiny.answered(**tiny.RIGHT | {"double": FIRST})
    both[4:4] = [{**both[2], "id": "copy", "source": DOUBLE}, {**both[3], "id": "copy2"}]
    return {
        "second_try_below": _with(DOUBLE + "\n\ncheck(double)", after="00-check-double", double=FIRST),
        "second_try_in_two_cells": [*_with(DOUBLE, after="00-check-double", double=FIRST), _helper("check(double)", "b")],
        "second_try_at_the_end": _with(DOUBLE, after="00-train", double=FIRST),
        "second_try_of_a_helper": [*_with("def clip(x):\n    return x", after="00-check-double", double="def clip(x):\n    return 1\n\n\n" + LATER), _helper("check(double)", "b")],
        "second_try_in_copied_cells": both,
        "second_try_then_the_name_again": [*_with(DOUBLE + "\ncheck(double)", after="00-check-double", double=FIRST), _helper("double = double(3)", "b")],
        "name_again_by_accident": _with("double = double(3)\nprint(double)", after="00-show-double"),
        "worse_second_try": _with(FIRST + "\n\n\ncheck(double)", after="00-check-double"),
        "copy_of_the_cell_uses_the_first": tries,
        "answer_in_a_copied_cell_of_another_exercise": other,
        "constant_below_a_failure": _with("print(a_name_of_a_figure)\nTABLE = {'two': len([1, 1])}", before="00-double", double=TABLE),
        "better_helper_below_a_failure": [_helper("def clip(x):\n    return 0", "old"), *_with("print(a_name_of_a_figure)\n\n\ndef clip(x):\n    return x", before="00-double", double=LATER)],
        "helper_above_a_flood": _with("def clip(x):\n    return x\n\n\nprint('x' * 9_000_000)", before="00-double", double=LATER),
        "setup_with_a_shell_line": _changed("00-setup", "out = !ls\n!pip install -q a \\\n    b\n" + SETUP + "\nTABLE = dict(two=len([1, 1]))", double=TABLE),
        "setup_with_a_filled_table": _changed("00-setup", SETUP + "\nTABLE = {}\nTABLE['two'] = 1\nTABLE['two'] += 1", double=TABLE),
        "setup_with_a_patched_class": _changed("00-setup", SETUP + "\nimport torch\ntorch.Tensor.twice = lambda t: 2 * t", double="def double(x):\n    return float(torch.tensor(x, dtype=torch.float64).twice())"),
        "setup_with_other_floats": _changed("00-setup", SETUP + "\nimport torch\ntorch.set_default_dtype(torch.float64)", double="def double(x):\n    return (torch.ones(1) * 2 * x).item()"),
        "colab": _colab(),
        "vscode": _vscode(),
        "old_jupyter": _book(_without_ids(_right()), 0),
        "older_jupyter_without_metadata": _book(_without_ids(_right(), metadata=False), 4),
        "outputs": _book([{**cell, **({"outputs": OUTPUTS} if cell["cell_type"] == "code" else {})} for cell in _right()]),
        "merged_with_its_check": _merged("00-double", "00-check-double"),
        "merged_all": _merged("00-setup", "00-box-area"),
        "merged_two_exercises": _merged("00-double", "00-total"),
        "split": _split(lambda cell: [cell, {**cell, "id": "b", "source": "assert total([1, 2]) == 3"}]),
        "split_above": _split(lambda cell: [{**cell, "source": "def add(v):\n    return float(np.sum(v))"}, {**cell, "id": "b", "source": "def total(v):\n    return add(v)"}]),
        "moved_below_its_check": _moved("00-double", "00-check-total"),
        "moved_to_the_top": _moved("00-box-area", "00-setup"),
        "moved_to_the_end": _moved("00-setup", "00-train"),
        "typed_again": _lost(DOUBLE),
        "typed_again_in_if": _lost("if True:\n    def double(x):\n        return 2 * x"),
        "typed_again_as_a_pair": _lost("double, twice = (lambda x: 2 * x), None"),
        "typed_again_in_try": _lost("try:\n    from cupy import double\nexcept ImportError:\n    def double(x):\n        return 2 * x"),
        "typed_again_with_a_loop": _lost("for factor in (1, 2):\n    pass\nwith open('/dev/null'):\n    double = lambda x: factor * x"),
        "helper_in_a_later_cell": _with("def clip(x):\n    return min(x, float('inf'))", after="00-check-total", double=LATER),
        "helpers_in_later_cells": late,
        "decorator_in_a_later_cell": _with("def keep(f):\n    return f", after="00-check-total", double="@keep\n" + DOUBLE),
        "import_in_a_later_cell": _with("import math as m", after="00-check-total", double="def double(x):\n    return m.fsum([x, x])"),
        "another_exercise_that_comes_later": _changed("00-double", "def double(x):\n    return total([x, x])"),
        "table_in_a_later_cell": _with("TABLE = {'two': len([1, 1])}", after="00-show-total", double=TABLE),
        "table_in_the_show_cell": _changed("00-show-double", "import math\nTABLE = dict(two=2)\nprint(double)", double=TABLE),
        "table_in_the_setup_cell": _changed("00-setup", "import numpy as np\nTABLE = dict(two=2)", double=TABLE),
        "table_in_the_check_cell": _changed("00-check-double", "TABLE = dict(two=2)\ncheck(double)", double=TABLE),
        "table_in_a_copied_check_cell": copied,
        "copied_solution": doubled,
        "install": _with("!pip install -q nothing-there\n%pip install -q nothing-there\nimport math", before="00-double"),
        "drive": _with("from google.colab import drive\ndrive.mount('/content/drive')\n\n\ndef clip(x):\n    return x", before="00-double", double=LATER),
        "own_module": _with("%%writefile mine.py\ndef clip(x):\n    return x", before="00-double", double="from mine import clip\n\n\n" + LATER),
        "own_widget": _with("import ipywidgets\n\nipywidgets.interact(lambda n: n, n=3)", before="00-double"),
        "own_figure": _with("import matplotlib.pyplot as plt\n\nplt.plot([1, 2])\nplt.savefig('a.png')\nplt.show()", before="00-double"),
        "explores_ours": _with("double = 3\nprint(double)", after="00-show-double"),
        "star_above": _with("from numpy import *", before="00-double", double="def double(x):\n    return asarray(x) * 2"),
        "star_below": _with("from numpy import *", after="00-check-total", double="def double(x):\n    return asarray(x) * 2"),
        "star_above_and_the_name_again_below": _starred(),
        "pandas_style": _with("import seaborn as sns\nsns.set_theme()", before="00-double"),
    }  # fmt: skip


def _starred() -> list[dict]:
    """A star import gives `clip`; a later cell of the student's own gives another one, for a figure."""
    answer = "def double(x):\n    return clip(2 * x, -1e9, 1e9)"
    cells = _with("from numpy import *", before="00-double", double=answer)
    return [*cells, _helper("clip = [1, 2]", "later")]


def notebooks() -> Iterator[tuple[str, bytes]]:
    """`(file name, bytes)` of every form."""
    for name, answer in SOLUTIONS.items():
        yield f"{name}.ipynb", json.dumps(_book(tiny.answered(**tiny.RIGHT | {"double": answer}))).encode()
    for name, story in _stories().items():
        yield f"{name}.ipynb", json.dumps(story if isinstance(story, dict) else _book(story)).encode()
    plain = json.dumps(_book(_right()), indent=1, ensure_ascii=False)
    yield "bom.ipynb", plain.encode("utf-8-sig")
    yield "utf16.ipynb", plain.encode("utf-16")
    yield "windows.ipynb", plain.replace("\n", "\r\n").encode()
    yield "browser.ipynb.txt", plain.encode()
    yield "browser2.ipynb.json", plain.encode()
    yield "UPPER.IPYNB", plain.encode()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("Lab/00_tiny.ipynb", plain)
        file.writestr("Lab/.ipynb_checkpoints/00_tiny-checkpoint.ipynb", plain)
        file.writestr("__MACOSX/Lab/._00_tiny.ipynb", b"\0\5\26\7")
        file.writestr("Lab/scratch.ipynb", json.dumps(_book([_helper("1 + 1", "abc")])))
    yield "zipped.zip", stream.getvalue()
    yield "zip_with_another_suffix.ipynb", stream.getvalue()
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as file:
        info = tarfile.TarInfo("./Lab/00_tiny (1).ipynb")
        info.size = len(plain.encode())
        file.addfile(info, io.BytesIO(plain.encode()))
    yield "packed.tar.gz", stream.getvalue()
    yield "packed_under_the_wrong_name.zip", stream.getvalue()


def real_lab(course: Path, lab: str) -> Iterator[tuple[str, bytes]]:
    """`(file name, bytes)` of the solved notebook of a real lab in the forms of other tools and habits.

    Args:
        course: the checkout.
        lab: for example `04_metrics`.
    """
    solved = json.loads((course / "solutions" / f"{lab}.ipynb").read_text())
    blank = json.loads((course / "labs" / f"{lab}.ipynb").read_text())["cells"]

    def cells() -> list[dict]:
        """The lab's own cells, with the right answers in place of stubs."""
        right = {cell["id"]: cell["source"] for cell in solved["cells"]}
        return [{**cell, "source": "".join(right[cell["id"]]), "metadata": dict(cell["metadata"])} for cell in blank]

    def changed(change: Callable[[str, str], str]) -> list[dict]:
        """All solution cells after a change of their text, which is told the exercise's name."""
        found = cells()
        for cell in found:
            ours = cell["metadata"].get("segedu", {})
            if ours.get("role") == "solution":
                cell["source"] = change(cell["source"], ours["name"])
        return found

    def role(cell: dict) -> str:
        return cell["metadata"].get("segedu", {}).get("role", "")

    helper = _helper("def as_float(x):\n    return torch.as_tensor(x).float()")
    forms = {
        "colab": _without_ids(cells(), metadata=False),
        "old_jupyter": _without_ids(cells()),
        "executed": solved["cells"],
        "crlf": [{**cell, "source": cell["source"].replace("\n", "\r\n")} for cell in cells()],
        "tabs": changed(lambda text, _: text.replace("    ", "\t")),
        "time_magic": changed(lambda text, _: "%%time\n" + text),
        "future": changed(lambda text, _: "from __future__ import annotations\n" + text),
        "no_grad": changed(lambda text, name: text.replace(f"def {name}(", f"@torch.no_grad()\ndef {name}(")),
        "wrapped": changed(lambda text, name: f"{text}\n\n{name} = (lambda f: lambda *a, **k: f(*a, **k))({name})"),
        "only_answers": [cell for cell in cells() if role(cell) == "solution"],
        "answers_last": sorted(cells(), key=lambda cell: role(cell) == "solution"),
        "backwards": cells()[::-1],
        "without_markdown": [cell for cell in cells() if cell["cell_type"] == "code"],
        "helper_last": [*changed(lambda text, _: text + "\nas_float(1)"), helper],
        "stubs_above": changed(lambda text, name: f"def {name}(*args):\n    raise NotImplementedError\n\n\n{text}"),
    }
    for name, form in forms.items():
        yield f"{name}.ipynb", json.dumps(_book(form)).encode()
    merged = "\n\n".join(cell["source"] for cell in cells() if role(cell) in ("setup", "solution"))
    yield "all_in_one_cell.ipynb", json.dumps(_book([_helper(merged)])).encode()


ONCE_LOST = (
    "another_exercise_that_comes_later.ipynb", "decorator_in_a_later_cell.ipynb", "helpers_in_later_cells.ipynb", "lambda_below_a_failure.ipynb",
    "table_in_a_copied_check_cell.ipynb", "table_in_the_show_cell.ipynb", "typed_again_as_a_pair.ipynb", "typed_again_in_try.ipynb",
    "import_and_constant_below_a_failure.ipynb", "better_below_a_failure.ipynb", "flood.ipynb", "takes_the_kernel_with_it.ipynb",
    "long_double.ipynb", "long_double_array.ipynb", "names_of_ours.ipynb", "second_try_below.ipynb", "second_try_in_two_cells.ipynb",
    "second_try_at_the_end.ipynb", "second_try_of_a_helper.ipynb", "second_try_in_copied_cells.ipynb", "second_try_then_the_name_again.ipynb",
    "name_again_by_accident.ipynb", "worse_second_try.ipynb", "copy_of_the_cell_uses_the_first.ipynb", "constant_below_a_failure.ipynb",
    "answer_in_a_copied_cell_of_another_exercise.ipynb", "better_helper_below_a_failure.ipynb", "helper_above_a_flood.ipynb",
    "setup_with_a_shell_line.ipynb", "setup_with_a_filled_table.ipynb", "setup_with_a_patched_class.ipynb", "setup_with_other_floats.ipynb",
    "utf16.ipynb", "browser.ipynb.txt", "zip_with_another_suffix.ipynb", "zipped.zip",
)  # fmt: skip
