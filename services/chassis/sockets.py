"""Where lns processes listen on their own machine: unix sockets that only their owner can reach.

    $LNS_HOME/run/<name>                 the rule; the suite's are lns.sock (runs)
                                         and content.sock (registries, plans, images)
    /tmp/lns-<uid>/<16 hex>-<name>       when that is longer than a socket's address can be; the
                                         digits are from the SHA-256 of the state directory's path

Clients compute the same path. `/tmp` is open to all, so whoever uses a directory there first makes
sure that it is really the user's own.
"""

import os
import stat
from pathlib import Path

from services.core.errors import SettingsInvalid

MAX_SOCKET_PATH_BYTES = 107
"""`sun_path` of Linux has 108 bytes, one of them for the end."""

SUITE_SOCKET = "lns.sock"
CONTENT_SOCKET = "content.sock"

_PRIVATE = 0o700


def socket_path(home: Path, name: str) -> Path:
    """Returns the path of the socket `name` for the state directory `home`."""
    path = home / "run" / name
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
        return path
    # Every command of the client comes through here, hardly any this far.
    import hashlib  # noqa: PLC0415

    digest = hashlib.sha256(os.fsencode(home)).hexdigest()
    return Path(f"/tmp/lns-{os.getuid()}") / f"{digest[:16]}-{name}"  # noqa: S108  # see above


def suite_socket(home: Path) -> Path:
    """Returns where the suite's process that owns the runs of `home` listens."""
    return socket_path(home, SUITE_SOCKET)


def content_socket(home: Path) -> Path:
    """Returns where the suite's process that reads foreign bytes listens: all services but one."""
    return socket_path(home, CONTENT_SOCKET)


def make_private_directory(path: Path) -> None:
    """Makes a directory that only its owner can enter, or makes sure that it is one.

    Raises:
        SettingsInvalid: it belongs to another user, or others may enter it.
        OSError: it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=_PRIVATE)
    except FileExistsError:
        check_private_directory(path)


def check_private_directory(path: Path) -> None:
    """Makes sure that a directory is the user's own and open to nobody else.

    Raises:
        SettingsInvalid: it is not.
        OSError: it does not exist.
    """
    found = path.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
        return
    raise SettingsInvalid(
        f"{path} must be a directory that only you can enter",
        hint=f"`chmod 700 {path}` if it is yours; else remove it or set another `LNS_HOME`",
        metadata={"path": str(path)},
    )
