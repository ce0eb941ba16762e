"""What happens around every served call, whatever its arity and style.

One interceptor wraps the handler of each call and enters a list of scopes around it. A scope is an
asynchronous context manager that takes the `ServedCall`. The standard ones, outermost first:

    identify     request id and method into the context and the log
    trace        a span in the caller's trace, where traces are made
    observe      one `rpc_finished` line and the metrics
    answer       every exception becomes a status; an unexpected one's text never reaches the caller
    authorize    the peer's certificate against the settings
    limit        the deadline into the context; unary calls end at the process's limit

Streaming handlers, asynchronous generators included, run inside a coroutine that writes to the
context: grpc does not close a generator whose call was cancelled, an `aclosing` block does, in the
same task. Messages are decoded and encoded here, so that a malformed request is an error like any
other and bytes can be counted.
"""

import asyncio
import contextlib
import dataclasses
import inspect
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from services.chassis import metrics
from services.core.errors import RequestInvalid, ServiceUnavailable


@dataclasses.dataclass(slots=True, kw_only=True)
class ServedCall:
    """A call while it is served, and what became of it."""

    method: str
    """`/package.Service/Method`."""

    metadata: dict[str, str | bytes]
    streams_answers: bool
    context: "grpc.aio.ServicerContext[Any, Any]"
    started: float = dataclasses.field(default_factory=time.monotonic)
    """By `time.monotonic`."""

    principal: str = ""
    """The name in the caller's certificate that permits the call, or what stands for it."""

    reason: str = ""
    """Of the error that it ended with."""

    messages_in: int = 0
    messages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


_taken_up_again: "weakref.WeakSet[asyncio.Task[Any]]" = weakref.WeakSet()


def is_taken_up_again() -> None:
    """Says that the caller of this call takes its stream up again where it was lost.

    A process that ends does not wait for such streams, which would use up its whole grace period.
    """
    task = asyncio.current_task()
    if task is not None:
        _taken_up_again.add(task)


Scope = Callable[[ServedCall], contextlib.AbstractAsyncContextManager[None]]
Handler = Callable[[Any, Any], Any]


class Wrapper(grpc.aio.ServerInterceptor):
    """Enters scopes, the first outermost, around every call."""

    def __init__(self, scopes: Sequence[Scope]) -> None:
        self._scopes = tuple(scopes)
        self._live: set[asyncio.Task[Any]] = set()
        self._ended: set[asyncio.Task[Any]] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Returns when no handler runs.

        A stopped server has cancelled its calls, but does not wait until their handlers have
        cleaned up.
        """
        await self._idle.wait()

    def end_streams(self) -> None:
        """Ends the streams that their callers take up again, as `end_calls` does."""
        self._end(self._live & set(_taken_up_again))

    def end_calls(self) -> None:
        """Cancels the handlers that still run; their callers receive ServiceUnavailable.

        grpc itself would cancel the calls, and then it is chance whether a caller reads that the
        server went away or that the call was cancelled, as if by the caller.
        """
        self._end(self._live)

    def _end(self, tasks: set[asyncio.Task[Any]]) -> None:
        for task in tasks - self._ended:
            self._ended.add(task)
            task.cancel()

    @contextlib.asynccontextmanager
    async def around(self, call: ServedCall) -> AsyncIterator[None]:
        """Enters the scopes for one call."""
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("a handler runs in a task")
        self._live.add(task)
        self._idle.clear()
        try:
            async with contextlib.AsyncExitStack() as stack:
                for scope in self._scopes:
                    await stack.enter_async_context(scope(call))
                with self._told_of_the_end(task):
                    yield
        finally:
            self._live.discard(task)
            self._ended.discard(task)
            if not self._live:
                self._idle.set()

    @contextlib.contextmanager
    def _told_of_the_end(self, task: asyncio.Task[Any]) -> Iterator[None]:
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._ended or task.uncancel():
                raise  # by the caller, or by the caller too
            raise ServiceUnavailable(
                "the service is shutting down", hint="try again when it is back"
            ) from None

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable["grpc.RpcMethodHandler[Any, Any] | None"]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Returns the call's handler inside the scopes; None for an unknown method."""
        handler = await continuation(handler_call_details)
        if handler is None:
            metrics.RPC_UNKNOWN.inc()
            return None
        return _Wrapped(handler, handler_call_details, self).handler()


class _Wrapped:
    """The handler of one call, and that call."""

    def __init__(self, inner: Any, details: grpc.HandlerCallDetails, wrapper: Wrapper) -> None:
        self._inner = inner
        self._details = details
        self._wrapper = wrapper
        self._call: ServedCall | None = None

    def handler(self) -> "grpc.RpcMethodHandler[Any, Any]":
        """Returns what grpc calls: a coroutine function of the right arity."""
        inner = self._inner
        if inner.request_streaming and inner.response_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._stream_answers(inner.stream_stream), self._decode, self._encode
            )
        if inner.request_streaming:
            return grpc.stream_unary_rpc_method_handler(
                self._one_answer(inner.stream_unary), self._decode, None
            )
        if inner.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._stream_answers(inner.unary_stream), None, self._encode
            )
        return grpc.unary_unary_rpc_method_handler(self._one_answer(inner.unary_unary), None, None)

    def _one_answer(self, behaviour: Handler) -> Any:
        async def handle(request: Any, context: Any) -> bytes:
            async with self._scoped(context):
                return self._encode(await behaviour(self._received(request), context))

        return handle

    def _stream_answers(self, behaviour: Handler) -> Any:
        async def handle(request: Any, context: Any) -> None:
            async with self._scoped(context):
                answers = behaviour(self._received(request), context)
                if not inspect.isasyncgen(answers):  # it writes to the context itself
                    await answers
                    return
                async with contextlib.aclosing(answers):
                    async for answer in answers:
                        await context.write(answer)

        return handle

    @contextlib.asynccontextmanager
    async def _scoped(self, context: Any) -> AsyncIterator[None]:
        self._call = ServedCall(
            method=self._details.method,
            metadata=dict(self._details.invocation_metadata),
            streams_answers=self._inner.response_streaming,
            context=context,
        )
        async with self._wrapper.around(self._call):
            yield

    def _received(self, request: Any) -> Any:
        return request if self._inner.request_streaming else self._decode(request)

    def _decode(self, data: bytes) -> Any:
        if self._call is not None:
            self._call.messages_in += 1
            self._call.bytes_in += len(data)
        try:
            return self._inner.request_deserializer(data)
        except DecodeError as error:
            raise RequestInvalid("the request cannot be decoded") from error

    def _encode(self, answer: Any) -> bytes:
        data: bytes = self._inner.response_serializer(answer)
        if self._call is not None:
            self._call.messages_out += 1
            self._call.bytes_out += len(data)
        return data
