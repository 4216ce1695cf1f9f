"""What of segedu decides points, as hashes: a record is valid as long as they are what they were when it was made.

Python sources are compared without docstrings, comments and layout. So an edited sentence regrades nobody, while an
edited case, reference, rule of the judge, or function that a sandbox can import regrades everybody whom it concerns.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import segedu
from segedu.grading.sandbox.staged_library import LEFT_OUT

EXERCISES = "segedu.teaching.exercises"
# Besides the exercises of the lab, as folders and files below segedu. The notebook's reader makes the judged cells.
PARTS = {
    "judge": ("teaching/checks", "grading/judging", "grading/submissions/notebook.py"),
    "sandbox": ("grading/sandbox",),
    "library": ("",),  # what the sandbox mounts: all but what is left out there, and what has a hash of its own
}
_KNOWN: dict[bytes, bytes] = {}  # hash of a source -> hash of what it does: most files are those of the last lab
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def decisive_hashes(lab: str, package: Path | None = None) -> dict[str, str]:
    """The hashes of all sources that decide the points of a lab, apart from its notebook.

    Args:
        lab: `04_metrics`.
        package: the folder of segedu; the one that is imported here where None.

    Returns:
        `exercises`, `judge`, `sandbox` and `library`, each a hash.
    """
    folders = _exercise_folders(package)
    root = package or Path(segedu.__file__).parent
    files = {"exercises": _exercise_files(lab, folders)}
    files |= {name: list(_python_files(root, parts)) for name, parts in PARTS.items() if name != "library"}
    named = {path for found in files.values() for path in found}
    files["library"] = [path for path in _python_files(root, PARTS["library"], LEFT_OUT) if path not in named]
    return {name: _hash(found, [root, *folders]) for name, found in files.items()}


def tool_version(lab: str) -> str:
    """The version of segedu and one hash of all that decides the points of a lab.

    Args:
        lab: `04_metrics`.

    Returns:
        For example `0.1.0+3f2a9c0d11e2`.
    """
    together = "\n".join(f"{name} {value}" for name, value in sorted(decisive_hashes(lab).items()))
    return f"{segedu.__version__}+{hashlib.sha256(together.encode()).hexdigest()[:12]}"


def without_words(source: bytes) -> bytes:
    """What a source does, as text: its syntax tree without docstrings, comments and positions.

    Args:
        source: of a Python module; one that Python cannot parse is returned as it is.

    Returns:
        The same bytes for sources that differ in words and layout alone.

    >>> without_words(b"def f(x):\\n    'Text.'\\n    return x  # why") == without_words(b"def f( x ): return x")
    True
    >>> without_words(b"x = 1") == without_words(b"x = 2")
    False
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return source
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    words: list[str] = []
    _write(tree, words)
    return "\n".join(words).encode(errors="surrogatepass")


def _write(node: object, words: list[str]) -> None:
    """Fields that are empty are left out, because versions of Python differ in which of them there are."""
    if not isinstance(node, ast.AST):
        words.append(repr(node))
        return
    words.append(type(node).__name__)
    for name, value in ast.iter_fields(node):
        if value is None or value == []:
            continue
        words.append(f"{name}:")
        for part in value if isinstance(value, list) else [value]:
            _write(part, words)
        words.append(";")
    words.append(".")


def _python_files(root: Path, parts: Iterable[str], left_out: Iterable[str] = ()) -> Iterator[Path]:
    out = [root / path for path in left_out]
    for part in parts:
        found = [root / part] if part.endswith(".py") else sorted((root / part).rglob("*.py"))
        yield from (path for path in found if not any(path.is_relative_to(folder) for folder in out))


def _exercise_folders(package: Path | None) -> list[Path]:
    """Where packages of exercises lie: a course of one's own may add a folder."""
    if package is not None:
        return [package / "teaching" / "exercises"]
    return [Path(folder) for folder in importlib.import_module(EXERCISES).__path__]


def _exercise_files(lab: str, folders: list[Path]) -> list[Path]:
    """The sources of a lab's exercises, and of those of other labs that they import."""
    found: dict[str, list[Path]] = {}
    queue = [f"lab{lab}"]
    while queue:
        name = queue.pop()
        if name in found:
            continue
        found[name] = sorted(path for folder in folders for path in (folder / name).rglob("*.py"))
        for path in found[name]:
            queue += _labs_named(path)
    return [path for name in sorted(found) for path in found[name]]


def _labs_named(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8", errors="replace")
    for part in text.split(f"{EXERCISES}.")[1:]:
        yield part.split(".")[0].split()[0].strip(",;'\"`") if part.strip() else ""


def _hash(files: Iterable[Path], roots: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        inside = next(path.relative_to(root) for root in roots if path.is_relative_to(root))
        source = path.read_bytes()
        name = hashlib.sha256(source).digest()
        if name not in _KNOWN:
            _KNOWN[name] = hashlib.sha256(without_words(source)).digest()
        digest.update(inside.as_posix().encode() + b"\0" + _KNOWN[name])
    return digest.hexdigest()
