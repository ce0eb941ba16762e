"""The filter of system calls of a confined process, as classic BPF (seccomp(2)).

What is not listed fails and the process goes on: with EPERM, or with ENOSYS from the number on from
which all architectures agree, since those calls are young and the C library then takes an older
one. Another architecture's calls end the process.
"""

import ctypes
import platform
import struct
from collections.abc import Iterator

from services.isolation.allowed_calls import ALLOWED, RULES, Judgement, Kind, Rule
from services.isolation.system_calls import set_filter

FIRST_YOUNG = 424
"""From this number on, all architectures number their calls alike."""

ALLOW, DENY, ABSENT, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
"""What a filter answers: allow, EPERM, ENOSYS, end the process."""

AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""How the kernel names architectures to a filter."""

_X32_BIT = 0x40000000
_LOAD, _EQUAL, _AT_LEAST, _HAS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_CALL_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT, _ARGUMENT_BYTES = 0, 4, 16, 8
_INSTRUCTION = struct.Struct("<HBBI")

Instruction = tuple[int, int, int, int]


def install_filter(kind: Kind) -> None:
    """Leaves the calling thread, and those that it starts, the calls of a kind and no others.

    Raises:
        OSError: the kernel has no filters, or the calls of this architecture are not known.
    """
    program = filter_program(kind, platform.machine())
    code = ctypes.create_string_buffer(program, len(program))
    set_filter(ctypes.addressof(code), len(program) // _INSTRUCTION.size)


def filter_program(kind: Kind, machine: str) -> bytes:
    """Returns the filter of a kind of process for an architecture.

    Raises:
        OSError: the architecture is not known.
    """
    if machine not in AUDIT:
        raise OSError(0, f"the system calls of {machine} are not known")
    numbers = allowed_numbers(kind, machine)
    plain = sorted(number for name, number in numbers.items() if name not in RULES)
    count = len(plain)
    code: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, AUDIT[machine]),
        (_RETURN, 0, 0, KILL),
        (_LOAD, 0, 0, _CALL_AT),
        (_AT_LEAST, 0, 1, _X32_BIT),  # 32-bit numbers of x86-64 are not listed
        (_RETURN, 0, 0, DENY),
    ]
    for name, rule in RULES.items():
        if name in numbers:
            judged = tuple(_judge(rule))
            code += [(_EQUAL, 0, len(judged), numbers[name]), *judged]
    code += [(_EQUAL, count - index + 1, 0, number) for index, number in enumerate(plain)]
    code += [
        (_AT_LEAST, 2, 0, FIRST_YOUNG),
        (_RETURN, 0, 0, DENY),
        (_RETURN, 0, 0, ALLOW),
        (_RETURN, 0, 0, ABSENT),
    ]
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in code)


def allowed_numbers(kind: Kind, machine: str) -> dict[str, int]:
    """Returns the calls that a kind may make on an architecture: their numbers by their names."""
    column = tuple(AUDIT).index(machine)
    return {
        name: number for name, both in ALLOWED[kind].items() if (number := both[column]) is not None
    }


def _judge(rule: Rule) -> Iterator[Instruction]:
    """Yields what decides a call by its argument, and returns in every case."""
    at = _ARGUMENTS_AT + _ARGUMENT_BYTES * rule.argument  # the lower half: both are little-endian
    yield (_LOAD, 0, 0, at)
    if rule.test is Judgement.IS_ONE_OF:
        last = len(rule.values)
        for index, value in enumerate(rule.values):
            yield (_EQUAL, last - index, 0, value)
        yield (_RETURN, 0, 0, DENY)
        yield (_RETURN, 0, 0, ALLOW)
        return
    (bit,) = rule.values
    yield (_HAS, 0, 1, bit)
    yield (_RETURN, 0, 0, ALLOW if rule.test is Judgement.HAS_BIT else DENY)
    yield (_RETURN, 0, 0, DENY if rule.test is Judgement.HAS_BIT else ALLOW)
