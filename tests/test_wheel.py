"""What is installed: the library and its weights; no lab, no solution, no test."""

import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
IN_THE_LIBRARY = {".py", ".safetensors", ".json", ".html", ".css", ".js", ".j2", ".md", ".toml", ".c"}


def test_only_the_library_is_packed():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    assert build["wheel"] == {"packages": ["segedu"]}
    assert set(build["sdist"]["include"]) == {"segedu", "README.md", "LICENSE", "pyproject.toml"}


def test_the_library_holds_code_and_weights():
    run = subprocess.run(["git", "ls-files", "segedu"], cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        pytest.skip("not a git checkout: the files of the library are not known")
    paths = [Path(line) for line in run.stdout.splitlines()]
    assert paths
    assert not [str(p) for p in paths if p.suffix not in IN_THE_LIBRARY]
    # 30 MB in all is the room for the course's weights; the largest file is YOLO's, with its fully connected layers
    sizes = [(ROOT / p).stat().st_size for p in paths if p.suffix == ".safetensors"]
    assert max(sizes, default=0) <= 3_000_000 and sum(sizes) <= 30_000_000
