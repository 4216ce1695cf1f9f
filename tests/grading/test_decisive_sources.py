"""What regrades a class: an edit of what decides points, and no other. Each edit is made in a copy of segedu."""

import shutil
from pathlib import Path

import pytest

import segedu
from segedu.grading.judging.decisive_sources import decisive_hashes, normalised_source, tool_version
from segedu.grading.judging.lab_source import read_lab
from segedu.grading.judging.records import record_key, sources_of

PACKAGE = Path(segedu.__file__).parent
COURSE = PACKAGE.parent
FIELDS = {"exercises", "judge", "sandbox", "library"}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copy") / "segedu"
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors", "*.json"))
    return folder


def changed(copy, file, edit, lab="15_universal"):
    """The names of the hashes that an edit of one file changes."""
    path = copy / file
    kept = path.read_text()
    decisive_hashes.cache_clear()
    before = decisive_hashes(lab, copy)
    try:
        path.write_text(edit(kept))
        assert path.read_text() != kept
        decisive_hashes.cache_clear()
        after = decisive_hashes(lab, copy)
    finally:
        path.write_text(kept)
        decisive_hashes.cache_clear()
    return {name for name in FIELDS if before[name] != after[name]}


def in_other_words(text):
    """Another docstring of the module, a comment, and other blank lines."""
    assert text.startswith('"""')
    return '"""Other words. ' + text[3:].replace("\n\n\n", "\n\n\n\n# a comment\n", 1)


def with_other_code(text):
    return text + "\nADDED = 1\n"


OF_WORDS = ["semantic/unet.py", "teaching/exercises/lab15_universal/mask_match.py", "teaching/checks/judge.py"]
OF_WORDS += ["grading/judging/compare.py", "grading/sandbox/fork_server.py"]
ELSEWHERE = ["cli.py", "grading/gradebook/page.py", "grading/batch/batch.py", "grading/platforms/gradescope.py"]
ELSEWHERE += ["teaching/authoring/notebooks.py", "teaching/exercises/lab04_metrics/giou.py", "teaching/mutants/runs.py"]


@pytest.mark.parametrize("file", OF_WORDS)
def test_words_regrade_nobody(copy, file):
    assert changed(copy, file, in_other_words) == set()


@pytest.mark.parametrize("file", ELSEWHERE)
def test_code_that_decides_no_points_regrades_nobody(copy, file):
    assert changed(copy, file, with_other_code) == set()


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("semantic/unet.py", "library"),
        ("ops/matching.py", "library"),
        ("teaching/exercises/lab15_universal/mask_match.py", "exercises"),
        ("teaching/exercises/lab12_one_stage/choices.py", "exercises"),  # which an exercise of lab 15 imports
        ("teaching/checks/judge.py", "judge"),
        ("grading/judging/compare.py", "judge"),
        ("grading/submissions/notebook.py", "judge"),
        ("grading/sandbox/fork_server.py", "sandbox"),
    ],
)
def test_code_that_decides_points_regrades(copy, file, name):
    assert changed(copy, file, with_other_code) == {name}


def test_a_new_file_and_another_name_count(copy):
    before = decisive_hashes("15_universal", copy)
    (copy / "ops" / "added.py").write_text('"""Empty."""\n')
    decisive_hashes.cache_clear()
    after = decisive_hashes("15_universal", copy)
    (copy / "ops" / "added.py").unlink()
    decisive_hashes.cache_clear()
    assert {name for name in FIELDS if before[name] != after[name]} == {"library"}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("def f():\n    'Says what.'\n    return 1", "def f():\n    'Says more.'\n    return 1", True),
        ("class A:\n    'Says what.'\n    x = 1", "class A:\n    x = 1", True),
        ("x = 1  # one", "x = (1)", True),
        ("def f():\n    return 'a'", "def f():\n    return 'b'", False),
        ("def f(x=1): pass", "def f(x=2): pass", False),
        ("x = [a, b]", "x = [a]\nb", False),
        ("if x:\n    y()\nz()", "if x:\n    y()\n    z()", False),
        ("x = 1", "x = True", False),
        ("x = 1", "x = 1.0", False),
        ("def f():\n    1\n    'not a docstring'", "def f():\n    1", False),
        ("no python", "no  python", False),
    ],
)
def test_what_counts_in_a_source(one, other, same):
    assert (normalised_source(one.encode()) == normalised_source(other.encode())) is same


def test_the_fields_of_a_lab():
    lab = read_lab(COURSE, "04_metrics")
    sources = sources_of(lab)
    assert set(sources) == {"lab", *FIELDS} and sources["lab"] == lab.digest
    assert sources_of(read_lab(COURSE, "06_unet"))["exercises"] != sources["exercises"]
    assert tool_version("04_metrics").startswith(f"{segedu.__version__}+") != tool_version("06_unet")
    keys = {record_key("x", sources | {name: "other"}, 1, "") for name in sources}
    assert len(keys | {record_key("x", sources, 1, "")}) == len(sources) + 1
