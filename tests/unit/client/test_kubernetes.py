"""A run as a Job: what it requests, what it may do, and what cannot become one."""

from typing import Any

import kubernetes_validate
import pytest
from lns.types.v1 import run_plan_pb2 as pb

from lns.client.kubernetes import OVERHEAD_MIB, JobOrder, job_manifests
from services.core.errors import RequestInvalid
from tests.support.outcomes import passes


def plan(name: str = "writer", **fields: Any) -> pb.RunPlan:
    fields.setdefault("image", pb.PinnedImage(reference="r.example/images/a@sha256:00"))
    fields.setdefault("resources", pb.Resources(vcpus=2, cpu_millis=1500, memory_mib=512))
    return pb.RunPlan(name=name, **fields)


def order(*plans: pb.RunPlan, **fields: Any) -> JobOrder:
    fields.setdefault("name", "job")
    return JobOrder(namespace="agents", plans=plans or (plan(),), lock=b"version: 1\n", **fields)


def pod(*plans: pb.RunPlan, **fields: Any) -> dict[str, Any]:
    spec: dict[str, Any] = job_manifests(order(*plans, **fields))[1]["spec"]["template"]["spec"]
    return spec


def test_what_is_written_is_what_kubernetes_takes() -> None:
    for manifest in job_manifests(order(policy="network: {}\n", arguments=["-e", "A=b"])):
        with passes():
            kubernetes_validate.validate(manifest, "1.33", strict=True)


def test_the_pod_requests_the_size_of_the_machine() -> None:
    assert pod()["containers"][0]["resources"]["requests"] == {
        "cpu": "1500m",
        "memory": f"{512 + OVERHEAD_MIB}Mi",
    }


def test_a_group_requests_the_sum_for_it_runs_on_one_node() -> None:
    small = plan("reader", resources=pb.Resources(vcpus=1, memory_mib=128))

    assert pod(plan(), small)["containers"][0]["resources"]["requests"] == {
        "cpu": "2500m",
        "memory": f"{512 + 128 + 2 * OVERHEAD_MIB}Mi",
    }


def test_exactly_what_was_locked_is_run() -> None:
    config, job = job_manifests(order(arguments=["-e", "A=b", "--", "ls"]))

    assert config["data"] == {"run.lock": "version: 1\n"}
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == [
        *("run", "--rm", "--quiet", "--name", "job", "--locked", "/etc/lns-run/run.lock"),
        *("-e", "A=b", "--", "ls"),
    ]


def test_a_policy_goes_with_it() -> None:
    config, job = job_manifests(order(policy="network: {}\n"))

    assert config["data"]["policy.yaml"] == "network: {}\n"
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments[arguments.index("--policy") + 1] == "/etc/lns-run/policy.yaml"


def test_the_pod_may_do_nothing_but_connect_to_its_nodes_sockets() -> None:
    spec = pod()
    container = spec["containers"][0]

    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    folders = [one["hostPath"]["path"] for one in spec["volumes"] if "hostPath" in one]
    assert folders == ["/run/lns"]


def test_the_pod_has_time_to_stop_its_workload() -> None:
    assert pod(stop_timeout=90)["terminationGracePeriodSeconds"] > 90


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        (order(name="Job"), "'Job' cannot be the name"),
        (order(name="a" * 53), "cannot be the name"),
        (order(name="-a"), "cannot be the name"),
        (
            order(plan(volumes=[pb.VolumeMount(kind=pb.VolumeMount.KIND_BIND, source="/srv")])),
            "mounts /srv, a path of one machine",
        ),
        (
            order(plan(image=pb.PinnedImage(reference="store.lns.internal/images/a@sha256:00"))),
            "only in the store of this machine",
        ),
    ],
)
def test_what_no_cluster_can_run_is_refused(order: JobOrder, reason: str) -> None:
    with pytest.raises(RequestInvalid, match=reason):
        job_manifests(order)
