import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.artifacts.yaml_reader import YamlError, read_yaml
from tests.support.outcomes import passes_or

# PyYAML writes YAML 1.1: it leaves bare what is a number in 1.2 (`0E0`) and its own line breaks.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\x85\u2028\u2029")).filter(
    lambda text: text[:1] not in tuple("0123456789+-.")
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | texts
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


def read(text: str) -> object:
    return read_yaml(text, max_depth=16, max_nodes=1000)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1", {"a": 1}),
        ("[yes, no, on, off, y]", ["yes", "no", "on", "off", "y"]),
        ("[true, True, FALSE, null, ~, ]", [True, True, False, None, None]),
        ("a:", {"a": None}),
        ("[2024-01-01, 12:30:45, 1_000, 017]", ["2024-01-01", "12:30:45", "1_000", 17]),
        ("[0o17, 0x1F, -5, +5]", [15, 31, -5, 5]),
        ("[1.5, -.5, 1e3, 1., 1.10]", [1.5, -0.5, 1000.0, 1.0, 1.1]),
        ("['1', \"true\", 'null']", ["1", "true", "null"]),
        ("[.inf, .nan, ==, <<]", [".inf", ".nan", "==", "<<"]),
        ("a: |\n  one\n  two\n", {"a": "one\ntwo\n"}),
        ("a: >-\n  one\n  two\n", {"a": "one two"}),
        ("--- {a: [b, {c: d}]}", {"a": ["b", {"c": "d"}]}),
        ("! 5", "5"),
        ("", None),
        ("é: ü", {"é": "ü"}),
    ],
)
def test_plain_scalars_follow_the_core_schema(text: str, value: object) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: &x 1\nb: *x", "line 2, column 4: aliases"),
        ("a: &x [*x]", "aliases"),
        ("a: !!python/object:os.system {}", "the tag"),
        ("a: !!int '5'", "the tag"),
        ("a: !custom 5", "the tag"),
        ("a: 1\na: 2", "line 2, column 1: the key 'a' occurs twice"),
        ("1: a", "a key must be text; quote it"),
        ("? [a]\n: b", "a key must be text"),
        ("? {a: b}\n: c", "a key must be text"),
        ("a: 1\n---\nb: 2", "only one document"),
        ("a: [", "line 2, column 1"),
        ("a: b: c", "line 1, column 5"),
        ("\ta: 1", "line 1"),
        ("a: 1\nb: \x07", "line 2: character #x0007"),
        ("[" * 17 + "]" * 17, "nested deeper than 16 levels"),
        ("[" + "1," * 1001 + "]", "more than 1000 values"),
    ],
)
def test_what_is_no_plain_data_is_refused_with_its_place(text: str, problem: str) -> None:
    with pytest.raises(YamlError) as caught:
        read(text)

    assert problem in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["[" * 500_000, "{a: " * 200_000, "- " * 400_000, "a: 'x" * 100_000, "&a " * 300_000,
     "? " * 400_000],
)  # fmt: skip
def test_hostile_nesting_ends_early(text: str) -> None:
    begun = time.monotonic()

    with pytest.raises(YamlError):
        read(text)

    assert time.monotonic() - begun < 5


@given(json_values)
@settings(max_examples=50, deadline=None)
def test_what_a_writer_of_yaml_writes_is_read_back(value: object) -> None:
    text = yaml.safe_dump(value, allow_unicode=True)

    try:
        result = read_yaml(text, max_depth=16, max_nodes=1000)
    except YamlError as error:
        # PyYAML writes some values with anchors or in a notation of YAML 1.1.
        assert "key" in str(error) or "&" in text or "!!" in text  # noqa: PT017 - see above
        return
    assert _comparable(result) == _comparable(value)


def _comparable(value: object) -> object:
    """PyYAML writes numbers of YAML 1.1; texts are what must come back as they were."""
    if isinstance(value, dict):
        return {key: _comparable(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_comparable(element) for element in value]
    return value if isinstance(value, str | bool | type(None)) else None


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with passes_or(YamlError):
        read(text)
