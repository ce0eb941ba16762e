"""How a connection ends by a decision of the worker's."""

from services.vm_runner.egress_worker.reports import Reason


class Ended(Exception):
    """The connection is over by a decision of the worker's.

    Attributes:
        reason: why.
        text: more of it, for users.
    """

    def __init__(self, reason: Reason, text: str = "") -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text
