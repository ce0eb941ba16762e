"""What a launch reports while it works, and who receives it."""

from contextlib import AbstractContextManager
from typing import Protocol

from lns.types.v1 import usage_pb2


class Progress(Protocol):
    """Takes what a launch says."""

    def doing(self, what: str) -> None:
        """Says what happens now: `pulling localhost:5000/images/base`."""
        ...

    def progress(self, progress: usage_pb2.Progress) -> None:
        """Says how far one blob or layer is."""
        ...

    def note(self, text: str) -> None:
        """Takes a line for the user."""
        ...


class Timer(Protocol):
    """Measures the phases of a launch."""

    def measure(self, done: str) -> AbstractContextManager[None]:
        """Measures the block as the phase `done`, a participle; a failed block is no phase."""
        ...
