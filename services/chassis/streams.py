"""The sizes of what is streamed.

gRPC refuses a message above 4 MiB, framing included, so a chunk of 4 MiB fails. Throughput is flat
between 256 KiB and 1 MiB and falls on both sides (`docs/adr/0014`).
"""

from services.core.errors import LimitExceeded

CHUNK_BYTES = 512 * 1024
"""What senders put into one message."""

MAX_CHUNK_BYTES = 1024 * 1024
"""What receivers accept in one message."""


def check_chunk(data: bytes) -> None:
    """Refuses a chunk that no sender of ours makes.

    Raises:
        LimitExceeded: it is larger than `MAX_CHUNK_BYTES`.
    """
    if len(data) > MAX_CHUNK_BYTES:
        raise LimitExceeded(
            f"a chunk of {len(data)} bytes is larger than {MAX_CHUNK_BYTES}",
            hint=f"send chunks of {CHUNK_BYTES} bytes",
        )
