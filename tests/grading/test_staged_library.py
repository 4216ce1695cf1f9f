"""The staged library: what is hidden is not there in any form, and everything else works."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import segedu.teaching.exercises
from segedu.grading.sandbox.kernel_pool import KernelPool, Step
from segedu.grading.sandbox.staged_library import build_stage, stub_source

SOURCE = '''
"""The docstring stays."""
from __future__ import annotations
import math
from typing import TYPE_CHECKING
from functools import lru_cache
if TYPE_CHECKING:
    from pathlib import Path

SIZES = (572, 388)
LIMIT: int = 4
TABLE = {name: len(name) for name in ("a", "bb")}
made = solve(3)
square = lambda x: x * x
print("never")

@lru_cache
def solve(x):
    """The secret."""
    return math.sqrt(x)

class Broken(ValueError):
    """An exception."""

class Net(Base, metaclass=Meta):
    depth = 4
    built = solve(1)
    def __init__(self, x):
        self.x = x
    @classmethod
    def small(cls):
        return cls(1)
'''


def _python(stage: Path, source: str) -> str:
    """Runs source against the stage alone; the installed library must not answer in its place."""
    head = f"import sys; sys.path[:] = [{str(stage)!r}] + [p for p in sys.path if p != {str(_ROOT)!r}]\n"
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-c", head + textwrap.dedent(source)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def stage(tmp_path_factory) -> Path:
    hides = ["segedu.ops.boxes", "segedu.semantic.unet", "segedu.metrics"]
    return build_stage(hides, tmp_path_factory.mktemp("staged") / "stage", labs=["lab04_metrics"])


def test_stub_keeps_names_and_nothing_else():
    stub = stub_source(SOURCE, "segedu.example")
    for gone in ("sqrt", "secret", "never", "solve(3)", "lambda", "@lru_cache", "self.x", "solve(1)", "cls(1)"):
        assert gone not in stub, gone
    for kept in ("The docstring stays", "SIZES = (572, 388)", "LIMIT: int = 4", "depth = 4", "import math"):
        assert kept in stub, kept


@pytest.fixture(scope="module")
def seen(stage) -> list[str]:
    """What one process that imports the stage prints, a line a question; importing torch is the slow part."""
    source = """
        import importlib, pkgutil, segedu, torch
        names = [m.name for m in pkgutil.walk_packages(segedu.__path__, "segedu.")]
        for name in names: importlib.import_module(name)
        print(*names)
        print(segedu.__file__)

        from segedu.not_here import NotAvailableError
        from segedu.ops.boxes import box_iou
        from segedu.semantic import unet
        class Mine(unet.UNet):
            def __init__(self): pass
        said = []
        for call in (box_iou, unet.UNet, unet.DoubleConv, Mine, unet.UNet.forward, unet.unet_out_size):
            try:
                call(1)
            except NotAvailableError as error:
                said.append(str(error))
        print(len(said), isinstance(3, unet.UNet), issubclass(NotAvailableError, RuntimeError))
        print(said[0])

        from segedu.losses.cross_entropy import cross_entropy
        print(float(cross_entropy(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.int64))) > 0.69)

        from segedu.teaching.exercises.lab04_metrics import check, use
        print(check(len), use(len) is len)
        import segedu.teaching.exercises
        try:
            segedu.teaching.exercises.load("04_metrics")
        except NotAvailableError as error:
            print(error)
    """
    return _python(stage, source).splitlines()


def test_every_module_can_be_imported(seen, stage):
    names = set(seen[0].split())
    assert seen[1] == str(stage / "segedu" / "__init__.py")
    assert "segedu.teaching.checks.remote" in names
    assert not {"segedu.cli", "segedu.grading", "segedu.teaching.authoring.notebooks"} & names


def test_stub_says_what_it_is(seen):
    assert seen[2] == "6 False True"
    assert seen[3] == (
        "segedu.ops.boxes.box_iou is not available while grading: this lab asks you to write it yourself"
    )


def test_other_modules_are_whole(seen):
    assert seen[4] == "True"


def test_checks_of_the_lab_do_nothing(seen, stage):
    assert seen[5] == "None True"
    assert seen[6].startswith("segedu.teaching.exercises.load is not available while grading")
    assert [path.name for path in (stage / "segedu/teaching/exercises").iterdir() if path.is_dir()] == ["lab04_metrics"]


def test_nothing_of_the_code_is_left(stage):
    # numba makes the folder, empty, when a module with a compiled loop is imported: `seen` has done so
    assert not list(stage.rglob("__pycache__/*")) and not list(stage.rglob("*.pyc"))
    hidden = Path(__file__).resolve().parents[2] / "segedu" / "ops" / "boxes.py"
    secrets = [line.strip() for line in hidden.read_text().splitlines() if "return" in line and len(line) > 30]
    assert secrets
    text = (stage / "segedu" / "ops" / "boxes.py").read_text()
    assert not [line for line in secrets if line in text]


def test_another_user_can_read_it(stage):
    for path in stage.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path


def test_labs_are_found(tmp_path):
    stage = build_stage([], tmp_path / "stage")
    package = Path(__file__).resolve().parents[2] / "segedu" / "teaching" / "exercises"
    labs = {path.name for path in package.glob("lab*") if path.is_dir()}
    assert {path.name for path in (stage / "segedu/teaching/exercises").iterdir() if path.is_dir()} == labs


@pytest.mark.parametrize("module", ["segedu.no_such", "numpy", "segedu.ops.boxes.box_iou"])
def test_unknown_module_is_refused(tmp_path, module):
    with pytest.raises(ValueError, match="expected a module of segedu"):
        build_stage([module], tmp_path / "stage")


@pytest.mark.parametrize("lab", segedu.teaching.exercises.names())
def test_the_library_can_be_imported_whatever_a_lab_hides(tmp_path, lab, server):
    """Helper cells import viz, datasets and training; a stub must not stand in their way."""
    hides = sorted({module for exercise in segedu.teaching.exercises.load(lab).exercises for module in exercise.hides})
    source = """
        import importlib, pkgutil, segedu
        for module in pkgutil.walk_packages(segedu.__path__, "segedu."): importlib.import_module(module.name)
        print(segedu.__file__)
    """
    with KernelPool(build_stage(hides, tmp_path / "stage")) as pool:
        step = pool.run([Step("helper", "imports", textwrap.dedent(source))]).steps[0]
    assert hides and step.status == "ok", step.traceback
    assert step.output.endswith("stage/segedu/__init__.py\n")
