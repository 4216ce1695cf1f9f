"""The part of grading that runs in the student's process: it reads cases, writes outcomes and contains no answers.

The grading cells call `run_probe`; another process judges the outcomes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segedu.teaching.checks import codec, probes
from segedu.teaching.checks.outcomes import NotPlain

PROBES = {"call": probes.call, "call_grad": probes.call_grad, "module": probes.module}


def write_files(folder: Path, stem: str, files: dict[str, bytes]) -> None:
    """Write the files of one packed value, the JSON last, so that a JSON always has its arrays.

    Args:
        folder: an existing folder.
        stem: `3` gives `3.json`, `3.0.npy`, ...
        files: the result of `codec.pack`.
    """
    for name, data in sorted(files.items(), key=lambda item: item[0] == "json"):
        part = folder / f".{stem}.{name}.part"
        part.write_bytes(data)
        os.replace(part, folder / f"{stem}.{name}")


def reader(folder: Path, stem: str) -> Callable[[str], bytes | None]:
    """Return the `get` that `codec.unpack` needs: it reads `<stem>.json` and `<stem>.<k>.npy` of a folder."""

    def get(name: str) -> bytes | None:
        path = folder / f"{stem}.{name}"
        return path.read_bytes() if path.is_file() else None

    return get


@contextmanager
def _usual_settings() -> Iterator[None]:
    """PyTorch as the cases were drawn: a notebook may have changed its default dtype, or entered inference mode.

    The visible check draws its cases under the notebook's own settings; these cases come from another process.
    """
    import torch

    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False):
            yield
    finally:
        torch.set_default_dtype(dtype)


def run_probe(name: str, folder: str, namespace: dict[str, Any], out: str = "out") -> None:
    """Probe `namespace[name]` on every case in the folder and write the outcomes one by one.

    Args:
        name: name of the student's function.
        folder: holds `job.json` (`{"probe": "call", "cases": 4}`) and `in/<i>.json` with arrays.
        namespace: the notebook's globals.
        out: the subfolder for the outcomes.
    """
    import torch

    root = Path(folder)
    job = json.loads((root / "job.json").read_text())
    (root / out).mkdir(exist_ok=True)
    function = namespace.get(name)
    torch.set_num_threads(1)
    for i in range(job["cases"]):
        with _usual_settings():
            case = codec.unpack(reader(root / "in", str(i)), ours=True)
            if callable(function):
                outcome = PROBES[job["probe"]](function, case)
            else:
                outcome = {"raises": "NameError", "_message": f"{name} is not defined"}
        try:
            files = codec.pack(outcome)
        except NotPlain as error:
            files = codec.pack({"refused": str(error)})
        write_files(root / out, str(i), files)
