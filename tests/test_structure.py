"""The rules of the house, read from source text.

Each rule is a function from (path, source) to a list of offences, and each is shown an offender first
(`OFFENDERS`): a rule that cannot fail holds nothing.
"""

import ast
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
METHODS = ("unsupervised", "semantic", "detection", "instance", "panoptic", "promptable")

# Of other methods a method imports only what its paper extends or uses: paper <- papers.
ANCESTORS = """
grab_cut <- graph_cut; selective_search <- felzenszwalb; rcnn <- selective_search; faster_rcnn <- fast_rcnn;
mask_rcnn <- faster_rcnn; condinst <- fcos; deeplabv1 <- dense_crf; deeplabv2 <- dense_crf; deeplabv3plus <- deeplabv3;
dense_unet <- encoder_unet; signed_distance <- watershed; nnunet <- unet3d; omnipose <- cellpose;
stardist3d <- stardist; panoptic_fpn <- mask_rcnn; detr_panoptic <- detr; oneformer <- mask2former oneformer_text;
mobile_sam <- sam; everything <- sam; detect_then_segment <- sam
"""
ANCESTORS_OF = {
    paper: papers.split()
    for paper, _, papers in (line.partition(" <- ") for line in re.split(r";\s", ANCESTORS.strip()))
}

# What a part of the library may import of segedu. The three rows at the end stand on top of all others.
BLOCKS = ["validation", "layers", "ops", "backbones", "losses"]
BOXES_FOR_LAYERS = ("anchors", "boxes", "crowds", "nms", "roi_align")
LIBRARY = [*METHODS, *BLOCKS, "metrics", "datasets", "viz", "training"]
MAY_IMPORT = {
    "layers": ["validation", "layers.best_boxes", *(f"ops.{name}" for name in BOXES_FOR_LAYERS)],
    "ops": ["validation", "ops.box_scale", "ops.boxes", "ops.compiled", "ops.label_maps", "ops.roi_pool"],
    "validation": ["validation"],
    "backbones": ["backbones", "validation", "layers", "ops"],
    "losses": ["losses", "validation", "layers", "ops"],
    "metrics": ["metrics", "validation", "layers", "ops"],
    **dict.fromkeys(METHODS, BLOCKS),
    "datasets": ["datasets", "validation", "ops"],
    "training": ["training", "validation", "layers", "metrics"],
    "viz": ["ops"],
    "weights": ["weights", "datasets.download", *METHODS, *BLOCKS],
    "recipes": ["recipes", "weights", *LIBRARY],
    "weights.own": ["weights", "recipes", *LIBRARY],
}
# What the course and the grader may import. The judge loads an exercise by its name, and so names none.
LOADER = ("teaching.exercises", "teaching.exercises.load")
JUDGED = ["teaching.checks", "teaching.authoring", "teaching.capstone"]
MAY_IMPORT |= {"teaching.checks": ["teaching.checks", "viz"], "teaching": ["teaching", "recipes", "weights", *LIBRARY]}
MAY_IMPORT |= {"grading": ["grading", *JUDGED], "cli": ["teaching", "grading", "recipes", "weights", "command_errors"]}
GRADING_LAYERS = ("submissions", "sandbox", "judging", "gradebook", "batch", "platforms")  # each imports those before
PACKAGES_OF = {"validation": {"torch", "numpy"}, "layers": {"torch"}, "ops": {"torch", "numpy", "scipy"}}
FILES_WITH = {"pycocotools": "masks", "numba": "compiled", "torchvision": "nms|roi_align|roi_pool"}  # of ops
NOT_LIBRARY = {"course", "labs", "solutions", "tests"}

VAGUE = {"utils", "util", "common", "base", "helpers", "helper", "misc"}
FOLDERS = {"course", "labs", "solutions", "segedu", "tests", "jupyter-book-config", ".ci", ".github"}
PARTS = {part.partition(".")[0] for part in MAY_IMPORT}
DIVIDED = ("teaching", "grading", "weights")  # whose folders are packages of their own
MODULES = 3  # of segedu itself, besides __init__.py

FILE_LINES, BODY_LINES, ARGUMENTS = 400, 40, 8
# (path, function or class): the reason why the limit does not hold there
LONG_BODIES: dict[tuple[str, str], str] = {
    ("segedu/teaching/exercises/lab12_one_stage/detr_terms.py", "shared_wrong_answers"): "a table, entry after entry",
}
MANY_ARGUMENTS: dict[tuple[str, str], str] = {}

HEADER = ("Paper", "Idea", "Simplified", "Shapes", "Quality", "Course", "Lab")
# Whose functions are read on the site: every argument described, types in the signature only.
DOCUMENTED = ("validation", "layers", "ops", "backbones", "losses", "metrics", *METHODS, "datasets", "viz", "training")


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


def package_of(module):
    """The package of a module below segedu: ops.boxes -> ops, grading.judging.records -> grading.judging."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] in DIVIDED and len(parts) > 2 else parts[0]


def allowed_for(path):
    """The row of MAY_IMPORT for a file: the longest that names a folder above it."""
    module = ".".join(Path(path).with_suffix("").parts[1:])
    rows = [row for row in MAY_IMPORT if within(module, [row])]
    return MAY_IMPORT[max(rows, key=len)] if rows else None


def import_rule(path, source):
    part, allowed = part_of(path), allowed_for(path)
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
        elif not inner or part == "grading" and inner in LOADER:  # `import segedu` gives the version alone
            continue
        elif allowed is not None and not within(inner, allowed) and not may_import_method(path, inner):
            yield f"{part} imports {name}"
        elif part == "recipes" and within(inner, ["weights.own"]):
            yield f"{part} imports {name}, which is made with a recipe"


def may_import_method(path, inner):
    if part_of(path) not in METHODS or inner.partition(".")[0] not in METHODS or "." not in inner:
        return False
    ours, theirs = paper_of(".".join(Path(path).with_suffix("").parts[1:])), paper_of(inner)
    return ours == theirs or theirs in ANCESTORS_OF.get(ours, ())


def paper_of(module):
    """The paper of a method's module: its folder, where the paper has one, or its file."""
    part, name, *_ = module.split(".")
    return name


def layer_rule(path, source):
    """Inside grading, a package imports only those that come before it."""
    parts = Path(path).parts
    if part_of(path) != "grading" or len(parts) < 4:
        return
    ours = GRADING_LAYERS.index(parts[2])
    for name in imported(path, source):
        if name.startswith("segedu.grading."):
            theirs = name.split(".")[2]
            if theirs not in GRADING_LAYERS[: ours + 1]:
                yield f"grading.{parts[2]} imports {name}"


def cycles(sources):
    """Packages that import each other, directly or through others, from (path, source) of all files."""
    arrows = {}
    for path, source in sources:
        module = ".".join(Path(path).with_suffix("").parts[1:]).removesuffix(".__init__")
        ours = package_of(module + ".x" if path.endswith("__init__.py") else module)
        for name in imported(path, source):
            theirs = package_of(name.removeprefix("segedu."))
            if name.startswith("segedu.") and theirs != ours:
                arrows.setdefault(ours, set()).add(theirs)
    return sorted(package for package in arrows if package in _reached(arrows, package))


def _reached(arrows, start):
    """All packages that can be reached from one by at least one import."""
    found, queue = set(), [*arrows.get(start, ())]
    while queue:
        package = queue.pop()
        if package not in found:
            found.add(package)
            queue += arrows.get(package, ())
    return found


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
    if path.startswith("segedu/teaching/exercises/lab"):
        return  # what a wrong answer does is said once, by its entry in `wrong`
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
    """What a docstring says of arguments must be true; what the signature says already may be left out."""
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
        if described - given:
            yield f"{name}: Args has {sorted(described - given)}, which the signature does not have"
        if any(a.annotation is None for a in arguments(node) if a.arg not in ("self", "cls")) or not node.returns:
            yield f"{name}: a type is missing in the signature"
        if re.search(r"^    \w+ \((?!.*\):.*\))[^)]*\):", section(text, "Args") or "", flags=re.M):
            yield f"{name}: types belong in the signature only"


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
    """For any file of the repository: its top folder is a known one, and segedu is as deep as its parts allow."""
    top, *rest = Path(path).parts
    if rest and top not in FOLDERS:
        yield f"{top}/ is not a folder of this repository"
    if top != "segedu" or len(rest) < 2:
        return
    if rest[0] not in PARTS:
        yield f"segedu/{rest[0]}/ is not a part of segedu"
    deepest = 3 if rest[0] in (*METHODS, *DIVIDED) else 2  # a paper's folder, or a package of the course
    deepest += rest[:2] == ["teaching", "exercises"]
    if len(rest) > deepest:
        yield f"deeper than segedu/{rest[0]}/{'package/' * (deepest - 2)}file.py"
    if rest[0] == "grading" and len(rest) > 2 and rest[1] not in GRADING_LAYERS:
        yield f"segedu/grading/{rest[1]}/ has no place among {', '.join(GRADING_LAYERS)}"


LIBRARY_RULES = [import_rule, layer_rule, name_rule, unfinished_rule, body_length_rule, constructor_rule]
LIBRARY_RULES += [docstring_rule, google_rule, header_rule, version_rule]
TEST_RULES = [name_rule]

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
BEFORE, AFTER = (
    "unit: m;unit: m;unit: float = 1.0; -> Tensor".split(";"),
    "units: m;unit (float): m;unit=1.0;".split(";"),
)
OFFENDERS = [
    (import_rule, "segedu/layers/conv.py", "import torchvision"),
    (import_rule, "segedu/layers/conv.py", "from scikit import image"),
    *((import_rule, "segedu/ops/nms.py", f"{line} import x") for line in FROM_OF_NMS),
    *((import_rule, f"segedu/{part}/x.py", f"from segedu.{top} import x") for part in LIBRARY for top in DIVIDED[:2]),
    (import_rule, "segedu/losses/dice.py", "from segedu.semantic.unet import UNet"),
    (import_rule, "segedu/losses/dice.py", "def f():\n    from segedu import metrics"),
    (import_rule, "segedu/losses/dice.py", "import importlib\nimportlib.import_module('segedu.metrics')"),
    (import_rule, "segedu/metrics/semantic.py", "import segedu.viz"),
    (import_rule, "segedu/semantic/fcn.py", "from segedu.semantic.unet import UNet"),
    *((import_rule, UNET, f"{line} import x") for line in FROM_OF_UNET),
    (import_rule, "segedu/datasets/cells.py", "from segedu.metrics.confusion import confusion_matrix"),
    (import_rule, "segedu/viz.py", "from segedu.datasets import shapes"),
    (import_rule, "segedu/training/loop.py", "from segedu.semantic.unet import UNet"),
    (import_rule, "segedu/recipes/streets.py", "from segedu.weights.own.street_vgg import FILE"),
    (import_rule, "segedu/weights/pretrained.py", "from segedu.recipes.recipe import NAMES"),
    (import_rule, "segedu/weights/pretrained.py", "from segedu.datasets.street import draw_street"),
    (import_rule, "segedu/weights/own/street_vgg.py", "from segedu.teaching.widgets.roi import x"),
    (import_rule, "segedu/teaching/checks/judge.py", "from segedu.teaching.exercises.lab04_metrics.giou import x"),
    (import_rule, "segedu/teaching/capstone/report.py", "from segedu.grading.submissions.notebook import x"),
    (import_rule, "segedu/grading/judging/compare.py", "from segedu.teaching.exercises.lab04_metrics.giou import x"),
    (import_rule, "segedu/grading/judging/compare.py", "from segedu.ops.boxes import box_iou"),
    (layer_rule, "segedu/grading/judging/records.py", "from segedu.grading.gradebook.exports import all_notes"),
    (layer_rule, "segedu/grading/sandbox/kernel_pool.py", "from segedu.grading.judging.records import clean"),
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
    (folder_rule, "segedu/ops/boxes/iou.py", ""),
    (folder_rule, "segedu/semantic/unet/blocks/conv.py", ""),
    (folder_rule, "segedu/grading/tools/x.py", ""),
]
ALLOWED = [
    (import_rule, "segedu/ops/masks.py", "import math, torch, numpy, scipy.ndimage, pycocotools.mask"),
    (import_rule, "segedu/ops/nms.py", "import torchvision"),
    (import_rule, "segedu/layers/resize.py", "from segedu.ops.boxes import box_iou"),
    (
        import_rule,
        "segedu/semantic/nnunet/nnunet.py",
        "from segedu.semantic.nnunet import plan\nfrom segedu.semantic.unet3d import x",
    ),
    (import_rule, "segedu/instance/mask_rcnn.py", "from segedu.detection.faster_rcnn import FasterRCNN"),
    (import_rule, "segedu/promptable/sam/sam.py", "from .mask_decoder import MaskDecoder"),
    (import_rule, "segedu/grading/batch/batch.py", "import_module('segedu.teaching.exercises').load('04_metrics')"),
    (constructor_rule, "segedu/viz.py", "class A:\n    def __init__(self, a, b, c, d, e, f, g, h): pass"),
    (body_length_rule, "segedu/viz.py", "def f():\n    '''Text\n" + "\n" * 50 + "    '''\n" + "    x = 1\n" * 40),
    (import_rule, "segedu/grading/capstone_reports.py", "from segedu.teaching.capstone import Report"),
    (layer_rule, "segedu/grading/gradebook/exports.py", "from segedu.grading.judging.records import clean"),
    (google_rule, "segedu/ops/x.py", AREA),
    (google_rule, "segedu/ops/x.py", AREA.replace("        unit: metres a pixel.\n", "").replace("Raises:", "Errors:")),
    (header_rule, "segedu/semantic/x.py", HEAD),
    (folder_rule, "segedu/teaching/exercises/lab04_metrics/giou.py", ""),
    (folder_rule, "segedu/semantic/nnunet/plan.py", ""),
    (folder_rule, "segedu/grading/doctor.py", ""),
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


def test_no_package_imports_another_that_imports_it_back():
    paths = [p for p in tracked(".py") if p.startswith("segedu/")]
    assert cycles((path, (ROOT / path).read_text(encoding="utf-8")) for path in paths) == []


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        ({"ops/a.py": "import segedu.layers.b", "layers/b.py": "from segedu.ops import a"}, ["layers", "ops"]),
        ({"ops/a.py": "import segedu.layers.b", "layers/b.py": "import segedu.viz", "viz.py": "import segedu.ops.a"},
         ["layers", "ops", "viz"]),
        ({"grading/batch/a.py": "import segedu.grading.judging.b",
          "grading/judging/b.py": "def f():\n    from segedu.grading.batch import a"},
         ["grading.batch", "grading.judging"]),
        ({"ops/a.py": "import segedu.ops.c", "layers/b.py": "from segedu.ops import a"}, []),
        ({"recipes/a.py": "from segedu.weights import load", "weights/own/b.py": "import segedu.recipes.a"}, []),
    ],
)  # fmt: skip
def test_cycles_are_found(sources, found):
    assert cycles((f"segedu/{path}", source) for path, source in sources.items()) == found


def test_every_ancestor_is_imported():
    used = {
        (paper_of(path[7:-3].replace("/", ".")), paper_of(name[7:]))
        for path in tracked(".py") if path.startswith(tuple(f"segedu/{part}/" for part in METHODS))
        for name in imported(path, (ROOT / path).read_text(encoding="utf-8")) if within(name[7:], METHODS)
    }  # fmt: skip
    assert {(paper, other) for paper, others in ANCESTORS_OF.items() for other in others} <= used


def test_segedu_itself_holds_few_modules():
    modules = [p for p in tracked(".py") if re.fullmatch(r"segedu/[^/]+", p) and not p.endswith("__init__.py")]
    assert len(modules) <= MODULES, modules


def test_long_files_are_printed():
    """A length is a reason to look for a second noun, and none to squeeze: it is printed, and fails nothing."""
    paths = [p for p in tracked(".py") if p.startswith(("segedu/", "tests/"))]
    for offence in offences(file_length_rule, paths):
        warnings.warn(offence, stacklevel=1)


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
