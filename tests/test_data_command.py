"""`segedu data`: the list, the question before a large download, and errors in one sentence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import Server, file_server
from miniature_archives import publish
from typer.testing import CliRunner, Result

from segedu.cli import app
from segedu.datasets.data_folder import fetched_folder
from segedu.datasets.real_data import DATA_SETS
from segedu.recipes import data_command


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Server]]:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("SEGEDU_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SEGEDU_DATA", raising=False)
    with file_server() as handler:
        publish(handler, monkeypatch, "pennfudan")
        yield handler


def run(*words: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(app, ["data", *words], input=typed)


def test_list(server: type[Server]) -> None:
    result = run()
    lines = result.output.splitlines()
    assert result.exit_code == 0 and lines[0].split() == ["name", "images", "download", "here", "licence"]
    for name, data in DATA_SETS.items():
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        assert str(data.images) in line and data.licence in line and "  no  " in line
        assert f"    {data.about}" in lines
    assert run("pennfudan").exit_code == 0
    (line,) = [line for line in run().output.splitlines() if line.startswith("pennfudan ")]
    assert "  yes  " in line


def test_one(server: type[Server]) -> None:
    result = run("pennfudan")
    assert result.exit_code == 0 and result.stdout.endswith(f"pennfudan: {fetched_folder('pennfudan')}\n")
    assert "Licence: none" in result.stdout and "Citation: L. Wang" in result.stdout
    assert run("pennfudan").output == f"pennfudan: {fetched_folder('pennfudan')}\n" and len(server.asked) == 1


def test_question_before_a_large_download(server: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_command, "ASK_ABOVE", 1)
    result = run("pennfudan")  # nobody can answer
    assert result.exit_code == 2 and "add --yes" in result.output and server.asked == []
    monkeypatch.setattr(data_command, "_can_answer", lambda: True)
    result = run("pennfudan", typed="n\n")
    assert result.exit_code == 1 and "Continue? [y/N]" in result.output and "Nothing was downloaded." in result.output
    assert server.asked == [] and not fetched_folder("pennfudan").exists()
    assert run("pennfudan", typed="y\n").exit_code == 0 and len(server.asked) == 1
    assert run("pennfudan").exit_code == 0  # it is here: no question


def test_yes(server: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_command, "ASK_ABOVE", 1)
    assert run("pennfudan", "--yes").exit_code == 0 and fetched_folder("pennfudan").is_dir()


def test_errors_are_one_sentence(server: type[Server]) -> None:
    server.files.clear()
    result = run("pennfudan")
    assert result.exit_code == 1 and result.stderr.splitlines()[-1].startswith("data set 'pennfudan': ")
    result = run("petz")
    assert result.exit_code == 2 and result.stderr.startswith("name is 'petz', expected one of pets, ")


def test_list_imports_no_torch() -> None:
    code = "import sys; from segedu.recipes.data_command import rows; rows(); import segedu.datasets.fetch; "
    code += "assert 'torch' not in sys.modules and 'scipy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
