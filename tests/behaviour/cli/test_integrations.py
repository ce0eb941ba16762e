"""`lns integration add`: from a file, from what was pushed, from a template; and what is none."""

from pathlib import Path

import pytest
from lns.egress.v1 import credential_service_pb2 as pb
from lns.registry.v1 import registry_service_pb2 as registry_pb

from services.core.errors import NameTaken
from tests.behaviour.cli.conftest import Client
from tests.support.scripted_services import ScriptedServices

DOCUMENT = '{"kind": "Integration", "metadata": {"name": "acme"}}'
ADDED = pb.AddIntegrationResponse(integration=pb.Integration(id="acme", domains=["api.acme.test"]))


def pulled(family: str) -> list[registry_pb.PullResponse]:
    result = registry_pb.PullResult(family=family, document=DOCUMENT.encode())
    return [registry_pb.PullResponse(result=result)]


def test_what_was_pushed_is_added_as_it_is_now(services: ScriptedServices, lns: Client) -> None:
    services["Pull"] = pulled("integration")  # type: ignore[assignment] - a list of messages
    services["AddIntegration"] = ADDED

    result = lns("integration", "add", "registry.test/integrations/acme:1")

    assert (result.code, result.out) == (0, "acme\n")
    assert "its secret will be sent to api.acme.test" in result.err
    assert services.asked("Pull")[0].mode == registry_pb.PULL_MODE_ALWAYS
    assert services.asked("AddIntegration")[0].document == DOCUMENT


@pytest.mark.parametrize(("family", "says"), [("model", "is model"), ("", "is an image")])
def test_a_reference_to_something_else_adds_nothing(
    services: ScriptedServices, lns: Client, family: str, says: str
) -> None:
    services["Pull"] = pulled(family)  # type: ignore[assignment] - a list of messages

    result = lns("integration", "add", "registry.test/models/acme:1")

    assert result.code == 1
    assert f"{says}, not an integration" in result.err
    assert services.asked("AddIntegration") == []


def test_a_file_is_added_without_a_registry(
    services: ScriptedServices, lns: Client, tmp_path: Path
) -> None:
    (tmp_path / "acme.json").write_text(DOCUMENT)
    services["AddIntegration"] = ADDED

    assert lns("integration", "add", str(tmp_path / "acme.json")).code == 0
    assert services.asked("Pull") == []


def test_a_template_is_added_by_its_name_and_a_host(
    services: ScriptedServices, lns: Client
) -> None:
    services["AddIntegration"] = ADDED

    assert lns("integration", "add", "npm-publish", "--host", "npm.test").code == 0
    asked = services.asked("AddIntegration")[0]
    assert (asked.template, asked.host) == ("npm-publish", "npm.test")


def test_a_taken_id_is_reported_with_the_way_out(services: ScriptedServices, lns: Client) -> None:
    services["Pull"] = pulled("integration")  # type: ignore[assignment] - a list of messages
    services["AddIntegration"] = NameTaken("anthropic ships with lns", hint="give it another name")

    result = lns("integration", "add", "registry.test/evil/anthropic:1")

    assert result.code == 1
    assert "give it another name" in result.err
