"""System calls that Python has no function for, by which a process gives up what it has."""

import ctypes
import os
import platform
import signal
import struct
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
        _check(_libc.syscall(_pivot_root(), b".", b"."), "pivot_root")
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


def set_filter(code: int, length: int) -> None:
    """Has the kernel hold each call against a filter of `length` instructions at address `code`.

    Raises:
        OSError: the kernel has no filters.
    """

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))

    whole = Program(length, code)
    _check(_libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(whole), 0, 0), "seccomp")


def _pivot_root() -> int:
    return 155 if platform.machine() == "x86_64" else 41


def _capset() -> int:
    return 126 if platform.machine() == "x86_64" else 91
