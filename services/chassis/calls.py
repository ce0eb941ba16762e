"""Outgoing calls as stubs make them, with deadline, request id and typed errors.

Generated stubs only ask a channel for its four kinds of callables. Those here wrap grpc's own, and
what they return wraps grpc's call objects: the same methods, but every failure is a `LnsError`. No
client interceptors: those of grpc.aio put a queue and a task between caller and stream, and a
failure of the caller's own iterator of requests reaches nobody.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Generator, Iterable
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio

from services.chassis import caller_environment, context, tracing
from services.chassis.reachability import Finding, examine
from services.chassis.rpc_methods import service_name
from services.chassis.settings import TlsSettings
from services.chassis.status import from_rpc_error
from services.core.errors import LnsError, ServiceUnavailable

REQUEST_ID_KEY = "x-request-id"

_MARGIN_SECONDS = 0.05
"""What a hop keeps of its caller's deadline, to pass on the error of the next hop."""

_SHORTEST_SECONDS = 0.001
_EXAMINED_SECONDS = 1.0

Request = TypeVar("Request")
Response = TypeVar("Response")
Result = TypeVar("Result")


class Options:
    """What the calls of one channel have in common.

    Args:
        target: the address, for messages.
        timeout: seconds for calls with a single answer that give none.
        stream_timeout: seconds for calls with a stream of answers that give none.
        tls: the files that the channel was made with.
    """

    def __init__(
        self,
        *,
        target: str,
        timeout: float,
        stream_timeout: float,
        tls: TlsSettings | None = None,
    ) -> None:
        self.target = target
        self.timeout = timeout
        self.stream_timeout = stream_timeout
        self._tls = tls
        self._examined = -math.inf
        self._finding: Finding | None = None
        self._looking = asyncio.Lock()

    async def failure(self, error: grpc.aio.AioRpcError, method: str) -> LnsError:
        """Returns the typed error of a failed call; where nobody answered, with why."""
        typed = from_rpc_error(error, target=self.target, method=method)
        if error.code() is not grpc.StatusCode.UNAVAILABLE or "target" not in typed.metadata:
            return typed
        finding = await self._examine(service_name(method))
        return ServiceUnavailable(finding.why, hint=finding.remedy, metadata=typed.metadata)

    async def _examine(self, service: str) -> Finding:
        """Looks at the address; calls that fail together share one look."""
        async with self._looking:
            if self._finding is None or time.monotonic() - self._examined > _EXAMINED_SECONDS:
                self._finding = await asyncio.to_thread(
                    examine, self.target, self._tls, service=service
                )
                self._examined = time.monotonic()
            return self._finding

    def arguments(
        self, default: float, timeout: float | None, metadata: Any, *, traceparent: str = ""
    ) -> dict[str, Any]:
        """Returns timeout and metadata of one call: never later than the call that it serves."""
        own = default if timeout is None else timeout
        inherited = context.remaining() - _MARGIN_SECONDS
        given = tuple(metadata or ())
        if all(key != REQUEST_ID_KEY for key, _ in given):
            given += ((REQUEST_ID_KEY, context.request_id() or context.new_request_id()),)
        if traceparent:
            given += ((tracing.KEY, traceparent),)
        variables = context.environment()
        if variables and self.target.startswith("unix:"):
            given += ((caller_environment.KEY, variables),)
        return {"timeout": max(_SHORTEST_SECONDS, min(own, inherited)), "metadata": given}


class _Requests(Generic[Request]):
    """The messages of a caller; remembers why there are no more."""

    def __init__(self, source: AsyncIterable[Request] | Iterable[Request]) -> None:
        self.failure: Exception | None = None
        self._source = source

    async def __aiter__(self) -> AsyncIterator[Request]:
        try:
            if isinstance(self._source, AsyncIterable):
                async for request in self._source:
                    yield request
            else:
                for request in self._source:
                    yield request
        except Exception as error:
            self.failure = error
            raise


class _Call(grpc.aio.Call, Generic[Request, Response]):
    """A grpc call whose failures are `LnsError`; every kind of call has the methods it needs."""

    def __init__(
        self, inner: Any, options: Options, method: str, requests: _Requests[Request] | None = None
    ) -> None:
        self._inner = inner
        self._options = options
        self._method = method
        self._requests = requests

    def cancelled(self) -> bool:
        return bool(self._inner.cancelled())

    def done(self) -> bool:
        return bool(self._inner.done())

    def time_remaining(self) -> float | None:
        remaining: float | None = self._inner.time_remaining()
        return remaining

    def cancel(self) -> bool:
        return bool(self._inner.cancel())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._inner.add_done_callback(callback)

    async def initial_metadata(self) -> grpc.aio.Metadata:
        metadata: grpc.aio.Metadata = await self._translated(self._inner.initial_metadata())
        return metadata

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        metadata: grpc.aio.Metadata = await self._inner.trailing_metadata()
        return metadata

    async def code(self) -> grpc.StatusCode:
        code: grpc.StatusCode = await self._inner.code()
        return code

    async def details(self) -> str:
        details: str = await self._inner.details()
        return details

    async def wait_for_connection(self) -> None:
        await self._translated(self._inner.wait_for_connection())

    async def _translated(self, awaitable: Awaitable[Result]) -> Result:
        try:
            return await awaitable
        except grpc.aio.AioRpcError as error:
            raise await self._options.failure(error, self._method) from error
        except asyncio.CancelledError:
            # grpc cancels the call when the iterator of requests fails, and forgets why.
            if self._requests is not None and self._requests.failure is not None:
                raise self._requests.failure from None
            raise


class _RealStatus:
    """Stands before grpc's inner call and keeps it from forgetting how the server ended the call.

    A write that fails because the server has ended the call makes grpc overwrite the server's
    status with `Internal error from Core` (grpc/grpc#36066). Without that, whoever waits gets the
    status that core delivers.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def set_internal_error(self, text: str) -> None:
        if not text.startswith('Failed "execute_batch"'):  # else a status follows
            self._inner.set_internal_error(text)


class _Writing(_Call[Request, Response]):
    def __init__(
        self, inner: Any, options: Options, method: str, requests: _Requests[Request] | None = None
    ) -> None:
        super().__init__(inner, options, method, requests)
        inner._cython_call = _RealStatus(inner._cython_call)  # noqa: SLF001  # the one place to do it

    async def write(self, request: Request) -> None:
        """Sends one message; raises the call's `LnsError` when the server has ended the call."""
        try:
            await self._translated(self._inner.write(request))
        except asyncio.InvalidStateError:
            failure = await self._outcome()
            if failure is None:
                raise
            raise failure from None

    async def done_writing(self) -> None:
        """Says that no more messages follow."""
        await self._translated(self._inner.done_writing())

    async def _outcome(self) -> LnsError | None:
        """Returns how the finished call failed, or None."""
        code = await self._inner.code()
        if code is grpc.StatusCode.OK:
            return None
        error = grpc.aio.AioRpcError(
            code,
            await self._inner.initial_metadata(),
            await self._inner.trailing_metadata(),
            details=await self._inner.details(),
        )
        return await self._options.failure(error, self._method)


class _Answering(_Call[Request, Response]):
    def __await__(self) -> Generator[Any, None, Response]:
        return self._translated(self._inner).__await__()


class _Streaming(_Call[Request, Response]):
    """Reads through grpc's iterator, so that iterating and `read` may be mixed.

    A reader that is cancelled cancels the call.
    """

    def __aiter__(self) -> AsyncIterator[Response]:
        return self

    async def __anext__(self) -> Response:
        try:
            message: Response = await self._translated(self._inner.__aiter__().__anext__())
        except StopAsyncIteration:
            if self._inner.cancelled():  # the iterator of a cancelled call just ends
                raise asyncio.CancelledError from None
            raise
        return message

    async def read(self) -> Any:
        """Returns the next message, or `grpc.aio.EOF` after the last."""
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            return grpc.aio.EOF


class _WritingAnswering(_Writing[Request, Response], _Answering[Request, Response]):
    pass


class _WritingStreaming(_Writing[Request, Response], _Streaming[Request, Response]):
    pass


class _Method:
    """One method of a stub.

    Args:
        inner: gives grpc's callable for it, that of the channel in use.
        options: see `Options`.
        name: `/package.Service/Method`.
    """

    def __init__(self, inner: Callable[[], Any], options: Options, name: str) -> None:
        self._inner = inner
        self._options = options
        self._name = name

    def _begin(
        self, request: Any, default: float, timeout: float | None, metadata: Any, rest: Any
    ) -> Any:
        """Begins grpc's call, in a span of its own."""
        span = tracing.begin(self._name.strip("/"), kind="CLIENT", rpc_system="grpc")
        arguments = self._options.arguments(
            default, timeout, metadata, traceparent=span.traceparent
        )
        inner = self._inner()(request, **arguments, **rest)
        span.end_with(inner)
        return inner


class UnaryUnary(_Method):
    """One request, one answer."""

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        **rest: Any,
    ) -> _Answering[Any, Any]:
        """Starts the call; awaiting it gives the answer or raises `LnsError`."""
        inner = self._begin(request, self._options.timeout, timeout, metadata, rest)
        return _Answering(inner, self._options, self._name)


class UnaryStream(_Method):
    """One request, a stream of answers."""

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        **rest: Any,
    ) -> _Streaming[Any, Any]:
        """Starts the call; iterating it gives the answers or raises `LnsError`."""
        inner = self._begin(request, self._options.stream_timeout, timeout, metadata, rest)
        return _Streaming(inner, self._options, self._name)


class StreamUnary(_Method):
    """A stream of requests, one answer."""

    def __call__(
        self,
        request_iterator: AsyncIterable[Any] | Iterable[Any] | None = None,
        timeout: float | None = None,
        metadata: Any = None,
        **rest: Any,
    ) -> _WritingAnswering[Any, Any]:
        """Starts the call; awaiting it gives the answer or raises `LnsError`.

        What `request_iterator` raises is raised to whoever awaits, and the call is cancelled.
        """
        requests = None if request_iterator is None else _Requests(request_iterator)
        inner = self._begin(requests, self._options.stream_timeout, timeout, metadata, rest)
        return _WritingAnswering(inner, self._options, self._name, requests)


class StreamStream(_Method):
    """A stream of requests, a stream of answers."""

    def __call__(
        self,
        request_iterator: AsyncIterable[Any] | Iterable[Any] | None = None,
        timeout: float | None = None,
        metadata: Any = None,
        **rest: Any,
    ) -> _WritingStreaming[Any, Any]:
        """Starts the call; iterating it gives the answers or raises `LnsError`.

        What `request_iterator` raises is raised to whoever reads, and the call is cancelled.
        """
        requests = None if request_iterator is None else _Requests(request_iterator)
        inner = self._begin(requests, self._options.stream_timeout, timeout, metadata, rest)
        return _WritingStreaming(inner, self._options, self._name, requests)
