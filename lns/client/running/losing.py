"""The message where the services stay out of reach: the run does not end with its client."""

import contextlib
from collections.abc import Iterator

from services.core.errors import GuestUnreachable, ServiceUnavailable


@contextlib.contextmanager
def run_goes_on(run: str) -> Iterator[None]:
    """Adds to the error of a lost connection that the run goes on, and how to get back to it.

    Args:
        run: its name or id.
    """
    try:
        yield
    except (ServiceUnavailable, GuestUnreachable) as error:
        raise type(error)(
            f"the connection to {run} was lost, and the run goes on without it: {error.message}",
            hint=f"`lns attach {run}` takes it up again, `lns logs {run}` has its output",
            metadata=error.metadata,
        ) from error
