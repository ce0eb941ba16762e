import pytest

from services.core.errors import RequestInvalid
from services.vm_runner.records.pages import page

ITEMS = [f"item{number:04}" for number in range(1500)]


def pages(size: int) -> list[list[str]]:
    found = []
    token = ""
    while True:
        items, token = page(ITEMS, key=str, size=size, token=token)
        found.append(list(items))
        if not token:
            return found


@pytest.mark.parametrize(("size", "first"), [(0, 100), (7, 7), (1000, 1000), (5000, 1000)])
def test_pages_cover_a_list_once(size: int, first: int) -> None:
    found = pages(size)

    assert [item for items in found for item in items] == ITEMS
    assert len(found[0]) == first


def test_an_empty_list_is_one_page() -> None:
    assert page([], key=str, size=10, token="") == ([], "")


@pytest.mark.parametrize("descending", [False, True])
def test_a_page_goes_on_where_an_item_was_that_is_gone_now(descending: bool) -> None:
    items = sorted(ITEMS[:150], reverse=descending)
    first, token = page(items, key=str, size=0, token="", descending=descending)
    items.remove(token)
    items.remove(items[100])
    second, end = page(items, key=str, size=0, token=token, descending=descending)

    assert [*first[:-1], *second] == items
    assert end == ""


@pytest.mark.parametrize("token", ["../x", "item0001\n", "x" * 200])
def test_a_token_of_something_else_is_refused(token: str) -> None:
    with pytest.raises(RequestInvalid):
        page(ITEMS, key=str, size=10, token=token)


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(RequestInvalid):
        page(ITEMS, key=str, size=-1, token="")
