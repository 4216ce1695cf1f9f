"""The course speaks the field's language: expressions of a private idiom are found in code, messages and texts.

Each rule names what to write instead, and is shown an offender. A rule is here only if its expression has no right use.
"""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# expression -> what to write, and a sentence that has it
RULES = {
    r"(gradient|slope|derivative)s? by (?!a |an |the |hand)": ("gradient with respect to", "the gradient by x"),
    r"behind (each|every)\b": ("after each", "a head behind each layer"),
    r"(?<!there )\b(is|are|be) no (tensor|list|dict|number|image|integer|float|bool|string|mask|box|array)\b": (
        "is not a tensor",
        "logits is no tensor",
    ),
    r"\bwith you\b": ("in your answer", "A mask is taken twice with you"),
    r"\bwhole numbers?\b": ("integer", "expected a whole number"),
    r"\bsur(er|est)\b": ("more confident", "the surer takes it"),
    r"\bhow sure\b": ("the confidence", "how sure the network is"),
    r"\bneeds not\b": ("need not, does not need to", "it needs not be sorted"),
    r"\blikeness(es)?\b": ("similarity", "the likeness of two patches"),
    r"\bmelt(s|ed|ing)?\b": ("merge", "two cells melt into one"),
    r"\bthinks? alone\b": ("is processed by the MLP independently", "then each thinks alone"),
    r"\bat best\b": ("at most; upper bound", "0.8 at best"),
    r"\bRefuse what is\b": ("Check that", "Refuse what is no box"),
    r"\b(what|as) was given\b": ("the value", "Args: images: what was given"),
    r"\bwhere asked\b": ("if requested", "masks, where asked"),
    r"\bnumbers? a (pixel|place|cell|second|vector|image|layer)\b": ("values per pixel", "five numbers a cell"),
    r"\bboxes a cell\b": ("boxes per cell", "two boxes a cell"),
    r"\b(pixels|values|points|boxes|images|queries) a (pixel|image|cell|second|query)\b": (
        "values per image",
        "100 queries a image",
    ),
    r"\bsmaller or equal than\b": ("at most", "smaller or equal than 3"),
    r"\bnobody's\b": ("not anyone's", "nobody's wish"),
    r"\bwithout a word\b": ("silently", "it drops them without a word"),
    r"\bthe true (mask|box|label)(s|es)?\b": ("the ground-truth mask", "compare with the true mask"),
    r"\bdear\b": ("expensive", "makes gaps dear"),
    r"\bpart(s|ed|ing)? (the )?(cells|objects|touching)\b": ("separate", "to part touching cells"),
    r"\bbring(s|ing)? up\b": ("upsample", "bring up the map"),
    r"\bone hot\b": ("one-hot", "one hot encoding"),
    r"\bin the place of\b": ("instead of", "a map in the place of a mask"),
    r"\bwhat is true\b": ("the ground truth", "compare it with what is true"),
    r"\bthe truth\b": ("the ground truth", "compared with the truth"),
}
COMPILED = {re.compile(rule, re.I): right for rule, (right, _) in RULES.items()}
# Where the rules hold. The notebooks of labs/ and solutions/ are derived from solutions/*.py.
WHERE = (
    *("segedu/**/*.py", "Makefile", "jupyter-book-config/**/*.py", "README.md", "CONTRIBUTING.md"),
    *("course/**/*.md", "solutions/*.py"),
)
# Rules of the book and the labs alone. In code, a word such as `truth` or `places` may be a name.
ACTORS = (
    "net|network|model|head|query|layer|decoder|encoder|classifier|branch|detector|U-Net|SAM|DETR|RetinaNet|YOLO|SSD"
)
PAGE_RULES = {
    rf"\b({ACTORS})( \w+ly)? (says?|said|tells?|told|answers?|answered|believes?|believed|speaks?|spoke|thinks?)\b": (
        "predicts, outputs, assigns",
        "the network says where an object is",
    ),
    rf"\b({ACTORS.replace('query', 'querie')})s( \w+ly)? (say|said|tell|told|answer|answered|believe|speak|spoke|think)\b": (
        "predict, output, assign",
        "what the queries say",
    ),
    r"(?<!ground )(?<!ground-)\btruths?\b": ("ground truth, target", "the prediction beside a truth"),
    r"\b(a|each|every|this|that|which|one|other|those|two|many) places?\b": (
        "location, position, pixel, cell",
        "one vector for each place",
    ),
    r"\bpunish(es|ed|ing)?\b": ("penalise", "it punishes a miss"),
    r"\bdrawn (scene|street|cell|image|picture|shape|object|world|nucleus|nuclei|volume|slice)s?\b": (
        "synthetic",
        "on drawn streets",
    ),
    r"\bwho (adds|takes|wants|looks|reads|knows|gives|puts|counts|divides)\b": (
        "if you …",
        "Who adds a constant gets 1",
    ),
    r"(?<!in )\bfor (it|they|he) (is|are|has|have|does|do)\b": ("because", "for it is small"),
}
COMPILED_OF_PAGES = COMPILED | {re.compile(rule, re.I): right for rule, (right, _) in PAGE_RULES.items()}
DERIVED = "course/wrong-answers.md"  # the messages are checked in the exercises
# expressions that are quoted or have their ordinary meaning there
EXERCISES = "segedu/teaching/exercises"
ALLOWED: dict[str, tuple[str, ...]] = {  # names of wrong answers: published records have them
    f"{EXERCISES}/lab01_tasks/one_hot.py": ("whole numbers",),
    f"{EXERCISES}/lab01_tasks/rle_roundtrip.py": ("whole numbers",),
    f"{EXERCISES}/lab14_top_down/mask_loss.py": ("is no tensor",),
    f"{EXERCISES}/lab16_promptable/stability_score.py": ("whole numbers",),
    "course/coverage.md": ("precise places",),  # the seeds' words
    "solutions/10_embeddings.py": ("truth",),  # an argument of `lovasz_grad`, which students write
    "solutions/12_one_stage.py": ("truth",),  # a variable in f-strings
}


def prose(path, text):
    """(line, text) of what a person reads in a file: of Python its comments and strings, of others everything.

    Of a page without names in code, roles, formulas and the statements of its cells.
    """
    if Path(path).suffix == ".md":
        yield from prose_of_page(text)
        return
    if Path(path).suffix != ".py":
        yield from enumerate(text.splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT or "STRING" in tokenize.tok_name[token.type]:
            yield from enumerate(token.string.splitlines(), token.start[0])


def prose_of_page(text):
    """(line, text) of a page: its prose, and of its cells the options, the strings and the comments."""
    fence, options = "", False
    for number, line in enumerate(text.splitlines(), 1):
        mark = re.match(r"\s*(```+)(\S*)", line)
        if mark and not fence:
            fence = mark[1] if re.match(r"\{code-cell|python|shell", mark[2]) else ""
        elif mark and mark[1] == fence:
            fence = ""
        elif fence and line == "---":
            options = not options
        elif fence and not options:
            yield number, " ".join(re.findall(r"\"[^\"]*\"|'[^']*'|#.*", line))
        else:
            yield number, re.sub(r"`[^`]*`|\{[\w:]+\}|\$[^$]*\$", " ", line)


def offences(path, text):
    rules = COMPILED_OF_PAGES if str(path).startswith(("course/", "solutions/")) else COMPILED
    for number, line in prose(path, text):
        for rule, right in rules.items():
            for match in rule.finditer(line):
                if match[0].lower() not in ALLOWED.get(str(path), ()):
                    yield f"{path}:{number}: {match[0]!r}: write {right!r}"


def test_no_private_idiom():
    found = []
    for pattern in WHERE:
        for path in sorted(set(ROOT.glob(pattern)) - {ROOT / DERIVED}):
            found += offences(path.relative_to(ROOT), path.read_text(encoding="utf-8"))
    assert not found, f"{len(found)} expressions:\n" + "\n".join(found)


@pytest.mark.parametrize(("rule", "offender"), [(rule, offender) for rule, (_, offender) in RULES.items()])
def test_each_rule_finds_its_offender(rule, offender):
    assert any(repr(RULES[rule][0]) in offence for offence in offences("a.md", offender))
    assert list(offences("a.py", f"# {offender}\n")) and list(offences("a.py", f'f("{offender}")\n'))
    assert not list(offences("a.py", "gradient_by_x = truth\n"))  # names have rules of their own


@pytest.mark.parametrize(("rule", "offender"), [(rule, offender) for rule, (_, offender) in PAGE_RULES.items()])
def test_each_rule_of_pages_finds_its_offender(rule, offender):
    assert any(repr(PAGE_RULES[rule][0]) in offence for offence in offences("course/a.md", offender))
    cell = f"```{{code-cell}} python\nx = 1\nplot(title='{offender}')\n```\n"
    assert list(offences("course/a.md", cell)) and not list(offences("README.md", offender))
    assert not list(offences("course/a.md", "```{code-cell} python\ntruth = places\n```\nThe name is `truth`.\n"))


def test_every_exception_is_needed():
    for path, words in ALLOWED.items():
        text = (ROOT / path).read_text(encoding="utf-8").lower()
        assert all(word in text for word in words), path


RIDDLES = {"asked", "asking", "told", "wanted", "thought", "placed", "nowhere", "surest", "surer"}


def names(source):
    """Names that a file gives: of functions, classes, arguments and variables."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id


def riddles(source):
    return [(line, name) for line, name in names(source) if name.strip("_") in RIDDLES]


def test_no_private_participles_as_names():
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sorted((ROOT / "segedu").rglob("*.py"))
        for line, name in riddles(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


def test_a_riddle_is_found():
    assert riddles("def asked(told): wanted = 1") == [(1, "asked"), (1, "told"), (1, "wanted")]
