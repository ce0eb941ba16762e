"""Plans that come from another machine, for a CPU that no guest has here."""

import pytest
from lns.types.v1 import descriptor_pb2, run_plan_pb2

from services.chassis.machine import own_platform
from services.core import errors
from services.core.platforms import Platform
from services.vm_runner.architectures import guest_of
from tests.support.vm_service import VmClient, VmWorld, vm_service

OTHER = {"amd64": "arm64", "arm64": "amd64"}


def made_for(architecture: str, variant: str = "", os: str = "linux") -> run_plan_pb2.RunPlan:
    platform = descriptor_pb2.Platform(os=os, architecture=architecture, variant=variant)
    return run_plan_pb2.RunPlan(image=run_plan_pb2.PinnedImage(platform=platform))


OURS = own_platform()
FOREIGN = Platform.of("linux", OTHER[OURS.architecture])


@pytest.mark.parametrize(
    "plan",
    [
        made_for("riscv64"),
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


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64", "amd64", "arm64"])
async def test_a_run_has_the_guest_that_its_image_is_made_for(
    vm: VmClient, world: VmWorld, architecture: str
) -> None:
    plan = made_for(architecture)
    is_own = Platform.of("linux", architecture).architecture == OURS.architecture

    run = await vm.create("true", more=plan)
    ended = await vm.ended(run.run_id)

    (spec,) = world.hypervisor.specs
    assert spec.architecture == (None if is_own else guest_of(FOREIGN, host=OURS))
    emulated = [line for line in ended.notices if "is emulated" in line]
    assert [f"made for {FOREIGN}" in line for line in emulated] == ([] if is_own else [True])


async def test_without_an_emulator_a_foreign_run_is_refused_and_own_ones_are_not(
    world: VmWorld,
) -> None:
    world.missing_foreign = errors.HostUnready("qemu is not installed", hint="install qemu")

    async with vm_service(world) as vm:
        with pytest.raises(errors.HostUnready, match=f"{FOREIGN} cannot be emulated") as caught:
            await vm.create("true", more=made_for(FOREIGN.architecture))
        assert caught.value.hint == "install qemu"
        assert world.runner.register.runs() == []
        assert (await vm.create("true", start=False)).run_id
