"""Runs and plans for tests of vm_runner."""

from datetime import UTC, datetime

from services.chassis.machine import own_platform
from services.core.descriptor import Descriptor
from services.core.run_plan import PinnedImage, PlanKind, PlanSource, Resources, RunPlan
from services.vm_runner.records.runs import Run

DIGEST = "sha256:" + "a" * 64


def a_plan(*argv: str, name: str = "surveyor") -> RunPlan:
    """A plan that runs `argv` in an image."""
    return RunPlan(
        name=name,
        source=PlanSource(kind=PlanKind.IMAGE, reference="registry.test/base", digest=DIGEST),
        argv=argv or ("true",),
        env=(("PATH", "/usr/local/bin:/usr/bin:/bin"),),
        resources=Resources(vcpus=1, cpu_millis=1000, memory_mib=256, disk_mib=64),
        image=PinnedImage(
            reference=f"registry.test/base@{DIGEST}",
            manifest=Descriptor(
                media_type="application/vnd.oci.image.manifest.v1+json", digest=DIGEST, size=7
            ),
            platform=own_platform(),
            requested="registry.test/base:1",
        ),
    )


def a_run(*argv: str) -> Run:
    """A run that was recorded and not started."""
    return Run(
        run_id="0123456789abcdef" * 2,
        name="surveyor",
        plan=a_plan(*argv),
        image_digest=DIGEST,
        create_time=datetime(2026, 1, 1, tzinfo=UTC),
        sequence=1,
    )
