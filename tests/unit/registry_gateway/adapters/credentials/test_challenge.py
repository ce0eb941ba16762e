"""`WWW-Authenticate` is parsed by its grammar, whoever wrote it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.registry_gateway.adapters.credentials.challenge import Challenge, parse_challenges


def challenge(scheme: str, **parameters: str) -> Challenge:
    return Challenge(scheme=scheme, parameters=parameters)


HUB = {"realm": "https://auth.docker.io/token", "service": "registry.docker.io"}

HEADERS: list[tuple[list[str], list[Challenge]]] = [
    ([], []),
    ([""], []),
    (['Basic realm="Registry"'], [challenge("basic", realm="Registry")]),
    (["Basic"], [challenge("basic")]),
    (
        ['Bearer realm="https://auth.docker.io/token",service="registry.docker.io"'],
        [challenge("bearer", **HUB)],
    ),
    (
        ['BEARER Realm="a" , SERVICE=b ,\tscope="repository:x:pull,push repository:y:pull"'],
        [
            challenge(
                "bearer", realm="a", service="b", scope="repository:x:pull,push repository:y:pull"
            )
        ],
    ),
    (["Bearer realm=unquoted,service=x"], [challenge("bearer", realm="unquoted", service="x")]),
    (['Bearer realm = "spaced"'], [challenge("bearer", realm="spaced")]),
    ([r'Bearer realm="a\"b\\c"'], [challenge("bearer", realm='a"b\\c')]),
    (['Bearer realm="a,b=c"'], [challenge("bearer", realm="a,b=c")]),
    (['Bearer realm=""'], [challenge("bearer", realm="")]),
    (['Bearer realm="a",realm="b"'], [challenge("bearer", realm="a")]),
    (
        ['Basic realm="a", Bearer realm="b",service="c"'],
        [challenge("basic", realm="a"), challenge("bearer", realm="b", service="c")],
    ),
    (
        ['Basic realm="a"', 'Bearer realm="b"'],
        [challenge("basic", realm="a"), challenge("bearer", realm="b")],
    ),
    (["Negotiate, Basic realm=x"], [challenge("negotiate"), challenge("basic", realm="x")]),
    (
        ["Negotiate dG9rZW4=, Basic realm=x"],
        [challenge("negotiate"), challenge("basic", realm="x")],
    ),
    ([', ,Basic realm="a",,'], [challenge("basic", realm="a")]),
    (['Basic realm="a" garbage="'], [challenge("basic", realm="a"), challenge("garbage")][:1]),
    (['Bearer realm="unterminated'], [challenge("bearer")]),
    (['="x"'], []),
    (["@@@"], []),
    (["Bearer " + "a" * 10_000], []),
]


@pytest.mark.parametrize(("headers", "expected"), HEADERS, ids=lambda value: str(value)[:60])
def test_challenges_are_read_in_order(headers: list[str], expected: list[Challenge]) -> None:
    found = parse_challenges(headers)

    assert list(found[: len(expected)]) == expected
    assert all(one.scheme not in ("basic", "bearer") for one in found[len(expected) :])


@given(st.lists(st.text(max_size=200), max_size=3))
def test_any_header_is_read_without_failing(headers: list[str]) -> None:
    for found in parse_challenges(headers):
        assert found.scheme == found.scheme.lower()


tokens = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,8}", fullmatch=True)
values = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)


@given(
    st.lists(
        st.tuples(tokens, st.dictionaries(tokens.map(str.lower), values, min_size=1, max_size=3)),
        max_size=3,
    )
)
def test_what_is_written_by_the_grammar_is_read_as_it_was(
    wanted: list[tuple[str, dict[str, str]]],
) -> None:
    def quote(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    header = ", ".join(
        scheme + " " + ", ".join(f"{name}={quote(text)}" for name, text in parameters.items())
        for scheme, parameters in wanted
    )

    assert [(one.scheme, dict(one.parameters)) for one in parse_challenges([header])] == [
        (scheme.lower(), parameters) for scheme, parameters in wanted
    ]
