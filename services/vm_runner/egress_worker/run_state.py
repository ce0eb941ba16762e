"""What a worker knows of its run: placeholders, secrets, bounds. One owner: the worker."""

from collections import deque
from typing import Final

from services.vm_runner.egress_worker.orders import Configure, Limits, Placeholder, Secret
from services.vm_runner.egress_worker.traces import Mask

FORMER_MOST: Final = 8
"""Former values of a secret that are still masked: replies to older requests may echo them."""


class RunState:
    """What holds for every connection of the run."""

    def __init__(self) -> None:
        self.limits = Limits()
        self.placeholders: tuple[Placeholder, ...] = ()
        self.secrets: dict[str, str] = {}
        self._former: dict[str, deque[str]] = {}
        self.mask = Mask()

    def configure(self, order: Configure) -> None:
        """Takes what holds for the run."""
        self.limits = order.limits
        self.placeholders = order.placeholders
        self._renew_mask()

    def take_secret(self, order: Secret) -> None:
        """Takes a secret, its newer value, or that it is gone; a former one stays masked."""
        former = self.secrets.get(order.credential)
        if former not in (None, order.value):
            known = self._former.setdefault(order.credential, deque(maxlen=FORMER_MOST))
            known.append(former)
        if order.value is None:
            self.secrets.pop(order.credential, None)
        else:
            self.secrets[order.credential] = order.value
        self._renew_mask()

    def _renew_mask(self) -> None:
        texts = {placeholder.credential: placeholder.text for placeholder in self.placeholders}
        now = list(self.secrets.items())
        former = [(name, value) for name, values in self._former.items() for value in values]
        self.mask.set((value, texts.get(name, "***")) for name, value in (*former, *now))
