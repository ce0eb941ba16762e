"""What services answer where a reference is pulled, as tests of the command line script it."""

from lns.registry.v1 import registry_service_pb2 as pb
from lns.types.v1 import descriptor_pb2

from tests.support.scripted_services import ScriptedServices

DIGEST = "sha256:" + "1f" * 32
OTHER = "sha256:" + "2e" * 32
MANIFEST = descriptor_pb2.Descriptor(digest=DIGEST, media_type="m", size_bytes=2)


def pulled(services: ScriptedServices, family: str = "", document: bytes = b"") -> None:
    """Scripts that a reference is pulled: an artifact of a family, or an image."""
    services["Pull"] = [
        pb.PullResponse(
            result=pb.PullResult(
                reference="r/x:1",
                root=MANIFEST,
                descriptor=MANIFEST,
                family=family,
                document=document,
            )
        )
    ]
