"""Run plans whose JSON must never drift: the golden vectors of `tests/data/plans`.

python -m tests.support.plan_vectors      writes them anew, after a deliberate change
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from google.protobuf import json_format
from lns.resolver.v1 import resolver_service_pb2 as pb

from services.chassis.run_plan_messages import format_run_plan
from services.core.artifacts import families as f
from services.core.platforms import Platform
from services.core.run_plan import RunPlan
from services.resolver.request import Defaults, Overrides, PolicyFile
from tests.fakes.manifest_source import AMD64
from tests.support.shelf import HOST, Shelf

DIRECTORY = Path(__file__).resolve().parents[1] / "data" / "plans"

_INTEGRATION = {
    "authKind": "credential",
    "routes": [{"match": "api.tracker.example:443"}],
    "credential": {
        "envVar": "TRACKER_TOKEN",
        "placeholder": "lns-placeholder-tracker",
        "injections": [{"kind": "bearer_header", "domain": "api.tracker.example"}],
    },
}
_AGENT = {
    "command": ["python3", "-m", "hello"],
    "user": "1000:1000",
    "workdir": "/work",
    "env": {"LOG_LEVEL": "info"},
    "ports": [{"host": 8080, "container": 80}],
    "volumes": [{"name": "hello-data", "target": "/data"}],
    "credentials": [{"name": "tracker", "env": "TRACKER_TOKEN"}],
}
_POLICIES = {
    "base": {
        "network": {
            "defaultVerdict": "deny",
            "allowedRoutes": [
                {
                    "match": "api.tracker.example",
                    "verdict": "allow",
                    "description": "the tracker",
                    "rules": [{"method": "GET", "path": "/v1/**"}],
                },
                {"match": "*.example", "verdict": "ask"},
            ],
        },
        "integrations": [{"ref": "integrations/tracker:1"}],
    },
    "team": {"network": {"allowedRoutes": [{"match": "evil.example", "verdict": "deny"}]}},
}


async def image(shelf: Shelf) -> tuple[RunPlan, ...]:
    """An image of several platforms, with the defaults of everything."""
    reference = f"{HOST}/images/multi:1"
    both = (AMD64, Platform(architecture="arm64"))
    config = {"Entrypoint": ["/bin/entry"], "Cmd": ["serve"], "Env": ["PATH=/bin"], "User": "app"}
    shelf.manifests.put_image(reference, config, platforms=both)
    return await shelf.resolve(reference)


async def agent(shelf: Shelf) -> tuple[RunPlan, ...]:
    """An agent that says everything an agent can say."""
    return await shelf.resolve(f"{HOST}/{shelf.agent('hello', **_AGENT)}")


async def bundle(shelf: Shelf) -> tuple[RunPlan, ...]:
    """A bundle with a component of every family but the workflow."""
    tool = {"kind": "mcp", "mcp": {"transport": "stdio", "command": "search"}}
    sandbox = {"resources": {"cpu": "1500m", "memory": "3Gi"}, "capabilities": ["network"]}
    reference = shelf.bundle(
        agents=[shelf.agent("hello", **_AGENT)],
        sandbox=shelf.put(f.SANDBOX, "small", sandbox),
        policies=[shelf.put(f.POLICY, name, spec) for name, spec in _POLICIES.items()],
        model=shelf.put(f.MODEL, "claude", {"provider": "anthropic", "model": "claude"}),
        tools=[shelf.put(f.TOOL, "search", tool, layers=1)],
        knowledge=[shelf.put(f.KNOWLEDGE, "handbook", {"format": "markdown"}, layers=1)],
        filesets=[shelf.fileset("config", "/opt/config", readOnly=False)],
        integrations=[shelf.put(f.INTEGRATION, "tracker", _INTEGRATION)],
    )
    return await shelf.resolve(reference, Defaults(disk="8g"))


async def flags(shelf: Shelf) -> tuple[RunPlan, ...]:
    """The same agent with every flag given."""
    shelf.fileset("mine", "/mine")
    return await shelf.resolve(
        f"{HOST}/{shelf.agent('hello', **_AGENT)}",
        Defaults(cpus="8", memory="8g"),
        argv=("python3", "-c", "print(1)"),
        env=(("LOG_LEVEL", "debug"), ("EXTRA", "")),
        user="root",
        workdir="/tmp",
        cpus="2",
        memory="512m",
        disk="1g",
        ports=("0.0.0.0:9090:90",),
        volumes=("/srv/data:/data:ro",),
        mounts=(f"{HOST}/filesets/mine:1:/opt/mine",),
        policy=PolicyFile(name="my.yaml", text=b"network: {defaultVerdict: allow}"),
        name="mine",
        labels={"team": "research"},
        usable_credentials=frozenset({"tracker"}),
    )


async def group(shelf: Shelf) -> tuple[RunPlan, ...]:
    """A bundle of two agents that carries a workflow."""
    reference = shelf.bundle(
        "team",
        agents=[shelf.agent("writer", command="write"), shelf.agent("critic", command="judge")],
        workflow=shelf.put(f.WORKFLOW, "review", {"steps": [{"agent": "writer"}]}),
    )
    return await shelf.resolve(reference)


async def imageless(shelf: Shelf) -> tuple[RunPlan, ...]:
    """A run without an image."""
    return await shelf.resolver().resolve_imageless(overrides=Overrides(argv=("uname", "-a")))


VECTORS: Mapping[str, Callable[[Shelf], Awaitable[tuple[RunPlan, ...]]]] = {
    made.__name__: made for made in (image, agent, bundle, flags, group, imageless)
}


def to_json(plans: tuple[RunPlan, ...]) -> str:
    """Returns plans as the canonical JSON of the answer, with the names of the proto."""
    response = pb.ResolveResponse(plans=[format_run_plan(plan) for plan in plans])
    return json_format.MessageToJson(response, preserving_proto_field_name=True) + "\n"


async def write() -> None:
    """Writes every vector."""
    for name, made in VECTORS.items():
        (DIRECTORY / f"{name}.json").write_text(to_json(await made(Shelf())))


if __name__ == "__main__":
    asyncio.run(write())
