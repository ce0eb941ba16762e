"""A run as a Job of Kubernetes: the cluster schedules, counts, restarts and ends it.

The Job's container is the small client, which runs the plan on its node through the sockets of the
node's services; the microVM belongs to the node's runner. What is requested for the pod is the size
of the machine, so that the scheduler counts it. docs/deploy.md has the picture.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lns.types.v1 import run_plan_pb2

from services.core.errors import RequestInvalid
from services.core.reference import STORE_HOST
from services.core.version import VERSION

CLIENT_IMAGE = f"lns/cli:{VERSION}"
OVERHEAD_MIB = 96
"""Memory that a machine needs beside its guest's: its VMM, and the client of the pod."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?")
_USER = 10001
_FOLDER = "/etc/lns-run"
_SOCKETS = "/run/lns"
_TLS = "/etc/lns-tls"
_GRACE_SECONDS = 20
_DEFAULT_STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOrder:
    """What becomes a Job.

    Attributes:
        name: of the Job, and of the run.
        namespace: of the Job.
        plans: what is run; several are a group, which one client runs on one node.
        lock: the lock file of it.
        arguments: of `lns run` beside the lock.
        policy: text of the policy file; empty where none is given.
        image: of the client.
        stop_timeout: seconds between the stop signal and KILL.
    """

    name: str
    namespace: str
    plans: Sequence[run_plan_pb2.RunPlan]
    lock: bytes
    arguments: Sequence[str] = ()
    policy: str = ""
    image: str = CLIENT_IMAGE
    stop_timeout: float = _DEFAULT_STOP_SECONDS


def job_manifests(order: JobOrder) -> list[dict[str, Any]]:
    """Returns the ConfigMap and the Job of an order, as they are written.

    Raises:
        RequestInvalid: the name cannot be one, or the plan needs what only one machine has.
    """
    _check(order)
    labels = {
        "app.kubernetes.io/name": order.name,
        "app.kubernetes.io/managed-by": "lns",
        "lns.dev/run": "true",
    }
    data = {"run.lock": order.lock.decode()}
    if order.policy:
        data["policy.yaml"] = order.policy
    metadata = {"name": order.name, "namespace": order.namespace, "labels": labels}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data},
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": metadata,
            "spec": {
                "backoffLimit": 0,
                "ttlSecondsAfterFinished": 86400,
                "template": {"metadata": {"labels": labels}, "spec": _pod(order)},
            },
        },
    ]


def _check(order: JobOrder) -> None:
    if _NAME.fullmatch(order.name) is None:
        raise RequestInvalid(
            f"{order.name!r} cannot be the name of a Job",
            hint="give one of at most 52 small letters, digits and hyphens with --name",
        )
    for plan in order.plans:
        if plan.image.reference.startswith(f"{STORE_HOST}/"):
            raise RequestInvalid(
                f"the image of {plan.name} is only in the store of this machine",
                hint="push it to a registry that the cluster reaches, and render that reference",
            )
        binds = [one for one in plan.volumes if one.kind == run_plan_pb2.VolumeMount.KIND_BIND]
        if binds:
            raise RequestInvalid(
                f"{plan.name} mounts {binds[0].source}, a path of one machine",
                hint="a run of a cluster has artifacts (--mount) and named volumes of its node",
            )


def _pod(order: JobOrder) -> dict[str, Any]:
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "nodeSelector": {"lns.dev/node": "true"},
        # SIGTERM reaches the client, which stops the workload and waits for its end.
        "terminationGracePeriodSeconds": round(order.stop_timeout) + _GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,  # the owner of the sockets
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_client(order)],
        "volumes": [
            {"name": "sockets", "hostPath": {"path": _SOCKETS, "type": "Directory"}},
            {"name": "tls", "secret": {"secretName": "lns-run-tls", "defaultMode": 0o440}},
            {"name": "run", "configMap": {"name": order.name}},
            {"name": "scratch", "emptyDir": {}},
        ],
    }


def _client(order: JobOrder) -> dict[str, Any]:
    policy = ["--policy", f"{_FOLDER}/policy.yaml"] if order.policy else []
    size = _size(order.plans)
    return {
        "name": "run",
        "image": order.image,
        "args": [
            *("run", "--rm", "--quiet", "--name", order.name),
            *("--locked", f"{_FOLDER}/run.lock"),
            *policy,
            *order.arguments,
        ],
        "workingDir": "/tmp",  # noqa: S108 - the pod's own, an emptyDir
        "env": [{"name": name, "value": value} for name, value in _environment().items()],
        "resources": {"requests": size, "limits": {"memory": size["memory"]}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "sockets", "mountPath": _SOCKETS},
            {"name": "tls", "mountPath": _TLS, "readOnly": True},
            {"name": "run", "mountPath": _FOLDER, "readOnly": True},
            {"name": "scratch", "mountPath": "/tmp"},  # noqa: S108 - the same
        ],
    }


def _environment() -> dict[str, str]:
    node = ("registry_gateway", "materializer", "vm_runner")
    endpoints = {f"LNS_ENDPOINT_{one.upper()}": f"unix:{_SOCKETS}/{one}.sock" for one in node}
    return {
        "HOME": "/tmp",  # noqa: S108 - the pod's own
        "LNS_DESK": "off",
        **endpoints,
        "LNS_ENDPOINT_RESOLVER": "dns:///lns-resolver.lns.svc:7443",
        "LNS_TLS_AUTHORITY": f"{_TLS}/ca.crt",
        "LNS_TLS_CERTIFICATE": f"{_TLS}/tls.crt",
        "LNS_TLS_KEY": f"{_TLS}/tls.key",
    }


def _size(plans: Sequence[run_plan_pb2.RunPlan]) -> dict[str, str]:
    """What the machines of a plan take of their node."""
    cpu = sum(plan.resources.cpu_millis or plan.resources.vcpus * 1000 for plan in plans)
    memory = sum(plan.resources.memory_mib + OVERHEAD_MIB for plan in plans)
    return {"cpu": f"{cpu}m", "memory": f"{memory}Mi"}
