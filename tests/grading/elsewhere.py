"""Runs one submission as it would run on another machine: `elsewhere.py WHO`, printing what came of it as JSON.

WHO is a list of words: `user` drops root for an ordinary user, `no-admin` takes CAP_SYS_ADMIN away from root,
`masked-proc` covers parts of /proc as container runtimes do, `container` takes CAP_SYS_ADMIN away and filters the
system calls that make namespaces and mounts, `readable` lets every user read this Python, `no-landlock` and
`no-groups` say that the machine has none.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from segedu.grading.sandbox import cgroups, isolation_levels, landlock, mounts, restrictions, seccomp  # noqa: E402
from segedu.grading.sandbox.kernel_pool import KernelPool, Limits, Step  # noqa: E402
from segedu.grading.sandbox.staged_library import build_stage  # noqa: E402

UID = 1001
ATTACKS = """
import os, resource, signal, socket
def attempt(name, call):
    try:
        call()
        print(name, "done")
    except OSError as error:
        print(name, "refused")
attempt("signal", lambda: os.kill({grader}, 0))
attempt("limits", lambda: resource.prlimit({grader}, resource.RLIMIT_NOFILE))
attempt("secret", lambda: open("{secret}").read())
attempt("socket", lambda: socket.socket(socket.AF_UNIX).connect("{bus}"))
attempt("letter", lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"x", "{bus}.letters"))
attempt("truncate", lambda: os.truncate("{secret}", 0))
try:
    os.chmod("{secret}", 0o777)
except OSError:
    pass
for number, path in enumerate(("sys/kernel/core_pattern", "sys/vm/drop_caches", "sysrq-trigger", "irq/default_smp_affinity")):
    attempt(f"sysctl{{number}}", lambda: os.close(os.open(f"/proc/{{path}}", os.O_WRONLY)))
spans = [[int(word) for word in line.split()] for line in open("/proc/self/uid_map")]
print("uid", os.getuid())
print("outside", *(outer + os.getuid() - inner for inner, outer, count in spans if 0 <= os.getuid() - inner < count))
"""
HONEST = """
import os, shutil, threading, torch
open("mine", "w").write("honest"); shutil.copy2("mine", "copy"); os.kill(os.getpid(), 0)
thread = threading.Thread(target=print, args=("thread",)); thread.start(); thread.join()
print(open("copy").read(), float(torch.ones(3).sum()))
"""


def open_the_way() -> None:
    """Makes an interpreter below a private home readable, in a mount namespace of this process alone."""
    for prefix in {os.path.realpath(sys.prefix), os.path.realpath(sys.base_prefix)}:
        for folder in reversed(Path(prefix).parents):
            if not folder.stat().st_mode & 0o001:
                restrictions.check_call(restrictions.libc().unshare(0x20000), "unshare")
                mounts.mount("none", "/", None, 16384 | 1 << 18)
                tree = mounts.clone(prefix)
                mounts.mount("tmpfs", str(folder), "tmpfs", 0, "mode=0755")
                os.umask(0o022)
                os.makedirs(prefix)
                mounts._attach_tree(tree, prefix, True)


def become(words: list[str]) -> None:
    """This process gives up what the other machine would not give it."""
    root = os.geteuid() == 0
    if root and ("user" in words or "readable" in words):
        open_the_way()
    if root and "masked-proc" in words:
        restrictions.check_call(restrictions.libc().unshare(0x20000), "unshare")
        mounts.mount("none", "/", None, 16384 | 1 << 18)
        mounts.mount("tmpfs", "/proc/acpi", "tmpfs", 0)
    if root and ("container" in words or "no-admin" in words):
        restrictions._prctl(24, 21)  # drops CAP_SYS_ADMIN from the bounding set
        header, most = b"\x22\x05\x08\x20\0\0\0\0", bytearray(b"\xff" * 4 * 6)
        restrictions.libc().capget(ctypes.c_char_p(header), (ctypes.c_char * 24).from_buffer(most))
        for place in (2, 6, 10):
            most[place] &= ~(1 << 21 - 16)
        restrictions.check_call(restrictions.libc().capset(ctypes.c_char_p(header), bytes(most)), "capset")
    if root and "user" in words:
        os.setgroups([])
        os.setresgid(UID, UID, UID)
        os.setresuid(UID, UID, UID)
        restrictions._prctl(4, 1)
    if "container" in words:
        restrictions._prctl(38, 1)
        seccomp.apply(network=True)
    if "no-landlock" in words:
        landlock.abi = lambda: 0
    if "no-groups" in words:
        cgroups.parents = lambda *_: []


def main(words: list[str]) -> None:
    """As the module says."""
    become(words)
    import socket

    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        stage = build_stage(["segedu.ops.boxes"], Path(folder, "stage"))
        secret, bus = Path(folder, "secret"), f"{folder}/bus"
        secret.write_text("secret")
        secret.chmod(0o600)
        with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as letters:
            listening.bind(bus)
            letters.bind(f"{bus}.letters")
            listening.listen()
            attacks = ATTACKS.format(grader=os.getpid(), secret=secret, bus=bus)
            steps = [Step("helper", "honest", HONEST), Step("helper", "attacks", attacks)]
            isolation = isolation_levels.best_level()
            with KernelPool(stage, isolation, cold=True) as pool:
                result = pool.run(steps, limits=Limits(cell_seconds=60))
        print(json.dumps({
            "level": isolation.level, "user_namespace": isolation.user_namespace, "own_user": isolation.own_user, "uid": os.getuid(),
            "reason": result.level_reason, "levels": isolation_levels.probe_levels(), "mode": secret.stat().st_mode & 0o777,
            "secret": secret.read_text(), "steps": [[s.status, s.output, s.evalue] for s in result.steps],
        }))  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
