"""Certificates of names: kept however many there are, and refused where they are none."""

import pytest
import trustme

from services.vm_runner.egress_worker import tls
from services.vm_runner.egress_worker.orders import Leaf
from services.vm_runner.egress_worker.tls import GuestContexts
from tests.support.egress_world import leaf_of


def test_a_certificate_is_there_however_many_came_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tls, "_CONTEXTS_MOST", 2)
    authority, contexts = trustme.CA(), GuestContexts()
    names = [f"{letter}.test" for letter in "abcd"]
    for name in names:
        contexts.add(name, leaf_of(authority.issue_cert(name)))

    assert all(contexts.get(name) is not None for name in names)
    assert contexts.get("d.test") is contexts.get("d.test")
    assert contexts.get("other.test") is None


def test_what_is_no_certificate_or_not_its_key_is_refused() -> None:
    authority, contexts = trustme.CA(), GuestContexts()
    one, other = (leaf_of(authority.issue_cert("a.test")) for _ in range(2))

    with pytest.raises(ValueError, match="key"):
        contexts.add("a.test", Leaf(chain=one.chain, key=other.key))
    with pytest.raises(ValueError, match="PEM"):
        contexts.add("a.test", Leaf(chain=b"nothing", key=one.key))
    assert contexts.get("a.test") is None
