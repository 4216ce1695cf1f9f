"""The rules of the house, read from source text.

Each rule is a function from (path, source) to a list of offences, and each is shown an offender first
(`OFFENDERS`): a rule that cannot fail holds nothing.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
METHODS = ("unsupervised", "semantic", "detection", "instance", "panoptic", "promptable")

# Of other methods a method imports only what its paper extends or uses.
ANCESTORS = """
grab_cut <- graph_cut; selective_search <- felzenszwalb; rcnn <- selective_search; fast_rcnn <- rcnn;
faster_rcnn <- fast_rcnn; mask_rcnn <- faster_rcnn; condinst <- fcos; deeplabv1 <- dense_crf; deeplabv2 <- dense_crf;
deeplabv3plus <- deeplabv3; res_unet <- unet; dense_unet <- encoder_unet; stardist <- unet; denoiseg <- unet;
signed_distance <- watershed; nnunet <- unet3d; omnipose <- cellpose;
panoptic_fpn <- mask_rcnn; detr_panoptic <- detr; maskformer <- detr; mask2former <- maskformer;
oneformer <- mask2former; mobile_sam <- sam; everything <- sam; detect_then_segment <- sam
"""
ANCESTOR_OF = dict(line.split(" <- ") for line in re.split(r";\s", ANCESTORS.strip()))

# What a part of segedu may import of segedu. Parts that are not listed stand on top and may import what they
# name, within FORBIDDEN.
MAY_IMPORT = {
    "layers": ["layers.images", "ops.boxes", "ops.crowds", "ops.exporting", "ops.nms", "ops.roi_align"],
    "ops": ["ops.box_scale", "ops.boxes", "ops.compiled", "ops.exporting", "ops.label_maps", "ops.roi_pool"],
    "backbones": ["layers", "ops", "backbones"],
    "losses": ["layers", "ops", "losses"],
    "metrics": ["layers", "ops", "metrics"],
    **dict.fromkeys(METHODS, ["layers", "ops", "backbones", "losses"]),
    "datasets": ["ops", "datasets"],
    "training": ["layers", "metrics", "checkpoints", "devices"],
    **dict.fromkeys(("checkpoints", "devices"), []),
    "viz": ["ops"],
}
FORBIDDEN = dict.fromkeys(("checks", "grading", "gradebook"), [*METHODS, "exercises"])
LOADER = ("exercises", "exercises.load")  # the judge loads an exercise by name, and so names none
PACKAGES_OF = {"layers": {"torch"}, "ops": {"torch", "numpy", "scipy"}}
FILES_WITH = {"pycocotools": "masks", "numba": "compiled", "torchvision": "nms|roi_align|roi_pool"}  # of ops
NOT_LIBRARY = {"course", "labs", "solutions", "tests"}

VAGUE = {"utils", "util", "common", "base", "helpers", "helper", "misc"}
FOLDERS = {"course", "labs", "solutions", "segedu", "tests", "jupyter-book-config", ".ci", ".github"}
PARTS = {*MAY_IMPORT, *FORBIDDEN, "exercises", "widgets", "weights"}

FILE_LINES, BODY_LINES, ARGUMENTS = 400, 40, 8
# (path, function or class): the reason why the limit does not hold there
LONG_BODIES: dict[tuple[str, str], str] = {}
MANY_ARGUMENTS: dict[tuple[str, str], str] = {}

HEADER = ("Paper", "Idea", "Simplified", "Shapes", "Quality", "Course", "Lab")
# Whose functions are read on the site: every argument described, types in the signature only.
DOCUMENTED = ("layers", "ops", "backbones", "losses", "metrics", *METHODS, "datasets", "viz", "training")


def imported(path, source):
    """Full dotted names of all imports, wherever they stand: `from a.b import c` gives a.b.c."""
    folders = Path(path).parent.parts
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = folders[: len(folders) - node.level + 1] if node.level else ()
            prefix = ".".join([*start, *filter(None, [node.module])])
            yield from (f"{prefix}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            yield from (str(a.value) for a in node.args[:1] if isinstance(a, ast.Constant))


def within(name, prefixes):
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def part_of(path):
    """segedu/ops/boxes.py -> ops, segedu/viz.py -> viz."""
    return Path(path).parts[1].removesuffix(".py")


def import_rule(path, source):
    part, stem = part_of(path), Path(path).stem
    for name in imported(path, source):
        root, _, inner = name.partition(".")
        if root in NOT_LIBRARY:
            yield f"the library imports {name}"
        elif root != "segedu":
            if part in PACKAGES_OF and re.fullmatch(rf"segedu/ops/({FILES_WITH.get(root)})\.py", path):
                continue
            strange = part in PACKAGES_OF and root not in PACKAGES_OF[part] | sys.stdlib_module_names
            if strange or root == "numba":
                yield f"{part} imports {root}"
        elif within(inner, FORBIDDEN.get(part, ())) and inner not in LOADER:
            yield f"{part} imports {name}"
        elif part in MAY_IMPORT and not within(inner, MAY_IMPORT[part]) and not may_import_method(path, stem, inner):
            yield f"{part} imports {name}"


def may_import_method(path, stem, inner):
    part, *rest = inner.split(".")
    if part_of(path) not in METHODS or part not in METHODS or not rest:
        return False
    own_folder = len(Path(path).parts) > 3 and rest[0] == Path(path).parts[2]  # promptable/sam/
    paper, its = (name.split("_")[0].removesuffix("3d") for name in (stem, rest[0]))
    several = its in {"nnunet", "cellpose", "stardist", "mask2former", "oneformer"}  # files of one paper
    return own_folder or rest[0] == ANCESTOR_OF.get(stem) or several and its in (paper, ANCESTOR_OF.get(stem))


def name_rule(path, source):
    yield from (f"the name {part} says nothing" for part in Path(path).with_suffix("").parts if part in VAGUE)


def unfinished_rule(path, source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise) and node.exc and "NotImplementedError" in ast.unparse(node.exc):
            yield f"line {node.lineno} raises NotImplementedError"
    for match in re.finditer(r"\b(TODO|FIXME|XXX)\b", source):
        yield f"line {source.count(chr(10), 0, match.start()) + 1}: {match[0]}"


def file_length_rule(path, source):
    lines = len(source.splitlines())
    if lines > FILE_LINES:
        yield f"{lines} lines, at most {FILE_LINES}"


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def definitions(tree, prefix=""):
    """(qualified name, node, class it is in or None) of all functions and classes."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            yield prefix + node.name, node, tree if isinstance(tree, ast.ClassDef) else None
            yield from definitions(node, f"{prefix}{node.name}.")
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            yield from definitions(node, prefix)


def body_length_rule(path, source):
    for name, node, _ in definitions(ast.parse(source)):
        if isinstance(node, FUNCTIONS):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = node.end_lineno - body[0].lineno + 1 if body else 0
            if lines > BODY_LINES and (path, name) not in LONG_BODIES:
                yield f"{name} has a body of {lines} lines, at most {BODY_LINES}"


def arguments(node):
    spec = node.args
    return [*spec.posonlyargs, *spec.args, *filter(None, [spec.vararg]), *spec.kwonlyargs, *filter(None, [spec.kwarg])]


def constructor_rule(path, source):
    # Only an __init__ that is written out counts: a dataclass without one is a record.
    for name, node, owner in definitions(ast.parse(source)):
        if owner is not None and node.name == "__init__":
            count = len(arguments(node)) - 1  # without self
            if count > ARGUMENTS and (path, name) not in MANY_ARGUMENTS:
                yield f"{name} has {count} arguments, at most {ARGUMENTS}"


def docstring_rule(path, source):
    tree = ast.parse(source)
    if not ast.get_docstring(tree) and source.strip():
        yield "the module has no docstring"
    for name, node, owner in definitions(tree):
        if is_private(name) or not is_member(tree, node, owner):
            continue
        if not ast.get_docstring(node) and node.name != "forward" and not overrides(node, owner):
            yield f"{name} has no docstring"


def is_private(name):
    return any(part.startswith("_") for part in name.split("."))


def is_member(tree, node, owner):
    """Defined in the module or in a class of the module, not inside a function."""
    return node in tree.body or (owner in tree.body and node in owner.body)


def overrides(node, owner):
    """A method of a class with bases may be documented there."""
    return owner is not None and bool(owner.bases) and isinstance(node, FUNCTIONS)


def section(docstring, title):
    """The lines of a Google section, or None."""
    match = re.search(rf"^{title}:\n((?:[ ]+.*\n?|\n)*)", docstring, flags=re.M)
    return match and match[1]


def google_rule(path, source):
    if part_of(path) not in DOCUMENTED:
        return
    tree = ast.parse(source)
    for name, node, owner in definitions(tree):
        text = ast.get_docstring(node)
        if is_private(name) or not text or not isinstance(node, FUNCTIONS) or not is_member(tree, node, owner):
            continue
        if overrides(node, owner):  # its arguments are described where it comes from
            continue
        given = {a.arg for a in arguments(node)} - {"self", "cls"}
        described = set(re.findall(r"^    \**(\w+):", section(text, "Args") or "", flags=re.M))
        if given != described:
            yield f"{name}: Args has {sorted(described)}, the signature {sorted(given)}"
        if any(a.annotation is None for a in arguments(node) if a.arg not in ("self", "cls")) or not node.returns:
            yield f"{name}: a type is missing in the signature"
        if re.search(r"^    \w+ \((?!.*\):.*\))[^)]*\):", section(text, "Args") or "", flags=re.M):
            yield f"{name}: types belong in the signature only"
        if node.returns and ast.unparse(node.returns) != "None" and not re.search(r"^(Returns|Yields):", text, re.M):
            if owner is None or not any("property" in ast.unparse(d) for d in node.decorator_list):
                yield f"{name}: no Returns section"
        if any(isinstance(n, ast.Raise) and n.exc for n in ast.walk(node)) and section(text, "Raises") is None:
            yield f"{name}: no Raises section"


def header_rule(path, source):
    if part_of(path) not in METHODS or Path(path).name == "__init__.py":
        return
    text = ast.get_docstring(ast.parse(source)) or ""
    for field in HEADER:
        if not re.search(rf"^{field}: *\S", text, flags=re.M):
            yield f"the header has no field {field}:"


def version_rule(path, source):
    if path != "segedu/__init__.py":
        return
    for node in ast.parse(source).body:
        if ast.unparse(node).split(" =")[0] != "__version__" and not isinstance(node, ast.Expr):
            yield f"line {node.lineno}: segedu/__init__.py holds the version only"


def folder_rule(path, source=""):
    """For any file of the repository: its top folder is a known one, and segedu is two folders deep."""
    top, *rest = Path(path).parts
    if rest and top not in FOLDERS:
        yield f"{top}/ is no folder of this house"
    if top == "segedu" and len(rest) > 1 and rest[0] not in PARTS:
        yield f"segedu/{rest[0]}/ is no part of the library"
    deeper = len(rest) > 2 and rest[:2] != ["promptable", "sam"] and rest[0] != "exercises"
    if top == "segedu" and (deeper or len(rest) > 3):
        yield "deeper than segedu/part/file.py"


LIBRARY_RULES = [import_rule, name_rule, unfinished_rule, file_length_rule, body_length_rule, constructor_rule]
LIBRARY_RULES += [docstring_rule, google_rule, header_rule, version_rule]
TEST_RULES = [name_rule, file_length_rule]

HEAD = '"""' + "\n".join(f"{field}: x" for field in HEADER) + '"""\n'
AREA = '''"""Module."""
def area(boxes: Tensor, unit: float = 1.0) -> Tensor:
    """Area.

    Args:
        boxes: (N, 4).
        unit: metres a pixel.

    Returns:
        (N,).

    Raises:
        ValueError: bad.
    """
    raise ValueError(unit)
'''
UNET = "segedu/semantic/unet.py"
FROM_OF_UNET = [f"from segedu.{part}" for part in ("datasets", "metrics", "training", "viz", "semantic.res_unet")]
FROM_OF_UNET += ["from .res_unet", "from ..datasets", "from segedu.datasets.cells", "from numba"]
FROM_OF_NMS = ["from pycocotools", "from numba.core", "from segedu.ops.matching", "from .matching", "from segedu"]
BEFORE = "        unit: metres a pixel.\n;unit: m;unit: m;unit: float = 1.0; -> Tensor;Returns:;Raises:".split(";")
AFTER = ";units: m;unit (float): m;unit=1.0;;It gives:;Errors:".split(";")
OFFENDERS = [
    (import_rule, "segedu/layers/conv.py", "import torchvision"),
    (import_rule, "segedu/layers/conv.py", "from scikit import image"),
    *((import_rule, "segedu/ops/nms.py", f"{line} import x") for line in FROM_OF_NMS),
    (import_rule, "segedu/losses/dice.py", "from segedu.semantic.unet import UNet"),
    (import_rule, "segedu/losses/dice.py", "def f():\n    from segedu import metrics"),
    (import_rule, "segedu/losses/dice.py", "import importlib\nimportlib.import_module('segedu.metrics')"),
    (import_rule, "segedu/metrics/semantic.py", "import segedu.viz"),
    (import_rule, "segedu/semantic/fcn.py", "from segedu.semantic.unet import UNet"),
    *((import_rule, UNET, f"{line} import x") for line in FROM_OF_UNET),
    (import_rule, "segedu/datasets/cells.py", "from segedu.metrics.confusion import confusion_matrix"),
    (import_rule, "segedu/viz.py", "from segedu.datasets import shapes"),
    (import_rule, "segedu/training/loop.py", "from segedu.semantic.unet import UNet"),
    (
        import_rule,
        "segedu/teaching/checks/judge.py",
        "from segedu.teaching.exercises.lab04_metrics.giou import exercise",
    ),
    (import_rule, "segedu/teaching/checks/judge.py", "from segedu.promptable.sam import sam"),
    (import_rule, "segedu/grading/judging/compare.py", "from segedu.semantic import unet"),
    *((import_rule, "segedu/cli.py", f"from {name} import x") for name in sorted(NOT_LIBRARY)),
    *((name_rule, f"segedu/ops/{name}.py", "") for name in sorted(VAGUE)),
    (name_rule, "segedu/utils/boxes.py", ""),
    (unfinished_rule, "segedu/viz.py", "def f():\n    raise NotImplementedError('later')"),
    (unfinished_rule, "segedu/viz.py", "x = 1  # TODO: more"),
    (file_length_rule, "segedu/viz.py", "x = 1\n" * 401),
    (body_length_rule, "segedu/viz.py", "def f():\n    '''Text.'''\n" + "    x = 1\n" * 41),
    (body_length_rule, "segedu/viz.py", "class A:\n    def f(self):\n" + "        x = 1\n" * 41),
    (constructor_rule, "segedu/viz.py", "class A:\n    def __init__(self, a, b, c, d, e, f, *g, h, **i): pass"),
    *((docstring_rule, "segedu/viz.py", text + "x = 1") for text in ("", "'M'\ndef f(): ", "'M'\nclass A: ")),
    (docstring_rule, "segedu/viz.py", "'''Module.'''\nclass A:\n    '''A.'''\n    def f(self): pass"),
    *((google_rule, "segedu/ops/x.py", AREA.replace(*change)) for change in zip(BEFORE, AFTER, strict=True)),
    *((header_rule, "segedu/semantic/x.py", HEAD.replace(f"{field}: x", f"{field}:")) for field in HEADER),
    (header_rule, "segedu/promptable/sam/x.py", "x = 1"),
    (version_rule, "segedu/__init__.py", "__version__ = '1'\nfrom segedu.viz import show"),
    (folder_rule, "scripts/x.py", ""),
    (folder_rule, "segedu/models/unet.py", ""),
    (folder_rule, "segedu/semantic/unet/blocks.py", ""),
]
ALLOWED = [
    (import_rule, "segedu/ops/masks.py", "import math, torch, numpy, scipy.ndimage, pycocotools.mask"),
    (import_rule, "segedu/ops/nms.py", "import torchvision"),
    (import_rule, "segedu/layers/resize.py", "from segedu.ops.boxes import box_iou"),
    (import_rule, "segedu/semantic/nnunet/nnunet.py", "from segedu.semantic import nnunet_plan, unet3d"),
    (import_rule, "segedu/instance/mask_rcnn.py", "from segedu.detection.faster_rcnn import FasterRCNN"),
    (import_rule, "segedu/promptable/sam/sam.py", "from .mask_decoder import MaskDecoder"),
    (import_rule, "segedu/grading/batch/batch.py", "import_module('segedu.teaching.exercises').load('04_metrics')"),
    (constructor_rule, "segedu/viz.py", "class A:\n    def __init__(self, a, b, c, d, e, f, g, h): pass"),
    (body_length_rule, "segedu/viz.py", "def f():\n    '''Text\n" + "\n" * 50 + "    '''\n" + "    x = 1\n" * 40),
    (google_rule, "segedu/ops/x.py", AREA),
    (header_rule, "segedu/semantic/x.py", HEAD),
    (folder_rule, "segedu/teaching/exercises/lab04_metrics/giou.py", ""),
    (folder_rule, "README.md", ""),
]


@pytest.mark.parametrize(("rule", "path", "source"), OFFENDERS)
def test_rule_finds_the_offence(rule, path, source):
    assert list(rule(path, source))


@pytest.mark.parametrize(("rule", "path", "source"), ALLOWED)
def test_rule_lets_pass(rule, path, source):
    assert not list(rule(path, source))


def tracked(suffix="", new=("--others", "--exclude-standard")):
    """Files of the repository, those not yet added to git included."""
    listing = ["git", "ls-files", "--cached", *new, "-z"]
    run = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        pytest.skip("not a git checkout: the files of the repository are not known")
    return sorted(p for p in set(run.stdout.split("\0")) if p.endswith(suffix) and (ROOT / p).is_file())


def offences(rule, paths):
    sources = ((path, (ROOT / path).read_text(encoding="utf-8")) for path in paths)
    return [f"{path}: {offence}" for path, source in sources for offence in rule(path, source)]


@pytest.mark.parametrize("rule", LIBRARY_RULES, ids=lambda rule: rule.__name__)
def test_library(rule):
    found = offences(rule, [p for p in tracked(".py") if p.startswith("segedu/")])
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("rule", TEST_RULES, ids=lambda rule: rule.__name__)
def test_tests(rule):
    submissions = "tests/submissions/"  # examples of what students write
    found = offences(rule, [p for p in tracked(".py") if p.startswith("tests/") and not p.startswith(submissions)])
    assert not found, "\n" + "\n".join(found)


def test_folders():
    # files of git alone: an instructor's folder of submissions may lie in the checkout
    found = [f"{path}: {offence}" for path in tracked(new=()) for offence in folder_rule(path)]
    assert not found, "\n" + "\n".join(found)


def test_every_exception_is_needed_and_has_a_reason():
    for limits, rule in ((LONG_BODIES, body_length_rule), (MANY_ARGUMENTS, constructor_rule)):
        for (path, name), reason in list(limits.items()):
            assert len(reason.split()) > 3, (path, name)
            del limits[path, name]
            try:
                assert any(o.startswith(name) for o in rule(path, (ROOT / path).read_text())), (path, name)
            finally:
                limits[path, name] = reason


@pytest.mark.parametrize("statement", ["import segedu", "import segedu.cli", "run('--help')", "run('grade', '--help')"])
def test_torch_is_not_imported_by(statement):
    code = f"""
import sys
def run(*words):
    from segedu.cli import app
    try:
        app(list(words))
    except SystemExit as end:
        assert not end.code, end.code
{statement}
assert "torch" not in sys.modules, "torch was imported"
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
