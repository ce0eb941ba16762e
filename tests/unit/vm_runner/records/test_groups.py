"""Which members of a group reach which."""

from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.errors import RequestInvalid
from services.vm_runner.life.guest_plan import hostname
from services.vm_runner.records import groups
from services.vm_runner.records.groups import Group
from tests.support.outcomes import passes
from tests.support.runs import a_run

ID = "0123456789abcdef" * 2
TEAM = Group(group_id=ID, name="team", members=("writer", "critic", "printer"))


def test_a_group_that_fits_is_accepted() -> None:
    with passes():
        groups.check(TEAM, "critic")


@pytest.mark.parametrize(
    ("group", "member"),
    [
        (replace(TEAM, group_id="short"), "critic"),
        (replace(TEAM, group_id=ID.upper()), "critic"),
        (replace(TEAM, members=()), "critic"),
        (replace(TEAM, members=tuple(f"m{n}" for n in range(65))), "m1"),
        (replace(TEAM, members=("critic", "critic")), "critic"),
        (replace(TEAM, members=("critic", "with space")), "critic"),
        (replace(TEAM, members=("critic", "line\nbreak")), "critic"),
        (replace(TEAM, members=("critic", "-x")), "critic"),
        (replace(TEAM, members=("critic", "x" * 64)), "critic"),
        (TEAM, "stranger"),
        (TEAM, ""),
    ],
)
def test_a_group_that_cannot_be_is_refused(group: Group, member: str) -> None:
    with pytest.raises(RequestInvalid):
        groups.check(group, member)


def test_each_member_has_an_address_of_its_own_that_the_agent_does_not_use() -> None:
    many = replace(TEAM, members=tuple(f"m{n}" for n in range(groups.MEMBERS_MAX)))
    found = dict(groups.addresses(many))

    assert len(set(found.values())) == groups.MEMBERS_MAX
    assert all(address in groups.PEER_NETWORK for address in found.values())
    assert min(found.values()) == IPv4Address("127.77.1.1")


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_an_address_stands_for_the_member_that_has_it_and_else_for_nobody(
    address: IPv4Address,
) -> None:
    assert groups.member_at(TEAM, address) is None
    for name, of_it in groups.addresses(TEAM):
        assert groups.member_at(TEAM, of_it) == name


def test_a_guest_of_a_group_knows_its_peers_by_name() -> None:
    assert groups.host_lines(TEAM, "critic") == ("127.77.1.1\twriter", "127.77.1.3\tprinter")


def test_a_machine_has_the_name_by_which_its_group_knows_it() -> None:
    alone = a_run()
    member = replace(alone, group=TEAM, plan=replace(alone.plan, member="critic"))

    assert (hostname(alone), hostname(member)) == ("surveyor", "critic")
