"""Reads what is recorded of a run's egress."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from services.core.egress.audit import Line

TEXT_MOST = 2048
_NEVER = datetime.fromtimestamp(0, UTC)


class RecordKind(StrEnum):
    """What a record is about."""

    CONNECTION = "connection"
    REQUEST = "request"
    CLOSED = "closed"
    APPROVAL = "approval"
    POLICY = "policy"
    WORKER = "worker"
    USAGE = "usage"


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressRecord:
    """Something that was decided, or became of it; `lns.egress.v1.EgressRecord` says what is what.

    `sequence` and `time` are filled in by the log.
    """

    kind: RecordKind
    sequence: int = 0
    time: datetime = _NEVER
    verdict: str = ""
    host: str = ""
    port: int = 0
    address: str = ""
    method: str = ""
    path: str = ""
    rule: str = ""
    origin: str = ""
    reason: str = ""
    how_to_allow: str = ""
    connection: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    integration: str = ""
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cost: str = ""

    def values(self) -> dict[str, str | int]:
        """Returns what stands in a line of the audit log; empty values are left out."""
        values = asdict(self)
        del values["sequence"]
        values["time"] = self.time.isoformat(timespec="microseconds").replace("+00:00", "Z")
        return {name: _cut(value) for name, value in values.items() if value or name == "kind"}

    @classmethod
    def of_line(cls, line: Line) -> "EgressRecord":
        """Returns the record of a line; what a later version wrote besides is left out.

        Raises:
            ValueError: the line has no record of this kind.
        """
        known: Mapping[str, Any] = {
            one.name: line.values[one.name] for one in fields(cls) if one.name in line.values
        }
        return cls(
            **{
                **known,
                "kind": RecordKind(line.values.get("kind", "")),
                "time": datetime.fromisoformat(str(line.values.get("time", ""))),
                "sequence": line.sequence,
            }
        )


def _cut(value: object) -> str | int:
    return value if isinstance(value, int) else str(value)[:TEXT_MOST]
