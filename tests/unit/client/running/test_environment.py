from pathlib import Path

import pytest

from lns.client.running.environment import parse_environment
from services.core.errors import RequestInvalid


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"A=1\nB=2\n", {"A": "1", "B": "2"}),
        (b"A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        (b"\xef\xbb\xbfA=1\n", {"A": "1"}),  # an editor's byte order mark
        (b"A=1", {"A": "1"}),
        (b"A=trailing  \n", {"A": "trailing  "}),
        (b"A=tab\t\n", {"A": "tab\t"}),
        (b"A= leading\n", {"A": " leading"}),
        (b"  A=1\n\tB=2\n", {"A": "1", "B": "2"}),
        (b'A="quoted" # kept\n', {"A": '"quoted" # kept'}),
        (b"# comment\n\n   # another\nA=1\n", {"A": "1"}),
        (b"A=x\x0by\x0cz\xc2\x85\xe2\x80\xa8end\n", {"A": "x\x0by\x0cz\x85\u2028end"}),
        (b"A=a\rb\n", {"A": "a\rb"}),
        (b"A==b=c\n", {"A": "=b=c"}),
        (b"A=\n", {"A": ""}),
        (b"MINE  \nNOT_MINE\n", {"MINE": "m"}),
        (b"A=1\nA=2\n", {"A": "2"}),
        (b"", {}),
        (b"\n\r\n \n", {}),
    ],
)
def test_an_environment_file_is_read_as_docker_reads_it(
    tmp_path: Path, data: bytes, expected: dict[str, str]
) -> None:
    file = tmp_path / "env"
    file.write_bytes(data)

    variables = parse_environment([], [file], {"MINE": "m"})

    assert {one.name: one.value for one in variables} == expected


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"A=1\n\nnot a name=2\n", "line 3: 'not a name' is not the name of a variable"),
        (b"A=1\n=2\n", "line 2: '' is not the name of a variable"),
        (b"A=1\nB=\xff\n", "line 2: not UTF-8 text"),
        (b"A=a\x00b\n", "line 1: the value of A has a NUL character"),
        ("A\u00a0B=1\n".encode(), "line 1:"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_its_line(
    tmp_path: Path, data: bytes, said: str
) -> None:
    file = tmp_path / "env"
    file.write_bytes(data)

    with pytest.raises(RequestInvalid) as caught:
        parse_environment([], [file], {})

    assert f"{file}, {said}" in caught.value.message
