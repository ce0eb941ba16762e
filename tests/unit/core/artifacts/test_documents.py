"""Documents of all families: what is accepted, and how every problem is named."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.artifacts import families as f
from services.core.artifacts.bounded_validator import SchemaValidator
from services.core.artifacts.documents import (
    MAX_DOCUMENT_BYTES,
    canonical_json,
    family_of_document,
    parse_artifact,
    parse_document,
)
from services.core.artifacts.families import Family
from services.core.errors import ArtifactInvalid
from tests.support.documents import document

DIGEST = f"sha256:{'0' * 64}"
REF = {"ref": "agents/a:1"}
EVERYTHING = dict.fromkeys(
    ["agents", "sandbox", "policies", "model", "tools", "knowledge", "filesets", "integrations",
     "workflow"],
    REF,
)  # fmt: skip

INVALID_SPECS = """
agent: {comand: x} -> comand
agent: {isolation: microvm} -> isolation
agent: {resources: {}} -> resources
agent: {image: ''} -> image
agent: {image: UPPER/x} -> image
agent: {image: a b} -> image
agent: {command: ''} -> command
agent: {command: []} -> command
agent: {command: [a, 1]} -> command[1]
agent: {command: {sh: x}} -> command
agent: {user: true} -> user
agent: {user: 'a:b:c'} -> user
agent: {user: -1} -> user
agent: {workdir: relative} -> workdir
agent: {workdir: /a/../b} -> workdir
agent: {env: {A: 1, B-C: x}} -> env env.A
agent: {env: [A=1]} -> env
agent: {ports: [{host: 1}]} -> ports[0].container
agent: {ports: [{host: -1, container: 0}]} -> ports[0].container ports[0].host
agent: {ports: [{host: 65536, container: 1}]} -> ports[0].host
agent: {ports: [{host: 1, container: 1, protocol: udp}]} -> ports[0].protocol
agent: {ports: [{host: 1, container: 1}, {host: 1, container: 2}]} -> ports[1].host
agent: {volumes: [{name: ../x, target: /a}]} -> volumes[0].name
agent: {volumes: [{name: a, target: /a}, {name: b, target: /a}]} -> volumes[1].target
agent: {credentials: [{name: A, env: '1'}]} -> credentials[0].env credentials[0].name
agent: {env: {K: v}, credentials: [{name: a, env: K}]} -> credentials[0].env
bundle: {} -> components
bundle: {components: {}} -> components
bundle: {components: {agent: {ref: a}, agents: [{ref: a}]}} -> components
bundle: {components: {agent: [{ref: a}, {ref: a}]}} -> components.agent
bundle: {components: {agents: []}} -> components.agents
bundle: {components: {agents: 'agents/a:1'}} -> components.agents
bundle: {components: {agents: ['agents/a:1']}} -> components.agents[0]
bundle: {components: {agent: {digest: 'DIGEST'}}} -> components.agent.ref
bundle: {components: {agent: {ref: a, digest: 'sha256:1'}}} -> components.agent.digest
bundle: {components: {agent: {ref: a, tag: '1'}}} -> components.agent.tag
bundle: {components: {agents: [{ref: a}, {ref: A}]}} -> components.agents[1].ref
bundle: {components: {agent: {ref: a}, sandbox: [{ref: a}, {ref: a}]}} -> components.sandbox
bundle: {components: {agent: {ref: a}, tool: {ref: a}}} -> components.tool
bundle: {agents: [{ref: a}]} -> agents components
sandbox: {resources: {cpu: 0}} -> resources.cpu
sandbox: {resources: {cpu: '0'}} -> resources.cpu
sandbox: {resources: {cpu: 0m}} -> resources.cpu
sandbox: {resources: {cpu: two}} -> resources.cpu
sandbox: {resources: {cpu: 1000000000.0}} -> resources.cpu
sandbox: {resources: {memory: 63m}} -> resources.memory
sandbox: {resources: {memory: 3 g}} -> resources.memory
sandbox: {resources: {memory: [3]}} -> resources.memory
sandbox: {baseImage: 'debian:12'} -> baseImage
sandbox: {baseImage: 'UPPER@DIGEST'} -> baseImage
sandbox: {supervisorVersion: latest} -> supervisorVersion
policy: {network: {defaultVerdict: maybe}} -> network.defaultVerdict
policy: {network: {allowedRoutes: [{match: a.x}]}} -> network.allowedRoutes[0].verdict
policy: {network: {allowedRoutes: [{match: '*', verdict: allow}]}} -> network.allowedRoutes[0].match
integration: {authKind: credential, routes: [{match: a.x, rules: []}]} -> credential routes[0].rules
policy: {integrations: [anthropic]} -> integrations[0]
integration: {authKind: credential, routes: [{match: a.x}]} -> credential
integration: {authKind: oauth, routes: [{match: a.x}]} -> oauth
integration: {authKind: magic, routes: []} -> authKind credential routes
workflow: {} -> steps
workflow: {steps: []} -> steps
model: {provider: p} -> model
model: {provider: '', model: 4} -> model provider
tool: {} -> kind
tool: {kind: mcp} -> mcp
tool: {kind: mcp, mcp: {}} -> mcp.command mcp.transport
tool: {kind: mcp, mcp: {transport: stdio, url: 'http://x'}} -> mcp.command
tool: {kind: mcp, mcp: {transport: sse, command: x}} -> mcp.url
tool: {kind: mcp, mcp: {transport: http, url: 'ftp://x'}} -> mcp.url
tool: {kind: api, mcp: {transport: stdio, command: x}} -> .
knowledge: {format: 5} -> format
knowledge: [] -> .
"""


def problems(family: Family | None, value: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns subject and description of each violation of a document."""
    try:
        parse_artifact(json.dumps(value).encode(), family)
    except ArtifactInvalid as error:
        return [(one.subject, one.description) for one in error.violations]
    return []


def paths(family: Family, spec: Any, **more: Any) -> list[str]:
    return [path for path, _ in problems(family, document(family, "x", spec, **more))]


@pytest.mark.parametrize(
    ("family", "spec"),
    [
        (f.AGENT, {}),
        (f.AGENT, {"image": "localhost:5000/x/y:1", "command": "echo hi"}),
        (f.AGENT, {"command": ["echo", ""], "user": 1000, "workdir": "/w", "env": {"A_1": ""}}),
        (f.AGENT, {"user": "me:users", "ports": [{"host": 0, "container": 80, "protocol": "tcp"}]}),
        (f.AGENT, {"ports": [{"host": 0, "container": 1}, {"host": 0, "container": 2}]}),
        (f.AGENT, {"volumes": [{"name": "a.b_c", "target": "/d", "readOnly": True}]}),
        (f.AGENT, {"credentials": [{"name": "anthropic", "env": "KEY"}]}),
        (f.BUNDLE, {"components": {"agent": REF}}),
        (f.BUNDLE, {"components": {"agent": [REF]}}),
        (f.BUNDLE, {"components": {"agents": REF}}),
        (f.BUNDLE, {"components": {"agents": [REF, {"ref": "a@" + DIGEST, "digest": DIGEST}]}}),
        (f.BUNDLE, {"components": EVERYTHING}),
        (f.SANDBOX, {}),
        (f.SANDBOX, {"resources": {"cpu": 2, "memory": 3072}}),
        (f.SANDBOX, {"resources": {"cpu": "1500m", "memory": "3072Mi"}}),
        (f.SANDBOX, {"resources": {"cpu": 0.5, "memory": "3g"}}),
        (f.SANDBOX, {"resources": {"cpu": "2"}}),
        (f.SANDBOX, {"baseImage": f"debian@{DIGEST}", "isolation": "microvm"}),
        (f.SANDBOX, {"capabilities": ["network"], "supervisorVersion": "0.1.0"}),
        (f.POLICY, {}),
        (f.POLICY, {"network": {"defaultVerdict": "deny"}, "integrations": [{"ref": "i/a"}]}),
        (
            f.POLICY,
            {
                "network": {
                    "allowedRoutes": [
                        {
                            "match": "*.a.example:443",
                            "verdict": "allow",
                            "rules": [{"method": "*", "path": "/**"}],
                        }
                    ]
                }
            },
        ),
        (
            f.INTEGRATION,
            {
                "authKind": "credential",
                "routes": [{"match": "api.a.example"}],
                "credential": {
                    "envVar": "KEY",
                    "placeholder": "placeholder",
                    "injections": [
                        {"kind": "bearer_header", "domain": "*.a.example"},
                        {"kind": "api_key_header", "domain": "a.example", "header": "X-Api-Key"},
                        {"kind": "uri_placeholder", "domain": "a.example"},
                    ],
                },
            },
        ),
        (
            f.INTEGRATION,
            {
                "authKind": "oauth",
                "routes": [{"match": "a.example"}],
                "oauth": {
                    "deviceAuthorizationEndpoint": "https://a.example/device",
                    "tokenEndpoint": "https://a.example/token",
                    "clientId": "lns",
                    "scopes": ["read", "repo:write"],
                },
            },
        ),
        (f.WORKFLOW, {"steps": [{"anything": ["goes"]}]}),
        (f.MODEL, {"provider": "p", "model": "m", "parameters": {"a": {"b": [1, None]}}}),
        (f.TOOL, {"kind": "api"}),
        (f.TOOL, {"kind": "mcp", "mcp": {"transport": "stdio", "command": "x", "args": ["y"]}}),
        (f.TOOL, {"kind": "mcp", "mcp": {"transport": "http", "url": "https://a.example/mcp"}}),
        (f.TOOL, {"kind": "api", "requiredIntegrations": [{"ref": "integrations/a"}]}),
        (f.KNOWLEDGE, {}),
        (f.KNOWLEDGE, {"format": "markdown", "description": "d"}),
    ],
)  # fmt: skip
def test_a_valid_document_is_accepted(family: Family, spec: dict[str, Any]) -> None:
    artifact = parse_artifact(json.dumps(document(family, "x", spec)).encode(), family)

    assert (artifact.family, artifact.name, artifact.spec) == (family, "x", spec)


@pytest.mark.parametrize("path", ["/opt/data", "/a..b/c", "/a/"])
def test_a_file_set_is_accepted_with_its_path(path: str) -> None:
    value = document(f.FILESET, "x", {}, mount={"path": path})

    artifact = parse_artifact(json.dumps(value).encode())

    assert (artifact.mount_path, artifact.mount_read_only) == (path, True)


def test_a_mount_may_be_writable() -> None:
    value = document(
        f.MODEL, "x", {"provider": "p", "model": "m"}, mount={"path": "/m", "readOnly": False}
    )

    assert not parse_artifact(json.dumps(value).encode()).mount_read_only


@pytest.mark.parametrize("case", INVALID_SPECS.strip().splitlines())
def test_every_problem_is_named_by_its_path(case: str) -> None:
    """The table has family, spec and the paths below `$.spec` at which it is wrong."""
    slug, _, rest = case.partition(": ")
    text, _, expected = rest.rpartition(" -> ")
    spec = yaml.safe_load(text.replace("DIGEST", DIGEST))

    found = paths(f.BY_SLUG[slug], spec)

    assert [path.removeprefix("$.spec").removeprefix(".") or "." for path in found] == (
        expected.split()
    )


@pytest.mark.parametrize("family", f.FAMILIES, ids=f.SLUGS)
def test_the_envelope_is_checked_for_every_family(family: Family) -> None:
    value = {"apiVersion": "lens.dev/v2", "kind": "Other", "metadata": {"name": "A_"}, "extra": 1}

    found = dict(problems(family, value))

    assert {"$.apiVersion", "$.kind", "$.metadata.name", "$.extra", "$.spec"} <= found.keys()
    assert found["$.apiVersion"] == "must be 'lens.dev/v1alpha1', not 'lens.dev/v2'"
    assert found["$.kind"] == f"must be {family.kind!r}, not 'Other'"


@pytest.mark.parametrize("family", f.FAMILIES, ids=f.SLUGS)
def test_only_the_application_layer_is_mounted(family: Family) -> None:
    found = dict(problems(family, document(family, "x", {}, mount={"path": "/x"})))

    assert ("$.mount" in found) is not family.is_mountable


@pytest.mark.parametrize(
    "mount",
    [{}, {"path": "x"}, {"path": "/a/../b"}, {"path": "/.."}, {"path": ""}, {"path": 1},
     {"path": "/a", "readonly": True}, {"path": "/a", "readOnly": "no"}, "/a"],
)  # fmt: skip
def test_a_mount_that_cannot_be_is_refused(mount: Any) -> None:
    assert [path for path in paths(f.FILESET, {}, mount=mount) if path.startswith("$.mount")]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/", "cannot be the root"),
        ("//", "cannot be the root"),
        ("/./", "cannot be the root"),
        ("/proc", "/proc or below"),
        ("/dev/shm", "/dev or below"),
        ("//sys//fs", "/sys or below"),
        ("/./proc/self", "/proc or below"),
    ],
)
def test_a_mount_where_nothing_can_be_mounted_is_refused_with_the_reason(
    path: str, says: str
) -> None:
    fileset = document(f.FILESET, "x", {}, mount={"path": path})
    agent = document(f.AGENT, "x", {"image": "a", "volumes": [{"name": "v", "target": path}]})

    assert says in dict(problems(f.FILESET, fileset))["$.mount.path"]
    assert says in dict(problems(f.AGENT, agent))["$.spec.volumes[0].target"]


@pytest.mark.parametrize("path", ["/devices", "/system/x", "/procs", "/a/proc"])
def test_a_mount_beside_what_the_kernel_fills_is_fine(path: str) -> None:
    assert not problems(f.FILESET, document(f.FILESET, "x", {}, mount={"path": path}))


def test_a_file_set_without_a_path_is_refused() -> None:
    assert problems(f.FILESET, document(f.FILESET, "x", {})) == [("$.mount", "is required")]


@pytest.mark.parametrize(
    ("name", "valid"),
    [("a", True), ("a-1", True), ("1", True), ("a" * 63, True), ("a" * 64, False), ("", False),
     ("-a", False), ("a-", False), ("A", False), ("a.b", False), ("a_b", False), ("ä", False),
     ("a\n", False)],
)  # fmt: skip
def test_a_name_is_a_dns_label(name: str, valid: bool) -> None:
    assert (not problems(f.KNOWLEDGE, document(f.KNOWLEDGE, name, {}))) is valid


@pytest.mark.parametrize(
    ("value", "description"),
    [
        ({"comand": "x"}, "is not a field; did you mean command?"),
        (
            {"zzz": "x"},
            (
                "is not a field; the fields are command, credentials, env, image, ports, user,"
                " volumes, workdir"
            ),
        ),
        ({"command": 3}, "must be text or a list, not the number 3"),
        ({"command": None}, "must be text or a list, not null"),
        ({"env": "x"}, "must be an object, not the text 'x'"),
        ({"ports": [{"host": 99999, "container": 1}]}, "must be at most 65535, not 99999"),
        ({"workdir": "x"}, "'x' does not fit: an absolute path without `..`, `/opt/data`"),
        ({"command": ""}, "must not be empty"),
    ],
)  # fmt: skip
def test_descriptions_say_what_would_be_right(value: dict[str, Any], description: str) -> None:
    ((_, found),) = problems(f.AGENT, document(f.AGENT, "x", value))

    assert found == description


def test_the_message_counts_the_problems_and_the_hint_names_the_schema() -> None:
    with pytest.raises(ArtifactInvalid) as caught:
        parse_artifact(b'{"kind": "Agent"}')

    assert caught.value.message == (
        "document is not a valid agent: $.apiVersion is required (and 2 more)"
    )
    assert caught.value.hint == "`lns types agent` prints the schema"


@pytest.mark.parametrize(
    ("data", "path", "problem"),
    [
        (b"\xff\xfe", "$", "byte 0 is not UTF-8"),
        (b"x" * (MAX_DOCUMENT_BYTES + 1), "$", "at most 1048576"),
        (b"", "$", "not an object"),
        (b"[]", "$", "not an object"),
        (b"just text", "$", "not an object"),
        (b'{"a": 1, "a": 2}', "$", "occurs twice"),
        (b'{"a": {"b": 1, "b": 2}}', "$", "occurs twice"),
        (b'{"a": NaN}', "$", "NaN is not JSON"),
        (b'{"a": 1e999}', "$.a", "no finite number"),
        (b'{"a": "\\u0000"}', "$.a", "NUL"),
        (b'{"a\\u0000": 1}', "$", "NUL"),
        (b'{"a": "\\ud800"}', "$.a", "surrogate"),
        (b'{"\\udc00": 1}', "$", "surrogate"),
        (b'{"a": 9007199254740993}', "$.a", "2^53"),
        (b'{"a": ' + b"9" * 5000 + b"}", "$", ""),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "$", "32 levels"),
        (b'{"a":' * 100_000, "$", ""),
        (b'{"a": [' + b"1," * 60_000 + b"1]}", "$", "50000 values"),
        (b"{", "$", "Expecting property name"),
        (b'{"a": 1} x', "$", "Extra data"),
        (b"a: &a 1\nb: *a", "$", "aliases"),
    ],
)  # fmt: skip
def test_hostile_bytes_are_refused_by_name(data: bytes, path: str, problem: str) -> None:
    with pytest.raises(ArtifactInvalid) as caught:
        parse_document(data)

    (violation,) = caught.value.violations
    assert violation.subject == path
    assert problem in violation.description


@pytest.mark.parametrize(
    "text",
    [
        '{"kind": "Agent", "a": [1, "x"]}',
        "{kind: Agent, a: [1, x]}",
        "kind: Agent\na: [1, x]",
        "# comment\nkind: Agent\na:\n  - 1\n  - x\n",
        '\ufeff{"kind": "Agent", "a": [1, "x"]}',
        "  {'kind': 'Agent', 'a': [1, 'x']}",
    ],
)
def test_yaml_and_json_are_the_same_document(text: str) -> None:
    assert parse_document(text.encode()) == {"kind": "Agent", "a": [1, "x"]}


def test_the_kind_names_the_family() -> None:
    assert all(family_of_document({"kind": one.kind}) is one for one in f.FAMILIES)


@pytest.mark.parametrize("kind", ["agent", "", None, 5, ["Agent"], {}])
def test_an_unknown_kind_lists_the_ten(kind: Any) -> None:
    with pytest.raises(ArtifactInvalid) as caught:
        family_of_document({"kind": kind})

    (violation,) = caught.value.violations
    assert violation.subject == "$.kind"
    assert all(one.kind in violation.description for one in f.FAMILIES)


def test_a_config_blob_does_not_depend_on_notation_or_order() -> None:
    text = """
    kind: Knowledge
    spec: {description: é}
    metadata: {name: x}
    apiVersion: lens.dev/v1alpha1
    """
    json_text = json.dumps(document(f.KNOWLEDGE, "x", {"description": "é"}), indent=4).encode()

    blobs = {parse_artifact(data).config_blob for data in (text.encode(), json_text)}

    assert blobs == {
        '{"apiVersion":"lens.dev/v1alpha1","kind":"Knowledge","metadata":{"name":"x"},'
        '"spec":{"description":"é"}}'.encode()
    }


def test_a_schema_of_a_registry_decides_on_the_spec_but_not_on_the_envelope() -> None:
    lax = SchemaValidator({"type": "object"})
    strict = SchemaValidator({"properties": {"spec": {"required": ["owner"]}}})
    fine = json.dumps(document(f.AGENT, "x", {"owner": "me"})).encode()
    broken = json.dumps(document(f.AGENT, "X", {"owner": "me"}, mount={"path": "/"})).encode()

    assert parse_artifact(fine, f.AGENT, validator=lax).spec == {"owner": "me"}
    with pytest.raises(ArtifactInvalid) as caught:
        parse_artifact(broken, f.AGENT, validator=lax)
    assert [one.subject for one in caught.value.violations] == ["$.metadata.name", "$.mount"]
    with pytest.raises(ArtifactInvalid) as caught:
        parse_artifact(json.dumps(document(f.AGENT, "x", {})).encode(), f.AGENT, validator=strict)
    assert [one.subject for one in caught.value.violations] == ["$.spec.owner"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["ref", "image", "env", "a"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.sampled_from(f.FAMILIES), json_values, json_values)
@settings(max_examples=200, deadline=None)
def test_any_document_is_accepted_or_refused_with_its_problems(
    family: Family, spec: Any, mount: Any
) -> None:
    value = document(family, "x", spec, mount=mount)

    try:
        artifact = parse_artifact(json.dumps(value).encode(), family)
    except ArtifactInvalid as error:
        refused = error.violations
    else:
        refused = ()
        assert parse_document(artifact.config_blob) == artifact.document
    assert bool(refused) is bool(problems(family, value))


@given(st.binary(max_size=200))
def test_any_bytes_are_accepted_or_refused(data: bytes) -> None:
    try:
        value = parse_document(data)
    except ArtifactInvalid:
        return
    assert parse_document(canonical_json(value)) == value
