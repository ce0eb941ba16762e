"""Plans that come from another machine, for a CPU that no guest has here."""

import pytest
from lns.types.v1 import descriptor_pb2, run_plan_pb2

from services.chassis.machine import own_platform
from services.core import errors
from tests.support.vm_service import VmClient, VmWorld

OTHER = {"amd64": "arm64", "arm64": "amd64"}


def made_for(architecture: str, variant: str = "", os: str = "linux") -> run_plan_pb2.RunPlan:
    platform = descriptor_pb2.Platform(os=os, architecture=architecture, variant=variant)
    return run_plan_pb2.RunPlan(image=run_plan_pb2.PinnedImage(platform=platform))


OURS = own_platform()


@pytest.mark.parametrize(
    "plan",
    [
        made_for(OTHER[OURS.architecture]),
        made_for(OURS.architecture, "v9"),
        made_for(OURS.architecture, os="windows"),
    ],
    ids=["architecture", "variant", "system"],
)
async def test_what_no_guest_executes_is_refused_before_a_boot(
    vm: VmClient, world: VmWorld, plan: run_plan_pb2.RunPlan
) -> None:
    with pytest.raises(errors.PlatformUnsupported, match="the CPU of the guest executes"):
        await vm.create("true", more=plan)

    assert world.host.machines == {}
    assert world.runner.register.runs() == []


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
async def test_the_machines_own_name_of_its_platform_is_taken(
    vm: VmClient, architecture: str
) -> None:
    if OURS.architecture != {"x86_64": "amd64", "aarch64": "arm64"}[architecture]:
        with pytest.raises(errors.PlatformUnsupported):
            await vm.create("true", more=made_for(architecture), start=False)
        return

    assert (await vm.create("true", more=made_for(architecture), start=False)).run_id
