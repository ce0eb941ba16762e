"""Protobuf messages as rows and documents."""

import datetime as dt
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from cli.render.text import format_age


def to_document(message: Message) -> dict[str, Any]:
    """Returns a message as JSON has it: the protos' field names, defaults for what is unset."""
    from google.protobuf import json_format  # noqa: PLC0415 - slow to import, and seldom needed

    document: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return document


def iso_time(stamp: Timestamp) -> str:
    """Returns a time in UTC to the second, empty for one that is unset."""
    if not stamp.seconds:
        return ""
    moment = dt.datetime.fromtimestamp(stamp.seconds, tz=dt.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def age(stamp: Timestamp, *, now: float) -> str:
    """Returns `3 minutes ago`, empty for a time that is unset."""
    return f"{format_age(now - stamp.seconds)} ago" if stamp.seconds else ""
