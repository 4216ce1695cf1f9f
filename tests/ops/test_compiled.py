"""Machine code is kept where that is possible, and made anyway where it is not."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from numba.core import caching
{change}
sys.path.insert(0, {folder!r})
import kernel
print(kernel.double(21), kernel.double.stats.cache_hits.total() if kernel.double.stats.cache_path else "not kept")
"""
KERNEL = """
from segedu.ops.compiled import compiled


@compiled
def double(x):
    return 2 * x
"""


def run(tmp_path, change: str = "") -> str:
    (tmp_path / "kernel.py").write_text(KERNEL)
    code = PROGRAM.format(change=change, folder=str(tmp_path))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_the_second_process_finds_the_code_of_the_first(tmp_path) -> None:
    assert run(tmp_path) == "42 0"
    assert run(tmp_path) == "42 1"


def test_without_a_folder_to_write_to_it_compiles_all_the_same(tmp_path) -> None:
    assert run(tmp_path, "caching.CacheImpl._locator_classes = []") == "42 not kept"
