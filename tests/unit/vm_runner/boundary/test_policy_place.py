"""A run edits no policy that it is under: way out 50."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from services.chassis.blocking import Blocking
from services.core.run_plan import VolumeKind, VolumeMount
from services.vm_runner.boundary.policy_place import writable_policy
from services.vm_runner.records.runs import Run, RunOptions
from tests.support.runs import a_run
from tests.unit.vm_runner.boundary.test_run_boundary import World


def a_bound_run(policy: Path, source: Path, *, read_only: bool = False) -> Run:
    """Returns a run with one bind."""
    mount = VolumeMount(
        kind=VolumeKind.BIND, source=str(source), target="/work", read_only=read_only
    )
    run = a_run()
    plan = replace(run.plan, volumes=(mount,))
    return replace(run, plan=plan, options=RunOptions(policy_file=str(policy)))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Returns a folder with a project in it, a link to it, and a policy that is one."""
    project = tmp_path / "project"
    (project / "conf").mkdir(parents=True)
    (project / "lns-policy.yaml").write_text("network: {}\n")
    (project / "conf" / "own.yaml").write_text("network: {}\n")
    (tmp_path / "linked").symlink_to(project)
    (tmp_path / "lns-policy.yaml").symlink_to(project / "conf" / "own.yaml")
    return tmp_path


@pytest.mark.parametrize(
    ("policy", "source", "writable"),
    [
        ("project/lns-policy.yaml", "project", False),  # hidden at the top of the bind
        ("project/lns-policy.yaml", ".", True),
        ("project/lns-policy.yaml", "project/lns-policy.yaml", True),
        ("project/lns-policy.yaml", "project/conf", False),
        ("project/conf/own.yaml", "project", True),
        ("project/conf/own.yaml", "project/conf", True),
        ("linked/conf/own.yaml", "project", True),
        ("project/conf/own.yaml", "linked", True),
        ("linked/lns-policy.yaml", ".", True),
        ("lns-policy.yaml", "project/conf", True),  # a link that leads into the bind
        ("lns-policy.yaml", "project", True),
    ],
)
def test_a_policy_file_is_writable_where_a_bind_shows_it(
    home: Path, policy: str, source: str, *, writable: bool
) -> None:
    found = writable_policy(a_bound_run(home / policy, home / source))

    assert (found is not None) is writable


def test_a_bind_to_read_writes_nothing(home: Path) -> None:
    run = a_bound_run(home / "project" / "lns-policy.yaml", home, read_only=True)

    assert writable_policy(run) is None


@pytest.fixture
def blocking() -> Iterator[Blocking]:
    with Blocking(4) as threads:
        yield threads


async def test_what_a_run_writes_into_its_policy_file_does_not_count(
    tmp_path: Path, blocking: Blocking
) -> None:
    world = World(tmp_path, blocking)
    world.policy("allow api.example.com", default="deny")
    world.run = a_bound_run(world.file, tmp_path.parent)

    (remark,) = await world.boundary.prepare(world.run)
    world.policy("allow evil.example", default="allow")
    loaded = await world.boundary.policy.current()

    assert str(world.file) in remark
    assert [route.match for route in loaded.policy.routes] == ["api.example.com"]
    assert f"edit {world.boundary.policy.path}" in remark
    assert world.boundary.policy.path.parent == tmp_path / "run"
