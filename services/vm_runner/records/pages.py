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
    items: Sequence[T], *, key: Callable[[T], str], size: int, token: str
) -> tuple[Sequence[T], str]:
    """Returns one page of a sorted list, and the token of the next one (empty after the last).

    A token is the key of the last item of its page.

    Raises:
        RequestInvalid: the size is negative, or the token's item is gone.
    """
    if size < 0:
        raise RequestInvalid("`page_size` must not be negative")
    start = 0
    if token:
        places = (place for place, item in enumerate(items) if key(item) == token)
        found = next(places, None) if _TOKEN.fullmatch(token) else None
        if found is None:
            raise RequestInvalid("`page_token` is not of this list", hint="begin anew")
        start = found + 1
    end = start + (min(size, LARGEST_SIZE) or DEFAULT_SIZE)
    chosen = items[start:end]
    return chosen, key(chosen[-1]) if chosen and end < len(items) else ""
