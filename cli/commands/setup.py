"""`lns setup`: what runs need on this machine, step by step."""

import os
import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from cli.context import FAILURE, Context, command
from cli.options import format_option
from cli.render.checks import write_check
from cli.render.output import write_rows
from cli.setup.kernel_folder import KernelFolder
from cli.setup.kernels import DistributionKernel, NamedKernel
from cli.setup.machine import Machine
from cli.setup.steps import Consent, Outcome, Result, Step, take
from cli.setup.vmm import VmmStep
from lns.client.connection import suite_process
from lns.client.connection.suite_process import SuiteFiles
from services.chassis.guest_kernels import FOREIGN, kernel_cache
from services.chassis.settings import state_directory
from services.core.errors import HostUnready, RequestInvalid

STEPS = ("qemu", "kernel")
"""Every step that runs need, in the order in which they are taken."""

FOREIGN_STEP = "foreign"
"""What guests of another architecture need beside that; only taken if it is named."""

_OTHER = {"x86_64": "aarch64", "aarch64": "x86_64"}

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@command("setup", doing="set this machine up")
@click.argument("names", metavar="[STEP]...", nargs=-1, type=click.Choice((*STEPS, FOREIGN_STEP)))
@click.option("-y", "--yes", is_flag=True, help="Install what is missing without asking.")
@click.option(
    "--kernel",
    metavar="FILE|URL",
    help="Take this guest kernel: a bzImage, an ELF image or a Debian package.",
)
@click.option(
    "--digest", default="", metavar="sha256:HEX", help="Refuse another file than this for --kernel."
)
@click.option(
    "--update",
    is_flag=True,
    help="Look for a newer kernel; without --kernel, leave one that was named before.",
)
@format_option
def setup(
    context: Context,
    names: Sequence[str],
    yes: bool,
    kernel: str | None,
    digest: str,
    update: bool,
    form: str | None,
) -> int:
    """Install what runs need: QEMU from the distribution, and a guest kernel.

    Without a STEP these are taken: qemu, kernel. The step foreign gets both for images of another
    architecture, which are emulated. What is there already is left alone. The digest of a kernel is
    shown and recorded beside it. Exit code 1 if something is still missing.
    """
    if digest and (kernel is None or not _DIGEST.fullmatch(digest)):
        raise RequestInvalid(
            "--digest is sha256: and 64 hexadecimal digits of what --kernel names",
            hint="`sha256sum FILE` prints the digits",
        )
    if kernel and names and "kernel" not in names:
        raise RequestInvalid("--kernel is for the step kernel", hint="name that step, or none")
    steps = make_steps(
        this_machine(context), names or STEPS, kernel=kernel, digest=digest, update=update
    )
    outcomes = take(steps, consent=consent_of(yes=yes), note=context.note)
    if form in (None, "table"):
        write_outcomes(context, outcomes)
        _say_when_it_counts(context, outcomes)
    else:
        write_rows([asdict(one) for one in outcomes], (), form=form, write=context.write)
    return FAILURE if any(one.result is Result.FAILED for one in outcomes) else 0


def this_machine(context: Context) -> Machine:
    """Returns the machine that the command runs on."""
    return Machine(
        environment=context.environment,
        is_root=os.geteuid() == 0,
        architecture=platform.machine(),
    )


def make_steps(
    machine: Machine,
    names: Sequence[str],
    *,
    kernel: str | None = None,
    digest: str = "",
    update: bool = False,
) -> list[Step]:
    """Returns the steps of some names, in the order in which they are taken."""
    own = machine.environment.get("LNS_VM_RUNNER__KERNELS")
    kernels = KernelFolder(Path(own) if own else kernel_cache(machine.environment))
    foreign = _OTHER.get(machine.architecture, "")
    found: dict[str, list[Step]] = {
        "qemu": [VmmStep(machine)],
        "kernel": [
            NamedKernel(machine, kernels, kernel, digest=digest, update=update)
            if kernel
            else DistributionKernel(machine, kernels, update=update)
        ],
        FOREIGN_STEP: [
            VmmStep(machine, foreign=foreign),
            DistributionKernel(
                machine, KernelFolder(kernels.path / FOREIGN), update=update, foreign=foreign
            ),
        ],
    }
    return [step for name, steps in found.items() if name in names for step in steps]


def consent_of(*, yes: bool) -> Consent:
    """Returns what asks the user, or what answers yes."""

    def ask(plan: str) -> bool:
        if yes:
            return True
        if not sys.stdin.isatty():
            raise HostUnready(
                f"nobody can be asked whether to {plan}: standard input is not a terminal",
                hint="`--yes` does it without asking",
            )
        return click.confirm(f"{plan[0].upper()}{plan[1:]}?", err=True)

    return ask


def write_outcomes(context: Context, outcomes: Sequence[Outcome]) -> None:
    """Writes how each step ended."""
    for one in outcomes:
        write_check(
            context, verdict=one.result, name=one.step, detail=one.detail, remedy=one.remedy
        )


def _say_when_it_counts(context: Context, outcomes: Sequence[Outcome]) -> None:
    """Services that run have a kernel already, and keep it."""
    is_new = any(one.step == "kernel" and one.result is Result.DONE for one in outcomes)
    files = SuiteFiles(home=state_directory(context.environment))
    if is_new and suite_process.find_suite(files) is not None:
        context.note("lns: services that have a kernel keep it until `lns service restart`")
