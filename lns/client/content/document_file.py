"""Files of artifacts, and what else stands where one is expected."""

from pathlib import Path

from services.core.errors import RequestInvalid

_MAX_BYTES = 1024 * 1024
_SUFFIXES = (".yaml", ".yml", ".json")


def read_document(name: str) -> bytes:
    """Returns the bytes of an artifact's file.

    Raises:
        RequestInvalid: there is no such file, it is empty, or larger than a document can be.
        OSError: it cannot be read.
    """
    try:
        with open(name, "rb") as file:  # noqa: PTH123 - a Path takes an empty name for `.`
            document = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise RequestInvalid(
            f"the file {name!r} does not exist",
            hint="check the path; `lns init FAMILY` writes a file to start from",
        ) from None
    except IsADirectoryError:
        raise RequestInvalid(
            f"{name} is a directory",
            hint="name the artifact's file; a directory of content is packed with `lns push"
            " FILE REF --content DIR`",
        ) from None
    if not document.strip():
        raise RequestInvalid(
            f"{name} is empty", hint="`lns init FAMILY` writes a file to start from"
        )
    if len(document) > _MAX_BYTES:
        raise RequestInvalid(
            f"{name} is larger than 1 MiB, which no artifact's document is",
            hint="content goes into --content, an image is named by oci-archive: or its like",
        )
    return document


def is_path(text: str) -> bool:
    """Says whether a text means a file or directory of this machine, be it there or not.

    What could also be the name of an image means a file only where there is one.
    """
    path = Path(text)
    looks_like_one = text.startswith(("/", "./", "../", "~")) or text.endswith(("/", *_SUFFIXES))
    return not text or looks_like_one or (path.exists() and not path.is_dir())
