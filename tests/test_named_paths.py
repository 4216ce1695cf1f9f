"""Every file, folder and module of segedu that a text of the repository names is there, under this name."""

import ast
import importlib
import inspect
import re
import subprocess
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXTS = (".py", ".md", ".toml", ".yml", ".yaml", ".css", ".js", ".cff", "Makefile", ".ci/run")
# A change log speaks of its own time, and the structure's rules are shown files that may not be.
NOT_READ = ("CHANGELOG.md", "tests/test_structure.py", "tests/test_named_paths.py", "tests/submissions/")
PATH = re.compile(r"(?<![\w./-])segedu/[\w./*\[\]!?-]*[\w*]")
MODULE = re.compile(r"(?<![\w./-])segedu((?:\.[A-Za-z_]\w*)+)")
# Names that no file has, and why they are written all the same.
MADE_UP = {
    "segedu/teaching/exercises/labNN_topic": "stands for any lab",
    "segedu.teaching.exercises.lab00_tiny": "a lab that the tests make",
    "segedu.not_here": "a module that is written into each sandbox",
    "segedu.no_such": "what does not exist is refused",
    "segedu.example": "a module of a test",
    "segedu.sample": "a module of a test",
    "segedu.css": "a file of the site",
    "segedu.whl": "a wheel",
    "segedu.dice_per_class": "a row of a table that compares libraries",
    "segedu.mean_iou": "a row of the same table",
    "segedu.mean_iou_per_image": "a row of the same table",
}


def texts():
    run = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        pytest.skip("not a git checkout: the files of the repository are not known")
    names = (name for name in run.stdout.split("\0") if name.endswith(TEXTS) and not name.startswith(NOT_READ))
    return {name: (ROOT / name).read_text(encoding="utf-8") for name in names if (ROOT / name).is_file()}


def names_in_modules():
    """Module -> the names that its source defines, imports or assigns."""
    found = {}
    for path in (ROOT / "segedu").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        words = {"__file__", "__path__", "__version__"}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                words.add(node.name)
            elif isinstance(node, (ast.Name, ast.alias)):
                words.add(node.id if isinstance(node, ast.Name) else (node.asname or node.name).partition(".")[0])
        found[module] = words
    return found


def missing(text, modules):
    """Paths and dotted names in a text that lead nowhere."""
    for match in PATH.finditer(text):
        name = match[0].rstrip(".")
        there = any(ROOT.glob(name)) if re.search(r"[*?\[]", name) else (ROOT / name).exists()
        if not there and name not in MADE_UP and not (ROOT / f"{name}.py").is_file():
            yield name
    for match in MODULE.finditer(text):
        parts = match[0].split(".")
        known = next(i for i in range(len(parts), 0, -1) if ".".join(parts[:i]) in modules)
        rest = parts[known:]
        if rest and rest[0] not in modules[".".join(parts[:known])] and ".".join(parts[: known + 1]) not in MADE_UP:
            yield match[0]


def test_no_text_names_an_old_path():
    modules = names_in_modules()
    found = [f"{file}: {name}" for file, text in texts().items() for name in missing(text, modules)]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("see segedu/training.py", ["segedu/training.py"]),
        ("sources = ['segedu/weights/street_*.py']", ["segedu/weights/street_*.py"]),
        ("from segedu.grading.zygote import serve", ["segedu.grading.zygote"]),
        ("`segedu.semantic.unet.NoNet`", ["segedu.semantic.unet.NoNet"]),
        ("{segedu}`segedu/semantic/unet.py#UNet`, segedu.semantic.unet.UNet, segedu/weights/own/street_*.py", []),
    ],
)
def test_what_leads_nowhere_is_found(text, found):
    assert list(missing(text, names_in_modules())) == found


CELL = re.compile(r"^```+(?:\{code-cell\}|python)[^\n]*\n(.*?)^```+", re.M | re.S)


def code_of(page: str) -> str:
    """The code of a page: its cells and examples, without those that are excerpts."""
    found = []
    for block in CELL.findall(page):
        block = re.sub(r"\A---\n.*?^---\n", "", block, flags=re.M | re.S)  # the cell's options
        block = "\n".join(line for line in block.splitlines() if not line.startswith((":", "%", "!")))
        try:
            ast.parse(block)
        except SyntaxError:
            continue
        found.append(block)
    return "\n".join(found)


def module_named(name: str):
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def names_used(code: str) -> list[tuple[str, str]]:
    """(module, name) of everything that some code imports from segedu, or reads from a module that it imports."""
    nodes = list(ast.walk(ast.parse(code)))
    found, modules = [], {}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "segedu":
            found += [(node.module, alias.name) for alias in node.names]
            for alias in node.names:
                if isinstance(getattr(module_named(node.module), alias.name, types.ModuleType("")), types.ModuleType):
                    modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    own = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and isinstance(node.value, ast.Name):
            name = node.value.id
            if name in modules.keys() - own and module_named(modules[name]):
                found.append((modules[name], node.attr))
    return found


def is_there(module: str, name: str) -> bool:
    return hasattr(module_named(module), name) or module_named(f"{module}.{name}") is not None


def test_what_code_uses_of_segedu_is_there():
    """In the pages, the labs and the tests; that a name is no longer in its module is otherwise seen when it runs."""
    used = set()
    for name, text in texts().items():
        if name.endswith(".py") and not name.startswith("segedu/"):
            used |= {(name, *each) for each in names_used(text)}
        elif name.startswith("course/") and name.endswith(".md"):
            used |= {(name, *each) for each in names_used(code_of(text))}
    assert sum(name.startswith("course/") for name, *_ in used) > 400
    assert sum(name.startswith("solutions/") for name, *_ in used) > 100
    assert [each for each in sorted(used) if not is_there(*each[1:])] == []


def test_a_name_that_leads_nowhere_is_found():
    page = "```{code-cell} python\n---\ntags: [hide-input]\n---\nfrom segedu import nowhere\nfrom segedu.ops import boxes\n```\n"
    page += "```python\nboxes.box_iou(boxes.no_such)\n```\n```python\nan excerpt ...\n```\n"
    assert [is_there(*each) for each in names_used(code_of(page))] == [False, True, True, False]


EXCERPT = re.compile(r"^```\{literalinclude\} /(\S+)\n(?::\w.*\n)*?:pyobject: (\S+)", re.M)


def defined_in(code: str) -> set[str]:
    """The functions, classes and methods of a file, as `Class.method`."""
    found = set()
    for node in ast.parse(code).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
    return found


def missing_excerpts(page: str) -> list[tuple[str, str]]:
    """(file, object) of each part of the library that a page shows and that is not there."""
    return [
        (file, name)
        for file, name in EXCERPT.findall(page)
        if not (ROOT / file).is_file() or name not in defined_in((ROOT / file).read_text(encoding="utf-8"))
    ]


def test_excerpts_of_the_library_on_pages_are_there():
    pages = {name: text for name, text in texts().items() if name.startswith("course/") and name.endswith(".md")}
    assert sum(len(EXCERPT.findall(text)) for text in pages.values()) > 50
    assert {name: gone for name, text in pages.items() if (gone := missing_excerpts(text))} == {}


def test_an_excerpt_that_is_not_there_is_found():
    page = "```{literalinclude} /segedu/ops/boxes.py\n:language: python\n:pyobject: no_such\n```\n"
    assert missing_excerpts(page) == [("segedu/ops/boxes.py", "no_such")]
    assert missing_excerpts(page.replace("no_such", "box_iou")) == []


def wrong_keywords(code: str) -> list[tuple[str, str]]:
    """(function, keyword) of each call of a function or class of segedu with a keyword that it does not have."""
    nodes = list(ast.walk(ast.parse(code)))
    callables, found = {}, []
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "segedu":
            for alias in node.names:
                callables[alias.asname or alias.name] = getattr(module_named(node.module), alias.name, None)
    own = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own |= {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    for node in nodes:
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        function = node.func
        if function.id == "partial" and node.args and isinstance(node.args[0], ast.Name):
            function = node.args[0]
        called = callables.get(function.id)
        if function.id in own or not (inspect.isfunction(called) or inspect.isclass(called)):
            continue
        parameters = inspect.signature(called).parameters.values()
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            known = {parameter.name for parameter in parameters}
            found += [
                (function.id, keyword.arg) for keyword in node.keywords if keyword.arg and keyword.arg not in known
            ]
    return found


def test_keywords_of_calls_on_pages_and_in_labs_are_there():
    """A renamed argument that a page still passes is otherwise seen when the site is built."""
    found = {}
    for name, text in texts().items():
        if name.startswith("solutions/") and name.endswith(".py"):
            found[name] = wrong_keywords(text)
        elif name.startswith("course/") and name.endswith(".md"):
            found[name] = wrong_keywords(code_of(text))
    assert {name: keywords for name, keywords in found.items() if keywords} == {}


def test_a_keyword_that_is_not_there_is_found():
    code = "from functools import partial\nfrom segedu.viz import show\nfrom segedu.ops.boxes import box_iou\n"
    code += "box_iou(a, b, no_such=1)\npartial(box_iou, none=2)\nbox_iou(boxes1=a, boxes2=b)\n"
    assert wrong_keywords(code) == [("box_iou", "no_such"), ("box_iou", "none")]
