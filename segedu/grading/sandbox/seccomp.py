"""A filter of system calls: calls that a kernel never needs and that help to break out fail with EPERM.

Below level 3 a kernel shares the host's process tree, and often its user, with everything else, and Landlock checks
files only when they are opened. There the filter also denies calls that reach other processes, or that change files by
name or through a read-only descriptor: signals to others, connections (a session bus starts programs on request),
socket names, descriptors sent through a socket (no limit counts files in transit), and file owners, modes and flags.

Two architectures are supported, x86_64 and aarch64. Elsewhere there is no filter, and the isolation levels say so.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

# name: (x86_64, aarch64); None where the architecture has no such call
DENIED = {
    "ptrace": (101, 117), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "unshare": (272, 97), "setns": (308, 268), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "pidfd_getfd": (438, 438), "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264), "move_mount": (429, 429), "open_tree": (428, 428), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "swapon": (167, 224), "swapoff": (168, 225), "reboot": (169, 142), "acct": (163, 89),
    "quotactl": (179, 60), "syslog": (103, 116), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "adjtimex": (159, 171), "clock_adjtime": (305, 266), "sethostname": (170, 161),
    "setdomainname": (171, 162), "kcmp": (312, 272), "personality": (135, 92),
    "vhangup": (153, 58), "modify_ldt": (154, None), "iopl": (172, None),
    "ioperm": (173, None), "fanotify_init": (300, 262), "memfd_secret": (447, 447),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "migrate_pages": (256, 238),
    "move_pages": (279, 239), "quotactl_fd": (443, 443), "statmount": (457, 457), "listmount": (458, 458),
    "lsm_set_self_attr": (460, 460), "open_tree_attr": (467, 467), "listns": (470, 470),
    "uselib": (134, None), "sysfs": (139, None), "ustat": (136, None), "lookup_dcookie": (212, 18),
}  # fmt: skip
# memory and queues outside of processes: neither a process limit nor a sum over processes includes them, and some
# outlive the processes. `shm_open`, which torch's workers use, creates a file of the sandbox and counts as one
DENIED_STORES = {
    "memfd_create": (319, 279), "shmget": (29, 194), "shmat": (30, 196), "msgget": (68, 186), "semget": (64, 190),
    "mq_open": (240, 180),
}  # fmt: skip
# other programs' memory and queues, which are accessible by number or name without being opened
DENIED_STORES_OF_OTHERS = {
    "shmctl": (31, 195), "shmdt": (67, 197), "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187),
    "semop": (65, 193), "semtimedop": (220, 192), "semctl": (66, 191), "mq_unlink": (241, 181),
    "mq_timedsend": (242, 182), "mq_timedreceive": (243, 183), "mq_notify": (244, 184), "mq_getsetattr": (245, 185),
}  # fmt: skip
DENIED |= DENIED_STORES | DENIED_STORES_OF_OTHERS
# below level 3: access to other processes, and to files by name, that Landlock (or an older version of it) allows
DENIED_IN_SHARED_TREE = {
    "connect": (42, 203), "sendmsg": (46, 211), "sendmmsg": (307, 269), "truncate": (76, 45),
    "inotify_add_watch": (254, 27), "setpriority": (141, 140),
    "ioprio_set": (251, 30), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "setxattrat": (463, 463), "removexattrat": (466, 466), "file_setattr": (469, 469),
}  # fmt: skip
# these report success and do nothing: honest code copies file modes and times, and zmq sets its threads' priority
IGNORED_IN_SHARED_TREE = {
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None),
    "futimesat": (261, None), "utimensat": (280, 88), "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119), "sched_setattr": (314, 274),
}  # fmt: skip
# reserves any amount of disk in less than a millisecond, faster than the watch looks; libc then writes in its place
UNSUPPORTED_IN_SHARED_TREE = {"fallocate": (285, 47)}
# calls whose first argument is a process
SIGNALS = {
    "kill": (62, 129), "tgkill": (234, 131), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424),
}  # fmt: skip
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column, name of the architecture
_CLONE, _SOCKET, _SOCKETPAIR, _IOCTL, _FCNTL = (56, 220), (41, 198), (53, 199), (16, 29), (72, 25)
_BIND = {"bind": (49, 200)}
_PRLIMIT, _SET_AFFINITY, _PRCTL = (302, 261), (203, 122), (157, 167)
_SET_DUMPABLE = 4
_CLONE3 = 435
_SET_OPTION, _SOL_SOCKET, _BUFFER_SIZES = (54, 208), 1, (7, 8, 32, 33)  # SO_SNDBUF, SO_RCVBUF, and both by force
_NAMESPACES = 0x7E020000  # every CLONE_NEW flag that clone knows
_CLONE_FILES, _CLONE_THREAD = 0x400, 0x10000
_AF_UNIX, _AF_NETLINK, _INTERNET = 1, 16, (2, 10)
_PROTOCOLS = (0, 6, 17)  # TCP and UDP; a rarer one would make the operating system load its module
_SOCK_STREAM, _TYPE = 1, 0xF
_TIOCSTI, _TIOCLINUX, _TIOCSETD = 0x5412, 0x541C, 0x5423
# a lease blocks programs that open the file; the owner of a descriptor gets a signal when it becomes readable
_LEASES, _OWNERS = (1024, 1026), (8, 10, 15)  # F_SETLEASE, F_NOTIFY; F_SETOWN, F_SETSIG, F_SETOWN_EX
_SOCKET_OWNERS = (0x8901, 0x8902)  # FIOSETOWN, SIOCSPGRP
# ioctl requests by letter: terminals and pipes, sockets, the random device. Those of file systems set flags and
# versions or make snapshots; the operating system checks the file's owner for them, not how the file was opened
_IOCTL_LETTER, _HARMLESS_LETTERS = 0xFF00, (0x5400, 0x8900, 0x5200)
_LOAD, _AND, _JUMP_EQUAL, _JUMP_SET, _JUMP_GREATER, _RETURN = 0x20, 0x54, 0x15, 0x45, 0x35, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_SECCOMP, _SET_MODE_FILTER, _ALL_THREADS = (317, 277), 1, 1


def available() -> bool:
    """Whether the system-call numbers of this architecture are known."""
    return platform.machine() in _MACHINES


def deny_stores() -> None:
    """Install the filter of level 1, which does not isolate: it only denies memory that no limit includes."""
    _install(_rules_by_name([(DENIED_STORES, _ERRNO | errno.EPERM)]) + [(_RETURN, 0, 0, _ALLOW)])


def deny_names() -> None:
    """Forbid all threads of this process to bind sockets from now on; sockets that are already bound keep their names.

    Below level 3, abstract socket names are shared with the host, so a cell could impersonate a service. The kernel's
    own sockets have to be bound before.
    """
    code = [*_rules_by_name([(_BIND, _ERRNO | errno.EPERM)]), (_RETURN, 0, 0, _ALLOW)]
    _install(code, _ALL_THREADS)


def apply(network: bool, own_tree: bool = True, own_signals: bool = True) -> None:
    """Filter this process and its children permanently; needs `PR_SET_NO_NEW_PRIVS` or root privileges.

    Args:
        network: allow internet sockets (for an empty network namespace).
        own_tree: files and processes belong to the sandbox. If not, calls that reach others are denied too.
        own_signals: something else keeps signals from the user's other processes. If not, this process may signal only
            itself and its group.
    """
    _install(_program(network, own_tree, None if own_signals else os.getpid()))


def _install(code: list[tuple], flags: int = 0) -> None:
    program = b"".join(struct.pack("HBBI", *line) for line in code)
    buffer = ctypes.create_string_buffer(program)
    fprog = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    number = _SECCOMP[_MACHINES[platform.machine()][0]]
    failed = libc.syscall(number, _SET_MODE_FILTER, flags, ctypes.c_char_p(fprog))
    if failed:  # a positive result is the id of a thread that could not be filtered
        code = ctypes.get_errno() if failed < 0 else errno.EAGAIN
        raise OSError(code, f"seccomp: {errno.errorcode.get(code, code)}")


def _rules_by_name(lists: list[tuple[dict, int]]) -> list[tuple]:
    """Deny calls of another architecture and answer the listed ones; the call's number stays loaded."""
    column, arch = _MACHINES[platform.machine()]
    deny = _ERRNO | errno.EPERM
    code = [(_LOAD, 0, 0, 4), (_JUMP_EQUAL, 1, 0, arch), (_RETURN, 0, 0, deny), (_LOAD, 0, 0, 0)]
    if column == 0:  # the x32 interface to the same calls
        code += [(_JUMP_GREATER, 0, 1, 0x40000000), (_RETURN, 0, 0, deny)]
    for names, answer in lists:
        for numbers in names.values():
            if numbers[column] is not None:
                code += [(_JUMP_EQUAL, 0, 1, numbers[column]), (_RETURN, 0, 0, answer)]
    return code


def _program(network: bool, own_tree: bool, only_pid: int | None) -> list[tuple]:
    column = _MACHINES[platform.machine()][0]
    deny = _ERRNO | errno.EPERM
    lists = [(DENIED, deny)]
    if not own_tree:
        lists += [(DENIED_IN_SHARED_TREE, deny), (IGNORED_IN_SHARED_TREE, _ERRNO)]
        lists += [(UNSUPPORTED_IN_SHARED_TREE, _ERRNO | errno.EOPNOTSUPP)]
    code = _rules_by_name(lists)
    # ENOSYS makes libc fall back to clone, whose flags a filter can read
    code += [(_JUMP_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    # a thread with its own descriptors would hide them from a listing of its process
    hiding = [(_JUMP_SET, 0, 2, _CLONE_THREAD), (_JUMP_SET, 1, 0, _CLONE_FILES), (_RETURN, 0, 0, deny)]
    spaces = [(_JUMP_SET, 0, 1, _NAMESPACES), (_RETURN, 0, 0, deny)]
    code += _call(_CLONE[column], [(_LOAD, 0, 0, 16), *spaces, *hiding])
    code += _descriptors(column, own_tree)
    # answers as if the host's own limit were small: the buffer keeps its size, which can be counted
    sizes = [(_LOAD, 0, 0, 32), *_one_of(_BUFFER_SIZES, _ERRNO, _ALLOW)]
    code += _call(_SET_OPTION[column], [(_LOAD, 0, 0, 24), (_JUMP_EQUAL, 0, len(sizes), _SOL_SOCKET), *sizes])
    code += _call(_PRLIMIT[column], [(_LOAD, 0, 0, 16), *_one_of((0,), _ALLOW, deny)])
    if not own_tree:
        code += _call(_SET_AFFINITY[column], [(_LOAD, 0, 0, 16), *_one_of((0,), _ALLOW, deny)])
        # a process that is not dumpable hides its files from the disk watch
        dumpable = [(_JUMP_EQUAL, 0, 4, _SET_DUMPABLE), (_LOAD, 0, 0, 24), *_one_of((1,), _ALLOW, deny)]
        code += _call(_PRCTL[column], [(_LOAD, 0, 0, 16), *dumpable])
    if only_pid is not None:
        for name, numbers in SIGNALS.items():
            allowed = (0, only_pid) if name == "kill" else () if "tg" not in name else (only_pid,)
            code += _call(numbers[column], [(_LOAD, 0, 0, 16), *_one_of(allowed, _ALLOW, deny)])
    code += _sockets(column, network, own_tree)
    return [*code, (_RETURN, 0, 0, _ALLOW)]


def _call(number: int, body: list[tuple]) -> list[tuple]:
    """Rules for one call; it is allowed if the body does not return."""
    return [(_JUMP_EQUAL, 0, len(body) + 1, number), *body, (_RETURN, 0, 0, _ALLOW)]


def _one_of(values: tuple[int, ...], then: int, otherwise: int) -> list[tuple]:
    """Return `then` if the loaded value is among a few values, else `otherwise`."""
    lines = [(_JUMP_EQUAL, len(values) - index, 0, value) for index, value in enumerate(values)]
    return [*lines, (_RETURN, 0, 0, otherwise), (_RETURN, 0, 0, then)]


def _descriptors(column: int, own_tree: bool) -> list[tuple]:
    """Rules for `ioctl` and `fcntl` on open files."""
    deny, load = _ERRNO | errno.EPERM, (_LOAD, 0, 0, 24)
    terminal_requests = (_TIOCSTI, _TIOCLINUX, _TIOCSETD)  # inject input into another program's terminal
    if own_tree:
        requests = _one_of(terminal_requests, deny, _ALLOW)
        commands = _LEASES
    else:  # ENOTTY means that a file does not support a request; programs handle it
        letters = [(_AND, 0, 0, _IOCTL_LETTER), *_one_of(_HARMLESS_LETTERS, _ALLOW, _ERRNO | errno.ENOTTY)]
        requests = [*_return_for((*terminal_requests, *_SOCKET_OWNERS), deny), *letters]
        commands = (*_LEASES, *_OWNERS)
    return [*_call(_IOCTL[column], [load, *requests]), *_call(_FCNTL[column], [load, *_one_of(commands, deny, _ALLOW)])]


def _return_for(values: tuple[int, ...], answer: int) -> list[tuple]:
    """Return `answer` for a few values of what was loaded; continue for all others."""
    return [line for value in values for line in ((_JUMP_EQUAL, 0, 1, value), (_RETURN, 0, 0, answer))]


def _sockets(column: int, network: bool, own_tree: bool) -> list[tuple]:
    """Rules for creating sockets; netlink is allowed because zmq aborts if it cannot list the interfaces."""
    refuse = _ERRNO | errno.EACCES
    route = [(_LOAD, 0, 0, 32), *_one_of((0,), _ALLOW, refuse)]  # NETLINK_ROUTE lists the interfaces
    stream = [(_LOAD, 0, 0, 24), (_AND, 0, 0, _TYPE), *_one_of((_SOCK_STREAM,), _ALLOW, refuse)]
    # a datagram reaches a listener without a connection
    unix = [(_RETURN, 0, 0, _ALLOW)] if own_tree else stream
    internet = [(_LOAD, 0, 0, 32), *_one_of(_PROTOCOLS, _ALLOW, refuse)]
    body = [(_LOAD, 0, 0, 16)]
    for family, rule in ((_AF_NETLINK, route), (_AF_UNIX, unix), *((f, internet) for f in _INTERNET if network)):
        body += [(_JUMP_EQUAL, 0, len(rule), family), *rule]
    body += [(_RETURN, 0, 0, refuse)]
    pairs = [] if own_tree else _call(_SOCKETPAIR[column], stream)
    return [*_call(_SOCKET[column], body), *pairs]
