import json

import pytest

from cli.suite_process import _last_words

DRAINED = json.dumps({"event": "drained", "level": "info"})
FULL = json.dumps({"event": "not_served", "level": "error", "message": "disk full"})
DEFECT = json.dumps(
    {"event": "failed", "level": "error", "exception": [{"exc_type": "KeyError", "frames": [1]}]}
)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        pytest.param(
            [DRAINED, FULL],
            "disk full",
            id="an error of ours says its message",
        ),
        pytest.param(
            [DEFECT],
            "a defect of lns (KeyError)",
            id="a defect says its kind and shows no frames",
        ),
        pytest.param(["Killed"], "Killed", id="what is not ours is shown as it is"),
        pytest.param([DRAINED], "it said nothing of why", id="a silent end"),
        pytest.param([], "it said nothing of why", id="no log"),
    ],
)
def test_the_end_of_the_services_is_told_in_one_line_without_a_stack_trace(
    lines: list[str], said: str
) -> None:
    assert _last_words(lines) == said
