"""Assertions on how a block ends, for tests whose subject answers nothing."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def passes() -> Iterator[None]:
    """Asserts that the block raises nothing: what it does is accepted."""
    with passes_or():
        yield


@contextlib.contextmanager
def passes_or(*refusals: type[Exception]) -> Iterator[None]:
    """Asserts that the block ends well or with one of these refusals, and in no other way."""
    try:
        yield
    except refusals as refused:
        message = str(refused)
    else:
        return
    assert message.isprintable(), "a refusal is shown to users"
