"""Logging in and out: verified before it is stored, never shown again."""

import re
from collections.abc import Sequence
from typing import Final

from services.chassis.blocking import Blocking
from services.core.errors import LnsError, RequestInvalid
from services.core.reference import DEFAULT_REGISTRY, Reference
from services.registry_gateway.login_ports import Credential, LoginCheck, LoginStore, StoredLogin

MAX_SECRET_CHARACTERS: Final = 64 * 1024
_HUB: Final = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_SCHEME: Final = re.compile(r"https?://")


class Logins:
    """The logins that lns keeps."""

    def __init__(self, store: LoginStore, check: LoginCheck, blocking: Blocking) -> None:
        self._store = store
        self._check = check
        self._blocking = blocking

    async def login(self, registry: str, credential: Credential) -> StoredLogin:
        """Verifies a credential against a registry and stores it; returns it without its secret.

        Raises:
            RegistryUnauthenticated: the registry refuses it; nothing is stored.
            RequestInvalid: the host or the credential cannot be one.
        """
        host = registry_host(registry)
        _check_credential(credential)
        await self._check.verify(host, credential)
        stored = await self._blocking.run(self._store.put, host, credential)
        self._check.forget(host)
        return stored

    async def logout(self, registry: str) -> bool:
        """Forgets a login; says whether there was one."""
        host = registry_host(registry)
        removed = await self._blocking.run(self._store.remove, host)
        self._check.forget(host)
        return removed

    async def list_logins(self) -> Sequence[StoredLogin]:
        """Returns the logins without their secrets, sorted by host."""
        return await self._blocking.run(self._store.list_logins)


def registry_host(text: str) -> str:
    """Returns the host of a registry that a person wrote: with a scheme or not.

    Raises:
        RequestInvalid: it is no host.
    """
    host = _SCHEME.sub("", text, count=1).rstrip("/")
    if host in _HUB:
        return DEFAULT_REGISTRY
    try:
        parsed = Reference.parse("name", default_registry=host)
    except LnsError:
        parsed = None
    if parsed is None or "/" in host or not host:
        raise RequestInvalid(
            f"{text[:200]!r} is not a registry host", hint="write host or host:port"
        )
    return host


def _check_credential(credential: Credential) -> None:
    if ":" in credential.username or not credential.username.isprintable():
        raise RequestInvalid("a user name has no colon and no control characters")
    if not 0 < len(credential.secret) <= MAX_SECRET_CHARACTERS:
        raise RequestInvalid("the password is empty or longer than 64 KiB")
    if any(character in credential.secret for character in "\r\n\0"):
        raise RequestInvalid("the password holds a line break")
