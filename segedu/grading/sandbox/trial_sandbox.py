"""Run escape attempts in a throw-away sandbox and report which of them it prevents."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from segedu.grading.sandbox.provisioner import ForkServer, RunningSandbox
from segedu.grading.sandbox.restrictions import SandboxError
from segedu.grading.sandbox.sandbox_files import SandboxFileError

if TYPE_CHECKING:
    from segedu.grading.sandbox.isolation_levels import HostResources, IsolationLevel, Limits

SECONDS = 20.0  # for one trial that exhausts a resource
# what a cell must not be able to do at a level that claims isolation -> the end of the sentence "a cell could ..."
CLAIMED = {
    "user": "act as the grader's user", "rights": "use rights of root", "settings": "change the machine's settings",
    "network": "reach sockets of the machine", "answers": "read the answers", "files": "change files of the machine",
    "processes": "reach the grader's process", "stores": "use memory that no limit counts",
    "queues": "use message queues and semaphores of the machine",
}  # fmt: skip
Outcome = tuple[bool, str]


def claims(isolation: IsolationLevel) -> set[str]:
    """The trials that a level must prevent; otherwise it does not count as working."""
    if isolation.level < 2:
        return set()
    if isolation.level >= 3:
        return set(CLAIMED)
    shared = {"user": not isolation.own_user, "answers": not isolation.landlock}
    return {name for name in CLAIMED if not shared.get(name)}


def violations(isolation: IsolationLevel, found: dict[str, Outcome]) -> str:
    """Describe what a cell could do although it must not; "" if all claims hold."""
    possible = [
        f"{CLAIMED[name]} ({found[name][1]})" for name in CLAIMED if name in claims(isolation) and not found[name][0]
    ]
    return f"a cell could {'; '.join(possible)}" if possible else ""


def attempt(isolation: IsolationLevel, limits: Limits, name: str = "") -> dict[str, Outcome]:
    """Run the trials at this level of isolation and return, per trial, whether it was prevented and a description.

    All access trials are run, or the one of `trials.EXHAUSTION_TRIALS` with this name. Raises SandboxError or OSError
    if the sandbox does not start.
    """
    from segedu.grading.sandbox.isolation_levels import allocate_resources

    with _host() as (folder, targets):
        resources = allocate_resources(isolation, folder / "stage", limits)
        resources.job["probe"] = targets | {"name": name}
        try:
            sandbox = RunningSandbox(ForkServer(cold=True).connect(), resources.job)
            try:
                return _outcomes(sandbox, resources, isolation, name)
            finally:
                sandbox.close()
        finally:
            resources.clear()


def _outcomes(
    sandbox: RunningSandbox, resources: HostResources, isolation: IsolationLevel, name: str
) -> dict[str, Outcome]:
    deadline = time.monotonic() + SECONDS
    while sandbox.alive() and time.monotonic() < deadline:
        select.select([sandbox.connection], [], [], 1.0)
    with contextlib.suppress(SandboxFileError, ValueError):
        outcomes = {key: tuple(value) for key, value in json.loads(sandbox.files.get("found.json")).items()}
        if not name:
            outcomes["user"] = _user(os.stat("found.json", dir_fd=sandbox.files.folder).st_uid, isolation)
        if name not in outcomes or outcomes[name][0] or not (sandbox.limit_exceeded or resources.out_of_memory()):
            return outcomes
    if name and sandbox.limit_exceeded:
        return {name: (True, f"ended by the watch: {sandbox.limit_exceeded[1]}")}
    if name and resources.out_of_memory():
        return {name: (True, "ended by the control group")}
    raise SandboxError("the trial left no result")


def _user(uid: int, isolation: IsolationLevel) -> Outcome:
    """Check the owner of a file that a cell wrote, as seen from outside."""
    ours = os.geteuid()
    if uid not in (0, ours):
        return True, f"{uid} outside of the sandbox, the grader's is {ours}"
    namespace = ", in a user namespace" if isolation.user_namespace else ""
    return uid != 0 and isolation.user_namespace, f"{uid} outside of the sandbox, as the grader's{namespace}"


@contextlib.contextmanager
def _host() -> Iterator[tuple[Path, dict]]:
    """Yield a folder and a dict of targets on the host: secret files and listening sockets."""
    with tempfile.TemporaryDirectory(prefix="segedu-probe-") as name, contextlib.ExitStack() as stack:
        folder, abstract = Path(name), f"segedu-probe-{secrets.token_hex(6)}"
        folder.chmod(0o755)
        (folder / "stage" / "segedu").mkdir(parents=True)
        secret = folder / "secret"
        secret.write_text("secret")
        secret.chmod(0o600)
        addresses = [(socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_UNIX, str(folder / "socket"))]
        addresses += [(socket.AF_UNIX, f"\0{abstract}")] * os.path.exists("/proc/self")
        sockets = [stack.enter_context(socket.socket(family)) for family, _ in addresses]
        for listener, (_, address) in zip(sockets, addresses, strict=True):
            listener.bind(address)
            listener.listen()
        (folder / "socket").chmod(0o777)
        exercises = Path(__file__).resolve().parents[2] / "teaching" / "exercises"
        answers = [str(path) for path in sorted(exercises.glob("lab*/[a-z]*.py"))[:1]]
        yield folder, {
            "port": sockets[0].getsockname()[1], "socket": str(folder / "socket"), "abstract": abstract,
            "secret": str(secret), "answers": answers, "pid": os.getpid(),
        }  # fmt: skip


def exhaust(isolation: IsolationLevel, names: tuple[str, ...], limits: Limits) -> dict[str, Outcome]:
    """Run the trials that exhaust a resource, each in a sandbox of its own with small limits."""
    small = replace(limits, memory_bytes=64 << 20, processes=24, disk_bytes=4 << 20, inodes=300, total_seconds=SECONDS)
    outcomes: dict[str, Outcome] = {}
    for name in names:
        try:
            outcomes |= attempt(isolation, small, name)
        except (SandboxError, OSError) as error:
            outcomes[name] = (False, f"could not be tried: {error}")
    return outcomes
