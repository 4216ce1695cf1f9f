"""Attacks by what a kernel says and does not say: it never ends a cell, or shows more than the grader could hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import tiny
from attack import EVERYWHERE, FULL, RIGHT, Attack
from cells_kernel import line


def shown(sources: Sequence[str]) -> Callable[[Path, str], Path]:
    """A right notebook with these cells behind its answers.

    Args:
        sources: of the cells.

    Returns:
        Writes it below a folder.
    """

    def make(folder: Path, name: str) -> Path:
        cells = tiny.answered(**RIGHT | {"double": f"# row: {name}\n{RIGHT['double']}"})
        cells += [tiny.cell(f"shown-{i}", source) for i, source in enumerate(sources)]
        path = folder / f"{name}.ipynb"
        path.write_text(tiny.notebook(cells))
        return path

    return make


NESTED = "get_ipython().display_pub.publish(data={'x': [{}] * 240_000})"
TEXT = "print('x' * 300_000)"
FIGURE = "import matplotlib.pyplot as plt\nplt.plot(np.arange(50))\nplt.show()"

SILENT = [
    line(
        "p10_never_idle",
        "to make the grader stop the kernel twice, which was an error of the grader",
        "that cell ends its kernel; the answers are graded",
        "kernel._publish_status = lambda *a, **k: None",
        note="ended the kernel",
        twin="kernel = get_ipython().kernel\nprint(kernel.implementation, kernel.execution_count)",
    ),
    line(
        "p11_never_idle_and_talks_on",
        "to keep the grader listening for ever, one message after the other",
        "that cell ends its kernel; the answers are graded",
        """kernel._publish_status = lambda *a, **k: None
header = parent()


def talk():
    while True:
        session.send(kernel.iopub_socket, "stream", {"name": "stdout", "text": "x"}, parent=header)
        time.sleep(0.02)


threading.Thread(target=talk, daemon=True).start()""",
        note="ended the kernel",
        twin="""import threading, time
thread = threading.Thread(target=lambda: [print(i) or time.sleep(0.01) for i in range(20)])
thread.start()
thread.join()""",
    ),
    line(
        "p12_silent_output",
        "to send nothing to the output channel any more",
        "that cell ends its kernel; the answers are graded",
        "kernel.iopub_socket.io_thread._really_send = lambda *a, **k: None\nkernel.iopub_socket.send_multipart = print",
        own_loss=True,
        twin="import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()):\n    print('to nobody')",
    ),
    line(
        "p13_closes_its_connections",
        "to close its connections, now and between two cells, so that a message to it waits for ever",
        "those cells end their kernel",
        "threading.Timer(0.02, os.closerange, [3, 1024]).start()",
        own_loss=True,
        twin="import os\nread, write = os.pipe()\nos.close(read)\nos.close(write)",
    ),
    line(
        "p14_replies_of_wrong_types",
        "to answer with contents of types that the grader does not expect",
        "an error of that cell",
        """send = session.send


def odd(stream, kind, content=None, *rest, **more):
    if kind == "execute_reply":
        session.send = send
        content = {"status": ["ok"], "ename": {"a": 1}, "evalue": [[]] * 5, "traceback": 5}
    return send(stream, kind, content, *rest, **more)


session.send = odd""",
        note="could not|stopped with",
        twin="class Odd(Exception):\n    __str__ = lambda self: 'x' * 100\n\n\ntry:\n    raise Odd\nexcept Odd as error:\n    print(error)",
    ),
    Attack(
        "p15_nested_outputs",
        "provisioner",
        "to fill the grader's memory with outputs: each cell's cost it 100 MB",
        "what a cell shows is not decoded and does not stay",
        points=FULL,
        make=shown([NESTED] * 12),
        make_twin=shown([FIGURE] * 6),
        levels=EVERYWHERE,
    ),
    Attack(
        "p16_text_in_two_thousand_cells",
        "provisioner",
        "to fill the grader's memory with text, a little in each of very many cells",
        "of each cell a few thousand characters stay",
        points=FULL,
        own_loss=True,
        make=shown([TEXT] * 1_950),
        make_twin=shown(["print('epoch', 1, 'loss', 0.5)"] * 40),
        levels=(3, 2),
    ),
]
