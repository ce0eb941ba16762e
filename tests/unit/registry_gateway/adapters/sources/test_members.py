"""Members of archives are found by the names that builders give them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.registry_gateway.adapters.sources.archives import FilePart
from services.registry_gateway.adapters.sources.docker_archive import full_name
from services.registry_gateway.adapters.sources.members import Members, plain_name

LAYER = FilePart(path=Path("layer"))


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("a/b", "a/b"),
        ("./a/b", "a/b"),
        ("/a/b", "a/b"),
        ("//a//./b/", "a/b"),
        ("a/../b", "b"),
        ("../a", ""),
        ("a/../../b", ""),
        ("", ""),
    ],
)
def test_a_name_is_relative_to_the_root_however_it_is_spelt(name: str, plain: str) -> None:
    assert plain_name(name) == plain


@pytest.mark.parametrize("written", ["a/layer.tar", "./a/layer.tar", "/a/layer.tar"])
@pytest.mark.parametrize("asked", ["a/layer.tar", "./a/layer.tar", "/a/layer.tar"])
def test_each_spelling_finds_each(written: str, asked: str) -> None:
    members = Members()
    members.add_file(written, LAYER)

    assert members.get(asked) is LAYER


@pytest.mark.parametrize(
    "links",
    [
        {"a/layer.tar": "../r/layer.tar"},
        {"a/layer.tar": "../q/layer.tar", "q/layer.tar": "../r/layer.tar"},
        {"a/layer.tar": "/r/layer.tar"},
        {"a": "r"},
        {"a": "q", "q": "./r"},
    ],
    ids=["a link", "a link to a link", "absolute", "a linked folder", "linked twice"],
)
def test_links_are_followed_as_far_as_they_lead(links: dict[str, str]) -> None:
    members = Members()
    for name, target in links.items():
        members.add_link(name, target, symbolic=True)
    members.add_file("r/layer.tar", LAYER)

    assert members.get("a/layer.tar") is LAYER


def test_a_hard_link_is_relative_to_the_root() -> None:
    members = Members()
    members.add_file("r/layer.tar", LAYER)
    members.add_link("a/layer.tar", "/r/layer.tar", symbolic=False)

    assert members.get("a/layer.tar") is LAYER


@pytest.mark.parametrize(
    "links",
    [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "../../etc/passwd"}, {"a": "a/a"}, {"a": "none"}],
)
def test_a_link_that_leads_nowhere_names_nothing(links: dict[str, str]) -> None:
    members = Members()
    for name, target in links.items():
        members.add_link(name, target, symbolic=True)

    assert members.get("a") is None


def test_the_last_member_of_a_name_counts() -> None:
    members = Members()
    members.add_link("a", "b", symbolic=True)
    members.add_file("./a", LAYER)

    assert members.get("a") is LAYER


@given(
    links=st.dictionaries(st.text("ab/.", max_size=6), st.text("ab/.", max_size=6), max_size=6),
    name=st.text("ab/.", max_size=6),
)
def test_no_web_of_links_is_followed_for_ever(links: dict[str, str], name: str) -> None:
    members = Members()
    for link, target in links.items():
        members.add_link(link, target, symbolic=True)

    assert members.get(name) is None


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("x", "docker.io/library/x:latest"),
        ("x:1", "docker.io/library/x:1"),
        ("team/x", "docker.io/team/x:latest"),
        ("reg.example:5000/y:2", "reg.example:5000/y:2"),
        ("No Name", "No Name"),
    ],
)
def test_short_and_full_names_of_an_image_are_one(short: str, full: str) -> None:
    assert full_name(short) == full_name(full) == full
