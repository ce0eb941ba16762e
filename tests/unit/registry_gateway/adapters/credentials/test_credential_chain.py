"""The first source that knows a registry answers; answers are kept for seconds."""

from services.registry_gateway.adapters.credentials.credential_chain import CredentialChain
from services.registry_gateway.login_ports import Credential


class Source:
    """Counts how often it is asked."""

    def __init__(self, **known: str) -> None:
        self.known = known
        self.asked = 0

    def find(self, host: str, repository: str = "") -> Credential | None:
        self.asked += 1
        secret = self.known.get(f"{host}/{repository}" if repository else host)
        return Credential(username="me", secret=secret) if secret else None


def secret(chain: CredentialChain, host: str) -> str | None:
    found = chain.find(host)
    return found and found.secret


def test_sources_are_asked_in_order() -> None:
    chain = CredentialChain([Source(a="1"), Source(a="2", b="3"), Source(c="4")])

    assert [secret(chain, host) for host in "abcd"] == ["1", "3", "4", None]


def test_an_answer_is_kept_for_a_moment_also_if_it_is_empty() -> None:
    now = 0.0
    source = Source(a="1")
    chain = CredentialChain([source], clock=lambda: now)

    for host in ("a", "a", "x", "x"):
        chain.find(host)
    assert source.asked == 2
    source.known["x"] = "2"
    now = 14.9
    assert secret(chain, "x") is None
    now = 15.0
    assert secret(chain, "x") == "2"


def test_a_login_shows_at_once() -> None:
    source = Source()
    chain = CredentialChain([source], clock=lambda: 0.0)
    assert secret(chain, "a") is None
    source.known["a"] = "1"

    chain.forget("a")

    assert secret(chain, "a") == "1"


def test_each_repository_has_its_own_answer() -> None:
    source = Source(**{"a": "1", "a/team": "2"})
    chain = CredentialChain([source], clock=lambda: 0.0)

    found = [chain.find("a", path) for path in ("", "team", "other", "team")]

    assert [one and one.secret for one in found] == ["1", "2", None, "2"]
    assert source.asked == 3


def test_a_logout_forgets_the_answers_for_every_repository_of_a_host() -> None:
    source = Source(**{"a/team": "1", "b/team": "1"})
    chain = CredentialChain([source], clock=lambda: 0.0)
    for host in ("a", "b"):
        chain.find(host, "team")
    source.known = {}

    chain.forget("a")

    assert chain.find("a", "team") is None
    assert chain.find("b", "team") is not None


def test_no_more_answers_are_kept_than_some() -> None:
    source = Source()
    chain = CredentialChain([source], clock=lambda: 0.0)
    for number in range(2000):
        chain.find("a", str(number))
    asked = source.asked

    chain.find("a", "0")
    chain.find("a", "1999")

    assert source.asked == asked + 1
