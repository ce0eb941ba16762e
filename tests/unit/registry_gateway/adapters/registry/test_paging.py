"""Lists of a hostile registry end."""

import pytest

from services.core.errors import LimitExceeded, RegistryProtocol
from services.registry_gateway.adapters.registry import paging
from services.registry_gateway.adapters.registry.paging import Paging


def test_a_page_that_names_itself_is_refused() -> None:
    pages = Paging("a.example/x")
    pages.turn("https://a.example/v2/x/tags/list")

    with pytest.raises(RegistryProtocol, match="names itself"):
        pages.turn("https://a.example/v2/x/tags/list")


def test_empty_pages_without_an_end_are_refused() -> None:
    pages = Paging("a.example/x")

    with pytest.raises(RegistryProtocol, match="empty"):
        for number in range(100):
            pages.turn(f"https://a.example/{number}")
            pages.took(20, entries=0)


def test_pages_are_bounded_in_number_and_time() -> None:
    many = Paging("a.example/x")
    with pytest.raises(LimitExceeded, match="pages"):
        for number in range(paging.MAX_PAGES + 1):
            many.turn(str(number))

    now = [0.0]
    slow = Paging("a.example/x", clock=lambda: now[0])
    slow.turn("1")
    now[0] = paging.MAX_LIST_SECONDS + 1
    with pytest.raises(LimitExceeded, match="longer"):
        slow.turn("2")


def test_what_pages_have_in_all_is_bounded() -> None:
    pages = Paging("a.example/x")
    pages.took(paging.MAX_LIST_BYTES - 5, entries=1)

    assert pages.room == 5
