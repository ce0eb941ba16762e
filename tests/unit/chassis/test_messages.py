from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lns.types.v1 import descriptor_pb2, run_plan_pb2

from services.chassis import messages
from services.chassis.run_plan_messages import format_run_plan, parse_run_plan
from services.core import run_plan as core
from services.core.descriptor import Descriptor
from services.core.digest import Digest
from services.core.errors import DigestInvalid, RequestInvalid
from services.core.platforms import Platform

texts = st.text(st.characters(codec="utf-8"), max_size=20)
words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
maps = st.dictionaries(texts, texts, max_size=3).map(MappingProxyType)
digests = st.binary(max_size=8).map(Digest.of)
paths = st.lists(st.text("abc.-é", min_size=1, max_size=5), max_size=4).map(
    lambda parts: "/" + "/".join(part for part in parts if part != "..")
)
platforms = st.builds(Platform.of, words, words, texts)  # in the one spelling
descriptors = st.builds(
    Descriptor,
    media_type=texts,
    digest=digests,
    size=st.integers(0, messages.MAX_CONTENT_BYTES),
    artifact_type=texts,
    annotations=maps,
    platform=st.none() | platforms,
)
ports = st.builds(
    core.PortMapping,
    host_ip=words,
    host_port=st.integers(0, 65535),
    container_port=st.integers(1, 65535),
    protocol=st.just("tcp"),
)
names = st.text("ABC_é", min_size=1, max_size=8)
values = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
envs = st.dictionaries(names, values, max_size=4).map(lambda env: tuple(sorted(env.items())))
volumes = st.builds(
    core.VolumeMount,
    kind=st.just(core.VolumeKind.NAMED),
    source=words,
    target=paths,
    read_only=st.booleans(),
) | st.builds(
    core.VolumeMount,
    kind=st.just(core.VolumeKind.BIND),
    source=paths,
    target=paths,
    keep_secrets=st.booleans(),
)
policies = st.builds(
    core.Policy,
    default_verdict=st.none() | st.sampled_from(core.Verdict),
    routes=st.lists(
        st.builds(
            core.PolicyRoute,
            match=texts,
            verdict=st.sampled_from(core.Verdict),
            description=texts,
            rules=st.lists(st.builds(core.PolicyRule, method=texts, path=texts), max_size=2).map(
                tuple
            ),
            origin=texts,
        ),
        max_size=2,
    ).map(tuple),
    integrations=st.lists(texts, max_size=2).map(tuple),
)
plans = st.builds(
    core.RunPlan,
    name=texts,
    source=st.builds(
        core.PlanSource,
        kind=st.sampled_from(core.PlanKind),
        reference=texts,
        digest=st.just("") | digests,
    ),
    argv=st.lists(texts, min_size=1, max_size=3).map(tuple),
    resources=st.builds(
        core.Resources,
        vcpus=st.integers(1, 512),
        cpu_millis=st.integers(1, 512_000),
        memory_mib=st.integers(64, 1 << 20),
        disk_mib=st.integers(0, 1 << 20),
    ),
    image=st.none()
    | st.builds(
        core.PinnedImage,
        reference=texts,
        manifest=descriptors,
        platform=platforms,
        requested=texts,
    ),
    env=envs,
    user=texts,
    workdir=paths,
    ports=st.lists(ports, max_size=2).map(tuple),
    volumes=st.lists(volumes, max_size=2).map(tuple),
    mounts=st.lists(
        st.builds(
            core.ArtifactMount,
            family=texts,
            name=texts,
            reference=texts,
            manifest=descriptors,
            path=paths,
            read_only=st.booleans(),
        ),
        max_size=2,
    ).map(tuple),
    policy=st.none() | policies,
    integrations=st.lists(
        st.builds(
            core.Integration, id=texts, reference=texts, manifest=descriptors, spec_json=texts
        ),
        max_size=1,
    ).map(tuple),
    credentials=st.lists(st.builds(core.CredentialNeed, name=texts, env=texts), max_size=2).map(
        tuple
    ),
    warnings=st.lists(texts, max_size=2).map(tuple),
    origins=st.lists(
        st.builds(
            core.ValueOrigin, path=texts, kind=st.sampled_from(core.OriginKind), detail=texts
        ),
        max_size=2,
    ).map(tuple),
    labels=maps,
    group=texts,
    closure=st.lists(
        st.builds(
            core.PinnedManifest, role=texts, requested=texts, repository=texts, manifest=descriptors
        ),
        max_size=2,
    ).map(tuple),
    has_workflow=st.booleans(),
)

PLAN = core.RunPlan(
    name="x",
    source=core.PlanSource(kind=core.PlanKind.IMAGELESS),
    argv=("/bin/true",),
    resources=core.Resources(vcpus=1, cpu_millis=1000, memory_mib=256),
)


@given(descriptors)
def test_a_descriptor_survives_the_wire(descriptor: Descriptor) -> None:
    data = messages.format_descriptor(descriptor).SerializeToString()

    assert messages.parse_descriptor(descriptor_pb2.Descriptor.FromString(data)) == descriptor


@given(plans)
def test_a_run_plan_survives_the_wire(plan: core.RunPlan) -> None:
    data = format_run_plan(plan).SerializeToString()

    assert parse_run_plan(run_plan_pb2.RunPlan.FromString(data)) == plan


def test_no_field_of_the_run_plan_is_forgotten() -> None:
    """A new field of the proto has to be given to the core value, and to the test above."""
    proto = {field.name for field in run_plan_pb2.RunPlan.DESCRIPTOR.fields}

    assert proto == set(core.RunPlan.__dataclass_fields__)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("schema_version", {"schema_version": 2}),
        ("argv", {"argv": []}),
        ("workdir", {"workdir": "relative"}),
        ("workdir", {"workdir": "/a/../b"}),
        ("workdir", {"workdir": "/a\0b"}),
        ("source.kind", {"source": {"kind": "teapot"}}),
        ("resources.vcpus", {"resources": {"vcpus": 0}}),
        ("resources.vcpus", {"resources": {"vcpus": -1}}),
        ("resources.memory_mib", {"resources": {"vcpus": 1, "cpu_millis": 1, "memory_mib": 63}}),
        ("ports[0].host_port", {"ports": [{"host_port": 65536, "container_port": 1}]}),
        ("ports[0].container_port", {"ports": [{"host_port": 1}]}),
        ("ports[0].protocol", {"ports": [{"container_port": 1, "protocol": "udp"}]}),
        ("env[1]", {"env": [{"name": "A"}, {"name": "A"}]}),
        ("env[0]", {"env": [{"name": "A=B"}]}),
        ("env[0]", {"env": [{"name": "", "value": "x"}]}),
        ("env[0]", {"env": [{"name": "A", "value": "x\0y"}]}),
        ("volumes[0].kind", {"volumes": [{"target": "/x"}]}),
        ("volumes[0].source", {"volumes": [{"kind": 1, "target": "/x"}]}),
        ("volumes[0].source", {"volumes": [{"kind": 2, "source": "x", "target": "/x"}]}),
        ("volumes[0].target", {"volumes": [{"kind": 1, "source": "x", "target": "y"}]}),
        ("policy.default_verdict", {"policy": {"default_verdict": "maybe"}}),
        ("policy.routes[0].verdict", {"policy": {"default_verdict": "ask", "routes": [{}]}}),
        ("origins[0].kind", {"origins": [{"path": "x"}]}),
        ("closure[0].manifest.digest", {"closure": [{}]}),
        ("image.manifest.size_bytes", {"image": {"manifest": {"size_bytes": -1}}}),
    ],
)
def test_a_plan_that_breaks_its_proto_is_refused_by_field(
    field: str, change: dict[str, Any]
) -> None:
    message: Any = format_run_plan(PLAN)
    for name in change:
        message.ClearField(name)
    message.MergeFrom(run_plan_pb2.RunPlan(**change))

    with pytest.raises((RequestInvalid, DigestInvalid)) as caught:
        parse_run_plan(message)

    (violation,) = caught.value.violations
    assert violation.subject == f"plan.{field}"
