"""Protobuf messages as rows and documents."""

import datetime as dt
from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from cli.render.text import format_age

_LONG = (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)


def to_document(message: Message, *, words: bool = False) -> dict[str, Any]:
    """Returns a message as a document: the protos' field names, defaults for what is unset.

    Integers are numbers, also those of 64 bits, which the JSON of protos has as text. With `words`
    enum values are words, `running` and not `STATE_RUNNING`; one that was not set is empty.
    """
    from google.protobuf import json_format  # noqa: PLC0415 - slow to import, and seldom needed

    document: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return _plain(message.DESCRIPTOR.fields_by_name, document, words=words)


def _plain(fields: Mapping[str, Any], document: dict[str, Any], *, words: bool) -> dict[str, Any]:
    """Returns a document in words; values that are not of `fields` stay as they are."""
    return {
        name: _value(fields[name], value, words=words) if name in fields else value
        for name, value in document.items()
    }


def _value(field: Any, value: Any, *, words: bool) -> Any:
    if isinstance(value, list):
        return [_value(field, one, words=words) for one in value]
    if isinstance(value, dict) and field.message_type is not None:
        return _plain(field.message_type.fields_by_name, value, words=words)
    if words and field.enum_type is not None:
        return _word(field.enum_type, value)
    return int(value) if isinstance(value, str) and field.cpp_type in _LONG else value


def _word(kind: Any, value: Any) -> Any:
    """Returns the word of an enum value: its name without what all names of the enum begin with."""
    zero = kind.values_by_number[0].name
    if value == zero:
        return ""
    prefix = zero.removesuffix("UNSPECIFIED")
    return value.removeprefix(prefix).lower().replace("_", "-") if isinstance(value, str) else value


def iso_time(stamp: Timestamp) -> str:
    """Returns a time in UTC to the second, empty for one that is unset."""
    if not stamp.seconds:
        return ""
    moment = dt.datetime.fromtimestamp(stamp.seconds, tz=dt.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def age(stamp: Timestamp, *, now: float) -> str:
    """Returns `3 minutes ago`, empty for a time that is unset."""
    return f"{format_age(now - stamp.seconds)} ago" if stamp.seconds else ""
