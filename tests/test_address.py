"""The repository's address is a placeholder until its owner sets it, everywhere in one step."""

import json
import shutil
from pathlib import Path

import pytest

from segedu.teaching.authoring import address
from segedu.teaching.evidence import proofs

ROOT = Path(__file__).resolve().parents[1]
NEW = "https://github.com/someone/course-2026"


@pytest.fixture
def checkout(tmp_path):
    for file in ("pyproject.toml", "README.md", "labs/04_metrics.ipynb", "labs/capstone.ipynb", "solutions/04_metrics.ipynb",
                 "tests/submissions/04_metrics/perfect.ipynb"):  # fmt: skip
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    address.set_address(tmp_path, address.PLACEHOLDER)  # in a copy of the course that has an address
    return tmp_path


def first_code_cell(path: Path) -> str:
    return next(cell["source"] for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code")


def on_colab(path: Path) -> str:
    """The branch of the first code cell that runs on Colab only."""
    return first_code_cell(path).split('"google.colab" in sys.modules:\n')[1].split("\n\n")[0].strip()


@pytest.mark.parametrize("notebook", ["labs/04_metrics.ipynb", "labs/capstone.ipynb", "solutions/04_metrics.ipynb"])
def test_colab_stops_with_a_sentence_while_there_is_no_address(checkout, notebook):
    with pytest.raises(RuntimeError, match="no address yet.*segedu address URL"):
        exec(on_colab(checkout / notebook))


def test_the_address_is_set_everywhere_and_back(checkout):
    before = {path: path.read_bytes() for path in checkout.rglob("*.*") if path.is_file()}
    changed = address.set_address(checkout, f"{NEW}.git/")
    assert len(changed) == len(before) == 6
    assert address.repository(checkout) == NEW
    for path in before:
        assert "OWNER/segedu" not in path.read_text(), path
        if path.suffix == ".ipynb":
            assert on_colab(path) == f'%pip install -q "segedu[train] @ git+{NEW}"'
    assert (
        "git clone https://github.com/someone/course-2026 && cd course-2026\n" in (checkout / "README.md").read_text()
    )
    assert address.set_address(checkout, NEW) == []
    address.set_address(checkout, address.PLACEHOLDER)
    assert {path: path.read_bytes() for path in before} == before


def test_another_address_makes_no_row_stale(checkout):
    sources = ["labs/*.ipynb", "solutions/*.ipynb", "pyproject.toml"]
    before = proofs.source_hash(checkout, sources)
    address.set_address(checkout, NEW)
    assert proofs.source_hash(checkout, sources) == before


def test_a_command_that_was_stopped_can_be_repeated(checkout, monkeypatch):
    write, written = Path.write_text, []

    def stop(path, text):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        return write(path, text)

    monkeypatch.setattr(Path, "write_text", stop)
    with pytest.raises(KeyboardInterrupt):
        address.set_address(checkout, NEW)
    monkeypatch.undo()
    address.set_address(checkout, NEW)
    assert not any("OWNER/segedu" in path.read_text() for path in checkout.rglob("*.*") if path.is_file())


def test_the_command_says_how_to_undo(checkout, capsys):
    address.print_address(checkout, NEW)
    assert (
        capsys.readouterr().out
        == f"6 files now have the address {NEW}. To undo: segedu address {address.PLACEHOLDER}\n"
    )
    address.print_address(checkout, NEW)
    assert capsys.readouterr().out == f"Nothing changed: the address was {NEW} already.\n"


@pytest.mark.parametrize("url", ["", "someone/course", "https://gitlab.com/a/b", "https://github.com/a", "https://github.com/a/b/c",
                                 "https://github.com/a/b c", 'https://github.com/a/b"; import os'])  # fmt: skip
def test_what_is_no_address_changes_nothing(checkout, url):
    before = (checkout / "pyproject.toml").read_text()
    with pytest.raises(ValueError, match="expected the address of a repository on GitHub"):
        address.set_address(checkout, url)
    assert (checkout / "pyproject.toml").read_text() == before
