"""The bounds and bases of the messages that runner and egress worker exchange."""

from typing import Annotated, Final

import msgspec

ADDRESS_BYTES: Final = 16

Id = Annotated[int, msgspec.Meta(ge=1, le=0xFFFF_FFFF)]
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
Port = Annotated[int, msgspec.Meta(ge=1, le=0xFFFF)]
Name = Annotated[str, msgspec.Meta(max_length=253)]
Address = Annotated[bytes, msgspec.Meta(max_length=ADDRESS_BYTES)]
Word = Annotated[str, msgspec.Meta(max_length=128)]
Line = Annotated[str, msgspec.Meta(max_length=2048)]
Text = Annotated[str, msgspec.Meta(max_length=64 * 1024)]
Data = Annotated[bytes, msgspec.Meta(max_length=96 * 1024)]
Status = Annotated[int, msgspec.Meta(ge=0, le=599)]


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message; a tag names its class."""


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A part of messages."""
