"""Which system calls each kind of confined process may make, and with which arguments.

Learned with `strace -f` from the tests of each kind, from the moment its filter is installed, and
widened to calls of the same purpose that another version of Python or of the C library makes
instead. Nothing is permitted because it is harmless: every group has a reader below.

Numbers are the kernel's, of x86-64 and of aarch64 (`arch/x86/entry/syscalls/syscall_64.tbl` and
`include/uapi/asm-generic/unistd.h`); None where the architecture has no such call.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType

Numbers = Mapping[str, tuple[int, int | None]]

_DESCRIPTORS: Numbers = {
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66),
    "pread64": (17, 67), "pwrite64": (18, 68), "preadv": (295, 69), "pwritev": (296, 70),
    "preadv2": (327, 286), "pwritev2": (328, 287), "lseek": (8, 62), "close": (3, 57),
    "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24), "fcntl": (72, 25), "fstat": (5, 80),
    "fadvise64": (221, 223),
}  # fmt: skip
"""What is open already: bytes, positions, flags."""

_MEMORY: Numbers = {
    "mmap": (9, 222), "munmap": (11, 215), "mremap": (25, 216), "mprotect": (10, 226),
    "madvise": (28, 233), "brk": (12, 214), "msync": (26, 227), "mincore": (27, 232),
    "membarrier": (324, 283),
}  # fmt: skip
"""Memory of its own; nothing may become code, see `RULES`."""

_OWN_END: Numbers = {
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "rt_sigsuspend": (130, 133), "rt_sigtimedwait": (128, 137), "sigaltstack": (131, 132),
    "restart_syscall": (219, 128), "exit": (60, 93), "exit_group": (231, 94),
}  # fmt: skip
"""Signals that arrive, and the end."""

_LOCKS: Numbers = {
    "futex": (202, 98), "futex_waitv": (449, 449), "set_robust_list": (273, 99),
    "get_robust_list": (274, 100), "rseq": (334, 293), "gettid": (186, 178),
    "set_tid_address": (218, 96), "sched_yield": (24, 124), "sched_getaffinity": (204, 123),
    "getcpu": (309, 168),
}  # fmt: skip
"""Waiting for one's own threads."""

_IDENTITY: Numbers = {
    "getpid": (39, 172), "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175),
    "getgid": (104, 176), "getegid": (108, 177), "getgroups": (115, 158),
    "getpgrp": (111, None), "getpgid": (121, 155), "getsid": (124, 156),
    "getresuid": (118, 148), "getresgid": (120, 150), "umask": (95, 166), "uname": (63, 160),
    "sysinfo": (99, 179), "getrusage": (98, 165), "times": (100, 153), "getrlimit": (97, 163),
    "getrandom": (318, 278),
}  # fmt: skip
"""Who it is and what it has used."""

_TIME: Numbers = {
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101), "gettimeofday": (96, 169), "time": (201, None),
}  # fmt: skip
"""Clocks that are read or waited for."""

_WAITING: Numbers = {
    "poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72),
    "epoll_create": (213, None), "epoll_create1": (291, 20), "epoll_ctl": (233, 21),
    "epoll_wait": (232, None), "epoll_pwait": (281, 22), "epoll_pwait2": (441, 441),
    "eventfd2": (290, 19), "pipe": (22, None), "pipe2": (293, 59), "timerfd_create": (283, 85),
    "timerfd_settime": (286, 86), "timerfd_gettime": (287, 87),
}  # fmt: skip
"""Until one of its descriptors is ready."""

_CONNECTED: Numbers = {
    "recvfrom": (45, 207), "recvmsg": (47, 212), "recvmmsg": (299, 243), "sendto": (44, 206),
    "sendmsg": (46, 211), "sendmmsg": (307, 269), "shutdown": (48, 210),
    "getsockname": (51, 204), "getpeername": (52, 205), "getsockopt": (55, 209),
    "setsockopt": (54, 208),
}  # fmt: skip
"""Sockets that are connected already."""

_ACCEPTING: Numbers = {
    "accept": (43, 202), "accept4": (288, 242),
}  # fmt: skip
"""Connections on a socket that listens already."""

_FILES_SEEN: Numbers = {
    "open": (2, None), "openat": (257, 56), "openat2": (437, 437), "stat": (4, None),
    "lstat": (6, None), "newfstatat": (262, 79), "statx": (332, 291), "access": (21, None),
    "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, None),
    "readlinkat": (267, 78), "getdents": (78, None), "getdents64": (217, 61),
    "statfs": (137, 43), "fstatfs": (138, 44), "getcwd": (79, 17), "chdir": (80, 49),
    "fchdir": (81, 50),
}  # fmt: skip
"""Files that are opened, looked at and listed."""

_FILES_KEPT: Numbers = {
    "fsync": (74, 82), "fdatasync": (75, 83), "ftruncate": (77, 46), "fallocate": (285, 47),
    "sync_file_range": (277, 84), "copy_file_range": (326, 285),
}  # fmt: skip
"""Files that reach the disk."""

_FILES_CHANGED: Numbers = {
    "creat": (85, None), "mkdir": (83, None), "mkdirat": (258, 34), "mknod": (133, None),
    "mknodat": (259, 33), "unlink": (87, None), "unlinkat": (263, 35), "rmdir": (84, None),
    "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276), "link": (86, None),
    "linkat": (265, 37), "symlink": (88, None), "symlinkat": (266, 36), "truncate": (76, 45),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54),
    "utimensat": (280, 88), "utime": (132, None), "utimes": (235, None),
    "futimesat": (261, None), "flock": (73, 32),
}  # fmt: skip
"""Names, modes and times of files."""

_THREADS: Numbers = {
    "clone": (56, 220),
}  # fmt: skip
"""Further threads; `RULES` permits no process."""

_DEVICES: Numbers = {
    "ioctl": (16, 29),
}  # fmt: skip
"""Of `ioctl` what `RULES` permits."""

_OWN_LIMITS: Numbers = {"prlimit64": (302, 261)}
"""Limits that are read or lowered; `RULES` permits its own alone."""

_COMMON = {
    **_DESCRIPTORS, **_MEMORY, **_OWN_END, **_LOCKS, **_IDENTITY, **_TIME, **_WAITING, **_DEVICES,
    **_OWN_LIMITS,
}  # fmt: skip


class Kind(Enum):
    """A kind of confined process."""

    FILE_SERVER = auto()
    EGRESS_WORKER = auto()
    LAYER_WORKER = auto()


ALLOWED: Mapping[Kind, Numbers] = MappingProxyType(
    {
        Kind.FILE_SERVER: {
            **_COMMON, **_CONNECTED, **_FILES_SEEN, **_FILES_KEPT, **_FILES_CHANGED,
        },
        Kind.EGRESS_WORKER: {**_COMMON, **_CONNECTED, **_ACCEPTING},
        Kind.LAYER_WORKER: {
            **_COMMON, **_FILES_SEEN, **_FILES_KEPT, **_FILES_CHANGED, **_THREADS,
        },
    }
)  # fmt: skip
"""The calls of each kind, with their numbers."""


class Judgement(Enum):
    """How an argument is judged, by its lower 32 bits."""

    IS_ONE_OF = auto()
    HAS_BIT = auto()
    LACKS_BIT = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """With which argument a call passes.

    Attributes:
        argument: its position, from 0.
        test: how it is judged.
        values: held against it.
    """

    argument: int
    test: Judgement
    values: tuple[int, ...]


_PROT_EXEC = 4
_CLONE_THREAD = 0x10000
_TCGETS, _FIONREAD, _FIONBIO, _FIONCLEX, _FIOCLEX = 0x5401, 0x541B, 0x5421, 0x5450, 0x5451

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "mmap": Rule(argument=2, test=Judgement.LACKS_BIT, values=(_PROT_EXEC,)),
        "mprotect": Rule(argument=2, test=Judgement.LACKS_BIT, values=(_PROT_EXEC,)),
        "clone": Rule(argument=0, test=Judgement.HAS_BIT, values=(_CLONE_THREAD,)),
        "prlimit64": Rule(argument=0, test=Judgement.IS_ONE_OF, values=(0,)),
        "ioctl": Rule(
            argument=1,
            test=Judgement.IS_ONE_OF,
            values=(_TCGETS, _FIONREAD, _FIONBIO, _FIONCLEX, _FIOCLEX),
        ),
    }
)
"""Of the calls of every kind, those that pass with some arguments only."""
