"""A page links a term of the glossary to its entry where it first uses it, or explains it there itself."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
COURSE = ROOT / "course"
# Pages about the course itself: lists of terms, of sources and of results, and the guide for instructors.
NO_PAGES = {"glossary", "coverage", "references", "wrong-answers", "methods", "results", "measured"}
# Words with an everyday meaning besides, or which every page has: readers do not need a link at each of them.
EVERYDAY = {
    *("accuracy", "ambiguity", "annotation", "background", "channel", "class", "cluster", "context", "convolution"),
    *("crowd", "fingerprint", "grid", "head", "inertia", "inference", "loss", "marker", "mask", "metric", "mode"),
    *("no object", "offset", "padding", "patch", "precision", "prompt", "recall", "score", "skeleton", "spacing"),
    *("stride", "stuff", "style", "target", "things", "three classes", "tile", "void"),
}
# Uses in another meaning than that of the glossary: page -> entries.
OTHERWISE = {
    "09-distances/stardist.md": {"mean IoU"},  # the mean over objects or images, not over classes
    "13-metrics/index.md": {"mean IoU"},
    "14-top-down/roi-align.md": {"mean IoU"},
    "14-top-down/yolact.md": {"mean IoU"},
    "15-panoptic/oneformer.md": {"token"},  # of a text: an integer
    "16-promptable/labelling.md": {"mean IoU"},
    "16-promptable/sam.md": {"mean IoU"},
    "16-promptable/sam-in-use.md": {"mean IoU"},
    "06-unet/variants.md": {"attention"},  # attention gates
    "11-detection/family.md": {"attention"},  # of the reader
    "background/attention.md": {"query"},  # of an attention layer, which the page explains
}
# Pages whose links are still to be set: this list may only become shorter.
NOT_YET: set[str] = set()
# Parts of a page that are not prose. Of directives, only these contain prose.
PROSE = ("dropdown", "admonition", "note", "tip", "warning", "important")
SPACE = r"(?: |\n[ >]*)"


class Entry(NamedTuple):
    name: str
    forms: tuple[str, ...]  # its name and abbreviations


@cache
def glossary() -> tuple[Entry, ...]:
    """The entries whose first use needs a link; one that only refers to another is a form of that one."""
    text = (COURSE / "glossary.md").read_text(encoding="utf-8")
    body = text[text.index(":::{glossary}") :].replace("\\*", "*")
    found = dict(re.findall(r"^(\S[^\n:]*)\n((?:  [^\n]*\n)+)", body, re.M))
    forms = {name: [name] for name in found}
    for name, text in found.items():
        text = re.sub(r"\s+", " ", text)
        if see := re.fullmatch(r" See \{term\}`([^`]*)`\. ?", text):
            forms[see[1]] += [form for form in forms.pop(name) if form not in EVERYDAY]
        else:
            words = r"(?:[Aa]lso|[Ww]ritten|network,) ((?:m)?[A-Z]+[a-z]*[A-Z]+)\b"
            forms[name] += re.findall(words, text)
    return tuple(Entry(name, tuple(each)) for name, each in forms.items() if name not in EVERYDAY)


def pattern(form: str) -> str:
    """A regular expression of a form; a lower-case letter at its beginning also matches upper-case."""
    if not form[0].isalpha() or re.search(r"[A-Z]", form):
        words = [re.escape(word) for word in form.split(" ")]
    else:
        first, *others = map(re.escape, form.split(" "))
        words = [f"[{form[0].upper()}{form[0]}]{first[1:]}", *others]
    return SPACE.join(words)


@cache
def patterns() -> tuple[re.Pattern[str], dict[str, str]]:
    """One expression of all forms, the longest first, and the entry of each of its groups."""
    forms = sorted(((form, entry.name) for entry in glossary() for form in entry.forms), key=lambda each: -len(each[0]))
    names = {f"t{i}": name for i, (_, name) in enumerate(forms)}
    words = "|".join(f"(?P<t{i}>{pattern(form)})" for i, (form, _) in enumerate(forms))
    return re.compile(rf"(?<![\w-])(?<!Panoptic )(?=\w)(?:{words})(?:e?s)?(?![\w-]|\.\w)"), names


def blank(text: str, expression: str, flags: int = 0) -> str:
    """The text, as long as before, without what matches."""
    return re.sub(expression, lambda match: re.sub(r"[^\n]", "\0", match[0]), text, flags=flags)


def prose(text: str) -> str:
    """The text of a page, as long as before, without what is not prose, headings and links."""
    text = blank(text, r"\A---\n.*?^---\n", re.M | re.S)
    lines, stack = [], []
    for line in text.split("\n"):
        fence = re.match(r"\s*(`{3,}|:{3,}|\$\$)\s*(?:\{(\w[\w:-]*)\})?", line)
        keep = all(name in PROSE for _, name in stack)
        if fence and stack and fence[1] == stack[-1][0] and not fence[2]:
            stack.pop()
            keep = False
        elif fence and keep:
            stack.append((fence[1], fence[2] or ""))
            keep = False
        lines.append(line if keep and not line.startswith(("#", "(", "%")) else "\0" * len(line))
    text = "\n".join(lines)
    code, formulas, links, tags = r"(?:\{[\w:]+\})?`[^`]*`", r"\$[^$]*\$", r"!?\[[^\]]*\]\([^)]*\)", r"<[^>\n]*>"
    for expression in (code, formulas, links, tags, r"https?://\S+"):
        text = blank(text, expression)
    return text


def entry_of(word: str) -> str | None:
    """The entry of a link's target or of a word in bold."""
    for entry in glossary():
        if word in entry.forms or word[:1].lower() + word[1:] in entry.forms:
            return entry.name
    return None


class Use(NamedTuple):
    """A place of a page's text that uses an entry."""

    entry: str
    start: int
    text: str


def explained(text: str) -> dict[str, int]:
    """Where each entry is first linked or explained: in the title, in a short bold text, or by a link.

    A link is one to the glossary, or to another page or section under this name.
    """
    expression, names = patterns()
    found: dict[str, int] = {}

    def add(name: str | None, where: int) -> None:
        if name:
            found[name] = min(found.get(name, where), where)

    def add_all(part: str, where: int) -> None:
        for match in expression.finditer(part):
            add(names[match.lastgroup or ""], where)

    if title := re.search(r"^# (.*)$", text, re.M):
        add_all(title[1], 0)
    for link in re.finditer(r"\{term\}`(?:[^`<]*<([^`>]*)>|([^`]*))`", text):
        target = re.sub(r"\s+", " ", link[1] or link[2]).strip()
        add(entry_of(target), link.start())
    cells = blank(text, r"^```+\{code-cell\}.*?^```+$", re.M | re.S)
    for link in re.finditer(r"\[([^\]]*)\]\([^)]*\)", cells):
        add_all(link[1], link.start())
    for bold in re.finditer(r"\*\*([^*]+)\*\*", cells):
        if len(bold[1].split()) <= 5:
            add_all(bold[1], bold.start())
    return found


def missing(text: str) -> list[Use]:
    """The first use of each entry that a page neither explains nor links at this use or before it."""
    expression, names = patterns()
    known, seen, found = explained(text), set(), []
    for match in expression.finditer(prose(text)):
        name = names[match.lastgroup or ""]
        if name in seen:
            continue
        seen.add(name)
        if known.get(name, len(text)) > match.start():
            found.append(Use(name, match.start(), match[0]))
    return found


def pages() -> list[str]:
    every = (path.relative_to(COURSE) for path in COURSE.rglob("*.md") if path.parent.name != ".ipynb_checkpoints")
    return sorted(
        str(page)
        for page in every
        if page.stem not in NO_PAGES and page.parts[0] not in ("grading", "methods", "wrong-answers")
    )


@pytest.mark.parametrize("page", sorted(set(pages()) - NOT_YET))
def test_the_first_use_of_a_term_is_linked_or_explained(page: str) -> None:
    text = (COURSE / page).read_text(encoding="utf-8")
    uses = [use for use in missing(text) if use.entry not in OTHERWISE.get(page, ())]
    found = [f"line {text.count(chr(10), 0, use.start) + 1}: {use.text!r} -> {{term}}`{use.entry}`" for use in uses]
    assert not found, f"{page} uses terms of the glossary before it links or explains them:\n" + "\n".join(found)


def test_pages_that_are_not_done_are_there_and_not_done() -> None:
    done = [page for page in sorted(NOT_YET) if not missing((COURSE / page).read_text(encoding="utf-8"))]
    assert done == [], "take them off the list"


@pytest.mark.parametrize(("page", "entry"), [(page, entry) for page, each in OTHERWISE.items() for entry in each])
def test_every_exception_is_needed(page: str, entry: str) -> None:
    assert entry in {use.entry for use in missing((COURSE / page).read_text(encoding="utf-8"))}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("# A page\n\nThe mean IoU of a\nfeature map.\n", ["mean IoU", "feature map"]),
        ("# A page\n\n{term}`Feature maps <feature map>`, then a feature map and its {term}`IoU`.\n", []),
        ("# A page\n\nA feature map, then {term}`feature maps <feature map>`.\n", ["feature map"]),
        ("# The softmax\n\nA softmax.\n", []),
        ("# A page\n\nA **softmax** is explained, and then the softmax is used.\n", []),
        ("# A page\n\n**What does a network with a softmax at its end predict?**\n", ["softmax"]),
        ("# A page\n\n[NMS](suppression.md) removes duplicates; NMS is greedy.\n", []),
        ("# A page\n\n## A softmax\n\n`softmax` and $softmax$\n\n```{code-cell} python\nsoftmax\n```\n", []),
        ("# A page\n\n```{dropdown} Answer\nThe ReLU.\n```\n", ["ReLU"]),
        ("# A page\n\nPanoptic FPN, the mask of an object, and the word accuracy.\n", []),
    ],
)
def test_uses_without_link_are_found(text: str, found: list[str]) -> None:
    assert [use.entry for use in missing(text)] == found


def test_everyday_words_are_in_the_glossary() -> None:
    text = (COURSE / "glossary.md").read_text(encoding="utf-8")
    assert {word for word in EVERYDAY if not re.search(rf"^{word}$", text, re.M)} == set()
    assert len(glossary()) > 100
