"""A filter of system calls: what a kernel never needs and what opens ways out answers EPERM.

Two machines are known, x86_64 and aarch64. Elsewhere there is no filter, and the ladder says so.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

# name: (x86_64, aarch64); None where the machine has no such call
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
}  # fmt: skip
_MACHINES = {"x86_64": (0, 0xC000003E, 56, 41), "aarch64": (1, 0xC00000B7, 220, 198)}  # column, arch, clone, socket
_CLONE3 = 435
_NAMESPACES = 0x7E020000  # every CLONE_NEW flag that clone knows
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_LOAD, _JUMP_EQUAL, _JUMP_SET, _JUMP_GREATER, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2


def available() -> bool:
    """Whether this machine's call numbers are known here."""
    return platform.machine() in _MACHINES


def apply(network: bool) -> None:
    """Filters this process and its children for ever; `PR_SET_NO_NEW_PRIVS` must be set, or the right to do without.

    Args:
        network: Whether internet sockets may be made (in a network namespace with nothing in it they may).
    """
    program = _program(network)
    buffer = ctypes.create_string_buffer(program)
    fprog = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.c_char_p(fprog), 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"seccomp: {errno.errorcode.get(code, code)}")


def _program(network: bool) -> bytes:
    column, arch, clone, make_socket = _MACHINES[platform.machine()]
    deny = _ERRNO | errno.EPERM
    code = [(_LOAD, 0, 0, 4), (_JUMP_EQUAL, 1, 0, arch), (_RETURN, 0, 0, deny), (_LOAD, 0, 0, 0)]
    if column == 0:  # the x32 way in to the same calls
        code += [(_JUMP_GREATER, 0, 1, 0x40000000), (_RETURN, 0, 0, deny)]
    for numbers in DENIED.values():
        if numbers[column] is not None:
            code += [(_JUMP_EQUAL, 0, 1, numbers[column]), (_RETURN, 0, 0, deny)]
    # ENOSYS makes libc fall back to clone, whose flags a filter can read
    code += [(_JUMP_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    code += [(_JUMP_EQUAL, 0, 4, clone), (_LOAD, 0, 0, 16), (_JUMP_SET, 0, 1, _NAMESPACES)]
    code += [(_RETURN, 0, 0, deny), (_RETURN, 0, 0, _ALLOW)]
    # zmq ends the process where it cannot list the interfaces (netlink), even for sockets that are files
    families = [_AF_UNIX, _AF_NETLINK, *([_AF_INET, _AF_INET6] if network else [])]
    code += [(_JUMP_EQUAL, 0, 2 + len(families), make_socket), (_LOAD, 0, 0, 16)]
    code += [(_JUMP_EQUAL, len(families) - index, 0, family) for index, family in enumerate(families)]
    code += [(_RETURN, 0, 0, _ERRNO | errno.EACCES), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("HBBI", *line) for line in code)
