"""What a user who may not open KVM's device is advised."""

from pathlib import Path

import pytest

from services.vm_runner.adapters.qemu.accelerator import access_remedy

DEVICE = Path("/dev/kvm")
OPENED_FIRST = "sudo chgrp kvm /dev/kvm && sudo chmod 660 /dev/kvm, sudo usermod -aG kvm ada, "

FORBIDDEN = {
    "to all but a group": (0o660, "kvm", "sudo usermod -aG kvm ada, "),
    "to all but a group of another name": (0o660, "virt", "sudo usermod -aG virt ada, "),
    "to all but root": (0o600, "root", OPENED_FIRST),
    "to the group, too": (0o600, "kvm", OPENED_FIRST),
    "to the group for writing": (0o640, "kvm", OPENED_FIRST),
    "to all but root's group, which nobody should join": (0o660, "root", OPENED_FIRST),
}


@pytest.mark.parametrize(("mode", "group", "remedy"), FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_what_is_advised_lets_the_user_open_it(mode: int, group: str, remedy: str) -> None:
    advised = access_remedy(DEVICE, mode=mode, group=group, user="ada")

    assert advised == f"{remedy}log in again, then lns service restart"
