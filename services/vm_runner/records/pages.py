"""Pages of lists. Pure."""

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from services.core.errors import RequestInvalid

DEFAULT_SIZE = 100
LARGEST_SIZE = 1000
_TOKEN = re.compile(r"[A-Za-z0-9_.-]{1,128}")

T = TypeVar("T")


def page(
    items: Sequence[T],
    *,
    key: Callable[[T], str],
    size: int,
    token: str,
    descending: bool = False,
) -> tuple[Sequence[T], str]:
    """Returns one page of a sorted list, and the token of the next one (empty after the last).

    A token is the key of the last item of its page. The next page begins behind that key, whether
    or not the item is still there.

    Args:
        items: sorted by their keys.
        key: by which they are sorted: different for each, of letters, digits, `_`, `.` and `-`.
        size: most items of the page; 0 for the default.
        token: of the page before; empty for the first.
        descending: whether the greatest key comes first.

    Raises:
        RequestInvalid: the size is negative, or the token cannot be a key.
    """
    if size < 0:
        raise RequestInvalid("`page_size` must not be negative")
    start = 0
    if token:
        if not _TOKEN.fullmatch(token):
            raise RequestInvalid(
                "`page_token` is not of this list", hint="ask for the first page again"
            )
        keys = [key(item) for item in items]
        start = sum((one >= token) if descending else (one <= token) for one in keys)
    end = start + (min(size, LARGEST_SIZE) or DEFAULT_SIZE)
    chosen = items[start:end]
    return chosen, key(chosen[-1]) if chosen and end < len(items) else ""
