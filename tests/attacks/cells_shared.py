"""Attacks on what a sandbox without namespaces shares with the machine: queues, signals, files, names, the disk."""

from __future__ import annotations

from attack import Attack, beside_right

_SYSTEM = "import ctypes, os, struct\nlibc = ctypes.CDLL(None, use_errno=True)\n"
_WRITE = """import os, time
def write(path, size):
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    for _ in range(size >> 20):
        os.write(fd, bytes(1 << 20))
    return fd
def held():
    raise RuntimeError("five times forty megabytes are held")
"""


def sharing(name: str, tries: str, right: str, cell: str, boundary: str = "machine", **more) -> Attack:
    """An attack before right answers; it raises where what it tries is not refused, or the referee sees it."""
    return beside_right(name, boundary, tries, right, cell=cell, **more)


SHARED = [
    sharing(
        "o160_system_v",
        "to read and write the host's message queue, to set its semaphore and to remove its shared memory",
        "refused",
        _SYSTEM
        + """place = ctypes.create_string_buffer(500)
libc.msgrcv(@QUEUE@, place, 400, 0, 0o4000)
libc.msgsnd(@QUEUE@, struct.pack("l", 1) + b"x", 1, 0o4000)
libc.semctl(@SEMAPHORE@, 0, 16, 42)
libc.shmctl(@SEGMENT@, 0, None)""",
        twin="""import threading, queue
line, lock = queue.Queue(), threading.Semaphore(2)
with lock:
    line.put(b"a message")
assert line.get() == b"a message\"""",
    ),
    sharing(
        "o161_signals_by_a_socket",
        "to let the operating system send a signal to a process of the host when a socket can be read",
        "the owner of a socket cannot be set",
        """import array, fcntl, os, socket, struct, time
one, other = socket.socketpair()
def ways():
    yield lambda: fcntl.fcntl(one, fcntl.F_SETOWN, int("@PID@"))
    yield lambda: fcntl.fcntl(one, 15, struct.pack("ii", 1, int("@PID@")))
    yield lambda: fcntl.ioctl(one, 0x8901, struct.pack("i", int("@PID@")))
    yield lambda: fcntl.ioctl(one, 0x8902, struct.pack("i", int("@PID@")))
done = []
for way in ways():
    try:
        way()
        done.append("owner")
        fcntl.fcntl(one, 10, 9)
        fcntl.fcntl(one, fcntl.F_SETFL, fcntl.fcntl(one, fcntl.F_GETFL) | os.O_ASYNC)
        other.send(b"x")
        time.sleep(0.2)
    except OSError as error:
        print(error)
if done:
    raise RuntimeError("a process of the host owns a socket")""",
        boundary="processes",
        clean=True,
        twin="""import asyncio, fcntl, os, signal, socket
one, other = socket.socketpair()
fcntl.fcntl(one, fcntl.F_SETFL, fcntl.fcntl(one, fcntl.F_GETFL) | os.O_NONBLOCK)
fcntl.fcntl(one, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
other.send(b"x")
assert one.recv(1) == b"x"
signal.signal(signal.SIGIO, signal.SIG_IGN)""",
    ),
    sharing(
        "o162_flags_of_files",
        "to set the flags of the host's files through descriptors that are open for reading",
        "refused, or read-only",
        """import fcntl, os, struct
done = []
fd = os.open(os.__file__, os.O_RDONLY)
def number(name, get, set_, size):
    held = bytearray(size)
    try:
        fcntl.ioctl(fd, get, held)
    except OSError:
        pass  # as they are, or none: what is set here changes nothing
    else:
        try:
            fcntl.ioctl(fd, set_, bytes(held))
            done.append(name)
        except OSError as error:
            print(name, error)
number("flags", 0x80086601, 0x40086602, 8)
number("attributes", 0x801C581F, 0x401C5820, 28)
number("version", 0x80087601, 0x40087602, 8)
if done:
    raise RuntimeError(f"set: {done}")""",
        boundary="files",
        clean=True,
        twin="""import fcntl, shutil, struct, sys, os
with open("notes.txt", "w") as file:
    file.write("words")
shutil.copy("notes.txt", "copy.txt")
reading, writing = os.pipe()
os.write(writing, b"abc")
assert struct.unpack("i", fcntl.ioctl(reading, 0x541B, bytes(4)))[0] == 3
shutil.get_terminal_size()
sys.stdout.isatty()""",
    ),
    sharing(
        "o163_leases",
        "to take leases on files that the grader opens, so that it waits for as long as the machine lets it",
        "refused",
        """import fcntl, glob, os, segedu
done = []
for path in [os.__file__, *glob.glob(os.path.dirname(segedu.__file__) + "/*/*.py"), os.getcwd()]:
    for command, value in ((1024, fcntl.F_RDLCK), (1024, fcntl.F_WRLCK), (1026, 2)):
        try:
            fd = os.open(path, os.O_RDONLY)
            fcntl.fcntl(fd, command, value)
            done.append(path)
            fcntl.fcntl(fd, command, fcntl.F_UNLCK if command == 1024 else 0)
        except OSError:
            pass
        finally:
            os.close(fd)
if done:
    raise RuntimeError(f"{len(done)} leases, the first on {done[0]}")""",
        clean=True,
        twin="""import fcntl
with open("mine.lock", "w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    fcntl.flock(file, fcntl.LOCK_UN)
    fcntl.lockf(file, fcntl.LOCK_EX)
    fcntl.lockf(file, fcntl.LOCK_UN)""",
    ),
    sharing(
        "o164_abstract_names",
        "to listen under a name that programs of the host look for",
        "no socket of a cell gets a name",
        """import socket
line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
try:
    line.bind("\\0segedu-attack-@NAME@")
    line.listen()
except OSError as error:
    print(error)
else:
    raise RuntimeError("it listens in the host's namespace")""",
        boundary="network",
        clean=True,
        levels=(2,),
        twin="""import asyncio, multiprocessing, socket
one, other = socket.socketpair()
one.sendall(b"abc")
assert other.recv(3) == b"abc"
ours, theirs = multiprocessing.Pipe()
child = multiprocessing.Process(target=theirs.send, args=(3,))
child.start()
assert ours.recv() == 3
child.join()
assert await asyncio.sleep(0, 4) == 4""",
    ),
    sharing(
        "o165_files_on_their_way",
        "to hold deleted files as descriptors that wait in a socket, where nobody counts them",
        "no descriptor is sent, or the disk of the sandbox is full",
        _WRITE
        + """import socket
kept = []
try:
    for number in range(5):
        fd = write(f"big{number}", 40 << 20)
        pair = socket.socketpair()
        socket.send_fds(pair[0], [b"x"], [fd])
        kept.append(pair)
        os.unlink(f"big{number}")
        os.close(fd)
        time.sleep(0.5)
except OSError as error:
    print(error)
    os.unlink(f"big{number}")
    os.close(fd)
    del kept
else:
    held()""",
        boundary="limits",
        clean=True,
        own_loss=True,
        twin="""import os, socket, tempfile
one, other = socket.socketpair()
one.send(b"x" * 1000)
assert len(other.recv(1000)) == 1000
with tempfile.TemporaryFile() as file:
    file.write(bytes(20 << 20))""",
    ),
    sharing(
        "o166_files_mapped",
        "to hold deleted files as memory, with no descriptor",
        "counted; the notebook is ended, or the disk of the sandbox is full",
        _WRITE
        + """import ctypes
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
try:
    for number in range(5):
        fd = write(f"big{number}", 40 << 20)
        libc.mmap(None, 4096, 1, 1, fd, 0)
        os.unlink(f"big{number}")
        os.close(fd)
        time.sleep(0.5)
    time.sleep(1.5)
except OSError as error:
    print(error)
    os._exit(1)
else:
    held()""",
        boundary="limits",
        clean=True,
        own_loss=True,
        twin="""import mmap, os, tempfile
with tempfile.TemporaryFile() as file:
    file.write(bytes(8 << 20))
    file.flush()
    room = mmap.mmap(file.fileno(), 8 << 20)
room[:3] = b"abc"
table = np.memmap("table.bin", dtype=np.float32, mode="w+", shape=(1 << 20,))
os.unlink("table.bin")
table[:] = 1
import time
time.sleep(1.2)
assert room[:3] == b"abc" and table.sum() == 1 << 20""",
    ),
    sharing(
        "o167_first_thread_ended",
        "to hold deleted files in processes whose first thread has ended, which seem to have nothing open",
        "the threads that go on are counted; the notebook is ended, or the disk of the sandbox is full",
        _WRITE
        + """import ctypes, threading
leave = {"x86_64": 60, "aarch64": 93}[os.uname().machine]
def hold(number):
    fd = write(f"big{number}", 40 << 20)
    os.unlink(f"big{number}")
    ready.append(fd)
    time.sleep(30)
for number in range(5):
    if os.fork() == 0:
        ready = []
        threading.Thread(target=hold, args=(number,)).start()
        while not ready:
            time.sleep(0.05)
        ctypes.CDLL(None).syscall(leave, 0)
    time.sleep(0.7)
time.sleep(1.2)
stats = [open(f"/proc/{pid}/stat").read().rpartition(") ")[2].split() for pid in os.listdir("/proc") if pid.isdigit()]
if sum(stat[0] == "Z" and stat[1] == str(os.getpid()) and int(stat[17]) > 1 for stat in stats) == 5:
    held()""",
        boundary="limits",
        clean=True,
        own_loss=True,
        levels=(2,),
        twin="""import os, threading, time
if os.fork() == 0:
    threading.Thread(target=time.sleep, args=(0.3,)).start()
    os._exit(0)
os.wait()
work = threading.Thread(target=np.zeros, args=(1 << 16,))
work.start()
work.join()""",
    ),
    sharing(
        "o168_closed_to_the_watch",
        "to close its own files and memory to whoever counts them",
        "refused",
        _SYSTEM
        + """if libc.prctl(4, 0, 0, 0, 0) == 0:
    raise RuntimeError("nobody but root with all rights sees what it holds")""",
        boundary="limits",
        clean=True,
        levels=(2,),
        twin=_SYSTEM
        + """assert libc.prctl(15, b"student", 0, 0, 0) == 0 and libc.prctl(4, 1, 0, 0, 0) == 0
assert libc.prctl(3, 0, 0, 0, 0) == 1""",
    ),
]
