"""What a connection begins as: TLS, HTTP in the clear, or something else.

It is looked at before anything is passed on, however long that takes: a guest that sends half a
request line and waits gains nothing.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from services.vm_runner.egress_worker.client_hello import (
    ClientHello,
    NotTls,
    may_be_hello,
    read_client_hello,
)
from services.vm_runner.egress_worker.frames import PREFACE
from services.vm_runner.egress_worker.sides import Primed

_LINE_MOST: Final = 16 * 1024
_REQUEST_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64} +[^ \r\n]+ +HTTP/[0-9.]+\r?\Z")
_MAY_BEGIN = re.compile(rb"(?:\r?\n){0,8}[!#$%&'*+.^_`|~0-9A-Za-z-]{0,64}(?: [^\r\n]*)?\r?\Z")


NO_HELLO: Final = ClientHello()


class Kind(Enum):
    """What a connection begins as."""

    TLS = "TLS"
    HTTP_1 = "HTTP/1"
    HTTP_2 = "HTTP/2"
    OTHER = "something else"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a connection begins as; `hello` for TLS."""

    kind: Kind
    hello: ClientHello = NO_HELLO


def look(data: bytes) -> Beginning | None:
    """Returns what bytes begin as, None while more are needed."""
    if not data:
        return None
    if may_be_hello(data):
        return _look_at_tls(data)
    if PREFACE.startswith(data[: len(PREFACE)]):
        return Beginning(Kind.HTTP_2) if len(data) >= len(PREFACE) else None
    line, newline, _ = data.lstrip(b"\r\n").partition(b"\n")
    if newline and _REQUEST_LINE.match(line):
        return Beginning(Kind.HTTP_1)
    if newline or len(data) > _LINE_MOST or not _MAY_BEGIN.match(data):
        return Beginning(Kind.OTHER)
    return None


def _look_at_tls(data: bytes) -> Beginning | None:
    try:
        hello = read_client_hello(data)
    except NotTls:
        return Beginning(Kind.OTHER)
    return None if hello is None else Beginning(Kind.TLS, hello)


async def begin(side: Primed) -> Beginning:
    """Reads until it is clear what a side begins as; nothing of it is lost.

    Raises:
        SideLost: the side broke off.
    """
    data = b""
    while True:
        more = await side.read()
        data += more
        found = look(data)
        if not more and found is None:
            found = Beginning(Kind.OTHER if data else Kind.NOTHING)
        if found is not None:
            side.put_back(data)
            return found
