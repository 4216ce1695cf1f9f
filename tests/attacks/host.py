"""A host with something to lose, and the referee who looks whether it was lost."""

from __future__ import annotations

import contextlib
import csv
import gc
import hashlib
import json
import os
import secrets
import socket
import sqlite3
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
from system_v import SIZE, SystemV

MARK = "segedu-attack-mark"  # in the command line of every process that an attack starts, and in every file it plants
GROWTH = 400 << 20
TERMINALS = 64  # more than that of the machine's belong to no sandbox
USERS = 0x5E  # the first byte of the users that `isolation_levels.own_user` draws


class Host:
    """Files, sockets and a process outside of every sandbox, as open as the operating system allows.

    Args:
        folder: made here.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.bait = folder, folder / "bait"
        self.token = f"token-{secrets.token_hex(8)}"
        self.visits: list[str] = []
        self.sockets: list[socket.socket] = []

    def __enter__(self) -> Host:
        self.bait.mkdir(parents=True)
        self._files()
        self.system_v = SystemV()
        self.words = {"BAIT": str(self.bait), "TOKEN": self.token, **self._listeners(), **self.system_v.words}
        code = "import sys, time; time.sleep(7200)"
        self.victim = subprocess.Popen([sys.executable, "-I", "-S", "-c", code], env={})
        self.words |= {"PID": str(self.victim.pid), "GRADER": str(os.getpid())}
        return self

    def __exit__(self, *_: object) -> None:
        for listening in self.sockets:
            listening.close()
        self.system_v.close()
        self.victim.kill()
        self.victim.wait()

    def _files(self) -> None:
        with contextlib.closing(sqlite3.connect(self.bait / "gradebook.sqlite")) as book:
            book.execute("create table submissions (student text, points real, max_points real)")
            book.execute("insert into submissions values ('mallory', 0, 9)")
            book.commit()
        (self.bait / "records").mkdir()
        (self.bait / "records" / "mallory.json").write_text(json.dumps({"points": 0, "max_points": 9}))
        (self.bait / "secret.txt").write_text(self.token)
        for path in (self.folder, self.bait, *self.bait.rglob("*")):
            path.chmod(0o777 if path.is_dir() else 0o666)

    def _listeners(self) -> dict[str, str]:
        path, name = self.folder / "service", f"segedu-{secrets.token_hex(6)}"
        places = [(socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_UNIX, str(path)), (socket.AF_UNIX, f"\0{name}")]
        for family, place in places:
            listening = socket.socket(family, socket.SOCK_STREAM)
            listening.bind(place)
            listening.listen(16)
            self.sockets.append(listening)
            threading.Thread(target=self._receive, args=(listening, str(place)), daemon=True).start()
        mailbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        mailbox.bind(str(self.folder / "mailbox"))
        self.sockets.append(mailbox)
        threading.Thread(target=self._read_mail, args=(mailbox,), daemon=True).start()
        for one in (path, self.folder / "mailbox"):
            one.chmod(0o777)
        port = str(self.sockets[0].getsockname()[1])
        return {"PORT": port, "SOCKET": str(path), "NAME": name, "MAILBOX": str(self.folder / "mailbox")}

    def _receive(self, listening: socket.socket, place: str) -> None:
        with contextlib.suppress(OSError):
            while True:
                visitor, _ = listening.accept()
                self.visits.append(f"the host's socket {place} was reached")
                visitor.close()

    def _read_mail(self, mailbox: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while mailbox.recv(100):
                self.visits.append("a datagram reached the host's mailbox")

    def state(self) -> dict[str, str]:
        """Every file below the folder."""
        found = {}
        for path in sorted(self.folder.rglob("*")):
            data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            found[str(path.relative_to(self.folder))] = f"{path.lstat().st_mode} {hashlib.sha256(data).hexdigest()}"
        return found


class Referee:
    """Looks for harm after each submission, or, where several run at a time, after all.

    Args:
        host: what may be harmed.
        files: others that must not change.
        brand: see `branded`.
        watch_each: after each submission.
    """

    def __init__(self, host: Host, files: Sequence[Path], brand: str, watch_each: bool = True) -> None:
        self.host, self.watched, self.brand, self.watch_each = host, list(files), brand, watch_each
        self.users: set[int] = set()
        self.found: dict[str, list[str]] = defaultdict(list)
        self.secrets: set[str] = set()
        self.peak = self.base = 0
        self.running = 0
        self.going = False
        self.server = None

    def begin(self) -> None:
        """Remembers what there is."""
        self.files = self._files()
        gc.collect()
        self.segments, self.terminals = _segments(), [_terminals()] * 2
        self.descriptors = len(os.listdir("/proc/self/fd"))
        self.going = True
        self.sampler = threading.Thread(target=self._sample, daemon=True)
        self.sampler.start()

    def enter(self, name: str) -> None:
        """A submission starts."""
        self.running += 1
        if self.running == 1:
            self.base = self.peak = psutil.Process().memory_info().rss

    def leave(self, name: str, pool) -> None:
        """A submission has run."""
        self.running -= 1
        self.server = pool.server
        if self.going and self.watch_each:
            time.sleep(0.02)
            self.found[name] += self._harm(pool.server)

    def end(self) -> None:
        """The batch has ended."""
        self.going = False
        self.sampler.join()
        self.found[""] += self._harm(self.server)
        left = sorted(os.listdir(tempfile.gettempdir()))
        self.found[""] += [f"{name} was left in the folder for temporary files" for name in left]
        gc.collect()  # a context of ZeroMQ or an event loop that waits for the collector is no leak
        more = len(os.listdir("/proc/self/fd")) - self.descriptors
        if more > 8:
            self.found[""].append(f"the grader holds {more} more descriptors than before")

    def _sample(self) -> None:
        own, rounds = psutil.Process(), 0
        while self.going:
            self.peak = max(self.peak, own.memory_info().rss)
            self.terminals[1] = max(self.terminals[1], _terminals())
            if rounds % 8 == 0:
                self.users |= {user for _, user in strays(self.brand, set()) if user >> 24 == USERS}
            rounds += 1
            time.sleep(0.02)

    def _harm(self, server) -> list[str]:
        faults, self.host.visits = [f"HARM: {visit}" for visit in dict.fromkeys(self.host.visits)], []
        files = self._files()
        changed = sorted(name for name in files.keys() | self.files.keys() if files.get(name) != self.files.get(name))
        faults += [f"HARM: {name} was changed" for name in changed[:5]]
        self.files = files
        if self.host.victim.poll() is not None and not self.host.victim.args == ():
            faults.append("HARM: a process of the host was killed")
            self.host.victim.args = ()
        if self.peak - self.base > GROWTH:
            faults.append(f"HARM: the grader grew by {self.peak - self.base >> 20} MB")
        faults += self._of_the_machine() + self.host.system_v.changes()
        pid = server.process.pid if server and server.process else 0
        faults += [f"HARM: a process was left: {text}" for text in _left(self.brand, self.users, pid)]
        planted = Path(sysconfig.get_paths()["purelib"], f"{MARK.replace('-', '_')}.py")
        if planted.exists():
            planted.unlink()
            faults.append("HARM: a module was written into site-packages")
        return faults

    def _of_the_machine(self) -> list[str]:
        """What all share: terminals, and memory that nobody holds any more."""
        base, most = self.terminals
        self.terminals = [_terminals()] * 2
        faults = [f"HARM: {most - base} terminals of the machine were taken"] * (most - base > TERMINALS)
        more, self.segments = _segments() - self.segments, _segments()
        return faults + [f"HARM: {len(more)} segments of shared memory were left"] * bool(more)

    def _files(self) -> dict[str, str]:
        rest = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in self.watched if path.exists()}
        return self.host.state() | rest

    def reports(self, out: Path, count: int) -> list[str]:
        """What is wrong with the reports of the batch."""
        (folder,) = out.glob("*/records")
        records = {json.loads(path.read_text())["student"]: path for path in folder.glob("*.json")}
        with open(folder.parent / "grades.csv", newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        faults = [] if len(rows) == count == len(records) else [f"{len(rows)} rows in the CSV for {count} submissions"]
        cells = [cell for row in rows for cell in row.values() if cell]
        faults += ["a cell of the CSV is a formula"] * any(cell[0] in "=+-@\t\r" for cell in cells)
        faults += ["a cell of the CSV has more than 32767 characters"] * any(len(cell) > 32767 for cell in cells)
        with contextlib.closing(sqlite3.connect(out / "gradebook.sqlite")) as book:
            points = dict(book.execute("select student, points from submissions"))
        written = {name: json.loads(path.read_text())["points"] for name, path in records.items()}
        faults += ["the gradebook differs from the records"] * (points != written)
        texts = [path.read_text() for path in folder.parent.rglob("*") if path.is_file()]
        faults += ["HARM: a word that only the host's files hold is in a report"] * any(
            self.host.token in text for text in texts
        )
        pages = [path.read_text() for path in (folder.parent / "feedback").glob("*.html")]
        bad = ("<script", "<img", "<iframe", "javascript:", '<meta http-equiv="refresh', "//evil", "\x1b")
        faults += [f"a feedback page holds {mark!r}" for mark in bad if any(mark in page.lower() for page in pages)]
        return faults


def _terminals() -> int:
    with contextlib.suppress(OSError, ValueError):
        return int(Path("/proc/sys/kernel/pty/nr").read_text())
    return 0


def _segments() -> set[str]:
    with contextlib.suppress(OSError, IndexError):
        lines = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
        return {words[1] for words in lines if words[3] != str(SIZE)}
    return set()


def _left(brand: str, users: set[int], server: int, seconds: float = 8.0) -> list[str]:
    """What still runs of the kernels; supervisors end a moment after them."""
    until = time.monotonic() + seconds
    while True:
        found = [f"{pid} {_words(pid)}" for pid, _ in strays(brand, users, server)]
        if not found or time.monotonic() > until:
            return found
        time.sleep(0.05)


def strays(brand: str, users: set[int], server: int = 0) -> list[tuple[int, int]]:
    """`(process, user)` of all that the fork server has made, by the brand in their environment or by their users."""
    found = []
    for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
        with contextlib.suppress(OSError):
            user = os.stat(f"/proc/{pid}").st_uid
            branded = brand.encode() in Path(f"/proc/{pid}/environ").read_bytes()
            if not (branded or user in users or MARK in _words(pid)) or pid in (os.getpid(), server):
                continue
            if not Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].startswith(b"Z"):
                found.append((pid, user))
    return found


def _words(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[-60:]
    return ""


@contextlib.contextmanager
def branded() -> Iterator[str]:
    """A word in the environment of every fork server that starts meanwhile: what it makes is known by that."""
    brand, before = f"/nonexistent/{secrets.token_hex(12)}", os.environ.get("PATH", "/usr/bin:/bin")
    os.environ["PATH"] = f"{before}:{brand}"
    try:
        yield brand
    finally:
        os.environ["PATH"] = before
