"""An artifact alone publishes no port that others would take for the host's own."""

import pytest

from services.core.descriptor import OCI_MANIFEST, Descriptor
from services.core.digest import Digest
from services.core.errors import RequestInvalid
from services.core.run_plan import (
    OriginKind,
    PinnedManifest,
    PlanKind,
    PlanSource,
    PortMapping,
    Resources,
    RunPlan,
    ValueOrigin,
)
from services.vm_runner.network.consent import check_ports
from tests.support.outcomes import passes


def plan(port: int, kind: OriginKind | None, *, registry: str = "localhost:5055") -> RunPlan:
    manifest = Descriptor(media_type=OCI_MANIFEST, digest=Digest.of(b"x"), size=1)
    origins = () if kind is None else (ValueOrigin(path="ports", kind=kind, detail="agent a"),)
    return RunPlan(
        name="a",
        source=PlanSource(kind=PlanKind.AGENT),
        argv=("true",),
        resources=Resources(cpu_millis=1000, vcpus=1, memory_mib=256),
        ports=(PortMapping(host_ip="127.0.0.1", host_port=port, container_port=80),),
        origins=origins,
        closure=(
            PinnedManifest(
                role="agent",
                requested="",
                repository=f"{registry}/agents/a",
                manifest=manifest,
            ),
        ),
    )


@pytest.mark.parametrize(
    ("port", "registry"),
    [
        (1, "r.example"),
        (80, "r.example"),
        (631, "r.example"),
        (1023, "r.example"),
        (5000, "r.example"),
        (5055, "localhost:5055"),
        (5055, "127.0.0.1:5055"),
        (5055, "127.9.9.9:5055"),
        (5055, "[::1]:5055"),
    ],
)
def test_a_port_that_an_artifact_wishes_needs_consent(port: int, registry: str) -> None:
    with pytest.raises(RequestInvalid, match=f"port {port} ") as refused:
        check_ports(plan(port, OriginKind.AGENT, registry=registry))

    assert f"-p {port}:80" in refused.value.hint
    check_ports(plan(port, OriginKind.FLAG, registry=registry))


@pytest.mark.parametrize("port", [0, 1024, 8080, 65535])
def test_any_other_port_is_published_as_the_artifact_wishes(port: int) -> None:
    with passes():
        check_ports(plan(port, OriginKind.AGENT))
        check_ports(plan(port, OriginKind.AGENT, registry=f"r.example:{port}"))


@pytest.mark.parametrize(
    ("registry", "port"),
    [
        ("localhost:5610", 5610),
        ("192.168.1.5:5610", 5610),  # may be this machine, as may any name
        ("registry.local:8443", 8443),
        ("[::1]:5055", 5055),
    ],
)
def test_no_port_of_a_registry_that_the_settings_believe_without_tls(
    registry: str, port: int
) -> None:
    wish = plan(port, OriginKind.AGENT, registry="r.example")
    with pytest.raises(RequestInvalid, match="believed there without TLS"):
        check_ports(wish, plain_registries=["other:1234", registry])

    check_ports(wish)
    check_ports(plan(port, OriginKind.FLAG, registry="r.example"), plain_registries=[registry])
