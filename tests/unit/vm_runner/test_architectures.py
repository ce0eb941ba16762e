import pytest

from services.core.platforms import Platform
from services.vm_runner.architectures import Architecture, executed, guest_of

X86_64, AARCH64 = Architecture.X86_64, Architecture.AARCH64
AMD = Platform.parse("linux/amd64/v2")
ARM = Platform.parse("linux/arm64")


@pytest.mark.parametrize(
    ("image", "host", "guest"),
    [
        ("linux/amd64", AMD, X86_64),
        ("linux/arm64", AMD, AARCH64),
        ("linux/arm64/v8", AMD, AARCH64),
        ("linux/arm/v7", AMD, AARCH64),
        ("linux/386", AMD, X86_64),
        ("linux/amd64", ARM, X86_64),
        ("linux/amd64/v3", ARM, X86_64),
        ("linux/386", ARM, X86_64),
        ("linux/arm64", ARM, AARCH64),
        # An emulated CPU of the host's own architecture is not foreign: nothing is chosen instead.
        ("linux/amd64/v3", AMD, None),
        ("linux/amd64/v4", ARM, None),
        ("linux/riscv64", AMD, None),
        ("linux/s390x", ARM, None),
        ("windows/amd64", AMD, None),
        ("darwin/arm64", AMD, None),
    ],
)
def test_an_image_has_the_guest_that_executes_it(
    image: str, host: Platform, guest: Architecture | None
) -> None:
    assert guest_of(Platform.parse(image), host=host) is guest


@pytest.mark.parametrize(("host", "guest"), [(AMD, X86_64), (ARM, AARCH64)])
def test_an_image_that_names_no_platform_has_the_host_s_guest(
    host: Platform, guest: Architecture
) -> None:
    assert guest_of(Platform(architecture=""), host=host) is guest


@pytest.mark.parametrize(
    ("machine", "found"),
    [("x86_64", X86_64), ("aarch64", AARCH64), ("arm64", AARCH64), ("riscv64", None)],
)
def test_a_machine_s_name_is_an_architecture(machine: str, found: Architecture | None) -> None:
    assert Architecture.of_machine(machine) is found


def test_each_architecture_is_foreign_to_the_other() -> None:
    assert X86_64.others == (AARCH64,)
    assert AARCH64.others == (X86_64,)
    assert [one.debian for one in Architecture] == ["amd64", "arm64"]


def test_what_is_executed_says_what_is_emulated() -> None:
    assert executed(AMD) == "linux/amd64/v2 (by emulation: linux/arm64)"
    assert executed(ARM) == "linux/arm64 (by emulation: linux/amd64/v3)"
    assert executed(Platform.parse("linux/riscv64")) == "linux/riscv64"
