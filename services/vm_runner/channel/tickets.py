"""Tickets under which a guest asks for connections that its programs begin."""

from services.vm_runner.channel.wire import GuestViolation

TICKETS_MAX = 512
"""Tickets of one guest without an answer on its way; the agent holds further connections back."""


class Tickets:
    """The tickets that wait for an answer. A refusal counts until it is taken to be sent.

    So a guest that asks without end and never reads costs no memory here: it breaks the bound.
    """

    def __init__(self) -> None:
        self._waiting: set[int] = set()
        self._refused: dict[int, None] = {}

    def open(self, ticket: int) -> None:
        """Notes that a guest asks.

        Raises:
            GuestViolation: it asks twice, under no number, or too often at once.
        """
        if ticket == 0 or ticket in self._waiting or len(self._waiting) >= TICKETS_MAX:
            raise GuestViolation("the guest asked for connections as it may not")
        self._waiting.add(ticket)

    def admit(self, ticket: int) -> None:
        """Notes that a connection is given."""
        self._waiting.discard(ticket)

    def refuse(self, ticket: int) -> None:
        """Has a refusal sent."""
        if ticket in self._waiting:
            self._refused[ticket] = None

    def next_refusal(self) -> int | None:
        """Returns a ticket whose refusal is to be sent now."""
        if not self._refused:
            return None
        ticket = next(iter(self._refused))
        del self._refused[ticket]
        self._waiting.discard(ticket)
        return ticket
