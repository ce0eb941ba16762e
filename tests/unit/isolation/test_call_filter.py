"""The filters of system calls: what passes, what fails and how, for each kind and architecture."""

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from services.isolation.allowed_calls import ALLOWED, RULES, Judgement, Kind
from services.isolation.call_filter import (
    ABSENT,
    ALLOW,
    AUDIT,
    DENY,
    FIRST_YOUNG,
    KILL,
    allowed_numbers,
    filter_program,
)

ROOT = Path(__file__).parents[3]
HIGHEST = 500
X32 = 0x40000000

each_kind = pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)
each_machine = pytest.mark.parametrize("machine", AUDIT)


def verdict(program: bytes, architecture: int, number: int, *arguments: int) -> int:
    """What the kernel's machine of classic BPF makes of a call."""
    code = list(struct.iter_unpack("<HBBI", program))
    padded = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack("<iIQ6Q", number, architecture, 0, *padded)
    loaded, at = 0, 0
    while True:
        operation, if_true, if_false, value = code[at]
        at += 1
        if operation == 0x20:
            (loaded,) = struct.unpack_from("<I", data, value)
        elif operation == 0x06:
            return int(value)
        else:
            holds = {0x15: loaded == value, 0x35: loaded >= value, 0x45: bool(loaded & value)}
            at += if_true if holds[operation] else if_false


@each_kind
@each_machine
def test_what_is_listed_passes_and_everything_else_fails(kind: Kind, machine: str) -> None:
    program = filter_program(kind, machine)
    numbers = allowed_numbers(kind, machine)
    plain = {number for name, number in numbers.items() if name not in RULES}
    judged = {numbers[name] for name in RULES if name in numbers}

    for number in set(range(HIGHEST)) - judged:
        expected = ALLOW if number in plain else DENY if number < FIRST_YOUNG else ABSENT
        assert verdict(program, AUDIT[machine], number) == expected, number


@each_kind
@each_machine
def test_calls_of_another_architecture_end_the_process(kind: Kind, machine: str) -> None:
    program = filter_program(kind, machine)
    others = {0x40000003, 0x40000028, *AUDIT.values()} - {AUDIT[machine]}

    assert {verdict(program, other, 0) for other in others} == {KILL}
    assert verdict(program, AUDIT[machine], X32 + 1) == DENY


@each_kind
@each_machine
@pytest.mark.parametrize("name", RULES)
def test_a_call_with_a_rule_passes_with_its_arguments_alone(
    kind: Kind, machine: str, name: str
) -> None:
    program = filter_program(kind, machine)
    number = allowed_numbers(kind, machine).get(name)
    rule = RULES[name]

    def judged(value: int) -> int:
        assert number is not None
        arguments = [0] * 6
        arguments[rule.argument] = value
        return verdict(program, AUDIT[machine], number, *arguments)

    if number is None:
        assert name == "clone"
    elif rule.test is Judgement.IS_ONE_OF:
        assert {judged(value) for value in rule.values} == {ALLOW}
        assert {judged(value) for value in (0x5412, 0x4020940D, 12345)} == {DENY}  # TIOCSTI …
    else:
        (bit,) = rule.values
        with_bit = rule.test is Judgement.HAS_BIT
        assert judged(bit) == judged(bit | 1) == (ALLOW if with_bit else DENY)
        assert judged(0) == judged(bit ^ 0xFFFFFFFF) == (DENY if with_bit else ALLOW)


DANGEROUS = (
    "execve", "execveat", "fork", "vfork", "clone3", "socket", "socketpair", "connect", "bind",
    "listen", "ptrace", "process_vm_readv", "process_vm_writev", "kill", "tkill", "tgkill",
    "mount", "umount2", "pivot_root", "chroot", "unshare", "setns", "bpf", "perf_event_open",
    "userfaultfd", "keyctl", "io_uring_setup", "io_uring_enter", "open_by_handle_at", "prctl",
    "setuid", "capset", "seccomp", "memfd_create", "init_module", "kexec_load", "setxattr",
)  # fmt: skip


def test_no_kind_has_a_call_that_leads_out() -> None:
    assert [name for calls in ALLOWED.values() for name in DANGEROUS if name in calls] == []


def test_only_who_serves_files_opens_any() -> None:
    opening = {"open", "openat", "openat2", "creat", "unlinkat", "renameat2", "mkdirat"}

    assert not opening & ALLOWED[Kind.EGRESS_WORKER].keys()
    assert opening <= ALLOWED[Kind.FILE_SERVER].keys()
    assert not {"recvfrom", "sendmsg", "accept4"} & ALLOWED[Kind.LAYER_WORKER].keys()


TRIES = """
import ctypes, errno, mmap, os, signal, socket, sys, threading
from services.isolation.allowed_calls import Kind
from services.isolation.call_filter import install_filter
from services.isolation.system_calls import drop_capabilities

libc = ctypes.CDLL(None, use_errno=True)
def called(function, *arguments):
    if function(*arguments) == -1:
        raise OSError(ctypes.get_errno(), "")
tries = {
    "fork": os.fork,
    "program": lambda: called(libc.execve, b"/bin/true", None, None),
    "socket": socket.socket,
    "signal": lambda: os.kill(os.getpid(), 0),
    "code": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_EXEC | mmap.PROT_READ),
    "terminal input": lambda: called(libc.ioctl, 0, 0x5412, b"x"),
    "anonymous file": lambda: os.memfd_create("x"),
    "attribute": lambda: os.setxattr("/", "user.x", b""),
    "io_uring": lambda: called(libc.syscall, 425, 1, None),
    "thread": lambda: threading.Thread(target=int).start(),
    "open": lambda: open("/dev/null"),
}
os.cpu_count(), socket.AF_INET
drop_capabilities()
install_filter(Kind[sys.argv[1]])
found = []
for name, act in tries.items():
    try:
        act()
        found.append(f"{name}: done")
    except OSError as error:
        found.append(f"{name}: {errno.errorcode[error.errno]}")
    except RuntimeError:
        found.append(f"{name}: EPERM")
print("; ".join(found), flush=True)
os._exit(0)
"""


@each_kind
def test_the_kernel_holds_to_it(kind: Kind) -> None:
    tried = subprocess.run(
        [sys.executable, "-c", TRIES, kind.name],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    found = dict(part.split(": ") for part in tried.stdout.strip().split("; "))

    permitted = {"open"} if kind is not Kind.EGRESS_WORKER else set()
    permitted |= {"thread"} if kind is Kind.LAYER_WORKER else set()
    assert {name for name, result in found.items() if result == "done"} == permitted
    assert found.pop("io_uring") == "ENOSYS"
    assert {result for name, result in found.items() if name not in permitted} == {"EPERM"}
