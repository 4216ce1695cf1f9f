"""Hash the parts of segedu that decide points; a record stays valid as long as these hashes do not change.

Python sources are hashed without docstrings, comments and layout. Editing a docstring therefore regrades nobody, but
editing a case, a reference, the judge or a function that a sandbox can import regrades every affected submission.
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
# What decides points besides the lab's exercises: folders and files of segedu. notebook.py produces the judged cells.
PARTS = {
    "judge": ("teaching/checks", "grading/judging", "grading/submissions/notebook.py"),
    "sandbox": ("grading/sandbox",),
    "library": ("",),  # what the sandbox mounts, except LEFT_OUT and the files that the other hashes cover
}
_HASH_CACHE: dict[bytes, bytes] = {}  # hash of a source -> hash of its normalised form
_DOCSTRING_OWNERS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def decisive_hashes(lab: str, package: Path | None = None) -> dict[str, str]:
    """Hash all sources that decide the points of a lab, apart from its notebook.

    Args:
        lab: for example `04_metrics`.
        package: the folder of segedu; by default the imported one.

    Returns:
        One hash each for `exercises`, `judge`, `sandbox` and `library`.
    """
    folders = _exercise_folders(package)
    root = package or Path(segedu.__file__).parent
    files = {"exercises": _exercise_files(lab, folders)}
    files |= {name: list(_python_files(root, parts)) for name, parts in PARTS.items() if name != "library"}
    others = {path for paths in files.values() for path in paths}
    files["library"] = [path for path in _python_files(root, PARTS["library"], LEFT_OUT) if path not in others]
    return {name: _hash(paths, [root, *folders]) for name, paths in files.items()}


def tool_version(lab: str) -> str:
    """Return segedu's version and one hash of everything that decides a lab's points: `0.1.0+3f2a9c0d11e2`."""
    combined = "\n".join(f"{name} {value}" for name, value in sorted(decisive_hashes(lab).items()))
    return f"{segedu.__version__}+{hashlib.sha256(combined.encode()).hexdigest()[:12]}"


def normalised_source(source: bytes) -> bytes:
    """Return a module's syntax tree as text, without docstrings and comments; invalid Python is returned unchanged.

    >>> documented = b"def f(x):\\n    'Text.'\\n    return x  # why"
    >>> normalised_source(documented) == normalised_source(b"def f( x ): return x")
    True
    >>> normalised_source(b"x = 1") == normalised_source(b"x = 2")
    False
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return source
    for node in ast.walk(tree):
        if isinstance(node, _DOCSTRING_OWNERS) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    tokens: list[str] = []
    _append_tokens(tree, tokens)
    return "\n".join(tokens).encode(errors="surrogatepass")


def _append_tokens(node: object, tokens: list[str]) -> None:
    """Append a node's text; empty fields are skipped because Python versions differ in which fields exist."""
    if not isinstance(node, ast.AST):
        tokens.append(repr(node))
        return
    tokens.append(type(node).__name__)
    for name, value in ast.iter_fields(node):
        if value is None or value == []:
            continue
        tokens.append(f"{name}:")
        for part in value if isinstance(value, list) else [value]:
            _append_tokens(part, tokens)
        tokens.append(";")
    tokens.append(".")


def _python_files(root: Path, parts: Iterable[str], left_out: Iterable[str] = ()) -> Iterator[Path]:
    excluded = [root / path for path in left_out]
    for part in parts:
        files = [root / part] if part.endswith(".py") else sorted((root / part).rglob("*.py"))
        yield from (path for path in files if not any(path.is_relative_to(folder) for folder in excluded))


def _exercise_folders(package: Path | None) -> list[Path]:
    """The folders that hold packages of exercises; another course may add one."""
    if package is not None:
        return [package / "teaching" / "exercises"]
    return [Path(folder) for folder in importlib.import_module(EXERCISES).__path__]


def _exercise_files(lab: str, folders: list[Path]) -> list[Path]:
    """The sources of a lab's exercises, and of the other labs' exercises that they import."""
    files_by_lab: dict[str, list[Path]] = {}
    queue = [f"lab{lab}"]
    while queue:
        name = queue.pop()
        if name in files_by_lab:
            continue
        files_by_lab[name] = sorted(path for folder in folders for path in (folder / name).rglob("*.py"))
        for path in files_by_lab[name]:
            queue += _imported_labs(path)
    return [path for name in sorted(files_by_lab) for path in files_by_lab[name]]


def _imported_labs(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8", errors="replace")
    for part in text.split(f"{EXERCISES}.")[1:]:
        yield part.split(".")[0].split()[0].strip(",;'\"`") if part.strip() else ""


def _hash(files: Iterable[Path], roots: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        relative_path = next(path.relative_to(root) for root in roots if path.is_relative_to(root))
        source = path.read_bytes()
        digest_of_source = hashlib.sha256(source).digest()
        if digest_of_source not in _HASH_CACHE:
            _HASH_CACHE[digest_of_source] = hashlib.sha256(normalised_source(source)).digest()
        digest.update(relative_path.as_posix().encode() + b"\0" + _HASH_CACHE[digest_of_source])
    return digest.hexdigest()
