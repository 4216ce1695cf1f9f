"""Attacks on the line between kernel and grader: messages, sockets, the end of a kernel."""

from __future__ import annotations

from attack import EVERYWHERE, Attack, beside_right

LINE = """import json, os, struct, sys, threading, time
kernel = get_ipython().kernel
session = kernel.session


def parent():
    return kernel.get_parent("shell")


"""


def line(name: str, tries: str, right: str, cell: str, **more) -> Attack:
    """An attack on the messages, in a cell before right answers."""
    return beside_right(name, "provisioner", tries, right, cell=LINE + cell, **{"levels": EVERYWHERE} | more)


KERNEL = [
    line(
        "o40_forged_messages",
        "to send messages of every kind with contents of every type, signed with the right key",
        "they are dropped",
        """deep = []
for _ in range(800):
    deep = [deep]
contents = ([], {}, None, 5, "text", {"data": 5}, {"status": ["ok"]}, {"execution_state": "idle"}, {"name": 3, "text": {}},
            {"traceback": "no list", "ename": 5, "evalue": {}}, {"NaN": float("nan")}, {"x": deep}, {"data": {"text/plain": deep}})
for stream in (kernel.iopub_socket, *[s for s in (getattr(kernel, "shell_stream", None),) if s is not None]):
    for kind in ("stream", "status", "error", "execute_result", "display_data", "execute_reply", "comm_open", "shutdown_reply",
                 "execute_input", "clear_output", "", "x" * 500):
        for content in contents:
            try:
                session.send(stream, kind, content=content, parent=parent())
            except Exception:
                pass""",
        note="could not be run|",
        twin="from IPython.display import display\ndisplay({'text/plain': 'x'}, raw=True)",
    ),
    line(
        "o41_many_parts",
        "to send one message of many large parts: the queue counts messages, not parts",
        "cut before the grader has to hold it",
        """part = bytearray(7 << 20)
kernel.iopub_socket.send_multipart([part] * 120, copy=False)
time.sleep(2)""",
        note="printed too much",
        levels=(3, 2),
        twin="print('x' * 500_000)",
    ),
    line(
        "o42_huge_message",
        "to send one message that is too large",
        "the line is cut, a new kernel runs the rest",
        "kernel.iopub_socket.send(bytes(40 << 20))\ntime.sleep(1)",
        note="printed too much",
        twin="from IPython.display import display, HTML\ndisplay(HTML('<b>' + 'x' * 100_000 + '</b>'))",
    ),
    line(
        "o43_early_reply",
        "to answer for cells that have not run, and to say idle early",
        "0 for nobody: outcomes count, not replies",
        """def lie():
    for _ in range(200):
        for content, kind in (({"status": "ok", "execution_count": 1}, "execute_reply"), ({"execution_state": "idle"}, "status")):
            try:
                session.send(kernel.iopub_socket, kind, content=content, parent=parent())
            except Exception:
                pass
        time.sleep(0.01)


threading.Thread(target=lie, daemon=True).start()""",
        twin="import threading\nthreading.Thread(target=print, args=('from a thread',)).start()",
    ),
    line(
        "o44_other_sockets",
        "to put sockets of its own in the place of the kernel's",
        "the line is never made anew",
        """import glob, socket
run = os.path.dirname(os.environ["SEGEDU_WORK"]) + "/run"
for path in glob.glob(run + "/k-*"):
    os.rename(path, path + ".old")
    mine = socket.socket(socket.AF_UNIX)
    mine.bind(path)
    mine.listen(5)
os.rename(run, run + "-moved")""",
        twin="import tempfile, os\nprint(os.path.isdir(tempfile.mkdtemp()))",
    ),
    line(
        "o45_keeps_everything_open",
        "to hold sockets and descriptors open in children, so that nothing can end",
        "all of it ends with the first process of the sandbox",
        """import socket
held = [socket.socketpair() for _ in range(100)]
for _ in range(5):
    if os.fork() == 0:
        os.setsid()
        time.sleep(30)
        os._exit(0)
os.kill(os.getpid(), 9)""",
        levels=(3, 2),
        note="ended the kernel",
        twin="held = [open('x.txt', 'w') for _ in range(50)]\nfor one in held:\n    one.close()",
    ),
    line(
        "o46_stops_the_threads",
        "to stop the kernel's own threads and its loop",
        "stopped at the limit; the answers are graded",
        """import asyncio
kernel.io_loop.call_later(0, lambda: time.sleep(60)) if getattr(kernel, "io_loop", None) else None
get_ipython().kernel.iopub_thread.stop()""",
        own_loss=True,
        twin="import asyncio\nawait asyncio.sleep(0.01)",
    ),
    line(
        "o47_asks_the_grader",
        "to wait for input from the person who grades",
        "refused at once",
        "try:\n    input('password: ')\nexcept Exception as error:\n    print(type(error).__name__)",
        twin="name = 'Anna'\nprint(f'{name:>10}')",
    ),
    line(
        "o48_odd_headers",
        "to send headers with odd dates, versions and identities",
        "they are dropped",
        """from datetime import datetime
for version in ("0.0", "4.1", "99", "x", 5, None, [], "5." + "9" * 4000):
    for date in ("9999-99-99T99:99:99", "0" * 9000, 5, None, [1], "2026-01-01T00:00:00+99:99"):
        message = session.msg("stream", {"name": "stdout", "text": "x"}, parent=parent())
        message["header"].update(version=version, date=date, msg_id={"a": 1})
        try:
            session.send(kernel.iopub_socket, message, ident=[b"x" * 300, b"<IDS|MSG>"])
        except Exception:
            pass
kernel.iopub_socket.send_multipart([b"", b"<IDS|MSG>", b"", b"{", b"{", b"{", b"{"])
kernel.iopub_socket.send_multipart([b"<IDS|MSG>"])
kernel.iopub_socket.send_multipart([b"x"] * 5000)""",
        twin="from datetime import datetime\nprint(datetime(2026, 1, 1).isoformat())",
    ),
]
