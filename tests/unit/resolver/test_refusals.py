"""Everything that a plan is refused for: each problem with its component and the way out."""

from collections.abc import Callable
from typing import Any

import pytest

from services.core.artifacts import families as f
from services.core.artifacts.families import Family
from services.core.errors import (
    ArtifactTypeUnsupported,
    BlobUnknown,
    ContentCorrupt,
    LnsError,
    ManifestUnknown,
    PlanInvalid,
    PlatformUnsupported,
    RegistryDenied,
    RegistryProtocol,
    RegistryUnauthenticated,
    RegistryUnavailable,
    RequestInvalid,
    ServiceUnavailable,
    TooManyRequests,
)
from services.core.platforms import Platform
from services.core.reference import Reference
from services.resolver.request import Overrides, PolicyFile
from tests.support.shelf import HOST, IMAGE, Shelf

ZERO = f"sha256:{'0' * 64}"
Problem = tuple[str, str, str]

FAMILY, INVALID, PLATFORM = "ARTIFACT_TYPE_UNSUPPORTED", "ARTIFACT_INVALID", "PLATFORM_UNSUPPORTED"
UNKNOWN, DIGEST, MOUNT, FLAG = (
    "MANIFEST_UNKNOWN",
    "DIGEST_MISMATCH",
    "MOUNT_CONFLICT",
    "FLAG_INVALID",
)


async def problems(shelf: Shelf, reference: str, **flags: Any) -> list[Problem]:
    """Returns component, type and description of each problem."""
    with pytest.raises(PlanInvalid) as caught:
        await shelf.resolve(reference, **flags)
    assert caught.value.violations
    return [(one.subject, one.type, one.description) for one in caught.value.violations]


async def problem(shelf: Shelf, reference: str, **flags: Any) -> Problem:
    """Returns the only problem."""
    (only,) = await problems(shelf, reference, **flags)
    return only


SPECS: dict[str, dict[str, Any]] = {
    "agent": {"image": IMAGE},
    "bundle": {"components": {"agent": {"ref": "agents/a:1"}}},
    "sandbox": {},
    "policy": {},
    "integration": {
        "authKind": "oauth",
        "routes": [{"match": "a.example"}],
        "oauth": {
            "deviceAuthorizationEndpoint": "https://a.example/d",
            "tokenEndpoint": "https://a.example/t",
            "clientId": "c",
        },
    },
    "workflow": {"steps": [{}]},
    "model": {"provider": "p", "model": "m"},
    "tool": {"kind": "api"},
    "knowledge": {},
    "fileset": {},
}
PLACES = {
    "agents": f.AGENT, "sandbox": f.SANDBOX, "policies": f.POLICY, "model": f.MODEL,
    "tools": f.TOOL, "knowledge": f.KNOWLEDGE, "filesets": f.FILESET,
    "integrations": f.INTEGRATION, "workflow": f.WORKFLOW,
}  # fmt: skip


def put_valid(shelf: Shelf, family: Family, name: str = "x") -> str:
    """Puts a valid artifact of a family; returns its reference without the host."""
    mount = {"mount": {"path": "/x"}} if family is f.FILESET else {}
    return shelf.put(family, name, SPECS[family.slug], **mount)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("family", f.FAMILIES, ids=f.SLUGS)
async def test_every_family_is_refused_where_another_is_expected(
    shelf: Shelf, place: str, family: Family
) -> None:
    expected = PLACES[place]
    wrong = put_valid(shelf, family)
    components = {"agents": shelf.agent("right"), place: wrong}

    if family is expected:
        await shelf.resolve(shelf.bundle(**components))
        return
    subject, kind, description = await problem(shelf, shelf.bundle(**components))

    assert subject == f"{place} {wrong}"
    assert kind == "ARTIFACT_TYPE_UNSUPPORTED"
    assert family.slug in description
    assert f"{expected.slug} is expected" in description


@pytest.mark.parametrize("place", PLACES)
async def test_an_image_is_refused_as_a_component(shelf: Shelf, place: str) -> None:
    reference = shelf.bundle(**{"agents": shelf.agent(), place: IMAGE})

    subject, kind, description = await problem(shelf, reference)

    assert (subject, kind) == (f"{place} {IMAGE}", "ARTIFACT_TYPE_UNSUPPORTED")
    assert description.startswith("is an image, where")


@pytest.mark.parametrize(
    "family",
    [one for one in f.FAMILIES if one not in (f.AGENT, f.BUNDLE)],
    ids=lambda one: one.slug,
)
async def test_a_family_that_cannot_be_run_is_refused_by_name(shelf: Shelf, family: Family) -> None:
    reference = f"{HOST}/{put_valid(shelf, family)}"

    with pytest.raises(ArtifactTypeUnsupported) as caught:
        await shelf.resolve(reference)

    assert family.slug in caught.value.message
    assert caught.value.hint == "run an agent, a bundle or an image"


async def test_an_artifact_of_strangers_is_refused(shelf: Shelf) -> None:
    chart = Reference.parse(f"{HOST}/charts/x:1")
    shelf.manifests.put_manifest(chart, b"{}", "application/vnd.cncf.helm.config.v1+json")

    with pytest.raises(ArtifactTypeUnsupported, match="helm"):
        await shelf.resolve(str(chart))


async def test_an_unknown_family_of_lens_is_refused(shelf: Shelf) -> None:
    dream = Reference.parse(f"{HOST}/dreams/x:1")
    shelf.manifests.put_manifest(dream, b"{}", "application/vnd.lens.dream.config.v1+json")

    with pytest.raises(ArtifactTypeUnsupported, match="dream"):
        await shelf.resolve(str(dream))


async def test_a_reference_that_names_nothing_is_unknown(shelf: Shelf) -> None:
    with pytest.raises(ManifestUnknown):
        await shelf.resolve(f"{HOST}/agents/nope:1")


Arrange = Callable[[Shelf], str]


def nested(shelf: Shelf) -> str:
    inner = shelf.bundle("inner", agent=shelf.agent())
    return shelf.bundle(agent=inner)


def cyclic(shelf: Shelf) -> str:
    return shelf.bundle("system", agent="bundles/system:1")


def wrong_digest(shelf: Shelf) -> str:
    return shelf.bundle(agent={"ref": shelf.agent(), "digest": ZERO})


def contradicting_digests(shelf: Shelf) -> str:
    shelf.agent()
    other = f"sha256:{'1' * 64}"
    return shelf.bundle(agent={"ref": f"agents/hello@{other}", "digest": ZERO})


def wrong_digest_in_ref(shelf: Shelf) -> str:
    shelf.agent()
    return shelf.bundle(agent=f"agents/hello@{ZERO}")


def no_image(shelf: Shelf) -> str:
    return shelf.bundle(agent=shelf.put(f.AGENT, "bare", {}))


def no_command(shelf: Shelf) -> str:
    shelf.manifests.put_image(f"{HOST}/images/empty:1", {})
    return shelf.bundle(agent=shelf.agent(image=f"{HOST}/images/empty:1"))


def missing_image(shelf: Shelf) -> str:
    return shelf.bundle(agent=shelf.agent(image=f"{HOST}/images/nope:1"))


def agent_as_image(shelf: Shelf) -> str:
    shelf.agent("other")
    return shelf.bundle(agent=shelf.agent(image=f"{HOST}/agents/other:1"))


def foreign_platform(shelf: Shelf) -> str:
    arm = (Platform(architecture="arm64"), Platform(architecture="s390x"))
    shelf.manifests.put_image(f"{HOST}/images/arm:1", platforms=arm)
    return shelf.bundle(agent=shelf.agent(image=f"{HOST}/images/arm:1"))


def variant_that_no_guest_executes(shelf: Shelf) -> str:
    newer = (Platform(architecture="amd64", variant="v4"),)
    shelf.manifests.put_image(f"{HOST}/images/new:1", platforms=newer)
    return shelf.bundle(agent=shelf.agent(image=f"{HOST}/images/new:1"))


def foreign_manifest(shelf: Shelf) -> str:
    arm = (Platform(architecture="arm64"),)
    shelf.manifests.put_image(f"{HOST}/images/arm:1", platforms=arm)
    return shelf.bundle(agent=shelf.agent(image=f"{HOST}/images/arm:1"))


def foreign_base_image(shelf: Shelf) -> str:
    base = shelf.manifests.put_image(
        f"{HOST}/images/arm:1", platforms=(Platform(architecture="arm64"),)
    )
    sandbox = shelf.put(f.SANDBOX, "s", {"baseImage": f"{HOST}/images/arm@{base.digest}"})
    return shelf.bundle(agent=shelf.put(f.AGENT, "bare", {}), sandbox=sandbox)


def damaged_image_config(shelf: Shelf) -> str:
    shelf.manifests.put_image(f"{HOST}/images/bad:1", {"Cmd": {"not": "a list"}})
    return shelf.bundle(agent=shelf.agent(image=f"{HOST}/images/bad:1"))


def same_path(shelf: Shelf) -> str:
    files = [shelf.fileset("one", "/opt/data"), shelf.fileset("two", "/opt//data/")]
    return shelf.bundle(agent=shelf.agent(), filesets=files)


def inside_a_file(shelf: Shelf) -> str:
    model = put_valid(shelf, f.MODEL)
    inner = shelf.fileset("inner", "/etc/agent/model/more")
    return shelf.bundle(agent=shelf.agent(), model=model, filesets=[inner])


def inside_a_mount(shelf: Shelf) -> str:
    files = [shelf.fileset("outer", "/opt"), shelf.fileset("inner", "/opt/data")]
    return shelf.bundle(agent=shelf.agent(), filesets=files)


def volume_over_a_mount(shelf: Shelf) -> str:
    agent = shelf.agent(volumes=[{"name": "v", "target": "/opt"}])
    return shelf.bundle(agent=agent, filesets=[shelf.fileset("fs", "/opt/data")])


def volume_at_the_root(shelf: Shelf) -> str:
    return shelf.bundle(agent=shelf.agent(volumes=[{"name": "v", "target": "//"}]))


def mount_at_the_root(shelf: Shelf) -> str:
    return shelf.bundle(agent=shelf.agent(), filesets=[shelf.fileset("fs", "/")])


def volume_of_the_kernels(shelf: Shelf) -> str:
    return shelf.bundle(agent=shelf.agent(volumes=[{"name": "v", "target": "/proc/x"}]))


def mount_of_the_kernels(shelf: Shelf) -> str:
    return shelf.bundle(agent=shelf.agent(), filesets=[shelf.fileset("fs", "//sys/./fs")])


def listed_twice(shelf: Shelf) -> str:
    files = shelf.fileset("fs", "/opt/data")
    return shelf.bundle(agent=shelf.agent(), filesets=[files, files])


def fileset_without_a_path(shelf: Shelf) -> str:
    return shelf.bundle(agent=shelf.agent(), filesets=[shelf.put(f.FILESET, "fs", {})])


def relative_path(shelf: Shelf) -> str:
    return shelf.bundle(agent=shelf.agent(), filesets=[shelf.fileset("fs", "opt/data")])


def dots_in_a_path(shelf: Shelf) -> str:
    return shelf.bundle(agent=shelf.agent(), filesets=[shelf.fileset("fs", "/opt/../etc")])


def bad_quantity(shelf: Shelf) -> str:
    sandbox = shelf.put(f.SANDBOX, "s", {"resources": {"memory": "lots"}})
    return shelf.bundle(agent=shelf.agent(), sandbox=sandbox)


def zero_cpus(shelf: Shelf) -> str:
    sandbox = shelf.put(f.SANDBOX, "s", {"resources": {"cpu": "0"}})
    return shelf.bundle(agent=shelf.agent(), sandbox=sandbox)


def little_memory(shelf: Shelf) -> str:
    sandbox = shelf.put(f.SANDBOX, "s", {"resources": {"memory": "1m"}})
    return shelf.bundle(agent=shelf.agent(), sandbox=sandbox)


def unknown_field(shelf: Shelf) -> str:
    return shelf.bundle(agent=shelf.agent(comand="x"))


def unsupported_api_version(shelf: Shelf) -> str:
    return shelf.bundle(agent=shelf.put(f.AGENT, "x", {}, apiVersion="lens.dev/v9"))


def kind_of_another_family(shelf: Shelf) -> str:
    return shelf.bundle(agent=shelf.put(f.AGENT, "x", {"image": IMAGE}, kind="Policy"))


def unknown_capability(shelf: Shelf) -> str:
    sandbox = shelf.put(f.SANDBOX, "s", {"capabilities": ["network", "gpu", "teleport"]})
    return shelf.bundle(agent=shelf.agent(), sandbox=sandbox)


def unknown_isolation(shelf: Shelf) -> str:
    sandbox = shelf.put(f.SANDBOX, "s", {"isolation": "container"})
    return shelf.bundle(agent=shelf.agent(), sandbox=sandbox)


def newer_supervisor(shelf: Shelf) -> str:
    sandbox = shelf.put(f.SANDBOX, "s", {"supervisorVersion": "0.1.1"})
    return shelf.bundle(agent=shelf.agent(), sandbox=sandbox)


def same_agent_name(shelf: Shelf) -> str:
    metadata = {"name": "twin"}
    spec = {"image": IMAGE}
    one = shelf.put(f.AGENT, "one", spec, metadata=metadata)
    two = shelf.put(f.AGENT, "two", spec, metadata=metadata)
    return shelf.bundle(agents=[one, two])


def same_integration_name(shelf: Shelf) -> str:
    spec, metadata = SPECS["integration"], {"name": "twin"}
    both = [shelf.put(f.INTEGRATION, name, spec, metadata=metadata) for name in ("one", "two")]
    return shelf.bundle(agent=shelf.agent(), integrations=both)


def same_port_in_a_group(shelf: Shelf) -> str:
    ports = [{"host": 80, "container": 80}]
    return shelf.bundle(agents=[shelf.agent("one", ports=ports), shelf.agent("two", ports=ports)])


def integration_of_another_digest(shelf: Shelf) -> str:
    entry = {"ref": "integrations/x:1", "digest": ZERO}
    policy = shelf.put(f.POLICY, "p", {"integrations": [entry]})
    brought = put_valid(shelf, f.INTEGRATION)
    return shelf.bundle(agent=shelf.agent(), policies=policy, integrations=brought)


def integration_nobody_brings(shelf: Shelf) -> str:
    entry = {"ref": "integrations/x:1", "digest": ZERO}
    policy = shelf.put(f.POLICY, "p", {"integrations": [entry]})
    return shelf.bundle(agent=shelf.agent(), policies=policy)


def not_an_agent_document(shelf: Shelf) -> str:
    reference = Reference.parse(f"{HOST}/agents/x:1")
    shelf.manifests.put_manifest(reference, b"\xff", f.AGENT.config_media_type)
    return shelf.bundle(agent="agents/x:1")


@pytest.mark.parametrize(
    ("arrange", "subject", "kind", "says"),
    [
        (nested, "agent registry.test/bundles/inner:1", FAMILY, "do not nest"),
        (cyclic, "agent bundles/system:1", "DEPENDENCY_CYCLE", "name an agent"),
        (wrong_digest, "agent agents/hello:1", DIGEST, "correct the digest"),
        (contradicting_digests, "agent agents/hello@", DIGEST, "two manifests"),
        (wrong_digest_in_ref, "agent agents/hello@", UNKNOWN, "there is no"),
        (no_image, "agent agents/bare:1", "NO_IMAGE", "baseImage"),
        (no_command, "agent agents/hello:1", "NO_COMMAND", "after --"),
        (missing_image, "image registry.test/images/nope:1 of", UNKNOWN, "no"),
        (agent_as_image, "image registry.test/agents/other:1 of", FAMILY, "an agent"),
        (foreign_platform, "image registry.test/images/arm:1 of", PLATFORM, "linux/s390x"),
        (
            variant_that_no_guest_executes,
            "image registry.test/images/new:1 of",
            PLATFORM,
            "amd64/v4, not for linux/amd64; the CPU of the guest executes",
        ),
        (foreign_manifest, "image registry.test/images/arm:1 of", PLATFORM, "for linux/arm64"),
        (foreign_base_image, "baseImage registry.test/images/arm@", PLATFORM, "for linux/arm64"),
        (damaged_image_config, "image registry.test/images/bad:1 of", "REGISTRY_PROTOCOL", "`Cmd`"),
        (same_path, "filesets[1] filesets/two:1", MOUNT, "another mount.path"),
        (inside_a_file, "filesets[0] filesets/inner:1", MOUNT, "inside /etc/agent/model"),
        (inside_a_mount, "filesets[1] filesets/inner:1", MOUNT, "inside /opt"),
        (volume_over_a_mount, "volume v:/opt", MOUNT, "filesets/fs:1"),
        (volume_at_the_root, "agent agents/hello:1", INVALID, "root"),
        (mount_at_the_root, "filesets[0] filesets/fs:1", INVALID, "root"),
        (volume_of_the_kernels, "agent agents/hello:1", INVALID, "/proc or below"),
        (mount_of_the_kernels, "filesets[0] filesets/fs:1", INVALID, "/sys or below"),
        (listed_twice, "filesets[1] filesets/fs:1", "DUPLICATE", "as filesets[0] too"),
        (fileset_without_a_path, "filesets[0] filesets/fs:1", INVALID, "$.mount is required"),
        (relative_path, "filesets[0] filesets/fs:1", INVALID, "$.mount.path"),
        (dots_in_a_path, "filesets[0] filesets/fs:1", INVALID, "$.mount.path"),
        (bad_quantity, "sandbox sandboxes/s:1", INVALID, "$.spec.resources.memory"),
        (zero_cpus, "sandbox sandboxes/s:1", INVALID, "$.spec.resources.cpu"),
        (little_memory, "sandbox sandboxes/s:1", INVALID, "64 MiB"),
        (unknown_field, "agent agents/hello:1", INVALID, "did you mean command?"),
        (unsupported_api_version, "agent agents/x:1", INVALID, "lens.dev/v1alpha1"),
        (kind_of_another_family, "agent agents/x:1", INVALID, "$.kind must be 'Agent'"),
        (unknown_capability, "sandbox sandboxes/s:1", "UNSUPPORTED", "gpu, teleport"),
        (unknown_isolation, "sandbox sandboxes/s:1", "UNSUPPORTED", "'microvm'"),
        (newer_supervisor, "sandbox sandboxes/s:1", "UNSUPPORTED", "update lns"),
        (same_agent_name, "agents[1] agents/two:1", "DUPLICATE", "'twin'"),
        (same_integration_name, "integrations[1] integrations/two:1", "DUPLICATE", "'twin'"),
        (same_port_in_a_group, "agent two", "PORT_CONFLICT", "0 picks a free port"),
        (integration_of_another_digest, "policies policies/p:1", DIGEST, "brings sha256"),
        (integration_nobody_brings, "policies policies/p:1", DIGEST, "none"),
        (not_an_agent_document, "agent agents/x:1", INVALID, "UTF-8"),
    ],
)  # fmt: skip
async def test_a_problem_names_its_component_and_the_way_out(
    shelf: Shelf, arrange: Arrange, subject: str, kind: str, says: str
) -> None:
    found_subject, found_kind, description = await problem(shelf, arrange(shelf))

    assert found_subject.startswith(subject)
    assert found_kind == kind
    assert says in description


@pytest.mark.parametrize(
    ("flags", "subject", "kind", "says"),
    [
        ({"cpus": "0"}, "--cpus", FLAG, "above zero"),
        ({"cpus": "many"}, "--cpus", FLAG, "1500m"),
        ({"memory": "1m"}, "--memory", FLAG, "64 MiB"),
        ({"disk": "0"}, "--disk", FLAG, "at least 1 MiB"),
        ({"ports": ("x",)}, "-p x", FLAG, "HOST:CONTAINER"),
        ({"ports": ("1:1/udp",)}, "-p 1:1/udp", FLAG, "only tcp"),
        ({"ports": ("9:1", "9:2")}, "-p", "PORT_CONFLICT", "twice"),
        ({"volumes": ("x",)}, "-v x", FLAG, "NAME:/path"),
        ({"volumes": ("a:/v", "b:/v")}, "volume b:/v", MOUNT, "twice"),
        ({"volumes": ("a:/opt/data/x",)}, "volume a:/opt/data/x", MOUNT, "filesets/fs:1"),
        ({"volumes": ("a:/dev/shm",)}, "-v a:/dev/shm", FLAG, "/dev or below"),
        ({"mounts": ("x:/proc/1",)}, "--mount x:/proc/1", FLAG, "/proc or below"),
        ({"mounts": ("x:/..",)}, "--mount x:/..", FLAG, "`..`"),
        ({"mounts": (f"{HOST}/nope:1",)}, f"--mount {HOST}/nope:1", UNKNOWN, "no"),
        ({"mounts": ("BAD",)}, "--mount BAD", "REFERENCE_INVALID", "lower-case"),
        ({"mounts": (IMAGE,)}, f"--mount {IMAGE}", FAMILY, "an image"),
        ({"mounts": (f"{HOST}/agents/hello:1",)}, "--mount", FAMILY, "an agent"),
        ({"mounts": (f"{HOST}/filesets/fs:1:/opt/data/in",)}, "--mount", MOUNT, "inside"),
        ({"workdir": "here"}, "-w", FLAG, "not absolute"),
        ({"user": "a:b:c"}, "-u", FLAG, "user[:group]"),
        ({"env": (("A=B", "x"),)}, "-e", FLAG, "no name"),
        ({"env": (("A", "x\0"),)}, "-e", FLAG, "NUL"),
        ({"argv": ("a", "b\0c")}, "command", FLAG, "NUL"),
        ({"argv": ("x" * 200_000,)}, "command", FLAG, "131072 bytes"),
        ({"name": "no name"}, "--name", FLAG, "letters"),
        ({"policy": PolicyFile(name="p", text=b"nope: 1")}, "--policy p", INVALID, "$.nope"),
        ({"policy": PolicyFile(name="p", text=b"\xff")}, "--policy p", INVALID, "UTF-8"),
    ],
)  # fmt: skip
async def test_a_flag_that_cannot_be_used_is_a_problem(
    shelf: Shelf, flags: dict[str, Any], subject: str, kind: str, says: str
) -> None:
    reference = shelf.bundle(agent=shelf.agent(), filesets=[shelf.fileset("fs", "/opt/data")])

    found_subject, found_kind, description = await problem(shelf, reference, **flags)

    assert found_subject.startswith(subject)
    assert found_kind == kind
    assert says in description


async def test_one_command_cannot_stand_for_several_agents(shelf: Shelf) -> None:
    reference = shelf.bundle(agents=[shelf.agent("one"), shelf.agent("two")])

    subject, kind, description = await problem(shelf, reference, argv=("x",))

    assert (subject, kind) == ("command line", "FLAG_INVALID")
    assert "2 agents" in description


@pytest.mark.parametrize(
    "error",
    [
        RegistryUnauthenticated("log in", hint="lns login registry.test"),
        RegistryDenied("not for you"),
        RegistryProtocol("no manifest"),
        ContentCorrupt("damaged"),
        BlobUnknown("config is missing"),
        PlatformUnsupported("other"),
    ],
    ids=lambda error: error.reason,
)
async def test_what_a_registry_says_of_a_component_is_its_problem(
    shelf: Shelf, error: LnsError
) -> None:
    reference = shelf.bundle(agent=shelf.agent(), model="models/m:1")
    shelf.manifests.failures[f"{HOST}/models/m"] = error

    subject, kind, description = await problem(shelf, reference)

    assert (subject, kind) == ("model models/m:1", error.reason)
    assert error.message in description
    assert error.hint in description


async def test_all_problems_are_in_one_answer(shelf: Shelf) -> None:
    shelf.manifests.failures[f"{HOST}/tools/locked"] = RegistryUnauthenticated("log in")
    reference = shelf.bundle(
        agents=["agents/nope:1", shelf.agent("wrong", comand="x", workdir="rel")],
        sandbox=shelf.put(f.SANDBOX, "s", {"resources": {"cpu": 0}}),
        policies=[shelf.put(f.MODEL, "p", SPECS["model"])],
        model={"ref": put_valid(shelf, f.MODEL, "m"), "digest": ZERO},
        tools=["tools/locked:1"],
        filesets=[shelf.fileset("a", "/x"), shelf.fileset("b", "/x")],
    )

    found = await problems(shelf, reference, ports=("no",), mounts=("x:/..",))

    assert [(subject.partition(" ")[0], kind) for subject, kind, _ in found] == [
        ("agents[0]", "MANIFEST_UNKNOWN"),
        ("agents[1]", "ARTIFACT_INVALID"),
        ("agents[1]", "ARTIFACT_INVALID"),
        ("sandbox", "ARTIFACT_INVALID"),
        ("policies[0]", "ARTIFACT_TYPE_UNSUPPORTED"),
        ("model", "DIGEST_MISMATCH"),
        ("tools[0]", "REGISTRY_UNAUTHENTICATED"),
        ("--mount", "FLAG_INVALID"),
        ("filesets[1]", "MOUNT_CONFLICT"),
        ("-p", "FLAG_INVALID"),
    ]


async def test_the_message_names_the_first_problem_and_counts_the_rest(shelf: Shelf) -> None:
    reference = shelf.bundle(agent="agents/nope:1", model="models/nope:1")

    with pytest.raises(PlanInvalid) as caught:
        await shelf.resolve(reference)

    assert caught.value.message == (
        f"agent agents/nope:1: there is no {HOST}/agents/nope:1 (and 1 more)"
    )


async def test_what_only_the_command_line_has_wrong_is_corrected_there(shelf: Shelf) -> None:
    reference = f"{HOST}/{shelf.agent()}"

    with pytest.raises(PlanInvalid) as of_flags:
        await shelf.resolve(reference, cpus="x", memory="y")
    with pytest.raises(PlanInvalid) as of_both:
        await shelf.resolve(f"{HOST}/{shelf.agent(comand='x')}", cpus="x")

    assert of_flags.value.hint == "correct the command line"
    assert of_both.value.hint == ""


async def test_a_broken_agent_document_is_a_plan_with_problems(shelf: Shelf) -> None:
    reference = f"{HOST}/{shelf.agent(comand='x')}"

    found = await problems(shelf, reference, cpus="0")

    assert [(subject, kind) for subject, kind, _ in found] == [
        (f"agent {reference}", "ARTIFACT_INVALID"),
        ("--cpus", "FLAG_INVALID"),
    ]


@pytest.mark.parametrize(
    "error",
    [RegistryUnavailable("down", retry_after=7.0), TooManyRequests("slow down", retry_after=7.0)],
    ids=lambda error: error.reason,
)
async def test_a_registry_that_is_only_unavailable_makes_the_answer_one_to_try_again(
    shelf: Shelf, error: LnsError
) -> None:
    reference = shelf.bundle(agent=shelf.agent(), model="models/m:1", tools=["tools/t:1"])
    shelf.manifests.failures |= {f"{HOST}/models/m": error, f"{HOST}/tools/t": error}

    with pytest.raises(type(error)) as caught:
        await shelf.resolve(reference)

    assert [one.subject for one in caught.value.violations] == [
        "model models/m:1",
        "tools[0] tools/t:1",
    ]
    assert caught.value.retry_after == 7.0


async def test_a_lasting_problem_outweighs_an_unavailable_registry(shelf: Shelf) -> None:
    reference = shelf.bundle(agent="agents/nope:1", model="models/m:1")
    shelf.manifests.failures[f"{HOST}/models/m"] = RegistryUnavailable("down")

    found = await problems(shelf, reference)

    assert [kind for _, kind, _ in found] == ["MANIFEST_UNKNOWN", "REGISTRY_UNAVAILABLE"]


async def test_a_gateway_that_is_gone_ends_everything(shelf: Shelf) -> None:
    reference = shelf.bundle(agent="agents/nope:1", model="models/m:1")
    shelf.manifests.failures[f"{HOST}/models/m"] = ServiceUnavailable("gone", retry_after=1.0)

    with pytest.raises(ServiceUnavailable):
        await shelf.resolve(reference)


async def test_an_imageless_run_without_a_command_is_refused(shelf: Shelf) -> None:
    with pytest.raises(RequestInvalid, match="needs a command"):
        await shelf.resolver().resolve_imageless(overrides=Overrides())


async def test_a_sandbox_that_is_broken_is_not_reported_as_a_missing_image(shelf: Shelf) -> None:
    reference = shelf.bundle(agent=shelf.put(f.AGENT, "bare", {}), sandbox="sandboxes/nope:1")

    subject, kind, _ = await problem(shelf, reference)

    assert (subject, kind) == ("sandbox sandboxes/nope:1", "MANIFEST_UNKNOWN")


@pytest.mark.parametrize("demanded", ["0.1", "0.1.0", "v0.0.9", "0"])
async def test_a_supervisor_that_is_new_enough_runs_it(shelf: Shelf, demanded: str) -> None:
    spec = {"supervisorVersion": demanded, "isolation": "microvm", "capabilities": ["network"]}
    sandbox = shelf.put(f.SANDBOX, "s", spec)

    assert await shelf.resolve(shelf.bundle(agent=shelf.agent(), sandbox=sandbox))
