"""What a caller learns of a failure, over a real connection."""

import errno
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from services.core import errors
from services.core.errors import LnsError, Violation
from tests.behaviour.chassis.conftest import Serving
from tests.support.echo import FULL_NAME, text

FULL: dict[str, Any] = {
    "hint": "do this",
    "metadata": {"thing": "x", "other": "ünï"},
    "violations": [
        Violation(subject="$.a", description="is wrong", type="SCHEMA"),
        Violation(subject="$.b", description="is missing"),
    ],
    "retry_after": 1.5,
}


@pytest.mark.parametrize("leaf", errors.LEAVES.values(), ids=lambda leaf: leaf.reason)
async def test_every_error_reaches_the_caller_as_it_was_raised(
    echo: Serving, leaf: type[LnsError]
) -> None:
    async def fail(_: Any, __: Any) -> Any:
        raise leaf("it did not work", **FULL)

    async with echo(Store=fail) as stub:
        with pytest.raises(leaf) as caught:
            await stub.Store(text(""))

    assert type(caught.value) is leaf
    assert caught.value.message == "it did not work"
    assert caught.value.hint == FULL["hint"]
    assert caught.value.metadata == FULL["metadata"]
    assert list(caught.value.violations) == FULL["violations"]
    assert caught.value.retry_after == FULL["retry_after"]


async def test_a_reason_of_a_newer_peer_keeps_its_name_and_code(echo: Serving) -> None:
    async def fail(_: Any, __: Any) -> Any:
        raise errors.Unclassified("?", kind=errors.Kind.NOT_FOUND, reason="MOON_UNKNOWN")

    async with echo(Store=fail) as stub:
        with pytest.raises(errors.Unclassified) as caught:
            await stub.Store(text(""))

    assert (caught.value.kind, caught.value.reason) == (errors.Kind.NOT_FOUND, "MOON_UNKNOWN")


@pytest.mark.parametrize("method", ["Store", "Count", "Sum", "Chat"])
async def test_trap_4_an_unexpected_exception_does_not_tell_the_caller_its_text(
    echo: Serving, log_entries: list[dict[str, object]], method: str
) -> None:
    async def fail(_: Any, __: Any) -> Any:
        raise KeyError("the secret")

    async def fail_streaming(_: Any, __: Any) -> AsyncIterator[Any]:
        raise KeyError("the secret")
        yield

    streams = method in {"Count", "Chat"}
    async with echo(**{method: fail_streaming if streams else fail}) as stub:
        request = iter([text("")]) if method in {"Sum", "Chat"} else text("")
        call = getattr(stub, method)(request)
        with pytest.raises(errors.Internal) as caught:
            await (anext(call) if streams else call)

    assert caught.value.message == "internal error"
    assert "secret" not in repr(vars(caught.value))
    (logged,) = [entry for entry in log_entries if entry["event"] == "rpc_handler_failed"]
    assert logged["request_id"] == caught.value.metadata["request_id"]
    assert logged["exc_info"]


async def test_trap_3_an_abort_of_the_handler_is_not_taken_for_a_defect(
    echo: Serving, log_entries: list[dict[str, object]]
) -> None:
    async def abort(_: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such echo")

    async with echo(Store=abort) as stub:
        with pytest.raises(errors.Unclassified, match="no such echo") as caught:
            await stub.Store(text(""))

    assert caught.value.kind is errors.Kind.NOT_FOUND
    (line,) = [entry for entry in log_entries if entry["event"] == "rpc_finished"]
    assert line["code"] == "NOT_FOUND"


async def test_a_method_that_a_generated_servicer_leaves_out_is_unimplemented(
    echo: Serving,
) -> None:
    def generated(_: Any, context: Any) -> Any:
        context.set_code(grpc.StatusCode.UNIMPLEMENTED)
        raise NotImplementedError("Method not implemented!")

    async with echo(Store=generated) as stub:
        with pytest.raises(errors.Unimplemented, match=f"/{FULL_NAME}/Store"):
            await stub.Store(text(""))


async def test_a_method_that_the_service_does_not_know_is_unimplemented(echo: Serving) -> None:
    async with echo() as stub:
        with pytest.raises(errors.Unimplemented):
            await stub.Store(text(""))


async def test_a_request_that_cannot_be_decoded_is_the_callers_fault(echo: Serving) -> None:
    async def take(request: Any, _: Any) -> Any:
        return request

    async def take_all(requests: Any, _: Any) -> Any:
        return await anext(requests)

    async with echo(Store=take, Sum=take_all) as stub:
        for name in ("Store", "Sum"):
            method = getattr(stub, name)
            method._inner()._request_serializer = bytes
            garbage = b"\xff\xff\xff"
            with pytest.raises(errors.RequestInvalid):
                await method(iter([garbage]) if name == "Sum" else garbage)


async def test_messages_before_the_failure_arrive(echo: Serving) -> None:
    async def count(_: Any, __: Any) -> AsyncIterator[Any]:
        yield text("1")
        yield text("2")
        raise errors.ContentCorrupt("the third is broken")

    async with echo(Count=count) as stub:
        received = []
        with pytest.raises(errors.ContentCorrupt):
            async for message in stub.Count(text("")):
                received.append(message.value)  # noqa: PERF401  # what came before the error counts

    assert received == ["1", "2"]


async def test_the_error_of_a_service_behind_the_service_is_passed_on(echo: Serving) -> None:
    async def fail(_: Any, __: Any) -> Any:
        raise grpc.aio.AioRpcError(
            grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "gone"
        )

    async with echo(Store=fail) as stub:
        with pytest.raises(errors.ServiceUnavailable):
            await stub.Store(text(""))


async def test_more_violations_than_a_status_can_carry_are_counted(echo: Serving) -> None:
    async def fail(_: Any, __: Any) -> Any:
        raise errors.PlanInvalid(
            "many problems",
            violations=[Violation(subject=f"c{n}", description="x" * 900) for n in range(500)],
        )

    async with echo(Store=fail) as stub:
        with pytest.raises(errors.PlanInvalid) as caught:
            await stub.Store(text(""))

    *kept, last = caught.value.violations
    assert [violation.subject for violation in kept] == [f"c{n}" for n in range(len(kept))]
    assert last.description == f"and {500 - len(kept)} more"
    assert len(kept) > 10


async def test_an_error_of_the_callers_own_requests_is_raised_to_the_caller(
    echo: Serving,
) -> None:
    async def requests() -> AsyncIterator[Any]:
        yield text("1")
        raise FileNotFoundError("the file that was being sent")

    async def swallow(received: Any, _: Any) -> Any:
        async for _message in received:
            pass
        return text("done")

    async def relay(received: Any, _: Any) -> AsyncIterator[Any]:
        async for message in received:
            yield message

    async with echo(Sum=swallow, Chat=relay) as stub:
        with pytest.raises(FileNotFoundError):
            await stub.Sum(requests())
        with pytest.raises(FileNotFoundError):
            async for _ in stub.Chat(requests()):
                pass


async def test_writing_to_a_call_that_the_server_has_refused_says_why(echo: Serving) -> None:
    async def refuse(_: Any, __: Any) -> Any:
        raise errors.RequestInvalid("the first message must be a header")

    async with echo(Sum=refuse) as stub:
        call = stub.Sum()
        with pytest.raises(errors.RequestInvalid, match="header"):
            while True:
                await call.write(text("x" * 10_000))


async def test_a_refusal_in_the_middle_of_an_upload_is_what_the_caller_gets(
    echo: Serving,
) -> None:
    """grpc/grpc#36066: grpc.aio alone answers INTERNAL every few times."""

    async def refuse(received: Any, _: Any) -> Any:
        await anext(received)
        raise errors.DigestMismatch("not what was announced")

    def upload() -> Any:
        return (text("x" * 100_000) for _ in range(64))

    async with echo(Sum=refuse) as stub:
        for _ in range(50):
            with pytest.raises(errors.DigestMismatch):
                await stub.Sum(upload())


async def test_an_early_answer_to_an_upload_is_what_the_caller_gets(echo: Serving) -> None:
    """As above, for a server that needs no more."""

    async def enough(received: Any, _: Any) -> Any:
        await anext(received)
        return text("I have it already")

    async with echo(Sum=enough) as stub:
        for _ in range(50):
            answer = await stub.Sum(text("x" * 100_000) for _ in range(64))
            assert answer.value == "I have it already"


async def test_a_full_disk_is_no_internal_error(echo: Serving) -> None:
    async def fail(_: Any, __: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device", "/secret/place")

    async with echo(Store=fail) as stub:
        with pytest.raises(errors.CapacityExhausted, match="is full") as caught:
            await stub.Store(text(""))

    assert "secret" not in caught.value.message
    assert "lns prune" in caught.value.hint
