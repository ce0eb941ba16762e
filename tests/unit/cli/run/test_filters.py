import pytest
from lns.types.v1 import descriptor_pb2, run_plan_pb2
from lns.vm.v1 import run_pb2

from cli.run.filters import parse_filters
from services.core.errors import RequestInvalid

State = run_pb2.Run.State
DIGEST = "sha256:" + "ab12" * 16


def a_run(**fields: object) -> run_pb2.Run:
    plan = run_plan_pb2.RunPlan(
        image=run_plan_pb2.PinnedImage(
            reference=f"registry.test:5000/images/web@{DIGEST}",
            requested="registry.test:5000/images/web:1.2",
            manifest=descriptor_pb2.Descriptor(digest=DIGEST),
        )
    )
    given: dict[str, object] = {
        "run_id": "0123456789abcdef" * 2,
        "name": "team-web",
        "state": State.STATE_RUNNING,
        "plan": plan,
        **fields,
    }
    return run_pb2.Run(**given)  # type: ignore[arg-type]  # the fields of the message


ENDED = {"state": State.STATE_EXITED, "exit": run_pb2.ExitStatus(code=3)}
HEALTHY = {"health": run_pb2.Health(status=run_pb2.Health.STATUS_HEALTHY)}


@pytest.mark.parametrize(
    ("filters", "fields", "matches"),
    [
        ([], {}, True),
        (["name=web"], {}, True),
        (["name=/team"], {}, True),
        (["name=db"], {}, False),
        (["name=db", "name=web"], {}, True),
        (["name=web", "status=exited"], {}, False),
        (["status=running"], {}, True),
        (["status=exited", "status=running"], {}, True),
        (["status=exited"], ENDED, True),
        (["exited=3"], ENDED, True),
        (["exited=0"], ENDED, False),
        (["exited=0"], {}, False),
        (["id=0123"], {}, True),
        (["id=123"], {}, False),
        (["health=healthy"], HEALTHY, True),
        (["health=none"], HEALTHY, False),
        (["health=none"], {}, True),
        (["health=healthy"], {**HEALTHY, **ENDED}, False),  # what has ended is neither
        (["ancestor=registry.test:5000/images/web:1.2"], {}, True),
        (["ancestor=registry.test:5000/images/web"], {}, True),
        (["ancestor=web"], {}, True),
        (["ancestor=web:1.2"], {}, True),
        (["ancestor=web:1"], {}, False),
        (["ancestor=images/web"], {}, False),
        ([f"ancestor={DIGEST}"], {}, True),
        (["ancestor=ab12ab12ab12"], {}, True),
        (["ancestor=ab"], {}, False),
    ],
)
def test_filters_choose_runs_as_dockers_do(
    filters: list[str], fields: dict[str, object], matches: bool
) -> None:
    assert parse_filters(filters).matches(a_run(**fields)) is matches


def test_labels_and_groups_are_for_the_service() -> None:
    filters = parse_filters(["label=a=1", "label=b", "group=team", "status=exited"])
    assert (filters.labels, filters.group) == ({"a": "1"}, "team")
    assert filters.wants_ended


def test_a_label_without_a_value_may_have_any() -> None:
    run = a_run()
    assert not parse_filters(["label=b"]).matches(run)
    run.plan.labels["b"] = "anything"
    assert parse_filters(["label=b"]).matches(run)


@pytest.mark.parametrize(
    "text", ["name", "name=", "colour=red", "status=asleep", "health=ill", "=x", ""]
)
def test_what_is_no_filter_is_refused(text: str) -> None:
    with pytest.raises(RequestInvalid):
        parse_filters([text])


def test_a_run_is_of_one_group() -> None:
    with pytest.raises(RequestInvalid):
        parse_filters(["group=a", "group=b"])
