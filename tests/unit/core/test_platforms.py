"""Platforms: their names, and what runs on what."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.errors import PlatformUnsupported, RequestInvalid
from services.core.platforms import (
    Platform,
    describe_platforms,
    emulated_beside,
    of_cpu,
    way_out,
    x86_level,
)

V1 = {"fpu", "sse", "sse2"}
V2 = V1 | {"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"}
V3 = V2 | {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave", "abm"}
V4 = V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}


def platform(text: str) -> Platform:
    return Platform.parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", Platform(architecture="amd64")),
        ("amd64", Platform(architecture="amd64")),
        ("x86_64", Platform(architecture="amd64")),
        ("linux/aarch64", Platform(architecture="arm64")),
        ("linux/arm64/v8", Platform(architecture="arm64", variant="v8")),
        ("linux/arm/v7", Platform(architecture="arm", variant="v7")),
        ("windows/amd64", Platform(os="windows", architecture="amd64")),
        ("linux/s390x", Platform(architecture="s390x")),
        ("Linux/X86-64", Platform(architecture="amd64")),
        ("linux/armhf", Platform(architecture="arm", variant="v7")),
        ("linux/armel", Platform(architecture="arm", variant="v6")),
        ("linux/arm/7", Platform(architecture="arm", variant="v7")),
        ("linux/arm64/8", Platform(architecture="arm64", variant="v8")),
        ("linux/amd64/V3", Platform(architecture="amd64", variant="v3")),
        ("i686", Platform(architecture="386")),
        ("macos/arm64", Platform(os="darwin", architecture="arm64")),
    ],
)
def test_a_platform_is_written_as_os_and_architecture(text: str, expected: Platform) -> None:
    assert platform(text) == expected
    assert platform(str(expected)) == expected


@pytest.mark.parametrize("text", ["", "/", "linux/", "/amd64", "a/b/c/d", "linux//v8", "x" * 101])
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(RequestInvalid):
        platform(text)


@given(st.text(max_size=120))
def test_any_text_is_a_platform_or_refused_with_the_typed_error(text: str) -> None:
    try:
        parsed = platform(text)
    except RequestInvalid:
        return
    assert platform(str(parsed)) == parsed


@pytest.mark.parametrize(
    ("wanted", "offered", "expected"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("linux/amd64", "linux/arm64", False),
        ("linux/amd64", "windows/amd64", False),
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/arm64/v8", "linux/arm64", True),
        ("linux/arm64/v8", "linux/arm64/v9", False),
        ("linux/arm/v7", "linux/arm/v7", True),
        ("linux/arm64/v9", "linux/arm64", True),
        ("linux/arm64", "linux/arm/v7", True),
        ("linux/arm64", "linux/arm/v8", True),
        ("linux/arm", "linux/arm64", False),
        ("linux/arm/v7", "linux/arm", True),
        ("linux/arm/v6", "linux/arm", False),
        ("linux/arm/v6", "linux/arm/v7", False),
        ("linux/arm/v7", "linux/arm/v5", True),
        ("linux/amd64", "linux/amd64/v1", True),
        ("linux/amd64", "linux/amd64/v2", False),
        ("linux/amd64/v3", "linux/amd64", True),
        ("linux/amd64/v3", "linux/amd64/v2", True),
        ("linux/amd64/v3", "linux/amd64/v4", False),
        ("linux/amd64", "linux/386", True),
        ("linux/386", "linux/amd64", False),
        ("linux/amd64", "unknown/unknown", False),
        ("linux/ppc64le", "linux/ppc64le/power9", True),
        ("linux/ppc64le/power8", "linux/ppc64le/power9", False),
        ("linux/arm", "linux/arm/v6", True),
    ],
)
def test_a_platform_accepts_images_that_run_on_it(
    wanted: str, offered: str, *, expected: bool
) -> None:
    assert platform(wanted).accepts(platform(offered)) is expected


@pytest.mark.parametrize(
    ("machine", "text"), [("x86_64", "linux/amd64"), ("aarch64", "linux/arm64")]
)
def test_the_platform_of_a_machine_is_linux_on_it(machine: str, text: str) -> None:
    assert str(Platform.of_machine(machine)) == text


@pytest.mark.parametrize("machine", ["", "riscv64", "armv7l"])
def test_lns_does_not_run_on_other_machines(machine: str) -> None:
    with pytest.raises(PlatformUnsupported):
        Platform.of_machine(machine)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("wanted", "offered", "best"),
    [
        ("linux/amd64/v3", ["amd64/v4", "amd64/v3", "amd64"], "amd64/v3"),
        ("linux/amd64/v2", ["amd64/v4", "amd64/v3", "amd64"], "amd64"),
        ("linux/amd64", ["amd64/v2", "386", "amd64"], "amd64"),
        ("linux/amd64", ["amd64/v2", "386", "arm64"], "386"),
        ("linux/arm64", ["arm/v6", "arm/v7", "arm64/v9"], "arm/v7"),
        ("linux/arm64/v9", ["arm64", "arm64/v9"], "arm64/v9"),
        ("linux/arm/v7", ["arm/v5", "arm/v6"], "arm/v6"),
    ],
)
def test_of_several_variants_the_best_that_runs_ranks_highest(
    wanted: str, offered: list[str], best: str, order: int
) -> None:
    platforms = [platform(f"linux/{one}") for one in offered[::order]]

    ranked = {platform(wanted).rank(one) or -1.0: str(one) for one in platforms}

    assert ranked[max(ranked)] == f"linux/{best}"


def test_an_image_that_does_not_say_what_it_is_for_suits_everything_worst() -> None:
    unsaid = Platform.of("", "")

    assert (unsaid.os, unsaid.is_known) == ("linux", False)
    assert platform("linux/amd64").rank(unsaid) == 0.0
    assert (platform("linux/amd64").rank(platform("linux/386")) or 0.0) > 0.0


def test_a_platform_has_the_variant_of_a_machine_of_its_kind() -> None:
    machine = platform("linux/amd64/v3")

    assert platform("linux/amd64").on(machine) == machine
    assert platform("linux/amd64/v2").on(machine) == platform("linux/amd64/v2")
    assert platform("linux/arm64").on(machine) == platform("linux/arm64")


@pytest.mark.parametrize(("flags", "level"), [((), 1), (V1, 1), (V2, 2), (V3, 3), (V4, 4)])
def test_a_cpu_has_a_level(flags: set[str], level: int) -> None:
    assert x86_level(flags) == level


def test_one_feature_less_is_one_level_less() -> None:
    assert {x86_level(V3 - {one}) for one in V3 - V2} == {2}
    assert {x86_level(V4 - {one}) for one in V4 - V3} == {3}
    assert x86_level(V4 - {"ssse3"}) == 1
    assert x86_level((V3 - {"abm"}) | {"lzcnt"}) == 3


def test_a_machine_has_what_its_guests_execute() -> None:
    amd64 = platform("linux/amd64")

    assert str(of_cpu(amd64, V4, emulated=False)) == "linux/amd64/v4"
    assert str(of_cpu(amd64, V4, emulated=True)) == "linux/amd64/v3"
    assert str(of_cpu(amd64, V1, emulated=True)) == "linux/amd64/v3"
    assert str(of_cpu(amd64, V1, emulated=False)) == "linux/amd64"
    assert of_cpu(platform("linux/arm64"), (), emulated=False) == platform("linux/arm64")


def test_platforms_are_reported_once_each() -> None:
    some = [platform("amd64"), platform("arm64"), platform("x86_64")]

    assert describe_platforms(some) == "linux/amd64, linux/arm64"
    assert describe_platforms([]) == "none"


@pytest.mark.parametrize(
    ("machine", "emulated"),
    [
        ("linux/amd64", ["linux/arm64"]),
        ("linux/amd64/v3", ["linux/arm64"]),
        ("linux/arm64", ["linux/amd64/v3"]),
        ("linux/arm/v7", []),
        ("windows/amd64", []),
    ],
)
def test_a_machine_emulates_the_other_architecture(machine: str, emulated: list[str]) -> None:
    assert list(map(str, emulated_beside(Platform.parse(machine)))) == emulated


@pytest.mark.parametrize(
    ("wanted", "offered", "named"),
    [
        ("linux/amd64", ["linux/arm64/v8"], "`--platform linux/arm64/v8` takes that one"),
        ("linux/amd64", ["linux/s390x", "linux/arm/v7"], "`--platform linux/arm/v7` takes"),
        ("linux/arm64", ["linux/amd64"], "`--platform linux/amd64` takes"),
        ("linux/arm64", ["linux/amd64/v4"], "choose one of them"),
        ("linux/amd64", ["linux/amd64/v4", "windows/amd64"], "choose one of them"),
        ("linux/amd64", [], "choose one of them"),
    ],
)
def test_the_way_out_is_the_platform_that_can_be_emulated(
    wanted: str, offered: list[str], named: str
) -> None:
    assert way_out(Platform.parse(wanted), map(Platform.parse, offered)).startswith(named)
