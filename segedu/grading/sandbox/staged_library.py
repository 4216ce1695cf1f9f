"""The copy of the library that a sandbox mounts, without what a lab asks students to write.

A hidden module is replaced on disk by a stub with the same names. Its functions and classes raise `NotAvailableError`
when they are called; constants and imports stay, so that everything built on the module can still be imported. The copy
contains neither the code itself nor a compiled form of it, so there is nothing to read, disassemble or load.
"""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import segedu

# Folders and files of segedu that no student's cell needs.
LEFT_OUT = (
    "grading", "cli.py", "command_errors.py", "teaching/exercises", "teaching/authoring", "teaching/mutants",
    "teaching/evidence", "teaching/capstone/template.py",
)  # fmt: skip
STUB_MODULE = "not_here"

_NOT_HERE = '''"""What stands in for the parts of the library that this lab asks for."""


class NotAvailableError(RuntimeError):
    """A part of the library that a lab asks students to write was called while grading."""


def not_here(name):
    """A function that says that `name` is not available."""

    def missing(*_, **__):
        raise NotAvailableError(f"{name} is not available while grading: this lab asks you to write it yourself")

    missing.__name__ = missing.__qualname__ = name.rsplit(".", 1)[-1]
    return missing
'''
_EXERCISES = '''"""While grading, checks are made elsewhere."""

from segedu.not_here import not_here

load = not_here("segedu.teaching.exercises.load")


def names():
    """The labs: none here."""
    return []
'''
_LAB = '''"""While grading, checks are made elsewhere."""

exercises = []


def check(*_, **__):
    """Does nothing: your functions are checked on new inputs, outside of this process."""


def use(function, *_, **__):
    """Your function, as it is."""
    return function
'''


def build_stage(hides: list[str], destination: Path, labs: list[str] | None = None) -> Path:
    """Copy the imported library, with stubs for what a lab hides, and return the folder to be put on `sys.path`.

    Args:
        hides: modules such as `segedu.ops.boxes`; of a package, everything in it.
        destination: a folder that does not exist yet.
        labs: packages of `segedu.teaching.exercises` to keep as stubs; by default all of them.

    Raises:
        ValueError: if `hides` names a module that does not exist.
    """
    package = Path(segedu.__file__).resolve().parent
    destination = Path(destination)
    copy = destination / "segedu"

    def ignore(folder: str, names: list[str]) -> set[str]:
        relative = Path(folder).relative_to(package)
        left_out = {name for name in names if (relative / name).as_posix() in LEFT_OUT}
        return left_out | {name for name in names if name == "__pycache__" or name.endswith((".pyc", ".part"))}

    shutil.copytree(package, copy, ignore=ignore)
    (copy / f"{STUB_MODULE}.py").write_text(_NOT_HERE)
    for module in hides:
        _hide(module, destination)
    if labs is None:
        labs = sorted(path.name for path in (package / "teaching" / "exercises").glob("lab*") if path.is_dir())
    for lab in ("", *labs):
        folder = copy / "teaching" / "exercises" / lab
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").write_text(_LAB if lab else _EXERCISES)
    for path in (destination, *destination.rglob("*")):  # another user reads it
        path.chmod(0o755 if path.is_dir() else 0o644)
    return destination


def _hide(module: str, destination: Path) -> None:
    path = destination.joinpath(*module.split("."))
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    for file in files:
        if module.split(".")[0] != "segedu" or not file.is_file():
            raise ValueError(f"hides holds {module!r}, expected a module of segedu")
        name = ".".join(file.relative_to(destination).with_suffix("").parts).removesuffix(".__init__")
        file.write_text(stub_source(file.read_text(), name))


def stub_source(source: str, module: str) -> str:
    """Return the stub of a module: its docstring, imports and constants, and names that raise `NotAvailableError`."""
    tree = ast.parse(source)
    defined = {node.name for node in tree.body if isinstance(node, _DEFINITIONS)}
    imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    future = [node for node in imports if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    lines = [repr(ast.get_docstring(tree) or module), *map(ast.unparse, future)]
    lines.append(f"from segedu.{STUB_MODULE} import not_here as _not_here")
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)) and node not in future:
            lines.append(ast.unparse(node))
        elif isinstance(node, ast.ClassDef):
            lines.append(_stub_class(node, module))
        elif isinstance(node, _DEFINITIONS):
            lines.append(f"{node.name} = _not_here({module + '.' + node.name!r})")
        elif _is_constant(node, defined):
            lines.append(ast.unparse(node))
    return "\n".join(lines) + "\n"


_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _is_constant(node: ast.stmt, defined: set[str]) -> bool:
    """Whether a statement is an assignment that runs no code of the module: no lambda, and no stubbed name."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return True
    if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
        return False
    parts = list(ast.walk(node.value))
    names = {part.id for part in parts if isinstance(part, ast.Name)}
    return not names & defined and not any(isinstance(part, (ast.Lambda, ast.NamedExpr)) for part in parts)


def _stub_class(node: ast.ClassDef, module: str) -> str:
    """Return a class that can be named, tested against and derived from, but not instantiated."""
    qualified_name = f"{module}.{node.name}"
    bases = [ast.unparse(base) for base in node.bases]
    if any(base.endswith(("Error", "Exception", "Warning")) for base in bases):  # an exception contains no answer
        return f"class {node.name}({', '.join(bases)}):\n    pass"
    lines = [f"class {node.name}:", f"    __new__ = _not_here({qualified_name!r})"]
    for part in node.body:
        if isinstance(part, _DEFINITIONS) and not part.name.startswith("__"):
            lines.append(f"    {part.name} = staticmethod(_not_here({qualified_name + '.' + part.name!r}))")
        elif isinstance(part, (ast.Assign, ast.AnnAssign)) and isinstance(part.value, ast.Constant):
            lines.append("    " + ast.unparse(part))
    return "\n".join(lines)
