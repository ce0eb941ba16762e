"""OAuth's device flow (RFC 8628) and refresh (RFC 6749 section 6) at an integration's issuer."""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import urllib3

from services.chassis.blocking import Blocking
from services.core.errors import CredentialUnusable, RequestInvalid
from services.core.integrations.definitions import OAuthClient
from services.vm_runner.credentials.credential import SecretValue, check_secret
from services.vm_runner.credentials.ports import DeviceCode, Tokens

_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
_OK: Final = 200
_MAX_BYTES: Final = 256 * 1024
_MAX_TEXT: Final = 2048
_CONNECT_SECONDS: Final = 10.0
_READ_SECONDS: Final = 20.0
_INTERVAL_SECONDS: Final = 5.0
_LONGEST_SECONDS: Final = 3600.0
_SLOWER_SECONDS: Final = 5.0
_CODE: Final = re.compile(r"[a-z_]{1,40}")


class OAuthIssuer:
    """Implements `TokenIssuer`.

    Args:
        blocking: for the requests.
        pool: makes them; by default verified by the machine's own roots, without redirects.
        now: the time that tokens' ends are counted from.
    """

    def __init__(
        self,
        blocking: Blocking,
        *,
        pool: urllib3.PoolManager | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._blocking = blocking
        self._pool = pool or urllib3.PoolManager(cert_reqs="CERT_REQUIRED")
        self._now = now

    async def start(self, client: OAuthClient) -> DeviceCode:
        """See `TokenIssuer`."""
        form = {"client_id": client.client_id}
        if client.scopes:
            form["scope"] = " ".join(client.scopes)
        if client.audience:
            form["audience"] = client.audience
        url = client.device_authorization_endpoint
        status, answer = await self._blocking.run(self._post, url, form)
        if status != _OK:
            raise CredentialUnusable(
                f"{url} did not begin an authorization: {_why(status, answer)}"
            )
        uri = answer.get("verification_uri_complete") or answer.get("verification_uri")
        return DeviceCode(
            device_code=_text(answer.get("device_code"), "device_code"),
            user_code=_text(answer.get("user_code"), "user_code"),
            verification_uri=_uri(_text(uri, "verification_uri")),
            interval=_seconds(answer.get("interval"), _INTERVAL_SECONDS),
            expires_in=_seconds(answer.get("expires_in"), _LONGEST_SECONDS),
        )

    async def poll(self, client: OAuthClient, code: DeviceCode) -> Tokens | None:
        """See `TokenIssuer`."""
        form = {
            "grant_type": _GRANT,
            "device_code": code.device_code,
            "client_id": client.client_id,
        }
        status, answer = await self._blocking.run(self._post, client.token_endpoint, form)
        if status == _OK:
            return self._tokens(answer)
        error = answer.get("error")
        if error == "slow_down":
            code.interval += _SLOWER_SECONDS
        if error in ("slow_down", "authorization_pending"):
            return None
        raise CredentialUnusable(f"the authorization failed: {_why(status, answer)}")

    async def refresh(self, client: OAuthClient, refresh_token: str) -> Tokens:
        """See `TokenIssuer`."""
        form = {
            "grant_type": "refresh_token",
            "refresh_token": refresh_token,
            "client_id": client.client_id,
        }
        status, answer = await self._blocking.run(self._post, client.token_endpoint, form)
        if status != _OK:
            raise CredentialUnusable(f"its authorization was not renewed: {_why(status, answer)}")
        return self._tokens(answer)

    def _tokens(self, answer: Mapping[str, Any]) -> Tokens:
        try:
            access = check_secret(str(answer.get("access_token") or ""))
        except RequestInvalid as error:
            raise CredentialUnusable("the issuer gave no usable access token") from error
        refresh = answer.get("refresh_token")
        ends: datetime | None = None
        if "expires_in" in answer:
            ends = self._now() + timedelta(seconds=_seconds(answer["expires_in"], 0.0))
        return Tokens(
            access=SecretValue(access, ends), refresh=refresh if isinstance(refresh, str) else ""
        )

    def _post(self, url: str, form: Mapping[str, str]) -> tuple[int, Mapping[str, Any]]:
        try:
            reply = self._pool.request(
                "POST",
                url,
                fields=dict(form),
                encode_multipart=False,
                headers={"Accept": "application/json"},
                redirect=False,
                retries=False,
                preload_content=False,
                timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS),
            )
            try:
                body = reply.read(_MAX_BYTES + 1, decode_content=True)
            finally:
                reply.close()
        except urllib3.exceptions.HTTPError as error:
            raise CredentialUnusable(
                f"{url} cannot be reached: {type(error).__name__}",
                hint="check this machine's network, then try again",
            ) from error
        return reply.status, _document(body)


def _document(body: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(body) if len(body) <= _MAX_BYTES else None
    except (ValueError, RecursionError):
        document = None
    return document if isinstance(document, dict) else {}


def _why(status: int, answer: Mapping[str, Any]) -> str:
    error = answer.get("error")
    known = {
        "access_denied": "it was refused",
        "expired_token": "it took too long",
        "invalid_grant": "the issuer does not accept it any more",
    }
    # RFC 6749's codes are words; whatever else an issuer says may be the token that it was sent.
    if isinstance(error, str) and _CODE.fullmatch(error):
        return known.get(error, error)
    return f"status {status}"


def _text(text: object, name: str) -> str:
    if not isinstance(text, str) or not 0 < len(text) <= _MAX_TEXT:
        raise CredentialUnusable(f"the issuer answered without a usable {name}")
    if not text.isascii() or not text.isprintable():
        raise CredentialUnusable(f"the issuer answered with a {name} that is not plain text")
    return text


def _uri(text: str) -> str:
    if not text.startswith(("https://", "http://127.0.0.1", "http://localhost")):
        raise CredentialUnusable("the issuer names an address that is not https")
    return text


def _seconds(value: object, otherwise: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return otherwise
    return min(max(float(value), 0.0), _LONGEST_SECONDS * 24)
