"""Memory of the processes of a batch: `python tests/benchmarks/grading_memory.py` prints it for 20 and for 200 submissions.

The parent reads, records and reports; the graders' process beside it judges, and therefore imports torch. Resident
memory includes pages shared with other processes, such as the code of torch, which the fork server has mapped too.
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
    """Run to the end; returns the largest resident size of the parent and of the graders' process, in MiB."""
    most = [0, 0]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, env=environment) as process:
        parent = psutil.Process(process.pid)
        while process.poll() is None:
            with contextlib.suppress(psutil.Error):
                graders = [child for child in parent.children() if "grader_process.main" in " ".join(child.cmdline())]
                for i, one in enumerate([parent, *graders][:2]):
                    most[i] = max(most[i], one.memory_info().rss)
            time.sleep(0.2)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}")
    return most[0] >> 20, most[1] >> 20


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for count in (20, 200):
            subs = honest(Path(folder, f"subs{count}"), count)
            parent, graders = peaks(command(subs, "04_metrics", Path(folder, f"out{count}"), 2))
            found.append(f"{parent} MiB (the process that judges: {graders}) for {count} submissions")
        print(f"two at a time, the parent had at most {', '.join(found)}")
