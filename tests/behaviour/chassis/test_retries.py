"""Calls that may be repeated are, while a peer is unavailable; others are not."""

from typing import Any

import pytest

from services.core import errors
from tests.behaviour.chassis.conftest import Serving
from tests.support.echo import text


class Flaky:
    """A handler that is unavailable until its last attempt."""

    def __init__(self, failures: int, error: errors.LnsError) -> None:
        self.attempts = 0
        self._failures = failures
        self._error = error

    async def __call__(self, request: Any, _: Any) -> Any:
        self.attempts += 1
        if self.attempts <= self._failures:
            raise self._error
        return request


def behaviour(flaky: Flaky) -> Any:
    async def handle(request: Any, context: Any) -> Any:
        return await flaky(request, context)

    return handle


async def test_an_idempotent_call_is_tried_again_while_the_peer_is_unavailable(
    echo: Serving,
) -> None:
    flaky = Flaky(2, errors.ServiceUnavailable("not yet"))

    async with echo(Echo=behaviour(flaky)) as stub:
        assert (await stub.Echo(text("x"))).value == "x"

    assert flaky.attempts == 3


async def test_four_attempts_are_made_and_the_error_is_the_last_ones(echo: Serving) -> None:
    flaky = Flaky(9, errors.ServiceUnavailable("the next service is down"))

    async with echo(Echo=behaviour(flaky)) as stub:
        with pytest.raises(errors.ServiceUnavailable, match="the next service is down"):
            await stub.Echo(text("x"))

    assert flaky.attempts == 4


async def test_what_was_tried_again_where_it_failed_is_not_tried_again(echo: Serving) -> None:
    flaky = Flaky(9, errors.RegistryUnavailable("the registry is down", retry_after=1.0))

    async with echo(Echo=behaviour(flaky)) as stub:
        with pytest.raises(errors.RegistryUnavailable, match="the registry is down") as caught:
            await stub.Echo(text("x"))

    assert flaky.attempts == 1
    assert caught.value.retry_after == 1.0


async def test_a_call_that_may_not_be_repeated_is_not(echo: Serving) -> None:
    flaky = Flaky(2, errors.ServiceUnavailable("not yet"))

    async with echo(Store=behaviour(flaky)) as stub:
        with pytest.raises(errors.ServiceUnavailable):
            await stub.Store(text("x"))

    assert flaky.attempts == 1


async def test_other_errors_are_not_tried_again(echo: Serving) -> None:
    flaky = Flaky(2, errors.TooManyRequests("slow down"))

    async with echo(Echo=behaviour(flaky)) as stub:
        with pytest.raises(errors.TooManyRequests):
            await stub.Echo(text("x"))

    assert flaky.attempts == 1
