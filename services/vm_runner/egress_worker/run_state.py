"""What a worker knows of its run: placeholders, secrets, bounds. One owner: the worker."""

from services.vm_runner.egress_worker.orders import Configure, Limits, Placeholder, Secret
from services.vm_runner.egress_worker.traces import Mask


class RunState:
    """What holds for every connection of the run."""

    def __init__(self) -> None:
        self.limits = Limits()
        self.placeholders: tuple[Placeholder, ...] = ()
        self.secrets: dict[str, str] = {}
        self.mask = Mask()

    def configure(self, order: Configure) -> None:
        """Takes what holds for the run."""
        self.limits = order.limits
        self.placeholders = order.placeholders
        self._renew_mask()

    def take_secret(self, order: Secret) -> None:
        """Takes a secret, its newer value, or that it is gone."""
        if order.value is None:
            self.secrets.pop(order.credential, None)
        else:
            self.secrets[order.credential] = order.value
        self._renew_mask()

    def _renew_mask(self) -> None:
        texts = {placeholder.credential: placeholder.text for placeholder in self.placeholders}
        self.mask.set(
            (value, texts.get(credential, "***")) for credential, value in self.secrets.items()
        )
