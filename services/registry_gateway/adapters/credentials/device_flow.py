"""The device flow of OAuth 2.0 (RFC 8628) at the issuer that a registry names.

docs/registry-login.md says how a registry advertises it, and why the issuer can only be the origin
of its token realm.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlencode

from services.chassis.blocking import Blocking
from services.core.errors import (
    LnsError,
    RegistryProtocol,
    RegistryUnauthenticated,
    RegistryUnavailable,
    Unimplemented,
)
from services.registry_gateway.adapters.credentials.authenticator import CLIENT_ID
from services.registry_gateway.adapters.credentials.challenge import parse_challenges
from services.registry_gateway.adapters.transport.http_client import HttpClient
from services.registry_gateway.adapters.transport.http_reply import Reply
from services.registry_gateway.adapters.transport.origin import Locator, Origin, check_target
from services.registry_gateway.login_ports import Credential, DeviceCode
from services.registry_gateway.progress import Stop

_DISCOVERY: Final = "/.well-known/openid-configuration"
_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
_SCOPE: Final = "openid offline_access"
_FORM: Final = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
_OK: Final = 200
_UNAUTHORIZED: Final = 401
_INTERVAL_SECONDS: Final = 5.0
_LONGEST_SECONDS: Final = 3600.0
_MAX_TEXT: Final = 2048


class DeviceFlow:
    """Starts and polls device logins; implements `DeviceIssuer`."""

    def __init__(
        self,
        http: HttpClient,
        locator: Locator,
        blocking: Blocking,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._locator = locator
        self._blocking = blocking
        self._clock = clock

    async def start(self, host: str) -> DeviceCode:
        """See `DeviceIssuer`."""
        stop = Stop()
        with self._http.secrets.masking():
            return await self._blocking.run_cancellable(stop, self._start, host, stop)

    async def poll(self, code: DeviceCode) -> Credential | None:
        """See `DeviceIssuer`."""
        stop = Stop()
        with self._http.secrets.masking():
            return await self._blocking.run_cancellable(stop, self._poll, code, stop)

    def _start(self, host: str, stop: Stop) -> DeviceCode:
        realm, service = self._realm(host, stop)
        issuer = Origin.of_url(check_target(self._locator.origin(host), realm))
        endpoints = self._discover(host, issuer, stop)
        form = {"client_id": CLIENT_ID, "scope": _SCOPE} | ({"service": service} if service else {})
        home = self._locator.origin(host)
        with self._post(home, endpoints["device_authorization_endpoint"], form, stop) as reply:
            if reply.status_code != _OK:
                raise RegistryUnavailable(f"{issuer} did not start a login: {reply.status_code}")
            answer = reply.document()
        verification_uri = _text(answer, "verification_uri", issuer)
        Origin.of_url(verification_uri)
        life = _seconds(answer.get("expires_in"), _LONGEST_SECONDS)
        return DeviceCode(
            registry=host,
            device_code=_text(answer, "device_code", issuer),
            user_code=_text(answer, "user_code", issuer),
            verification_uri=verification_uri,
            token_endpoint=endpoints["token_endpoint"],
            interval=_seconds(answer.get("interval"), _INTERVAL_SECONDS),
            expires_in=life,
            expires=self._clock() + life,
        )

    def _poll(self, code: DeviceCode, stop: Stop) -> Credential | None:
        form = {"grant_type": _GRANT, "device_code": code.device_code, "client_id": CLIENT_ID}
        issuer = Origin.of_url(code.token_endpoint)
        home = self._locator.origin(code.registry)
        with self._post(home, code.token_endpoint, form, stop) as reply:
            status, answer = reply.status_code, reply.document()
        if status == _OK:
            return Credential(username="", secret=_text(answer, "refresh_token", issuer))
        error = answer.get("error")
        if error == "authorization_pending":
            return None
        if error == "slow_down":
            code.slow_down()
            return None
        what = {"access_denied": "was refused", "expired_token": "took too long"}.get(str(error))
        raise RegistryUnauthenticated(
            f"the login at {code.registry} {what or 'failed at the issuer'}",
            hint=f"try again: lns login {code.registry}",
            metadata={"registry": code.registry},
        )

    def _realm(self, host: str, stop: Stop) -> tuple[str, str]:
        url = f"{self._locator.origin(host)}/v2/"
        with self._http.send("GET", url, headers={}, stop=stop) as reply:
            if reply.status_code == _UNAUTHORIZED:
                for challenge in parse_challenges(reply.header_values("WWW-Authenticate")):
                    if challenge.scheme == "bearer" and challenge.get("realm"):
                        return challenge.get("realm"), challenge.get("service")
        raise _not_advertised(host)

    def _discover(self, host: str, issuer: Origin, stop: Stop) -> Mapping[str, str]:
        headers = {"Accept": "application/json"}
        home = self._locator.origin(host)
        with self._http.send(
            "GET", f"{issuer}{_DISCOVERY}", headers=headers, stop=stop, sender=home
        ) as reply:
            if reply.status_code != _OK:
                raise _not_advertised(host)
            try:
                document = reply.document()
            except LnsError as error:
                raise _not_advertised(host) from error
        found = {}
        for name in ("issuer", "device_authorization_endpoint", "token_endpoint"):
            try:
                found[name] = _text(document, name, issuer)
                if Origin.of_url(found[name]) != issuer:
                    raise _not_advertised(host)
            except RegistryProtocol as error:
                raise _not_advertised(host) from error
        if found["issuer"].rstrip("/") != str(issuer):
            raise _not_advertised(host)
        return found

    def _post(self, home: Origin, url: str, form: Mapping[str, str], stop: Stop) -> Reply:
        body = urlencode(form).encode("ascii")
        return self._http.send("POST", url, headers=_FORM, body=body, stop=stop, sender=home)


def _not_advertised(host: str) -> Unimplemented:
    return Unimplemented(
        f"{host} advertises no device login",
        hint=f"log in with a password: lns login -u USER --password-stdin {host}",
        metadata={"registry": host},
    )


def _text(answer: Mapping[str, Any], name: str, issuer: Origin) -> str:
    """Returns a member that a person or a later request sees: one short harmless line."""
    text = answer.get(name)
    if not isinstance(text, str) or not 0 < len(text) <= _MAX_TEXT:
        raise RegistryProtocol(f"{issuer} answered without a usable {name}")
    if not text.isascii() or not text.isprintable():
        raise RegistryProtocol(f"{issuer} answered with a {name} that is not plain text")
    return text


def _seconds(value: object, otherwise: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        return otherwise
    return min(float(value), _LONGEST_SECONDS)
