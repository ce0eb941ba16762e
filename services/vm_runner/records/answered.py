"""Requests that removed something: asked again, they have the same answer.

A client that lost the answer asks again with the same id. What was removed can no longer say who
did it, so the last requests are kept. One is kept before its work is done: after a crash between
the two, whoever asks again finds the thing still there, and removes it.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Protocol

KEPT = 512
"""Requests that are remembered; a client asks again within seconds."""


class AnswerStore(Protocol):
    """Where answers survive the service."""

    async def load(self) -> Mapping[str, str]:
        """Returns what was saved, oldest first; nothing where that cannot be read."""
        ...

    async def save(self, answers: Mapping[str, str]) -> None:
        """Saves answers by request, durably.

        Raises:
            CapacityExhausted: the disk is full.
        """
        ...


class AnsweredRequests:
    """The last requests and what each removed."""

    def __init__(self, store: AnswerStore) -> None:
        self._store = store
        self._answers: OrderedDict[str, str] = OrderedDict()

    async def load(self) -> None:
        """Reads what an earlier service has answered."""
        self._answers = OrderedDict(await self._store.load())

    def answer(self, request_id: str) -> str | None:
        """Returns what a request removed, None for one that is not known or has no id."""
        return self._answers.get(request_id) if request_id else None

    async def keep(self, request_id: str, answer: str) -> None:
        """Remembers what a request is about to remove.

        Raises:
            CapacityExhausted: the disk is full.
        """
        if not request_id:
            return
        self._answers[request_id] = answer
        while len(self._answers) > KEPT:
            self._answers.popitem(last=False)
        await self._store.save(dict(self._answers))
