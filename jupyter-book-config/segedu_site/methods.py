"""`{methods}`: the table of all methods, read from the headers of the method files without importing them.

`{methods} semantic` writes the entries of one task instead: the header of each file, with its tests and its weights.

What a method is compared with is what its tests import beside it, and its weights are those that the table of weights
builds with it. The page can never disagree with the files: nothing is written by hand, and nothing derived lies in the
repository.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from docutils import nodes
from docutils.nodes import make_id
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from segedu.weights.catalogue import WEIGHTS
from segedu_site.lookups import mark

ROOT = Path(__file__).resolve().parents[2]
CODE = re.compile(
    "|".join(
        [
            r"\b(?:segedu|tests)/[\w/]+\.py\b",
            r"\bpython -m [\w.]+\w",
            r"\b\w+(?:\*\*|\^)-?\w+",
            r"(?:\b[a-z]\d )*\([^()]*\)\^\d",  # w0 w1 (m1 - m0)^2
            r"\([A-Z] - [A-Z]\) \w = \w+ [A-Z] \w\b",  # (D - W) y = lambda D y
        ]
    )
)
FIELDS = ("Paper", "Idea", "Simplified", "Shapes", "Quality", "Course", "Lab")
TASKS = ("unsupervised", "semantic", "detection", "instance", "panoptic", "promptable")
# Independent implementations: the beginning of what a test imports, and the name that people know.
PEERS = {
    "cellpose": "Cellpose",
    "cv2": "OpenCV",
    "dynamic_network_architectures": "nnU-Net",
    "instance.mmdet_record": "mmdet, a record of it",
    "maxflow": "PyMaxflow",
    "monai": "MONAI",
    "nnunetv2": "nnU-Net",
    "pydensecrf": "pydensecrf",
    "segment_anything": "segment-anything",
    "segmentation_models_pytorch": "segmentation-models-pytorch",
    "skimage.filters": "scikit-image",
    "skimage.graph": "scikit-image",
    "skimage.segmentation": "scikit-image",
    "sklearn.cluster": "scikit-learn",
    "sklearn.decomposition": "scikit-learn",
    "sklearn.linear_model": "scikit-learn",
    "sklearn.manifold": "scikit-learn",
    "sklearn.svm": "scikit-learn",
    "stardist": "StarDist",
    "timm": "timm",
    "torchvision.models": "torchvision",
    "transformers": "transformers",
    "ultralytics": "ultralytics",
}
MADE_FOR = {"scenes_vit": "dino", "street_fcn8": "fcn"}  # small weights that are not called as their method


@dataclass(frozen=True)
class Method:
    """One method file: its name and path, and the fields of its header."""

    path: str
    name: str
    summary: str
    fields: dict[str, str]


def read_method(path: Path, root: Path = ROOT) -> Method | None:
    """The header of one file; None where the file has no line `Paper:`, because it is no method then."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    parts = re.split(rf"^({'|'.join(FIELDS)}):", docstring, flags=re.MULTILINE)
    fields = {field: " ".join(text.split()) for field, text in zip(parts[1::2], parts[2::2], strict=True)}
    if "Paper" not in fields:
        return None
    name, _, summary = " ".join(parts[0].split()).partition(":")
    if not summary:  # the header begins with a sentence, not with "name: summary"
        name, summary = f"{path.parent.name}_{path.stem}".replace("_", " ").capitalize(), name
    return Method(path.relative_to(root).as_posix(), name, summary.strip(), fields)


def read_methods(root: Path = ROOT) -> dict[str, list[Method]]:
    """Methods by task folder, in the order of the course; folders without a method are left out."""
    tasks = {}
    for folder in TASKS:
        files = sorted((root / "segedu" / folder).rglob("*.py"))
        methods = [method for file in files if (method := read_method(file, root))]
        if methods:
            tasks[folder] = methods
    return tasks


def places(method: Method, root: Path = ROOT) -> list[str]:
    """Links to the chapter and the lab that the header names, where they exist."""
    chapter, lab = method.fields.get("Course", ""), method.fields.get("Lab", "")
    links = []
    if (root / "course" / chapter / "index.md").is_file():
        links.append(f"[Chapter {int(chapter[:2])}](/course/{chapter}/index.md)")
    if (root / "labs" / f"{lab}.ipynb").is_file():
        links.append(f"[Lab {int(lab[:2])}](/labs/{lab}.ipynb)")
    return links


@lru_cache
def imports(path: Path) -> set[str]:
    """Modules, and names in modules, that a file imports, or skips a test without."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "importorskip":
            found |= {arg.value for arg in node.args if isinstance(arg, ast.Constant)}
    return found


def tests_of(method: Method, root: Path = ROOT) -> list[Path]:
    """Tests that are called as the method, or as the package that it is a part of; where these compare it with nothing,
    those that import it too; and of a part that none compares, those of the whole."""
    path = Path(method.path)
    files = sorted((root / "tests" / path.parts[1]).glob("test_*.py"))
    found = called(path.stem, files) or (called(path.parent.name, files) if len(path.parts) > 3 else [])
    if not peers(found):
        module = method.path.removesuffix(".py").replace("/", ".")
        found = found + [file for file in files if file not in found and module in imports(file)]
    whole = path.stem.rpartition("_")[0]
    if not peers(found) and (root / path.with_name(f"{whole}.py")).is_file():
        found = found + [file for file in called(whole, files) if file not in found]
    return found


def called(name: str, files: list[Path]) -> list[Path]:
    """Tests of that name, and of that name with something behind it."""
    return [file for file in files if name and f"{file.stem}_".startswith(f"test_{name}_")]


def peers(files: list[Path]) -> list[str]:
    """Which independent implementations tests import."""
    names = set().union(*map(imports, files))
    return sorted({PEERS[p] for p in PEERS if any(name == p or name.startswith(f"{p}.") for name in names)})


def weights(method: Method) -> tuple[list[str], list[str]]:
    """Names for `segedu.weights.load`: of small weights that the course trained, and of official ones."""
    stem, module = Path(method.path).stem, method.path.removesuffix(".py").replace("/", ".")
    small = {n: w.options.get("method", n.partition("_")[2]) for n, w in WEIGHTS.items() if w.url == w.file_name}
    ours = [name for name, method in small.items() if MADE_FOR.get(name, method) == stem]
    built = [n for n, w in WEIGHTS.items() if w.builder.partition(":")[0] == module]
    as_backbone = [n for n, w in WEIGHTS.items() if w.builder.startswith("segedu.backbones.") and n.startswith(stem)]
    return ours, built + as_backbone


def label(method: Method) -> str:
    """The target of a method's entry.

    >>> label(Method("segedu/semantic/unet.py", "U-Net", "", {}))
    'method-semantic-unet'
    """
    return "method-" + "-".join(Path(method.path).with_suffix("").parts[1:]).replace("_", "-")


def markdown(tasks: dict[str, list[Method]], root: Path = ROOT, entries: Iterable[str] = ()) -> str:
    """The table of all methods.

    Args:
        tasks: methods by folder.
        root: of the checkout.
        entries: tasks whose entries are on a page of the site; only their methods are linked.
    """
    lines = ["| Method | Code | Taught in | Compared with | Weights |", "|---|---|---|---|---|"]
    for task, methods in tasks.items():
        for method in methods:
            ours, official = weights(method)
            linked = f"[**{method.name}**](#{label(method)})" if task in entries else f"**{method.name}**"
            cells = [
                f'<span id="{make_id(method.name)}"></span>{linked}',  # links to the entry once led here
                f"{{segedu}}`{method.path}`",
                ", ".join(places(method, root)),
                ", ".join(peers(tests_of(method, root))) or "by hand",
                ", ".join([*(f"`{name}`" for name in ours), *([f"{len(official)} official"] if official else [])])
                or "none",
            ]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def entry(method: Method, root: Path) -> list[str]:
    """The header of a method file; its shapes, its tests and what to write to load its weights are folded."""
    summary = method.summary[:1].upper() + method.summary[1:]
    lines = [f"({label(method)})=", f"## {method.name}", "", plain(summary), ""]
    lines += ["Code", f": {{segedu}}`{method.path}`, {', '.join(places(method, root))}".rstrip(", "), ""]
    for field in ("Paper", "Idea", "Simplified", "Quality"):
        if field in method.fields:
            lines += [field, f": {plain(method.fields[field])}", ""]
    folded = []
    if "Shapes" in method.fields:
        folded += ["Shapes", f": {plain(method.fields['Shapes'])}", ""]
    if files := tests_of(method, root):
        folded += ["Tests", ": " + ", ".join(f"`{file.relative_to(root).as_posix()}`" for file in files), ""]
    if names := sum(weights(method), []):
        folded += ["Weights", f": `segedu.weights.load(...)` of {', '.join(f'`{name}`' for name in names)}", ""]
    return [*lines, "````{dropdown} Shapes, tests and weights", *folded, "````", ""] if folded else lines


def plain(text: str) -> str:
    """Docstring text as Markdown: an asterisk outside of code is an asterisk, and a path, a command or a power is code.

    >>> plain("a multiple of 2**depth, `2**depth`, 2*3 (tests/semantic/test_unet.py)")
    'a multiple of `2**depth`, `2**depth`, 2\\\\*3 (`tests/semantic/test_unet.py`)'
    """
    marked = "`".join(part if i % 2 else CODE.sub(r"`\g<0>`", part) for i, part in enumerate(text.split("`")))
    return "`".join(part if i % 2 else part.replace("*", "\\*") for i, part in enumerate(marked.split("`")))


class Methods(SphinxDirective):
    """Writes the table of all methods, or the entries of one task, where it stands."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        tasks = read_methods()
        for method in sum(tasks.values(), []):
            for path in (ROOT / method.path, *tests_of(method)):
                self.env.note_dependency(str(path))
        if not self.arguments:
            pages = {task for task in tasks if f"{self.env.docname}/{task}" in self.env.found_docs}
            return mark(self.parse_text_to_nodes(markdown(tasks, entries=pages)))
        if self.arguments[0] not in tasks:
            raise self.error(f"methods has {self.arguments[0]!r}, expected one of {', '.join(tasks)}")
        lines = sum((entry(method, ROOT) for method in tasks[self.arguments[0]]), [])
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def setup(app: Sphinx) -> None:
    app.add_directive("methods", Methods)
