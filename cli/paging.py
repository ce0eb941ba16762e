"""Lists of the services, which come in pages."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Protocol, TypeVar

PAGE_SIZE = 1000
"""As many as a service gives at a time."""


class _PageRequest(Protocol):
    page_token: str


class _Page(Protocol):
    @property
    def next_page_token(self) -> str: ...


RequestT = TypeVar("RequestT", bound=_PageRequest)
PageT = TypeVar("PageT", bound=_Page)
ItemT = TypeVar("ItemT")


async def every(
    call: Callable[[RequestT], Awaitable[PageT]],
    request: RequestT,
    items: Callable[[PageT], Iterable[ItemT]],
) -> AsyncIterator[ItemT]:
    """Yields everything that a list has, page by page.

    Args:
        call: the RPC.
        request: of the first page.
        items: what of a page.

    Raises:
        LnsError: as the service gave it.
    """
    while True:
        page = await call(request)
        for item in items(page):
            yield item
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
