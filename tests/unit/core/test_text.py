"""Whatever a stranger writes, it steers no terminal and stays what it was for programs."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cli.render.text import to_yaml
from services.core.text import printable, printable_json, to_json

HOSTILE = {
    "escape": "\x1b[31m",
    "C1 control sequence introducer": "\x9b31m",
    "C1 operating system command": "\x9d0;title\x9c",
    "bell": "\a",
    "backspace": "a\bb",
    "carriage return": "good\rbad",
    "delete": "\x7f",
    "right-to-left override": "\u202etxt.exe",
    "isolates": "\u2066a\u2069",
    "line separator": "a\u2028b",
    "zero width": "a\u200bb",
    "byte order mark": "\ufeff",
    "tag characters": "\U000e0041",
    "private use": "\ue000\U0010fffd",
}
each = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
WORDS = st.text() | st.sampled_from(list(HOSTILE.values()))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=8,
)


def is_harmless(text: str) -> bool:
    return all(c.isprintable() or c == "\n" or (c.isspace() and ord(c) >= 0xA0) for c in text)


@each
def test_what_steers_a_terminal_is_shown_as_an_escape(text: str) -> None:
    assert is_harmless(printable(text))
    assert "\\" in printable(text)


def test_other_scripts_and_spaces_stay() -> None:
    text = "grüße 日本語 \u05e9\u05dc\u05d5\u05dd 🎉 a\u00a0b"

    assert printable(text) == text
    assert to_json(text) == f'"{text}"'
    assert printable("a\tb\n", keep="\n\t") == "a\tb\n"


@each
def test_json_means_the_same_and_is_harmless(text: str) -> None:
    for indent in (None, 2):
        shown = to_json({text: [text]}, indent=indent)
        assert is_harmless(shown)
        assert printable(shown, keep="\n\t") == shown
        assert json.loads(shown) == {text: [text]}


@given(VALUES)
def test_any_value_as_json_is_harmless(value: object) -> None:
    shown = to_json(value, indent=1)

    assert is_harmless(shown)
    assert json.loads(shown) == value
    assert printable_json(shown) == shown


@each
def test_yaml_means_the_same_and_is_harmless(text: str) -> None:
    shown = to_yaml({"key": [text, "grüße"]})

    assert is_harmless(shown)
    assert yaml.safe_load(shown) == {"key": [text, "grüße"]}
