"""The file system of a sandbox: an empty tmpfs with read-only clones of the system, Python and the staged course.

Pid 1 of the new namespaces runs this. The order matters: trees are cloned before the new root covers /tmp, /proc can
only be mounted while the old one is still there, and the root is made read-only just before the old one is dropped.
Needs Linux 5.12 (`mount_setattr`); `MS_REMOUNT` would fail on locked flags in a user namespace.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import platform
import socket
import struct

from segedu.grading.sandbox.restrictions import DEVICES, SYSTEM_FILES, SYSTEM_FOLDERS, check_call, libc

_RDONLY, _NOSUID, _NODEV, _NOEXEC, _BIND, _REC, _PRIVATE, _DETACH = 1, 2, 4, 8, 4096, 16384, 1 << 18, 2
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
# what container runtimes mask, and other access to the host; libraries read limits from `sys`, so it stays
MASKED_PROC = (
    "acpi", "asound", "bus", "driver", "fs", "irq", "scsi", "config.gz", "interrupts", "iomem", "ioports", "kallsyms",
    "kcore", "key-users", "keys", "kmsg", "kpagecgroup", "kpagecount", "kpageflags", "latency_stats", "sched_debug",
    "slabinfo", "sysrq-trigger", "timer_list", "timer_stats", "vmallocinfo",
)  # fmt: skip
SCRATCH = "/scratch"
STAGE = "/stage"
SOCKET_BYTES = 128 << 10
TERMINALS = 32  # a shell command needs one; all sandboxes share the few thousand of the host


def build_root(job: dict) -> str:
    """Replace the root of this mount namespace and return the only writable folder."""
    mount("none", "/", None, _REC | _PRIVATE)
    folders = [folder for folder in (*SYSTEM_FOLDERS, *SYSTEM_FILES) if os.path.exists(folder)]
    folders = [*(folder for folder in folders if not os.path.islink(folder)), *job["prefixes"]]
    trees = [(clone(folder), folder, os.path.isdir(folder)) for folder in folders]
    trees += [(clone(job["stage"]), STAGE, True)]
    trees += [(clone(f"{job['stage']}/segedu"), path, True) for path in job["masked"]]
    trees += [(clone(f"/dev/{name}", device=True), f"/dev/{name}", False) for name in DEVICES]
    links = [(folder, os.readlink(folder)) for folder in SYSTEM_FOLDERS if os.path.islink(folder)]
    mount("tmpfs", "/tmp", "tmpfs", _NOSUID | _NODEV, "mode=0755,size=4m,nr_inodes=10000")
    os.chdir("/tmp")
    _make_scratch(job)
    for tree, path, is_folder in trees:
        _attach_tree(tree, f".{path}", is_folder)
    for path, target in [*links, *job["links"].items()]:
        if path != target and not os.path.lexists(f".{path}"):
            os.makedirs(os.path.dirname(f".{path}"), exist_ok=True)
            os.symlink(target, f".{path}")
    _write_user_files(job["uid"] if job["uid"] is not None else 65534)
    _mount_proc()
    set_attributes(_AT_FDCWD, b".", _ATTR_RDONLY, 0)
    check_call(libc().syscall(_PIVOT_ROOT[platform.machine()], b".", b"."), "pivot_root")
    check_call(libc().umount2(b".", _DETACH), "umount2")
    os.chdir("/")
    _loopback_up()
    return SCRATCH


def mount(source: str, target: str, file_system: str | None, flags: int, data: str | None = None) -> None:
    """Call `mount(2)`, for the few mounts that have no tree to clone."""
    encoded = [text.encode() if text is not None else None for text in (source, target, file_system, data)]
    check_call(libc().mount(*encoded[:3], ctypes.c_ulong(flags), encoded[3]), f"mount {target}")


def clone(path: str, device: bool = False) -> int:
    """Return a detached copy of what is mounted at `path`, read-only unless it is a device."""
    flags = 1 | os.O_CLOEXEC | _AT_RECURSIVE  # OPEN_TREE_CLONE
    tree = check_call(libc().syscall(_OPEN_TREE, _AT_FDCWD, path.encode(), flags), f"open_tree {path}")
    attributes = _ATTR_NOSUID | (0 if device else _ATTR_RDONLY | _ATTR_NODEV)
    set_attributes(tree, b"", attributes, _AT_EMPTY_PATH | _AT_RECURSIVE)
    return tree


def set_attributes(folder: int, path: bytes, attributes: int, flags: int) -> None:
    """Call `mount_setattr`, which sets flags and clears none, so that it works on locked mounts too."""
    packed = ctypes.c_char_p(struct.pack("QQQQ", attributes, 0, 0, 0))
    call = libc().syscall(_MOUNT_SETATTR, folder, path, flags, packed, ctypes.c_size_t(32))
    check_call(call, "mount_setattr")


def _make_scratch(job: dict) -> None:
    os.mkdir("scratch")
    options = f"mode=0755,size={job['disk_bytes']},nr_inodes={job['inodes']}"
    mount("tmpfs", "scratch", "tmpfs", _NOSUID | _NODEV, options)
    for name in ("work", "home", "tmp", "run", "shm"):
        os.mkdir(f"scratch/{name}", 0o700 if name == "run" else 0o755)
        if job["uid"] is not None:
            os.chown(f"scratch/{name}", job["uid"], job["uid"])
    os.makedirs("dev/shm")
    os.mkdir("dev/pts")  # a notebook's shell command needs a terminal
    mount("devpts", "dev/pts", "devpts", _NOSUID | _NOEXEC, f"newinstance,ptmxmode=0666,mode=0600,max={TERMINALS}")
    os.symlink("pts/ptmx", "dev/ptmx")
    os.mkdir("tmp")
    for name, path in (("tmp", "tmp"), ("shm", "dev/shm")):  # one quota for everything writable
        mount(f"scratch/{name}", path, None, _BIND)
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        os.symlink(f"/proc/self/fd{target}", f"dev/{name}")


def _mount_proc() -> None:
    """Mount a read-only /proc with this sandbox's processes, and mask what describes the host."""
    os.mkdir("proc")
    mount("proc", "proc", "proc", _NOSUID | _NODEV | _NOEXEC)
    for name in ("rmem", "wmem"):  # no process limit includes data buffered in this network's connections
        with contextlib.suppress(OSError), open(f"proc/sys/net/ipv4/tcp_{name}", "w") as file:
            file.write(f"4096 {SOCKET_BYTES} {SOCKET_BYTES}")
    set_attributes(_AT_FDCWD, b"proc", _ATTR_RDONLY, 0)
    for path in (f"proc/{name}" for name in MASKED_PROC):
        if os.path.isdir(path):
            mount("tmpfs", path, "tmpfs", _RDONLY | _NOSUID | _NODEV | _NOEXEC, "mode=0555,size=0,nr_inodes=2")
        elif os.path.exists(path):
            _attach_tree(clone("/dev/null", device=True), path, False)


def _attach_tree(tree: int, path: str, is_folder: bool) -> None:
    os.makedirs(path if is_folder else os.path.dirname(path), exist_ok=True)
    if not is_folder and not os.path.exists(path):
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
    call = libc().syscall(_MOVE_MOUNT, tree, b"", _AT_FDCWD, path.encode(), 4)  # MOVE_MOUNT_F_EMPTY_PATH
    check_call(call, f"move_mount {path}")
    os.close(tree)


def _write_user_files(uid: int) -> None:
    """Write a few lines for programs that look up their user; the host's own users stay unknown."""
    os.makedirs("etc", exist_ok=True)
    texts = {
        "passwd": f"student:x:{uid}:{uid}::/scratch/home:/bin/sh\n",
        "group": f"student:x:{uid}:\n",
        "hosts": "127.0.0.1 localhost\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    }
    for name, text in texts.items():
        with open(f"etc/{name}", "w") as file:
            file.write(text)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh22x", b"lo", 0x1 | 0x40)  # SIOCSIFFLAGS, IFF_UP | IFF_RUNNING
        fcntl.ioctl(any_socket, 0x8914, request)
