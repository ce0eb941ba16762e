import pytest

from cli.render.template import render_template
from services.core.errors import RequestInvalid

ROW = {
    "id": "4f1c",
    "created_at": "2025-01-31",
    "ports": ["80", "443"],
    "labels": {"team": "a"},
    "running": True,
    "exit_code": None,
}


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        ("{{.ID}}", "4f1c"),
        ("{{ .id }}", "4f1c"),
        ("{{.CreatedAt}}\\t{{.created_at}}", "2025-01-31\t2025-01-31"),
        ("{{.Ports}}", "80, 443"),
        ("{{.Labels.team}}", "a"),
        ("{{.Labels}}", "team=a"),
        ("{{json .Ports}}", '["80", "443"]'),
        ("{{upper .ID}}/{{lower .ID}}", "4F1C/4f1c"),
        ("{{.Running}}:{{.ExitCode}}", "true:"),
        ("no action", "no action"),
        ("", ""),
    ],
)
def test_a_template_shows_fields_of_a_row(template: str, shown: str) -> None:
    assert render_template(template, ROW) == shown


def test_the_whole_row_as_json() -> None:
    assert render_template("{{json .}}", {"a": 1}) == '{"a": 1}'


@pytest.mark.parametrize(
    "template",
    ["{{.Nope}}", "{{.ID.deeper}}", "{{range .Ports}}", "{{shout .ID}}", "{{.ID", "{{}}", "{{ID}}"],
)
def test_what_a_template_cannot_say_is_refused_with_a_way_out(template: str) -> None:
    with pytest.raises(RequestInvalid) as refusal:
        render_template(template, ROW)

    assert refusal.value.hint
