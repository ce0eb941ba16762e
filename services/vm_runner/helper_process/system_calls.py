"""System calls that Python has no function for, and those that a helper process gives up.

Numbers are the kernel's: `arch/x86/entry/syscalls/syscall_64.tbl` and
`include/uapi/asm-generic/unistd.h`, which aarch64 uses. From 424 on all architectures agree.
"""

import ctypes
import os
import platform
import signal
import struct
from collections.abc import Collection, Mapping
from enum import IntFlag

_libc = ctypes.CDLL(None, use_errno=True)


class Namespace(IntFlag):
    """Namespaces, as unshare(2) takes them."""

    MOUNTS = 0x00020000
    HOST_NAME = 0x04000000
    IPC = 0x08000000
    USER = 0x10000000
    PROCESSES = 0x20000000
    NETWORK = 0x40000000


class Mount(IntFlag):
    """Flags of mount(2)."""

    READ_ONLY = 1
    NO_SETUID = 2
    NO_DEVICES = 4
    NO_EXEC = 8
    REMOUNT = 32
    BIND = 4096
    RECURSIVE = 16384
    PRIVATE = 1 << 18


_MNT_DETACH = 2
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_SET_STRING, _CREATE = 1, 6  # linux/mount.h, enum fsconfig_command
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_PR_CAPBSET_DROP = 24
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522
_CAPABILITIES = 64

_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000

_OWN_NUMBERS: Mapping[str, Mapping[str, int]] = {
    "x86_64": {
        "socket": 41, "connect": 42, "bind": 49, "listen": 50, "socketpair": 53,
        "clone": 56, "fork": 57, "vfork": 58, "execve": 59, "execveat": 322,
        "kill": 62, "tkill": 200, "tgkill": 234, "rt_sigqueueinfo": 129,
        "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312,
        "setuid": 105, "setgid": 106, "setresuid": 117, "setresgid": 119, "setgroups": 116,
        "unshare": 272, "setns": 308, "mount": 165, "umount2": 166, "pivot_root": 155,
        "chroot": 161, "name_to_handle_at": 303, "open_by_handle_at": 304,
        "add_key": 248, "request_key": 249, "keyctl": 250, "bpf": 321, "perf_event_open": 298,
        "userfaultfd": 323, "init_module": 175, "finit_module": 313, "delete_module": 176,
        "kexec_load": 246, "quotactl": 179, "acct": 163, "personality": 135, "prctl": 157,
    },
    "aarch64": {
        "socket": 198, "connect": 203, "bind": 200, "listen": 201, "socketpair": 199,
        "clone": 220, "execve": 221, "execveat": 281,
        "kill": 129, "tkill": 130, "tgkill": 131, "rt_sigqueueinfo": 138,
        "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272,
        "setuid": 146, "setgid": 144, "setresuid": 147, "setresgid": 149, "setgroups": 159,
        "unshare": 97, "setns": 268, "mount": 40, "umount2": 39, "pivot_root": 41,
        "chroot": 51, "name_to_handle_at": 264, "open_by_handle_at": 265,
        "add_key": 217, "request_key": 218, "keyctl": 219, "bpf": 280, "perf_event_open": 241,
        "userfaultfd": 282, "init_module": 105, "finit_module": 273, "delete_module": 106,
        "kexec_load": 104, "quotactl": 60, "acct": 89, "personality": 92, "prctl": 167,
    },
}  # fmt: skip
_FURTHER_NUMBERS: Mapping[str, Mapping[str, int]] = {
    # aarch64 has no open, creat …: its library calls the ones with a directory.
    "x86_64": {
        "open": 2, "creat": 85, "openat": 257, "openat2": 437, "accept": 43, "accept4": 288,
        "mkdir": 83, "mkdirat": 258, "unlink": 87, "unlinkat": 263, "rename": 82, "renameat2": 316,
        "link": 86, "linkat": 265, "symlink": 88, "symlinkat": 266, "memfd_create": 319,
    },
    "aarch64": {
        "openat": 56, "openat2": 437, "accept": 202, "accept4": 242, "mkdirat": 34, "unlinkat": 35,
        "renameat2": 276, "linkat": 37, "symlinkat": 36, "memfd_create": 279,
    },
}  # fmt: skip
NO_FILES = frozenset(_FURTHER_NUMBERS["x86_64"])
"""Calls that open, make or rename files, or take connections."""
_SHARED_NUMBERS = (
    424,  # pidfd_send_signal
    425, 426, 427,  # io_uring, whose work no filter sees
    428, 429, 430, 431, 432, 433, 442,  # mounts in the newer ways
    434, 438, 440,  # other processes: pidfd_open, pidfd_getfd, process_madvise
    435,  # clone3
)  # fmt: skip


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(namespaces: Namespace) -> None:
    """Enters new namespaces.

    Raises:
        OSError: the host does not permit it.
    """
    _check(_libc.unshare(ctypes.c_int(namespaces)), "unshare")


def mount(source: bytes | None, target: bytes, kind: bytes | None, flags: int, data: bytes) -> None:
    """Mounts.

    Raises:
        OSError: it cannot be.
    """
    result = _libc.mount(source, target, kind, ctypes.c_ulong(flags), data or None)
    _check(result, f"mount of {os.fsdecode(target)}")


def own_processes() -> int:
    """Returns a descriptor of a procfs that is mounted nowhere and has this namespace's processes.

    It shows processes only, no `sys` and no other file of the kernel.

    Raises:
        OSError: the host does not permit it.
    """
    context = _libc.syscall(_FSOPEN, b"proc", _FSOPEN_CLOEXEC)
    _check(context, "fsopen of proc")
    try:
        _check(_libc.syscall(_FSCONFIG, context, _SET_STRING, b"subset", b"pid", 0), "subset=pid")
        _check(_libc.syscall(_FSCONFIG, context, _CREATE, None, None, 0), "procfs")
        descriptor: int = _libc.syscall(_FSMOUNT, context, _FSMOUNT_CLOEXEC, 0)
        _check(descriptor, "fsmount of proc")
    finally:
        os.close(context)
    return descriptor


def end_with_parent() -> None:
    """Has the kernel kill this process when the one that made it dies; a change of user undoes it.

    Raises:
        OSError: the kernel refuses.
    """
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "parent death signal")


def make_root() -> None:
    """Makes the current directory, a mount point, the root; what was the root is gone.

    Raises:
        OSError: it cannot be.
    """
    old = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _check(_libc.syscall(_number("pivot_root"), b".", b"."), "pivot_root")
        os.fchdir(old)
        _check(_libc.umount2(b".", _MNT_DETACH), "unmount of the old root")
        os.chdir("/")
    finally:
        os.close(old)


def drop_capabilities() -> None:
    """Gives up every capability, and the means to gain any.

    Raises:
        OSError: the kernel refuses.
    """
    for capability in range(_CAPABILITIES):
        _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # fails where there is no privilege
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc.syscall(_capset(), header, bytes(24)), "capset")
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def install_filter(further: Collection[str] = ()) -> None:
    """Denies system calls that no helper needs, and `further` ones; each fails with EPERM.

    Args:
        further: such as `NO_FILES`.

    Raises:
        OSError: the kernel has no filters.
    """
    program = filter_program(platform.machine(), further)
    code = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))

    whole = Program(len(program) // _INSTRUCTION.size, ctypes.addressof(code))
    _check(_libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(whole), 0, 0), "seccomp")


_INSTRUCTION = struct.Struct("<HBBI")
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _DENY, _KILL = 0x7FFF0000, 0x00050001, 0x80000000
_CALL_AT, _ARCHITECTURE_AT = 0, 4


def filter_program(machine: str, further: Collection[str] = ()) -> bytes:
    """Returns the filter of an architecture as classic BPF.

    Raises:
        OSError: the architecture is not known.
    """
    denied = denied_calls(machine, further)
    count = len(denied)
    code = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, _AUDIT[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _CALL_AT),
        (_AT_LEAST, count + 1, 0, _X32_BIT),  # 32-bit numbers of x86-64 are not listed
        *((_EQUAL, count - index, 0, number) for index, number in enumerate(denied)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _DENY),
    ]
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in code)


def denied_calls(machine: str, further: Collection[str] = ()) -> tuple[int, ...]:
    """Returns the numbers of the denied calls.

    Raises:
        OSError: the architecture is not known.
    """
    if machine not in _OWN_NUMBERS:
        raise OSError(0, f"the system calls of {machine} are not known")
    more = {
        _FURTHER_NUMBERS[machine][name] for name in further if name in _FURTHER_NUMBERS[machine]
    }
    return (*sorted({*_OWN_NUMBERS[machine].values(), *more}), *_SHARED_NUMBERS)


def _number(name: str) -> int:
    return _OWN_NUMBERS[platform.machine()][name]


def _capset() -> int:
    return 126 if platform.machine() == "x86_64" else 91
