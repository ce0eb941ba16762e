import json

import pytest

from cli.render.output import columns, write_document, write_rows

TABLE = columns(id="ID", name="NAME")
ROWS = [{"id": "1", "name": "first"}, {"id": "22", "name": "second\x1b[2J"}]


def rendered(form: str | None, quiet_field: str | None = None) -> list[str]:
    lines: list[str] = []
    write_rows(ROWS, TABLE, form=form, write=lines.append, quiet_field=quiet_field)
    return lines


@pytest.mark.parametrize("form", [None, "table", ""])
def test_a_table_has_headings_and_aligned_columns(form: str | None) -> None:
    assert rendered(form) == ["ID   NAME", "1    first", "22   second\\x1b[2J"]


def test_an_empty_table_still_has_headings() -> None:
    lines: list[str] = []
    write_rows([], TABLE, form=None, write=lines.append)

    assert lines == ["ID   NAME"]


def test_json_is_an_object_a_line() -> None:
    assert [json.loads(line) for line in rendered("json")] == ROWS


def test_a_template_makes_a_line_of_each_row() -> None:
    assert rendered("{{.Name}}\\t{{.ID}}") == ["first\t1", "second\\x1b[2J\t22"]


def test_a_template_can_have_a_table() -> None:
    assert rendered("table {{.Name}}\\t{{.ID}}") == [
        "NAME            ID",
        "first           1",
        "second\\x1b[2J   22",
    ]


def test_quiet_prints_one_field_whatever_the_form() -> None:
    assert rendered("json", quiet_field="id") == ["1", "22"]


def test_a_document_is_indented_json_or_a_template() -> None:
    lines: list[str] = []
    write_document({"a": {"b": 1}}, form=None, write=lines.append)
    write_document({"a": {"b": 1}}, form="{{.A.B}}", write=lines.append)

    assert json.loads(lines[0]) == {"a": {"b": 1}}
    assert "\n" in lines[0]
    assert lines[1] == "1"
