import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.errors import RequestInvalid
from services.core.run_plan import PortMapping, VolumeKind, VolumeMount
from services.resolver.flags import (
    MountFlag,
    guest_path,
    parse_mount_flag,
    parse_port_flag,
    parse_volume_flag,
)
from tests.support.outcomes import passes_or


@pytest.mark.parametrize(
    ("text", "host_ip", "host", "container"),
    [
        ("80", "127.0.0.1", 0, 80),
        ("8080:80", "127.0.0.1", 8080, 80),
        ("8080:80/tcp", "127.0.0.1", 8080, 80),
        ("0:80", "127.0.0.1", 0, 80),
        ("0.0.0.0:8080:80", "0.0.0.0", 8080, 80),  # noqa: S104 - a flag's text
        ("127.0.0.1::80", "127.0.0.1", 0, 80),
        ("[::1]:8080:80", "::1", 8080, 80),
        ("[::]::80", "::", 0, 80),
    ],
)
def test_a_port_flag_is_read(text: str, host_ip: str, host: int, container: int) -> None:
    assert parse_port_flag(text) == PortMapping(
        host_ip=host_ip, host_port=host, container_port=container
    )


@pytest.mark.parametrize(
    "text",
    ["", ":", "80:", "a:80", "80:a", "65536:80", "80:0", "80:65536", "80/udp", "8080:80/sctp",
     "1.2.3:8080:80", "999.1.1.1:8080:80", "::1:8080:80", "[x]:1:2", "1:2:3:4", "8000-8010:80",
     "-1:80", "\uff18:80"],
)  # fmt: skip
def test_a_port_flag_that_is_invalid_is_refused(text: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        parse_port_flag(text)

    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "kind", "source", "target", "read_only"),
    [
        ("data:/d", VolumeKind.NAMED, "data", "/d", False),
        ("my.data_1-x:/d/e/:ro", VolumeKind.NAMED, "my.data_1-x", "/d/e", True),
        ("data:/d:rw", VolumeKind.NAMED, "data", "/d", False),
        ("/host/dir:/d", VolumeKind.BIND, "/host/dir", "/d", False),
        ("/host//./dir/:/d:ro", VolumeKind.BIND, "/host/dir", "/d", True),
    ],
)
def test_a_volume_flag_is_read(
    text: str, kind: VolumeKind, source: str, target: str, read_only: bool
) -> None:
    expected = VolumeMount(kind=kind, source=source, target=target, read_only=read_only)

    assert parse_volume_flag(text) == expected


@pytest.mark.parametrize("modes", ["ro,secrets", "secrets,ro"])
def test_secrets_of_a_host_path_are_kept_on_purpose(modes: str) -> None:
    mount = parse_volume_flag(f"/host:/d:{modes}")

    assert (mount.read_only, mount.keep_secrets) == (True, True)
    assert parse_volume_flag("/host:/d:secrets").keep_secrets
    assert not parse_volume_flag("/host:/d:ro").keep_secrets


@pytest.mark.parametrize(
    "text",
    ["", "data", "/d", "data:", ":/d", "data:d", "data:/", "data:/d:", "data:/d:rx", "./x:/d",
     "../x:/d", "-x:/d", "data:/a/../b", "/a/../b:/d", "da ta:/d", "data:/d:ro:rw", "data:/a\0b",
     "data:/d:secrets", "/h:/d:ro,rw", "/h:/d:ro,", "/h:/d:ro,ro", "/h:/d:secret"],
)  # fmt: skip
def test_a_volume_flag_that_is_invalid_is_refused(text: str) -> None:
    with pytest.raises(RequestInvalid):
        parse_volume_flag(text)


@pytest.mark.parametrize(
    ("text", "reference", "path"),
    [
        ("filesets/x", "filesets/x", ""),
        ("localhost:5000/filesets/x:v1", "localhost:5000/filesets/x:v1", ""),
        ("localhost:5000/filesets/x:v1:/opt/data", "localhost:5000/filesets/x:v1", "/opt/data"),
        ("filesets/x:/opt//data/", "filesets/x", "/opt/data"),
        (f"r.io/x@sha256:{'0' * 64}:/a", f"r.io/x@sha256:{'0' * 64}", "/a"),
    ],
)
def test_a_mount_flag_is_read(text: str, reference: str, path: str) -> None:
    assert parse_mount_flag(text) == MountFlag(reference=reference, path=path)


@pytest.mark.parametrize("text", ["", ":/a", "x:/", "x:/..", "x:/a/../b", "x:/a\0"])
def test_a_mount_flag_that_is_invalid_is_refused(text: str) -> None:
    with pytest.raises(RequestInvalid):
        parse_mount_flag(text)


@given(st.text(max_size=40))
def test_any_text_is_a_flag_or_refused(text: str) -> None:
    for parse in (parse_port_flag, parse_volume_flag, parse_mount_flag):
        with passes_or(RequestInvalid):
            parse(text)


@given(st.text("/.ab", max_size=20))
def test_a_guest_path_is_absolute_and_plain(path: str) -> None:
    with contextlib.suppress(RequestInvalid):
        normal = guest_path(path, what="path")
        assert normal.startswith("/")
        assert not {"", ".", ".."} & set(normal[1:].split("/"))
        assert guest_path(normal, what="path") == normal
