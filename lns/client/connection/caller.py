"""Who calls the services: a command, or a program that embeds lns."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


class Caller(Protocol):
    """One caller.

    Attributes:
        environment: the variables that its calls depend on.
        request_id: the id that its calls carry; set when it connects.
    """

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that its calls depend on."""
        ...

    request_id: str

    def note(self, line: str) -> None:
        """Takes a line for the user who waits."""
        ...

    def is_set(self, variable: str) -> bool:
        """Says whether an environment variable is set to something."""
        ...

    @property
    def user_home(self) -> Path:
        """The user's home directory."""
        ...
