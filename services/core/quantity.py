"""Quantities as users write them: CPUs in thousandths, memory and disk in MiB.

    CPUs     a number or text: `2`, `0.5`, `1500m` (thousandths)
    memory   a number or digits alone: MiB; text with a unit: `3g`, `3Gi`, `3GiB`, `3072Mi`, `512m`

Units of memory are powers of 1024 whatever their spelling, as for `docker run --memory`; in
particular `m` is MiB. Fractions are exact; memory is rounded up to a whole MiB.
"""

import math
import re
from decimal import Decimal
from fractions import Fraction
from typing import Final

from services.core.errors import RequestInvalid

MAX_CPU_MILLIS: Final = 1024 * 1000
MAX_MEBIBYTES: Final = 16 * 1024 * 1024
MIN_MEMORY_MIB: Final = 64

_CPUS = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)(m?)\Z", re.ASCII)
_BYTES = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,12})?)(?:([kmgt])i?b?)?\Z", re.ASCII | re.IGNORECASE)
_KIB_OF: Final = {"k": 1, "m": 1024, "g": 1024 * 1024, "t": 1024 * 1024 * 1024}


def parse_cpus(quantity: str | float) -> int:
    """Returns CPU time in thousandths of a CPU, at least 1.

    Raises:
        RequestInvalid: it is no such quantity, is zero, finer than a thousandth, or beyond 1024.
    """
    match = _CPUS.match(_text(quantity))
    if match is None:
        raise _invalid(quantity, "a number of CPUs", "write 2, 0.5 or 1500m")
    millis = Fraction(match[1]) * (1 if match[2] else 1000)
    if millis == 0:
        raise _invalid(quantity, "a number of CPUs above zero", "write 1 or more, or 500m")
    if millis.denominator != 1:
        raise _invalid(quantity, "a number of CPUs", "a thousandth (1m) is the finest share")
    if millis > MAX_CPU_MILLIS:
        raise _invalid(quantity, "a number of CPUs", "at most 1024 are accepted")
    return int(millis)


def parse_mebibytes(quantity: str | float, *, what: str = "memory", minimum: int = 1) -> int:
    """Returns a size in MiB, rounded up.

    Args:
        quantity: the quantity as it was written.
        what: what it is the size of, for messages.
        minimum: the smallest size that is accepted, in MiB.

    Raises:
        RequestInvalid: it is no such quantity, is smaller than the minimum, or beyond 16 TiB.
    """
    match = _BYTES.match(_text(quantity))
    if match is None:
        raise _invalid(quantity, f"a size of {what}", "write 512 (MiB), 512m, 3g or 3Gi")
    unit = match[2].lower() if match[2] else "m"
    mebibytes = math.ceil(Fraction(match[1]) * _KIB_OF[unit] / 1024)
    if mebibytes < minimum:
        raise _invalid(quantity, f"a size of {what}", f"at least {minimum} MiB are needed")
    if mebibytes > MAX_MEBIBYTES:
        raise _invalid(quantity, f"a size of {what}", "at most 16 TiB are accepted")
    return mebibytes


def _text(quantity: str | float) -> str:
    if isinstance(quantity, str):
        return quantity.strip(" ")
    if isinstance(quantity, bool) or not math.isfinite(quantity):
        return ""
    # Through Decimal, since 1e-05 and 1e+16 are not how quantities are written.
    return format(Decimal(repr(quantity)), "f").removesuffix(".0")


def _invalid(quantity: str | float, what: str, way_out: str) -> RequestInvalid:
    return RequestInvalid(f"{str(quantity)[:60]!r} is not {what}: {way_out}", hint=way_out)
