"""Each call is served by the adapters of its caller's environment."""

import contextlib
from collections.abc import Mapping

from services.chassis import context
from services.registry_gateway import by_caller
from services.registry_gateway.by_caller import ByCaller


class Adapters:
    """What is made for one environment."""

    def __init__(self, variables: Mapping[str, str] | None) -> None:
        self.home = (variables or {}).get("HOME", "own")
        self.closed = False

    def close(self) -> None:
        self.closed = True


def test_a_part_goes_to_the_callers_adapters_and_each_is_made_once() -> None:
    made: list[Adapters] = []

    def make(stack: contextlib.ExitStack, variables: Mapping[str, str] | None) -> Adapters:
        made.append(Adapters(variables))
        stack.callback(made[-1].close)
        return made[-1]

    def called(environment: bytes) -> str:
        context.set_environment(environment)
        home: str = part.home
        return home

    with contextlib.ExitStack() as stack:
        part = ByCaller(stack, make).part(lambda one: one)
        asked = [b"", b'{"HOME": "/a"}', b'{"HOME": "/b"}', b'{"HOME": "/a"}', b"damaged"]
        homes = [context.detached().run(called, one) for one in asked]
        assert not any(one.closed for one in made)

    assert homes == ["own", "/a", "/b", "/a", "own"]
    assert [one.home for one in made] == ["own", "/a", "/b"]
    assert all(one.closed for one in made)


def test_the_oldest_adapters_are_closed_and_never_the_gateways_own() -> None:
    made: list[Adapters] = []

    def make(stack: contextlib.ExitStack, variables: Mapping[str, str] | None) -> Adapters:
        made.append(Adapters(variables))
        stack.callback(made[-1].close)
        return made[-1]

    with contextlib.ExitStack() as stack:
        adapters = ByCaller(stack, make)
        for number in range(by_caller._MOST + 5):

            def called(number: int = number) -> None:
                context.set_environment(b'{"HOME": "/%d"}' % number)
                adapters.current()

            context.detached().run(called)
        assert [one.home for one in made if one.closed] == [f"/{n}" for n in range(6)]
