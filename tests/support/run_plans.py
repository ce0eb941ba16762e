"""Plans as the resolver gives them to a client, for tests that need no resolver.

`tests/contract/cli/test_resolver.py` holds them to what the real one gives.
"""

from lns.types.v1 import descriptor_pb2
from lns.types.v1 import run_plan_pb2 as plan_pb

IMAGE = "r.example/images/base@sha256:" + "1a" * 32
MODEL = "r.example/models/m@sha256:" + "2b" * 32


def a_plan(**fields: object) -> plan_pb.RunPlan:
    """A plan with an image and a model; `fields` come on top."""
    return plan_pb.RunPlan(
        name="agent",
        argv=["true"],
        image=plan_pb.PinnedImage(
            reference=IMAGE,
            requested="r.example/images/base:1",
            manifest=descriptor_pb2.Descriptor(digest="sha256:" + "1a" * 32),
        ),
        mounts=[
            plan_pb.ArtifactMount(
                family="model",
                reference=MODEL,
                manifest=descriptor_pb2.Descriptor(digest="sha256:" + "2b" * 32),
                path="/etc/agent/model",
                read_only=True,
            )
        ],
        **fields,  # type: ignore[arg-type]  # the fields of the message
    )
