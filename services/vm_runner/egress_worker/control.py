"""What the runner and a run's egress worker say to each other.

One message a packet of a `SOCK_SEQPACKET` socket, MessagePack, at most `MESSAGE_MAX` bytes; a
`Grant` comes with one descriptor, the connected socket (`SCM_RIGHTS`). Pure: bytes in, values out.
`orders` has what the runner says, `reports` what the worker says. Either end takes the other's
bytes for hostile: a worker may have been broken by a guest, so what it says is bounded, typed, and
never more than a report or a question. The worker listens: a runner, or its successor, connects.

The order of things:

    worker                                   runner
      Hello {connections}            ──►       after each connect, also to a runner that came back;
                                     ◄──       Configure (first), Secret …
      Ask {ticket, name, port}       ──►       decides, resolves, checks, dials
                                     ◄──       Grant {ticket, connection, …} + descriptor, or
                                     ◄──       Refuse {ticket}
      Admitted {connection}          ──►       the guest's program has it, or gave up
      RequestDecided …               ──►       one a request on connections that are looked into
      CredentialWanted {request}     ──►       a request waits for a secret
                                     ◄──       Secret {value}, CredentialAnswer {request}
      PageWanted {request}           ──►       a program reads `http://lns.internal/`
                                     ◄──       PageAnswer {request}
                                     ◄──       Update, Revoke: at any time
      AllowanceWanted {request}      ──►       a request counts for budgets with limits
                                     ◄──       AllowanceAnswer {request}
      Usage …, Closed {connection}   ──►

After `Hello` the worker repeats each `Ask`, `CredentialWanted`, `AllowanceWanted` and `PageWanted`
that has no answer, and then what it could not report while no runner was there. The `Usage` of a
request comes before whatever is asked after its reply has ended.
"""

from typing import Final, TypeVar

import msgspec

from services.core.errors import VmFailed
from services.vm_runner.egress_worker.control_parts import ADDRESS_BYTES
from services.vm_runner.egress_worker.orders import ToWorker
from services.vm_runner.egress_worker.reports import Ask, ToRunner

VERSION: Final = 1
MESSAGE_MAX: Final = 128 * 1024

_T = TypeVar("_T")


class ControlViolation(VmFailed):
    """The other end of the control socket sent what is no message of this page."""


class MessageTooLong(VmFailed):
    """A message does not fit one packet, for example the rules of a host: refuse it instead."""


_encoder = msgspec.msgpack.Encoder()
_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_to_runner: msgspec.msgpack.Decoder[ToRunner] = msgspec.msgpack.Decoder(ToRunner)


def encode(message: ToWorker | ToRunner) -> bytes:
    """Returns the packet of a message.

    Raises:
        MessageTooLong: it does not fit one.
    """
    data = _encoder.encode(message)
    if len(data) > MESSAGE_MAX:
        kind = type(message).__name__
        raise MessageTooLong(f"a {kind} of {len(data)} bytes does not fit {MESSAGE_MAX}")
    return data


def decode_to_worker(data: bytes) -> ToWorker:
    """Reads a packet of the runner's.

    Raises:
        ControlViolation: it is malformed.
    """
    return _decoded(_to_worker, data)


def decode_to_runner(data: bytes) -> ToRunner:
    """Reads a packet of a worker's, which may be hostile.

    Raises:
        ControlViolation: it is malformed, or not one that a worker may send.
    """
    message = _decoded(_to_runner, data)
    if isinstance(message, Ask) and (
        bool(message.name) == bool(message.address)
        or (message.address and len(message.address) != ADDRESS_BYTES)
    ):
        raise ControlViolation("an egress worker asked for neither a name nor an address")
    return message


def _decoded(decoder: "msgspec.msgpack.Decoder[_T]", data: bytes) -> _T:
    if len(data) > MESSAGE_MAX:
        raise ControlViolation("a packet of the control socket is too long")
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        # Not the error's text: a secret's packet may be what is broken.
        raise ControlViolation("a packet of the control socket is no message") from error
