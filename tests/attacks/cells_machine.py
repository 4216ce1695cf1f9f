"""Attacks on what all sandboxes of a machine share: its settings, memory without a holder, terminals, processors."""

from __future__ import annotations

from attack import EVERYWHERE, Attack, beside_right


def shared(name: str, tries: str, right: str, cell: str, **more) -> Attack:
    """An attack on the machine before right answers; what it does to the machine, the referee sees."""
    return beside_right(name, "machine", tries, right, cell=cell, **more)


SPINNING = """import os, time
def spin(count, seconds, own_session=True):
    until = time.time() + seconds
    for _ in range(count):
        try:
            if os.fork() == 0:
                if own_session:
                    os.setsid()
                while time.time() < until:
                    pass
                os._exit(0)
        except OSError:
            break
"""

MACHINE = [
    shared(
        "o110_settings",
        "to write the settings of the machine as the user of its kernel's root",
        "none can be opened for writing",
        """import os
opened = []
for root, _, names in os.walk("/proc/sys"):
    for name in names:
        try:
            os.close(os.open(os.path.join(root, name), os.O_WRONLY))
            opened.append(name)
        except OSError:
            pass
for path in ("/proc/sysrq-trigger", "/proc/irq/default_smp_affinity", "/sys/devices/system/cpu/cpu0/uevent"):
    try:
        os.close(os.open(path, os.O_WRONLY))
        opened.append(path)
    except OSError:
        pass
if opened:
    raise RuntimeError(opened)""",
        clean=True,
        twin="print(open('/proc/sys/kernel/pid_max').read(), open('/proc/meminfo').readline())",
    ),
    shared(
        "o111_shared_memory",
        "to hold memory in System V segments, which no process holds and which outlive it",
        "refused",
        """import ctypes, time
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
for _ in range(35):
    segment = libc.shmget(0, 100 << 20, 0o1600)
    if segment < 0:
        break
    place = libc.shmat(segment, None, 0)
    if place and place != ctypes.c_void_p(-1).value:
        ctypes.memset(place, 1, 100 << 20)
        libc.shmdt(ctypes.c_void_p(place))""",
        levels=EVERYWHERE,
        clean=True,
        twin="""import torch, torch.multiprocessing as mp
from torch.utils.data import DataLoader
shared = torch.zeros(10_000).share_memory_()
worker = mp.get_context("fork").Process(target=shared.add_, args=(1,))
worker.start()
worker.join()
batches = list(DataLoader([torch.ones(64) for _ in range(12)], 3, num_workers=2))
assert shared.sum() == 10_000 and len(batches) == 4""",
        twin_levels=(3, 1),
    ),
    shared(
        "o112_socket_buffers",
        "to hold memory in the buffers of thousands of sockets",
        "ended at a number of sockets, or at the memory limit",
        """import os, socket, time
def fill():
    kept = []
    try:
        while True:
            pair = socket.socketpair()
            kept.append(pair)
            for one in pair:
                one.setblocking(False)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
                try:
                    while True:
                        one.send(bytes(65536))
                except OSError:
                    pass
    except OSError:
        time.sleep(5)
    os._exit(0)
for _ in range(12):
    if os.fork() == 0:
        fill()
for _ in range(12):
    os.wait()""",
        levels=EVERYWHERE,
        own_loss=True,
        note="ended the kernel|memory limit|was stopped at the limit",
        twin="""import socket
pairs = [socket.socketpair() for _ in range(100)]
for a, b in pairs:
    a.sendall(bytes(50_000))
    assert len(b.recv(50_000, socket.MSG_WAITALL)) == 50_000
    a.close()
    b.close()""",
    ),
    shared(
        "o113_terminals",
        "to take all terminals of the machine",
        "a few, of its own; at level 2 none",
        """import os, time
kept = []
try:
    while len(kept) < 450:
        kept.append(os.openpty())
except OSError as error:
    print(error)
time.sleep(1.5)""",
        own_loss=True,
        twin="for _ in range(3):\n    get_ipython().system('echo honest')",
        twin_levels=(3, 1),
    ),
    shared(
        "o114_tables",
        "to hold memory in tables of pages that hold nothing",
        "counted as memory",
        """import ctypes, mmap, os, time
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
size = 1250 << 30
start = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, -1, 0)
libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), 15)
for place in range(start, start + size, 2 << 20):
    ctypes.string_at(place, 1)
time.sleep(1.5)""",
        levels=EVERYWHERE,
        own_loss=True,
        note="memory limit|ended the kernel|was stopped at the limit",
        twin="import mmap\nroom = mmap.mmap(-1, 64 << 20)\nroom[:3] = b'abc'\nassert room[:4] == b'abc\\0'\nroom.close()",
    ),
]

# these run beside honest notebooks that compute, several at a time
CROWD = [
    shared(
        "o115_starves_neighbours",
        "to take every processor from the notebooks beside it",
        "the neighbours keep all their points",
        SPINNING + "spin(45, 20)\ntime.sleep(3)",
        own_loss=True,
        crowd=True,
        twin=SPINNING + "spin(3, 0.3, own_session=False)\nfor _ in range(3):\n    os.wait()",
    ),
    shared(
        "o116_starves_with_threads",
        "to take the processors by threads of one process that hold no lock",
        "the neighbours keep all their points",
        """import hashlib, threading, time
until = time.time() + 12
def spin():
    while time.time() < until:
        hashlib.pbkdf2_hmac("sha256", b"x", b"y", 200_000)
for _ in range(30):
    threading.Thread(target=spin, daemon=True).start()
time.sleep(4)""",
        own_loss=True,
        crowd=True,
        twin="""import hashlib, threading
work = [threading.Thread(target=hashlib.pbkdf2_hmac, args=("sha256", b"x", b"y", 20_000)) for _ in range(3)]
for one in work:
    one.start()
for one in work:
    one.join()""",
    ),
]
