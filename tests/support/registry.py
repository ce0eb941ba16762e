"""Real OCI registries for tests: `registry:2` in containers, in the variants that clients meet.

Every variant is a context manager that yields a `RunningRegistry` and removes its container at the
end. Containers carry the process that owns them, so that what a killed test run left behind is
removed by the next one, and what a run at work needs is not.
"""

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import docker
import trustme
from docker.errors import APIError, DockerException, NotFound
from testcontainers.core.config import ConnectionMode, testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import HttpWaitStrategy

from tests.support.token_server import TokenServer, run_token_server

IMAGE = "registry:2"
LOOPBACK = "127.0.0.1"
OWNER_LABEL = "dev.lns.test-owner"

USERNAME = "lns"
PASSWORD = "correct horse battery"
# bcrypt at cost 4, the lowest: the registry pays it on each request, and 0.4 s at the usual 12.
HTPASSWD = f"{USERNAME}:$2b$04$i3pYihdqL7EjO1l8k..rKe7/4p0CLzbBCbUEvU1x873bpb53Z/Ym6\n"

# Ryuk, the reaper, is a second image and can be pulled nowhere but from a registry; we reap below.
# Without the other two a machine with a /.dockerenv is handed addresses that it cannot reach.
testcontainers_config.ryuk_disabled = True
testcontainers_config.connection_mode_override = ConnectionMode.docker_host
testcontainers_config.tc_host_override = LOOPBACK


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningRegistry:
    """A registry that answers, and what a client must know to use it."""

    host: str
    """`host:port` as it stands in a reference."""
    scheme: str = "http"
    username: str | None = None
    password: str | None = None
    ca_file: Path | None = None
    """The private CA that signed its certificate, PEM."""
    token_server: TokenServer | None = None
    container: DockerContainer | None = None
    """None for a registry that these tests did not start (`LNS_TEST_REGISTRY`)."""

    @property
    def url(self) -> str:
        """Scheme, host and port, without a trailing slash."""
        return f"{self.scheme}://{self.host}"

    def new_repository(self, path: str = "thing") -> str:
        """A repository (`host:port/random/path`) that no other test has."""
        return f"{self.host}/t{secrets.token_hex(6)}/{path}"


class RegistryUnavailable(Exception):
    """No registry can be run here; the message says why."""


@contextlib.contextmanager
def run_registry(environment: Mapping[str, str] | None = None) -> Iterator[RunningRegistry]:
    """`registry:2` as published: no authentication, deleting is off.

    Args:
        environment: Settings of the registry (`REGISTRY_…`).

    Raises:
        RegistryUnavailable: Docker or the image is not there.
    """
    with _container(environment or {}) as container:
        yield _running(container)


@contextlib.contextmanager
def run_deletable_registry() -> Iterator[RunningRegistry]:
    """A registry that accepts DELETE."""
    with run_registry({"REGISTRY_STORAGE_DELETE_ENABLED": "true"}) as registry:
        yield registry


@contextlib.contextmanager
def run_basic_registry() -> Iterator[RunningRegistry]:
    """A registry that wants Basic credentials (`USERNAME`, `PASSWORD`) for everything."""
    environment = {
        "REGISTRY_AUTH": "htpasswd",
        "REGISTRY_AUTH_HTPASSWD_REALM": "lns tests",
        "REGISTRY_AUTH_HTPASSWD_PATH": "/conf/htpasswd",
    }
    files = {"htpasswd": HTPASSWD.encode()}
    with _container(environment, files=files, ready_status=401) as container:
        yield replace(_running(container), username=USERNAME, password=PASSWORD)


@contextlib.contextmanager
def run_token_registry() -> Iterator[RunningRegistry]:
    """A registry that wants bearer tokens, and the token server that issues them."""
    with (
        run_token_server(username=USERNAME, password=PASSWORD) as server,
        run_registry_trusting(server) as registry,
    ):
        yield registry


@contextlib.contextmanager
def run_registry_trusting(
    server: TokenServer, *, realm: str | None = None
) -> Iterator[RunningRegistry]:
    """A registry that wants the bearer tokens of a server that runs already.

    Args:
        server: who signs the tokens.
        realm: where clients are sent for them, if not to the server itself.
    """
    environment = {
        "REGISTRY_AUTH": "token",
        "REGISTRY_AUTH_TOKEN_REALM": realm or server.realm,
        "REGISTRY_AUTH_TOKEN_SERVICE": server.service,
        "REGISTRY_AUTH_TOKEN_ISSUER": server.issuer,
        "REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE": "/conf/token-ca.pem",
    }
    files = {"token-ca.pem": server.ca_pem}
    with _container(environment, files=files, ready_status=401) as container:
        yield replace(
            _running(container), username=USERNAME, password=PASSWORD, token_server=server
        )


@contextlib.contextmanager
def run_tls_registry() -> Iterator[RunningRegistry]:
    """A registry that speaks HTTPS with a certificate of a private CA."""
    authority = trustme.CA()
    certificate = authority.issue_cert(LOOPBACK, "localhost")
    files = {
        "tls.pem": b"".join(pem.bytes() for pem in certificate.cert_chain_pems),
        "tls.key": certificate.private_key_pem.bytes(),
    }
    environment = {
        "REGISTRY_HTTP_TLS_CERTIFICATE": "/conf/tls.pem",
        "REGISTRY_HTTP_TLS_KEY": "/conf/tls.key",
    }
    with tempfile.TemporaryDirectory(prefix="lns-test-ca-") as folder:
        ca_file = Path(folder, "ca.pem")
        authority.cert_pem.write_to_path(str(ca_file))
        with _container(environment, files=files, tls=True) as container:
            yield replace(_running(container), scheme="https", ca_file=ca_file)


def external_registry() -> RunningRegistry | None:
    """The registry that `LNS_TEST_REGISTRY=host:port` names: plain HTTP, no authentication."""
    host = os.environ.get("LNS_TEST_REGISTRY")
    return RunningRegistry(host=host) if host else None


def remove_orphans() -> None:
    """Remove the containers of test runs that are no more.

    Raises:
        RegistryUnavailable: no Docker daemon answers.
    """
    with _docker() as client:
        for container in client.containers.list(all=True, filters={"label": OWNER_LABEL}):
            if not _is_alive(container.labels[OWNER_LABEL]):
                with contextlib.suppress(NotFound, APIError):  # another run was faster
                    container.remove(force=True, v=True)


@contextlib.contextmanager
def _docker() -> Iterator[docker.DockerClient]:
    try:
        client = docker.from_env(timeout=10)
    except DockerException as error:
        raise RegistryUnavailable(f"no Docker daemon: {error}") from error
    try:
        client.ping()
        yield client
    except DockerException as error:
        raise RegistryUnavailable(f"the Docker daemon does not answer: {error}") from error
    finally:
        client.close()


@contextlib.contextmanager
def _container(
    environment: Mapping[str, str],
    *,
    files: Mapping[str, bytes] | None = None,
    ready_status: int = 200,
    tls: bool = False,
) -> Iterator[DockerContainer]:
    """Run `registry:2` on a random loopback port with `files` in `/conf`, until it answers."""
    ready = HttpWaitStrategy(5000, "/v2/").for_status_code(ready_status)
    ready = ready.with_poll_interval(0.1).with_startup_timeout(30)
    if tls:
        ready = ready.using_tls(insecure=True)
    with contextlib.ExitStack() as stack:
        _check_image()
        container = DockerContainer(IMAGE, labels={OWNER_LABEL: owner_of(os.getpid())})
        container.with_envs(REGISTRY_HTTP_SECRET=secrets.token_hex(16), **environment)
        container.waiting_for(ready)
        # testcontainers knows no host address; what stands here reaches docker-py as it is.
        container.ports["5000/tcp"] = (LOOPBACK, None)  # type: ignore[assignment]  # an omission of its types
        for name, content in (files or {}).items():
            container.with_copy_into_container(content, f"/conf/{name}")
        yield stack.enter_context(container)


def _check_image() -> None:
    with _docker() as client:
        try:
            client.images.get(IMAGE)
        except NotFound:
            message = f"the image {IMAGE} is not there; scripts/setup/registry-image gets it"
            raise RegistryUnavailable(message) from None


def _running(container: DockerContainer) -> RunningRegistry:
    port = container.get_exposed_port(5000)
    return RunningRegistry(host=f"{LOOPBACK}:{port}", container=container)


def owner_of(pid: int) -> str:
    """What names a process for good: its id and when it began, in clock ticks since boot.

    Raises:
        OSError: there is no such process.
    """
    began = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return f"{pid}-{began}"


def _is_alive(owner: str) -> bool:
    try:
        return owner_of(int(owner.partition("-")[0])) == owner
    except (OSError, ValueError):
        return False
