from datetime import timedelta
from types import SimpleNamespace

import prometheus_client

from services.core.egress import audit
from services.vm_runner.boundary.audit_log import AuditLog
from services.vm_runner.boundary.records import EgressRecord, RecordKind
from services.vm_runner.metrics import booted, runs_counted
from services.vm_runner.records.runs import BootTimes, RunState


def value(name: str, **labels: str) -> float | None:
    return prometheus_client.REGISTRY.get_sample_value(name, labels)


def test_runs_are_counted_by_state_while_they_are_served() -> None:
    runs = [SimpleNamespace(state=state) for state in (RunState.RUNNING, RunState.LOST)]

    with runs_counted(lambda: runs):  # type: ignore[arg-type,return-value]  # all that is read
        assert value("lns_vm_runner_runs", state="running") == 1
        assert value("lns_vm_runner_runs", state="lost") == 1
        assert value("lns_vm_runner_runs", state="paused") == 0
    assert value("lns_vm_runner_runs", state="running") == 0


def test_a_machine_that_was_adopted_has_no_start_to_count() -> None:
    before = value("lns_vm_runner_boot_seconds_count", way="ahead", phase="whole") or 0

    booted(BootTimes(boot=timedelta(seconds=1)))
    booted(BootTimes(boot=timedelta(seconds=1), exec=timedelta(seconds=2), way="ahead"))

    assert value("lns_vm_runner_boot_seconds_count", way="ahead", phase="whole") == before + 1


class Storage:
    async def open(self) -> bytes:
        return b""

    async def append(self, data: bytes) -> None:
        assert audit.read_line(data)


async def test_verdicts_and_bytes_of_egress_are_counted() -> None:
    def denied() -> float:
        labels = {"kind": "connection", "verdict": "deny"}
        return value("lns_vm_runner_egress_verdicts_total", **labels) or 0

    def sent() -> float:
        return value("lns_vm_runner_egress_bytes_total", direction="out") or 0

    before = denied(), sent()
    log = AuditLog(Storage())  # type: ignore[arg-type]  # what is read is not asked for
    await log.append(EgressRecord(kind=RecordKind.CONNECTION, verdict="deny", host="x"))
    await log.append(EgressRecord(kind=RecordKind.CLOSED, sent_bytes=7))

    assert (denied(), sent()) == (before[0] + 1, before[1] + 7)
