"""What the phase line says of emulated guests."""

import pytest
from lns.types.v1 import descriptor_pb2, run_plan_pb2
from lns.vm.v1 import run_pb2

from cli.commands.run import emulation


def a_run(accelerator: str, architecture: str = "") -> run_pb2.Run:
    platform = descriptor_pb2.Platform(os="linux", architecture=architecture)
    image = run_plan_pb2.PinnedImage(platform=platform)
    return run_pb2.Run(accelerator=accelerator, plan=run_plan_pb2.RunPlan(image=image))


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ([], ""),
        ([a_run("kvm", "amd64")], ""),
        ([a_run("tcg")], " (emulated: see lns doctor)"),
        ([a_run("tcg", "amd64")], " (amd64 emulated: see lns doctor)"),
        ([a_run("kvm", "amd64"), a_run("tcg", "arm64")], " (arm64 emulated: see lns doctor)"),
        (
            [a_run("tcg", "arm64"), a_run("tcg", "amd64")],
            " (amd64, arm64 emulated: see lns doctor)",
        ),
    ],
)
def test_the_phase_line_names_the_architecture_that_is_emulated(
    runs: list[run_pb2.Run], said: str
) -> None:
    assert emulation(runs) == said
