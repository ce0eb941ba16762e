"""Certificates of names: kept however many there are, and refused where they are none."""

import pytest
import trustme

from services.vm_runner.egress_worker import tls
from services.vm_runner.egress_worker.orders import Leaf
from services.vm_runner.egress_worker.tls import GuestContexts
from services.vm_runner.egress_worker.tls_side import TlsSide
from tests.support.egress_world import leaf_of


def test_a_certificate_is_kept_however_many_came_behind_it(
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


class Pieces:
    """A side that has some bytes and takes all."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = [*pieces, b""]
        self.written = b""

    async def read(self) -> bytes:
        return self._pieces.pop(0)

    async def write(self, data: bytes) -> None:
        self.written += data

    async def finish(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


class Slices:
    """An engine without a cipher; it notes how much it was given at once."""

    def __init__(self) -> None:
        self.most = 0
        self._plain: list[bytes] = []
        self._sent = b""

    def feed(self, data: bytes) -> None:
        self.most = max(self.most, len(data))
        self._plain.append(data)

    def take(self) -> bytes:
        data, self._sent = self._sent, b""
        self.most = max(self.most, len(data))
        return data

    def handshake(self) -> bool:
        return True

    def read(self) -> bytes | None:
        return self._plain.pop(0) if self._plain else None

    def write(self, data: bytes) -> None:
        self._sent += data

    def end(self) -> None:
        """Nothing to do."""


async def test_little_goes_through_openssls_buffers_at_once_since_they_never_shrink() -> None:
    lower, engine = Pieces(b"a" * 100_000, b"b" * 5), Slices()
    side = TlsSide(lower, engine)

    got = b""
    while data := await side.read():
        got += data
    await side.write(b"c" * 100_000)

    assert got == b"a" * 100_000 + b"b" * 5
    assert lower.written == b"c" * 100_000
    assert engine.most <= 8 * 1024
