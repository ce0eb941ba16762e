"""Files of this machine where a reference to something that can be run belongs.

What reads them is imported only where there is one: it costs more than the rest of the client.
"""

from pathlib import Path

from lns.resolver.v1 import resolver_service_pb2 as resolver_pb

from lns.client.connection.session import Session
from services.core.errors import RequestInvalid

_SUFFIXES = (".yaml", ".yml", ".json")
_PATHS = ("./", "../", "/", "~")


def is_local(reference: str | None) -> bool:
    """Says whether what is to be run is a path; no reference begins like one."""
    return reference is not None and reference.startswith(_PATHS)


def refuse_file(reference: str) -> None:
    """Says how to run a file that was named where a reference belongs.

    Raises:
        RequestInvalid: the text names a file, or looks like nothing else.
    """
    path = Path(reference)
    if not reference.lower().endswith(_SUFFIXES) and not (path.is_file() and "/" not in reference):
        return
    raise RequestInvalid(
        f"{reference} is a file, and not a reference",
        hint=f"`lns run ./{reference}` runs it without a registry;"
        f" `lns push {reference} REF` publishes it under a reference that can be run",
    )


async def place(request: resolver_pb.ResolveRequest, session: Session) -> None:
    """Puts the file that a request names, if it names one, into the store.

    Raises:
        LnsError: as `local_artifacts.place_file`.
    """
    if is_local(request.reference):
        from lns.client.content.local_artifacts import place_file  # noqa: PLC0415 - see the module

        await place_file(request, session.registry)
