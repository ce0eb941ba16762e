"""The run's authority in a guest's root: added to what is trusted, never in its place."""

import hashlib
import os
import ssl
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

GUEST = Path(__file__).parents[3] / "services" / "vm_runner" / "guest"
HARNESS = Path(__file__).parents[2] / "support" / "trust_harness.c"
DEBIAN = "etc/ssl/certs/ca-certificates.crt"
FEDORA = "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"

pytestmark = pytest.mark.integration

Install = Callable[[Path], str]


@pytest.fixture(scope="module")
def authority() -> bytes:
    return trustme.CA(organization_name="lns run").cert_pem.bytes()


@pytest.fixture(scope="module")
def image_roots() -> bytes:
    return b"".join(trustme.CA(organization_name=f"root {n}").cert_pem.bytes() for n in range(3))


@pytest.fixture(scope="module")
def host_roots() -> bytes:
    return trustme.CA(organization_name="root of the host").cert_pem.bytes()


@pytest.fixture(scope="module")
def install(
    tmp_path_factory: pytest.TempPathFactory, authority: bytes, host_roots: bytes
) -> Install:
    work = tmp_path_factory.mktemp("trust")
    program = work / "harness"
    sources = [HARNESS, *(GUEST / name for name in ("trust.c", "jks.c", "sha1.c"))]
    flags = ["-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", f"-I{GUEST}"]
    subprocess.run(
        ["/usr/bin/gcc", *flags, "-fsanitize=address,undefined", "-o", program, *sources],
        check=True,
    )
    (work / "agent").mkdir()
    (work / "agent" / "roots.pem").write_bytes(host_roots)
    (work / "ca.pem").write_bytes(authority)

    def run(root: Path) -> str:
        done = subprocess.run(
            [program, root, work / "ca.pem", work / "agent"],
            check=True,
            capture_output=True,
            text=True,
            # Nothing of /proc is in the root, which the leak checker needs.
            env=os.environ | {"ASAN_OPTIONS": "detect_leaks=0"},
        )
        assert done.stderr == ""
        return done.stdout

    return run


def put(root: Path, name: str, data: bytes) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def certificates(pem: bytes) -> list[bytes]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=pem.decode())
    return sorted(context.get_ca_certs(binary_form=True))


def read_jks(store: bytes) -> list[bytes]:
    """Reads a store as Java does: its seal, then each trusted certificate."""
    body, seal = store[:-20], store[-20:]
    phrase = "changeit".encode("utf-16-be") + b"Mighty Aphrodite"
    assert hashlib.sha1(phrase + body).digest() == seal  # noqa: S324 - the format's own
    magic, version, count = struct.unpack_from(">III", body)
    assert (magic, version) == (0xFEEDFEED, 2)
    found, aliases, at = [], set(), 12
    for _ in range(count):
        tag, length = struct.unpack_from(">IH", body, at)
        assert tag == 2
        aliases.add(body[at + 6 : at + 6 + length])
        at += 6 + length + 8
        (length,) = struct.unpack_from(">H", body, at)
        assert body[at + 2 : at + 2 + length] == b"X.509"
        at += 2 + length
        (length,) = struct.unpack_from(">I", body, at)
        found.append(body[at + 4 : at + 4 + length])
        at += 4 + length
    assert at == len(body)
    assert len(aliases) == count
    return sorted(found)


@pytest.mark.parametrize("bundle", [DEBIAN, FEDORA, "etc/ssl/cert.pem", "etc/ssl/ca-bundle.pem"])
def test_the_authority_is_added_to_the_images_own_bundle(
    tmp_path: Path, install: Install, authority: bytes, image_roots: bytes, bundle: str
) -> None:
    path = put(tmp_path, bundle, image_roots)

    install(tmp_path)

    expected = certificates(image_roots + authority)
    assert path.read_bytes().startswith(image_roots)
    assert certificates(path.read_bytes()) == expected
    assert certificates((tmp_path / "run/lns/ca-bundle.pem").read_bytes()) == expected
    assert (tmp_path / "run/lns/ca.pem").read_bytes() == authority


def test_a_second_start_adds_nothing(tmp_path: Path, install: Install, image_roots: bytes) -> None:
    path = put(tmp_path, DEBIAN, image_roots.removesuffix(b"\n"))
    install(tmp_path)
    once = path.read_bytes()

    install(tmp_path)

    assert path.read_bytes() == once


def test_an_image_without_a_bundle_gets_the_roots_of_the_host(
    tmp_path: Path, install: Install, authority: bytes, host_roots: bytes
) -> None:
    install(tmp_path)

    expected = certificates(host_roots + authority)
    assert certificates((tmp_path / DEBIAN).read_bytes()) == expected
    assert certificates((tmp_path / "run/lns/ca-bundle.pem").read_bytes()) == expected


def test_a_bundle_behind_a_link_is_changed_and_the_link_stays(
    tmp_path: Path, install: Install, authority: bytes, image_roots: bytes
) -> None:
    target = put(tmp_path, FEDORA, image_roots)
    link = tmp_path / "etc/pki/tls/certs/ca-bundle.crt"
    link.parent.mkdir(parents=True)
    link.symlink_to("/" + FEDORA)

    install(tmp_path)

    assert link.is_symlink()
    assert certificates(target.read_bytes()) == certificates(image_roots + authority)


def test_java_gets_a_key_store_of_all_that_is_trusted(
    tmp_path: Path, install: Install, authority: bytes, image_roots: bytes
) -> None:
    put(tmp_path, DEBIAN, image_roots)
    stores = [
        put(tmp_path, name, b"old")
        for name in (
            "etc/ssl/certs/java/cacerts",
            "usr/lib/jvm/java-17-openjdk-amd64/lib/security/cacerts",
            "opt/jdk-21/lib/security/cacerts",
        )
    ]

    install(tmp_path)

    for store in stores:
        assert read_jks(store.read_bytes()) == certificates(image_roots + authority)


def test_the_tools_that_make_bundles_anew_find_the_authority(
    tmp_path: Path, install: Install, authority: bytes
) -> None:
    (tmp_path / "usr/local/share/ca-certificates").mkdir(parents=True)

    install(tmp_path)

    path = tmp_path / "usr/local/share/ca-certificates/lns-run.crt"
    assert path.read_bytes() == authority


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no certificate",
        b"-----BEGIN CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----!!!!-----END CERTIFICATE-----",
        b"# authority of the lns run, begin\n" * 3,
        b"\0" * 1000,
    ],
)
def test_a_strange_bundle_is_kept_and_the_authority_added(
    tmp_path: Path, install: Install, authority: bytes, content: bytes
) -> None:
    path = put(tmp_path, DEBIAN, content)
    put(tmp_path, "etc/ssl/certs/java/cacerts", b"old")

    install(tmp_path)

    assert path.read_bytes().startswith(content)
    assert authority in path.read_bytes()


def test_what_is_no_file_is_left_alone(tmp_path: Path, install: Install) -> None:
    (tmp_path / DEBIAN).mkdir(parents=True)
    os.mkfifo(put(tmp_path, "etc/ssl/x", b"").with_name("cert.pem"))

    assert "trust:" in install(tmp_path)

    assert (tmp_path / DEBIAN).is_dir()
