"""What an operator decides about VMMs, as values: how they run, as which users, how confined."""

from dataclasses import dataclass
from enum import StrEnum


class AcceleratorMode(StrEnum):
    """How guests are executed: found out by trying, or one way and no other."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


class ConfinementMode(StrEnum):
    """How VMMs are confined: as much as the host permits, or all of it or nothing."""

    AUTO = "auto"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRange:
    """Numbers of users that nobody else on this host has, one for each possible pid.

    Raises:
        ValueError: they are not a range of users.
    """

    first: int
    count: int

    def __post_init__(self) -> None:
        if self.first < 1 or self.count < 1 or self.first + self.count >= 1 << 32:
            raise ValueError(f"{self.count} users from {self.first} on are not a range of users")
