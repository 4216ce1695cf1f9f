"""What the parent of a batch holds: `python tests/benchmarks/grading_memory.py` prints it for 20 and for 200 submissions.

Resident pages count what is shared with others, such as the code of torch, which the fork server has mapped too; a
process's own pages are what the machine would get back at its end.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent))

from grading import ROOT, command, honest


def peaks(arguments: list[str]) -> tuple[int, int]:
    """Run to the end; the most that the process itself had, own and resident, in MiB."""
    own = resident = 0
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, env=environment) as process:
        parent = psutil.Process(process.pid)
        while process.poll() is None:
            with contextlib.suppress(psutil.Error):
                found = parent.memory_full_info()
                own, resident = max(own, found.uss), max(resident, found.rss)
            time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}")
    return own >> 20, resident >> 20


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for count in (20, 200):
            subs = honest(Path(folder, f"subs{count}"), count)
            own, resident = peaks(command(subs, "04_metrics", Path(folder, f"out{count}"), 2))
            found.append(
                f"{own} MiB of its own ({resident} resident, with code that it shares) for {count} submissions"
            )
        print(f"two at a time, the parent had at most {', '.join(found)}")
