"""Bundles: what each component becomes in a plan."""

import json

from services.core.artifacts import families as f
from services.core.run_plan import CredentialNeed, OriginKind, PlanKind, Verdict
from services.resolver.request import PolicyFile
from tests.support.shelf import HOST, IMAGE, Shelf, origin

ROUTE = {"match": "a.example", "verdict": "allow"}
INTEGRATION = {
    "authKind": "credential",
    "routes": [{"match": "api.example"}],
    "credential": {
        "envVar": "KEY",
        "placeholder": "placeholder",
        "injections": [{"kind": "bearer_header", "domain": "api.example"}],
    },
}


async def test_a_bundle_becomes_a_plan_with_everything(shelf: Shelf) -> None:
    model = {"provider": "p", "model": "m"}
    tool = {"kind": "mcp", "mcp": {"transport": "stdio", "command": "x"}}
    reference = shelf.bundle(
        agents=[shelf.agent("hello")],
        sandbox=shelf.put(f.SANDBOX, "s", {"resources": {"cpu": 2, "memory": "2Gi"}}),
        policies=shelf.put(f.POLICY, "p", {"network": {"allowedRoutes": [ROUTE]}}),
        model=shelf.put(f.MODEL, "m", model),
        tools=[shelf.put(f.TOOL, "t", tool, layers=1), shelf.put(f.TOOL, "u", {"kind": "api"})],
        knowledge=[shelf.put(f.KNOWLEDGE, "k", {}, layers=2)],
        filesets=[shelf.fileset("fs", "/opt/data/", readOnly=False)],
        integrations=[shelf.put(f.INTEGRATION, "api", INTEGRATION)],
    )

    plan = await shelf.plan(reference)

    assert (plan.source.kind, plan.source.reference) == (PlanKind.BUNDLE, reference)
    assert (plan.name, plan.group) == ("hello", "")
    assert [(m.family, m.name, m.path, m.read_only) for m in plan.mounts] == [
        ("knowledge", "k", "/etc/agent/knowledge/k", True),
        ("model", "m", "/etc/agent/model", True),
        ("tool", "t", "/etc/agent/tools/t", True),
        ("tool", "u", "/etc/agent/tools/u", True),
        ("fileset", "fs", "/opt/data", False),
    ]
    assert all(
        m.reference == f"{HOST}/{f.BY_SLUG[m.family].path_segment}/{m.name}@{m.manifest.digest}"
        for m in plan.mounts
    )
    (integration,) = plan.integrations
    assert (integration.id, json.loads(integration.spec_json)) == ("api", INTEGRATION)
    assert [entry.role for entry in plan.closure] == [
        "bundle", "agent", "image", "sandbox", "policy", "integration", "knowledge", "model",
        "tool", "tool", "fileset",
    ]  # fmt: skip
    assert plan.closure[0].manifest.digest == plan.source.digest
    assert not plan.has_workflow


async def test_components_without_a_host_get_the_bundles(shelf: Shelf) -> None:
    other = Shelf(shelf.manifests)
    shelf.manifests.put_image("elsewhere.test/images/x:1", {"Cmd": ["elsewhere"]})
    other.put(f.AGENT, "local", {"image": "elsewhere.test/images/x:1"})
    reference = other.bundle(agent="agents/local:1")

    plan = await shelf.plan(reference)

    assert [entry.repository for entry in plan.closure] == [
        f"{HOST}/bundles/system",
        f"{HOST}/agents/local",
        "elsewhere.test/images/x",
    ]
    assert plan.closure[1].requested == "agents/local:1"


async def test_a_component_of_another_registry_keeps_its_host(shelf: Shelf) -> None:
    shelf.agent("hello")
    shelf.manifests.put_artifact(
        "other.test/models/m:1",
        f.MODEL,
        {
            "apiVersion": "lens.dev/v1alpha1",
            "kind": "Model",
            "metadata": {"name": "m"},
            "spec": {"provider": "p", "model": "m"},
        },
    )
    reference = shelf.bundle(agent="agents/hello:1", model="other.test/models/m:1")

    plan = await shelf.plan(reference)

    assert plan.mounts[0].reference.startswith("other.test/models/m@sha256:")


async def test_an_agent_without_an_image_runs_in_the_sandboxes(shelf: Shelf) -> None:
    base = shelf.manifests.put_image(f"{HOST}/images/sandbox:1", {"Cmd": ["base"]})
    pinned = f"{HOST}/images/sandbox@{base.digest}"
    reference = shelf.bundle(
        agent=shelf.put(f.AGENT, "bare", {}),
        sandbox=shelf.put(f.SANDBOX, "s", {"baseImage": pinned}),
    )

    plan = await shelf.plan(reference)

    assert plan.image is not None
    assert (plan.image.reference, plan.argv) == (pinned, ("base",))
    assert origin(plan, "image") is OriginKind.SANDBOX


async def test_an_agents_own_image_goes_before_the_sandboxes(shelf: Shelf) -> None:
    base = shelf.manifests.put_image(f"{HOST}/images/sandbox:1", {"Cmd": ["base"]})
    sandbox = shelf.put(f.SANDBOX, "s", {"baseImage": f"{HOST}/images/sandbox@{base.digest}"})

    plan = await shelf.plan(shelf.bundle(agent=shelf.agent(), sandbox=sandbox))

    assert plan.image is not None
    assert plan.image.requested == IMAGE
    assert [entry.role for entry in plan.closure] == ["bundle", "agent", "image", "sandbox"]


async def test_policies_are_merged_and_their_routes_say_where_they_are_from(shelf: Shelf) -> None:
    network = {"defaultVerdict": "deny", "allowedRoutes": [{"match": "*.x", "verdict": "allow"}]}
    strict = {"allowedRoutes": [{"match": "a.x", "verdict": "deny"}]}
    named = [{"ref": "integrations/anthropic:1"}]
    reference = shelf.bundle(
        agent=shelf.agent(),
        policies=[
            shelf.put(f.POLICY, "one", {"network": network, "integrations": named}),
            shelf.put(f.POLICY, "two", {"network": strict}),
        ],
    )

    plan = await shelf.plan(reference)

    assert plan.policy is not None
    assert plan.policy.default_verdict is Verdict.DENY
    assert [(r.match, r.verdict, r.origin.partition("@")[0]) for r in plan.policy.routes] == [
        ("a.x", Verdict.DENY, f"{HOST}/policies/two"),
        ("*.x", Verdict.ALLOW, f"{HOST}/policies/one"),
    ]
    assert plan.policy.integrations == ("anthropic",)
    assert origin(plan, "policy") is OriginKind.COMPONENT


async def test_a_policy_file_replaces_the_bundles_policies(shelf: Shelf) -> None:
    reference = shelf.bundle(agent=shelf.agent(), policies=[shelf.put(f.POLICY, "p", {})])
    file = PolicyFile(name="my.yaml", text=b"network: {defaultVerdict: allow}")

    plan = await shelf.plan(reference, policy=file)

    assert plan.policy is not None
    assert plan.policy.default_verdict is Verdict.ALLOW
    assert [entry.role for entry in plan.closure] == ["bundle", "agent", "image"]
    (noted,) = [one for one in plan.origins if one.path == "policy"]
    assert (noted.kind, noted.detail) == (OriginKind.FLAG, "--policy my.yaml")


async def test_without_policies_the_plan_has_none(shelf: Shelf) -> None:
    assert (await shelf.plan(shelf.bundle(agent=shelf.agent()))).policy is None


async def test_mount_flags_are_added_and_replace_at_the_same_path(shelf: Shelf) -> None:
    shelf.fileset("mine", "/mine")
    shelf.fileset("other", "/elsewhere")
    shelf.put(f.KNOWLEDGE, "k", {}, layers=1)
    reference = shelf.bundle(
        agent=shelf.agent(), filesets=[shelf.fileset("data", "/opt/data"), shelf.fileset("b", "/b")]
    )

    plan = await shelf.plan(
        reference,
        mounts=(
            f"{HOST}/filesets/mine:1",
            f"{HOST}/filesets/other:1:/opt/data",
            f"{HOST}/knowledge/k:1",
        ),
    )

    assert [(m.name, m.path) for m in plan.mounts] == [
        ("b", "/b"),
        ("k", "/etc/agent/knowledge/k"),
        ("mine", "/mine"),
        ("other", "/opt/data"),
    ]
    assert origin(plan, "mounts[/opt/data]") is OriginKind.FLAG
    assert origin(plan, "mounts[/b]") is OriginKind.COMPONENT
    assert "filesets/data:1" not in [entry.requested for entry in plan.closure]


async def test_mount_flags_work_for_an_image_too(shelf: Shelf) -> None:
    shelf.fileset("mine", "/mine")

    plan = await shelf.plan(IMAGE, mounts=(f"{HOST}/filesets/mine:1",))

    assert [mount.path for mount in plan.mounts] == ["/mine"]
    assert [entry.role for entry in plan.closure] == ["image", "fileset"]


async def test_credentials_without_an_entry_are_a_warning(shelf: Shelf) -> None:
    needs = [{"name": "anthropic", "env": "A"}, {"name": "github", "env": "G"}]
    shelf.agent("x", credentials=needs)

    plan = await shelf.plan(f"{HOST}/agents/x:1", usable_credentials=frozenset({"github"}))

    assert plan.credentials == (
        CredentialNeed(name="anthropic", env="A"),
        CredentialNeed(name="github", env="G"),
    )
    (warning,) = plan.warnings
    assert warning == (
        "agent credentials not set up: anthropic — the sandbox will ask at first use,"
        " or run lns connect anthropic"
    )


async def test_a_value_given_by_flag_takes_the_place_of_a_credential(shelf: Shelf) -> None:
    shelf.agent("x", credentials=[{"name": "anthropic", "env": "KEY"}])

    plan = await shelf.plan(f"{HOST}/agents/x:1", env=(("KEY", "mine"),))

    assert plan.credentials == ()
    assert dict(plan.env)["KEY"] == "mine"
    assert "KEY is set with -e" in plan.warnings[0]


async def test_a_workflow_is_carried(shelf: Shelf) -> None:
    workflow = shelf.put(f.WORKFLOW, "w", {"steps": [{"agent": "hello"}]})

    plan = await shelf.plan(shelf.bundle(agent=shelf.agent(), workflow=workflow))

    assert plan.has_workflow
    assert plan.closure[-1].role == "workflow"


async def test_a_tool_whose_integration_nobody_permits_is_a_warning(shelf: Shelf) -> None:
    required = {"kind": "api", "requiredIntegrations": [{"ref": "integrations/tracker:1"}]}
    tool = shelf.put(f.TOOL, "t", required, layers=1)
    integration = shelf.put(f.INTEGRATION, "tracker", INTEGRATION)
    policy = shelf.put(f.POLICY, "p", {"integrations": [{"ref": "integrations/tracker"}]})
    agent = shelf.agent()

    alone = await shelf.plan(shelf.bundle("a", agent=agent, tools=[tool]))
    brought = await shelf.plan(
        shelf.bundle("b", agent=agent, tools=[tool], integrations=integration)
    )
    permitted = await shelf.plan(shelf.bundle("c", agent=agent, tools=[tool], policies=policy))

    assert ["requires the integration tracker" in one for one in alone.warnings] == [True]
    assert brought.warnings == permitted.warnings == ()


async def test_several_agents_are_a_group_with_a_plan_each(shelf: Shelf) -> None:
    reference = shelf.bundle(
        "team",
        agents=[
            shelf.agent("writer", command=["write"], ports=[{"host": 80, "container": 80}]),
            shelf.agent("critic", command=["judge"], ports=[{"host": 81, "container": 80}]),
        ],
        filesets=[shelf.fileset("fs", "/fs")],
        policies=[shelf.put(f.POLICY, "p", {})],
    )

    plans = await shelf.resolve(reference, name="mine")

    assert [(p.name, p.group, p.argv) for p in plans] == [
        ("mine-writer", "team", ("write",)),
        ("mine-critic", "team", ("judge",)),
    ]
    assert plans[0].mounts == plans[1].mounts
    assert plans[0].policy == plans[1].policy
    assert [entry.requested for entry in plans[1].closure if entry.role == "agent"] == [
        "agents/critic:1"
    ]
    assert origin(plans[0], "group") is OriginKind.BUNDLE


async def test_a_shared_component_is_fetched_once(shelf: Shelf) -> None:
    one, two = shelf.agent("one"), shelf.agent("two")
    fileset = shelf.fileset("fs", "/fs")
    reference = shelf.bundle(agents=[one, two], filesets=[fileset])

    await shelf.resolve(reference, mounts=(f"{HOST}/{fileset}",))

    asked = [ask.reference for ask in shelf.manifests.asked]
    assert sorted(asked) == sorted(set(asked))
    assert asked.count(IMAGE) == asked.count(f"{HOST}/{fileset}") == 1


async def test_a_digest_beside_a_ref_is_what_runs_even_when_the_tag_moved(shelf: Shelf) -> None:
    shelf.agent("hello", command=["old"])
    old = shelf.manifests._tags[f"{HOST}/agents/hello:1"]
    shelf.agent("hello", command=["new"])
    pinned = shelf.bundle("pinned", agent={"ref": "agents/hello:1", "digest": old})
    free = shelf.bundle("free", agent="agents/hello:1")

    assert (await shelf.plan(pinned)).argv == ("old",)
    assert (await shelf.plan(free)).argv == ("new",)
