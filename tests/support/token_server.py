"""A token service for tests, as the distribution token specification describes it.

It answers `GET /token` (Basic credentials, `service`, `scope`…) and `POST /token` (grants
`password` and `refresh_token`) with JWTs signed with ES256 by a certificate that a registry trusts
through `REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE`. It grants every scope to whoever authenticates.
"""

import base64
import contextlib
import functools
import json
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import trustme
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature


@dataclass(slots=True, kw_only=True)
class TokenServer:
    """A running token service; a test may change `lifetime` and read `requests`."""

    realm: str
    ca_pem: bytes
    username: str
    password: str
    service: str = "lns-test-registry"
    issuer: str = "lns-test-issuer"
    lifetime: float = 300.0
    """Seconds that a token issued from now on is good for; the registry allows 60 s more."""
    requests: list[dict[str, list[str]]] = field(default_factory=list)
    """The parameters of every request for a token, in order."""
    refresh_tokens: set[str] = field(default_factory=set)


@contextlib.contextmanager
def run_token_server(*, username: str, password: str) -> Iterator[TokenServer]:
    """Serve tokens on a random loopback port until the block ends."""
    authority = trustme.CA()
    signer = _Signer(authority.issue_cert("token.lns.test"))
    server = TokenServer(
        realm="", ca_pem=authority.cert_pem.bytes(), username=username, password=password
    )
    handler = functools.partial(_Handler, server, signer)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http_server:
        http_server.daemon_threads = True
        server.realm = f"http://127.0.0.1:{http_server.server_port}/token"
        thread = threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            http_server.shutdown()
            thread.join()


class _Signer:
    """Makes JWTs that carry the certificate chain of their key (`x5c`)."""

    def __init__(self, certificate: trustme.LeafCert) -> None:
        key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key
        lines = certificate.cert_chain_pems[0].bytes().decode().splitlines()
        self._header = {"typ": "JWT", "alg": "ES256", "x5c": ["".join(lines[1:-1])]}

    def sign(self, claims: dict[str, object]) -> str:
        signed = f"{_base64url(_json(self._header))}.{_base64url(_json(claims))}"
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, tokens: TokenServer, signer: _Signer, *arguments: Any) -> None:
        self._tokens = tokens
        self._signer = signer
        super().__init__(*arguments)  # handles the request before it returns

    def do_GET(self) -> None:
        self._answer(parse_qs(urlsplit(self.path).query), self._knows_basic_credentials())

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        form = parse_qs(self.rfile.read(length).decode())
        grant = form.get("grant_type", [""])[0]
        if grant == "refresh_token":
            known = form.get("refresh_token", [""])[0] in self._tokens.refresh_tokens
        else:
            given = (form.get("username", [""])[0], form.get("password", [""])[0])
            known = grant == "password" and given == (self._tokens.username, self._tokens.password)
        self._answer(form, known)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing: the parameters are kept in `requests`."""

    def _knows_basic_credentials(self) -> bool:
        wanted = f"{self._tokens.username}:{self._tokens.password}"
        expected = "Basic " + base64.b64encode(wanted.encode()).decode()
        return self.headers.get("Authorization") == expected

    def _answer(self, parameters: dict[str, list[str]], known: bool) -> None:
        self._tokens.requests.append(parameters)
        if not known:
            problem = {"errors": [{"code": "UNAUTHORIZED", "message": "unknown user or password"}]}
            self._send(HTTPStatus.UNAUTHORIZED, problem)
            return
        self._send(HTTPStatus.OK, self._issue(parameters))

    def _issue(self, parameters: dict[str, list[str]]) -> dict[str, object]:
        server = self._tokens
        now = time.time()
        claims = {
            "iss": server.issuer,
            "sub": server.username,
            "aud": server.service,
            "iat": int(now) - 1,
            "nbf": int(now) - 1,
            "exp": int(now + server.lifetime),
            "jti": secrets.token_hex(8),
            "access": _access(parameters.get("scope", [])),
        }
        token = self._signer.sign(claims)
        answer: dict[str, object] = {"token": token, "access_token": token}
        answer["expires_in"] = int(server.lifetime)
        wants_refresh_token = "offline" in parameters.get("access_type", [])
        if wants_refresh_token or "true" in parameters.get("offline_token", []):
            refresh_token = secrets.token_urlsafe(24)
            server.refresh_tokens.add(refresh_token)
            answer["refresh_token"] = refresh_token
        return answer

    def _send(self, status: HTTPStatus, answer: dict[str, object]) -> None:
        body = _json(answer)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _access(scopes: list[str]) -> list[dict[str, object]]:
    """`repository:a/b:pull,push` → what the token grants; scopes may also share one value."""
    access: list[dict[str, object]] = []
    for scope in " ".join(scopes).split():
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        access.append({"type": kind, "name": name, "actions": actions.split(",")})
    return access


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
