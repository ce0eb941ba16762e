import os
from pathlib import Path

import pytest

from services.chassis.sockets import (
    MAX_SOCKET_PATH_BYTES,
    check_private_directory,
    make_private_directory,
    socket_path,
    suite_socket,
)
from services.core.errors import SettingsInvalid


def test_the_suite_listens_below_the_state_directory() -> None:
    assert suite_socket(Path("/srv/lns")) == Path("/srv/lns/run/lns.sock")


@pytest.mark.parametrize(("spare", "below_home"), [(0, True), (-1, False)])
def test_a_socket_moves_when_its_path_is_one_byte_too_long(spare: int, below_home: bool) -> None:
    home = Path("/" + "h" * (MAX_SOCKET_PATH_BYTES - len("//run/lns.sock") - spare))

    path = suite_socket(home)

    assert path.is_relative_to(home) is below_home
    assert len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES


def test_two_long_state_directories_have_two_sockets() -> None:
    one, other = Path("/" + "a" * 200), Path("/" + "b" * 200)

    assert suite_socket(one) != suite_socket(other)
    assert suite_socket(one) == suite_socket(one)
    assert socket_path(one, "resolver.sock") != suite_socket(one)
    assert suite_socket(one).parent == Path(f"/tmp/lns-{os.getuid()}")


def test_a_private_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "private"

    make_private_directory(path)
    make_private_directory(path)

    assert path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701, 0o777])
def test_a_directory_that_others_can_enter_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "open"
    path.mkdir()
    path.chmod(mode)

    with pytest.raises(SettingsInvalid):
        make_private_directory(path)


def test_a_link_to_a_private_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "mine")

    with pytest.raises(SettingsInvalid):
        check_private_directory(link)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "theirs"
    path.mkdir(mode=0o700)
    os.chown(path, 65534, 65534)

    with pytest.raises(SettingsInvalid):
        check_private_directory(path)
