"""Platforms: what an image is made for, and what a machine executes.

Names are those of the OCI image index (`linux/amd64`, `linux/arm64/v8`), which are Go's; others
that builders write for the same thing are read as these. What executes what follows containerd's
`platforms` package: a machine takes images of its own variant and of older ones, and of several
the newest.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Final, Self

from services.core.errors import PlatformUnsupported, RequestInvalid

_ARCHITECTURES: Final = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "x64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "arm64v8": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armv8l": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armv7": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv6l": ("arm", "v6"),
    "armv6": ("arm", "v6"),
    "armv5": ("arm", "v5"),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "x86": ("386", ""),
    "ppc64el": ("ppc64le", ""),
    "mips64el": ("mips64le", ""),
    "mipsel": ("mipsle", ""),
    "loongarch64": ("loong64", ""),
}
_SYSTEMS: Final = {"macos": "darwin"}
_BASELINES: Final = {"amd64": 1.0, "arm64": 8.0, "arm": 7.0}
"""The variant that is meant where none is written, and what every machine executes."""

_ALSO: Final = {("amd64", "386"): 0.5, ("arm64", "arm"): 8.0}
"""What else a machine executes, up to which variant; worse than anything of its own."""

_OWN: Final = 1000.0
_VARIANT: Final = re.compile(r"v?([0-9]{1,3}(?:\.[0-9]{1,3})?)")
_X86_LEVELS: Final = (
    frozenset({"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"}),
    frozenset({"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"}),
    frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
)
"""What x86-64-v2, -v3 and -v4 add, in the names of /proc/cpuinfo (x86-64 psABI, "Micro-Architecture
Levels")."""

_LZCNT: Final = frozenset({"abm", "lzcnt"})
"""Two names of one feature, of which v3 needs one."""

EMULATED_X86_LEVEL: Final = 3
"""What QEMU's emulation (`-cpu max`) executes since version 7.2: AVX2, and no AVX-512."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """A platform, under its usual names.

    Attributes:
        os: operating system; an empty one is read as `linux`.
        architecture: architecture; empty where an image does not say what it is made for.
        variant: as written; empty is the architecture's baseline.
    """

    os: str = "linux"
    architecture: str
    variant: str = ""

    @classmethod
    def of(cls, os: str, architecture: str, variant: str = "") -> Self:
        """Returns the platform that three texts of whatever spelling name."""
        os, architecture = os.strip().lower(), architecture.strip().lower()
        architecture, implied = _ARCHITECTURES.get(architecture, (architecture, ""))
        variant = variant.strip().lower() or implied
        if architecture in _BASELINES and _VARIANT.fullmatch(variant):
            variant = "v" + variant.removeprefix("v")
        return cls(os=_SYSTEMS.get(os, os) or "linux", architecture=architecture, variant=variant)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses `os/architecture[/variant]`, or an architecture alone (then Linux).

        Raises:
            RequestInvalid: the text is not a platform.
        """
        parts = text.split("/")
        if len(parts) == 1:
            parts = ["linux", *parts]
        if (
            len(parts) not in (2, 3) or not all(part.strip() for part in parts) or len(text) > 100  # noqa: PLR2004 - longer than any name
        ):
            raise RequestInvalid(
                f"{text[:100]!r} is not a platform", hint="write os/architecture: linux/amd64"
            )
        return cls.of(*parts)

    @classmethod
    def of_machine(cls, machine: str) -> Self:
        """Returns the Linux platform of a machine name as `uname -m` prints it.

        Raises:
            PlatformUnsupported: lns runs on x86-64 and aarch64 only.
        """
        found = cls.of("linux", machine)
        if found.architecture not in ("amd64", "arm64"):
            raise PlatformUnsupported(f"lns does not run on {machine}")
        return found

    @property
    def is_known(self) -> bool:
        """Whether it says what it is for."""
        return bool(self.architecture)

    def on(self, machine: "Platform") -> "Platform":
        """Returns the platform as one machine has it.

        Where no variant is asked for, and the machine is of the architecture, that is its own.
        """
        if self.variant or (self.os, self.architecture) != (machine.os, machine.architecture):
            return self
        return machine

    def rank(self, offered: "Platform") -> float | None:
        """Says how well an image for `offered` suits this platform, or None where it does not run.

        More is better. An image that does not say what it is for suits everything, worst of all.
        """
        if not offered.is_known:
            return 0.0
        if self.os != offered.os:
            return None
        if self.architecture == offered.architecture:
            level, limit, bonus = _level(offered), _level(self), _OWN
        else:
            level, bonus = _level(offered), 0.0
            limit = _ALSO.get((self.architecture, offered.architecture))
        if level is None or limit is None:
            same = self.architecture == offered.architecture
            unsaid = not self.variant or not offered.variant or self.variant == offered.variant
            return bonus if same and unsaid else None
        return bonus + level if level <= limit else None

    def accepts(self, offered: "Platform") -> bool:
        """Says whether an image for `offered` runs where this platform is asked for."""
        return self.rank(offered) is not None

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def of_cpu(machine: Platform, flags: Collection[str], *, emulated: bool) -> Platform:
    """Returns a machine's platform with the variant that its guests' CPU executes.

    Args:
        machine: the platform without a variant.
        flags: features of the host's CPU, as /proc/cpuinfo names them.
        emulated: whether the guests' CPU is QEMU's and not the host's.
    """
    if machine.architecture != "amd64":
        return machine
    level = EMULATED_X86_LEVEL if emulated else x86_level(flags)
    return replace(machine, variant=f"v{level}" if level > 1 else "")


def x86_level(flags: Collection[str]) -> int:
    """Returns the x86-64 micro-architecture level, 1 to 4, that a CPU with some features has."""
    names = set(flags)
    level = 1
    for needed in _X86_LEVELS:
        if not needed <= names or (level == 2 and not names & _LZCNT):  # noqa: PLR2004 - v3 needs it
            break
        level += 1
    return level


def emulated_beside(machine: Platform) -> tuple[Platform, ...]:
    """Returns the platforms whose guests a machine can emulate, beside what it executes itself."""
    both = (Platform(architecture="amd64"), Platform(architecture="arm64"))
    if machine.os != "linux" or all(one.architecture != machine.architecture for one in both):
        return ()
    foreign = (one for one in both if one.architecture != machine.architecture)
    return tuple(of_cpu(one, (), emulated=True) for one in foreign)


def way_out(wanted: Platform, offered: Iterable[Platform]) -> str:
    """Returns what a user does whom nothing that is offered suits."""
    emulated = emulated_beside(wanted)
    for one in offered:
        if one.is_known and any(other.accepts(one) for other in emulated):
            return f"`--platform {one}` takes that one, in an emulated guest"
    return "choose one of them with --platform"


def describe_platforms(platforms: Iterable[Platform]) -> str:
    """Returns platforms as a person reads them, each once; `none` for none."""
    shown = list(dict.fromkeys(str(one) for one in platforms))
    more = f" and {len(shown) - 20} more" if len(shown) > 20 else ""  # noqa: PLR2004 - a line's worth
    return (", ".join(shown[:20]) + more) or "none"


def _level(platform: Platform) -> float | None:
    """The number of a variant; None where variants of the architecture have no order."""
    if platform.architecture == "386":
        return 0.5
    baseline = _BASELINES.get(platform.architecture)
    if baseline is None or not platform.variant:
        return baseline
    match = _VARIANT.fullmatch(platform.variant)
    return float(match[1]) if match else None
