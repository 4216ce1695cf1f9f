"""Rows of proofs.csv: stale ones are listed, a killed run keeps its rows, a wrong name is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace

import proven
import pytest

from segedu.teaching import exercises
from segedu.teaching.evidence import proofs

ROOT = Path(__file__).parents[1]
CLAIMS = """
[[claim]]
name = "two"
command = "python -c 'print(\\"answer 2\\")'"
figure = 'answer (\\d+)'
sources = ["a.py"]

[[claim]]
name = "none"
command = "python -c 'print(1)'"
figure = 'answer (\\d+)'
sources = ["*.py"]
"""


@pytest.fixture
def course(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "claims.toml").write_text(CLAIMS)
    (tmp_path / "a.py").write_text("1")
    return tmp_path


def test_a_claim_that_came_while_another_was_measured_keeps_its_row(course, monkeypatch):
    measure = proofs._measure

    def meanwhile(*given):
        text = CLAIMS.replace('"two"', '"new"', 1)
        (course / "tests" / "claims.toml").write_text(
            CLAIMS + text[text.index("[[claim]]") : text.index("[[claim]]", 9)]
        )
        (new,) = (claim for claim in proofs.read_claims(course) if claim.name == "new")
        row = measure(course, new)
        proofs._write(course, {**proofs.read_rows(course), "new": row}, ["two", "new"])
        return measure(*given)

    monkeypatch.setattr(proofs, "_measure", meanwhile)
    proofs.prove(course, ["two"])
    assert set(proofs.read_rows(course)) == {"two", "new"}


def test_measures_what_is_stale_and_keeps_it(course, capsys):
    assert proofs.stale(course) == ["two", "none"]
    with pytest.raises(SystemExit):
        proofs.prove(course)
    assert "no figure for: none" in capsys.readouterr().out
    row = proofs.read_rows(course)["two"]
    assert row.figure == "2" and proofs.stale(course) == ["none"]
    (course / "a.py").write_text("2")
    assert proofs.stale(course) == ["two", "none"]


def test_of_python_only_what_runs_counts(course):
    (course / "a.py").write_text('"""To be measured."""\nx = 1')
    before = proofs.source_hash(course, ["a.py"])
    (course / "a.py").write_text('"""Measured: 0.9."""\n\n# why\nx = 1\n')
    assert proofs.source_hash(course, ["a.py"]) == before
    (course / "a.py").write_text('"""Measured: 0.9."""\nx = 2')
    assert proofs.source_hash(course, ["a.py"]) != before


def test_copies_that_jupyterlab_makes_do_not_count(course):
    before = proofs.source_hash(course, ["**/*.py"])
    (course / ".ipynb_checkpoints").mkdir()
    (course / ".ipynb_checkpoints" / "a-checkpoint.py").write_text("x = 2")
    assert proofs.source_hash(course, ["**/*.py"]) == before


def test_of_a_solution_the_digest_of_its_sources_does_not_count(course):
    hashes = []
    for value in ("0123456789abcdef", "fedcba9876543210", "x = 1", ""):
        (course / "a.ipynb").write_text(f'{{"lab": 1, "source": "{value}"')  # cut off, as some notebooks of tests are
        hashes.append(proofs.source_hash(course, ["a.ipynb"]))
    assert hashes[0] == hashes[1] and len(set(hashes)) == 3


def test_errors_say_what_is_expected(course):
    with pytest.raises(ValueError, match="one of its 2 names, such as 'two', 'none'"):
        proofs.prove(course, ["three"])
    with pytest.raises(ValueError, match="matches no file"):
        proofs.source_hash(course, ["b.py"])


def test_the_claims_of_the_course_are_sound():
    claims = proofs.read_claims(ROOT)
    assert len({c.name for c in claims}) == len(claims)
    assert set(proofs.read_rows(ROOT)) <= {c.name for c in claims}
    if old := proofs.stale(ROOT):
        warnings.warn(f"make prove: not measured with today's sources: {', '.join(old)}", stacklevel=1)


def test_imports_of_a_source_count_also_through_other_files(course):
    for name, code in {
        "one": "from segedu import example",
        "example": "import segedu.sample",
        "sample": "x = 1",
    }.items():
        (course / "segedu").mkdir(exist_ok=True)
        (course / "segedu" / f"{name}.py").write_text(code)
    (course / "lab.py").write_text("from segedu import one")
    names = [path.name for path in proofs.imported_files(course, [course / "lab.py"])]
    assert names == ["example.py", "one.py", "sample.py"]
    before = proofs.source_hash(course, ["imports of lab.py"])
    (course / "segedu" / "sample.py").write_text('"""A docstring does not count."""\nx = 1')
    assert proofs.source_hash(course, ["imports of lab.py"]) == before
    (course / "segedu" / "sample.py").write_text("x = 22")
    assert proofs.source_hash(course, ["imports of lab.py"]) != before
    with pytest.raises(ValueError, match="matches no file"):
        proofs.source_hash(course, ["imports of none.py"])


@pytest.mark.parametrize("fresh", [True, False])
def test_only_what_a_fresh_row_stands_for_is_skipped(fresh, monkeypatch):
    monkeypatch.setattr(proven, "STALE", frozenset() if fresh else {proven.SITE, proven.notebooks_of("02_clustering")})
    assert proven.unless_proven(proven.SITE).args == (fresh,)
    skips = {each.id or each.values[0]: each.marks for each in proven.each_lab(["02_clustering", "04_metrics"]).args[1]}
    assert [mark.args for mark in skips["02_clustering"]] == [(fresh,)] and not skips["04_metrics"]


def test_as_another_cpu_numerical_tests_run_though_their_rows_are_fresh(monkeypatch):
    monkeypatch.setattr(proofs, "stale", lambda course: ["a stale one"])
    assert proven.claims_to_run({}) == {"a stale one"}
    numerical = proven.claims_to_run({proven.OTHER_CPU: "1"}) - {"a stale one"}
    assert all(any(name.startswith(start) for name in numerical) for start in proven.NUMERICAL)
    names = {claim.name for claim in proofs.read_claims(ROOT)}
    assert proven.claims_to_run({proofs.PROVING: "1"}) == names and proven.SITE in names - numerical


def test_each_lab_and_the_site_have_a_claim():
    names = {claim.name for claim in proofs.read_claims(ROOT)}
    labs = [lab for lab in exercises.with_notebook() if lab not in proven.ALWAYS]
    assert {proven.SITE, *map(proven.notebooks_of, labs)} <= names


def test_a_command_that_fails_gives_no_row_whatever_it_prints(course, capsys):
    text = CLAIMS.replace('print(\\"answer 2\\")', 'print(\\"answer 2\\"); raise SystemExit(1)', 1)
    assert text != CLAIMS
    (course / "tests" / "claims.toml").write_text(text)
    with pytest.raises(SystemExit):
        proofs.prove(course, ["two"])
    assert "no figure for: two" in capsys.readouterr().out and not proofs.read_rows(course)


def test_a_claim_in_proof_is_told_to_skip_nothing(course):
    command = 'import os; print(\\"answer\\", os.environ[\\"SEGEDU_PROVING\\"])'
    text = CLAIMS.replace('print(\\"answer 2\\")', command, 1)
    (course / "tests" / "claims.toml").write_text(text)
    proofs.prove(course, ["two"])
    assert proofs.read_rows(course)["two"].figure == "1"


def test_a_file_that_a_claim_runs_whole_belongs_to_no_other_claim():
    files = proven.proven_files()
    assert "tests/grading/test_levels.py" in files and "tests/test_export.py" in files
    assert [file for file in files if not (ROOT / file).is_file()] == []
    words = [
        word for claim in proofs.read_claims(ROOT) if "not prove" in claim.command for word in claim.command.split()
    ]
    assert sorted(files) == sorted(word for word in words if word.endswith(".py"))


def test_files_of_a_fresh_claim_are_skipped_and_of_a_stale_one_run(request, monkeypatch):
    conftest = request.config.pluginmanager.get_plugin(str(ROOT / "tests" / "conftest.py"))
    file, claim = next(iter(proven.proven_files().items()))
    for stale, skipped in ((frozenset(), True), (frozenset({claim}), False)):
        monkeypatch.setattr(proven, "STALE", stale)
        item = SimpleNamespace(path=ROOT / file, get_closest_marker=lambda name: None, marks=[])
        item.add_marker = item.marks.append
        conftest.pytest_collection_modifyitems([item])
        assert [mark.args for mark in item.marks] == [(skipped,)]
