"""Which of several sources a value is taken from, and that the plan says so."""

from typing import Any

import pytest

from services.core.artifacts import families as f
from services.core.run_plan import OriginKind, PlanKind
from services.resolver.request import Defaults, Overrides
from tests.support.shelf import HOST, IMAGE, Shelf, origin

FLAG, AGENT, SANDBOX = OriginKind.FLAG, OriginKind.AGENT, OriginKind.SANDBOX
IMAGE_ORIGIN, CONFIG, BUILT_IN = OriginKind.IMAGE, OriginKind.CONFIG, OriginKind.BUILT_IN
ENTRY = f"{HOST}/images/entry:1"


@pytest.mark.parametrize(
    ("agent", "flags", "argv", "expected"),
    [
        ({}, {}, ["/entry", "default"], IMAGE_ORIGIN),
        ({"command": "echo hi"}, {}, ["/bin/sh", "-c", "echo hi"], AGENT),
        ({"command": ["echo", "hi"]}, {}, ["echo", "hi"], AGENT),
        ({}, {"argv": ("x", "y")}, ["/entry", "x", "y"], FLAG),
        ({"command": "echo hi"}, {"argv": ("x", "y")}, ["x", "y"], FLAG),
        ({}, {"entrypoint": "/other"}, ["/other"], FLAG),
        ({}, {"entrypoint": "/other", "argv": ("x",)}, ["/other", "x"], FLAG),
        ({"command": "echo hi"}, {"entrypoint": "/other"}, ["/other"], FLAG),
    ],
)
async def test_what_is_run_is_chosen_as_docker_does(
    shelf: Shelf,
    agent: dict[str, Any],
    flags: dict[str, Any],
    argv: list[str],
    expected: OriginKind,
) -> None:
    shelf.manifests.put_image(ENTRY, {"Entrypoint": ["/entry"], "Cmd": ["default"]})
    shelf.put(f.AGENT, "x", {"image": ENTRY, **agent})

    plan = await shelf.plan(f"{HOST}/agents/x:1", **flags)

    assert list(plan.argv) == argv
    assert origin(plan, "argv") is expected


@pytest.mark.parametrize(
    ("config", "agent", "flag", "user", "expected"),
    [
        ({}, {}, None, "", BUILT_IN),
        ({"User": "img"}, {}, None, "img", IMAGE_ORIGIN),
        ({"User": "img"}, {"user": "agent"}, None, "agent", AGENT),
        ({"User": "img"}, {"user": 1000}, None, "1000", AGENT),
        ({"User": "img"}, {"user": "agent"}, "flag:group", "flag:group", FLAG),
    ],
)
async def test_the_user_comes_from_flag_agent_or_image(
    shelf: Shelf, config: Any, agent: Any, flag: str | None, user: str, expected: OriginKind
) -> None:
    shelf.manifests.put_image(IMAGE, {"Cmd": ["x"], **config})
    shelf.agent("x", **agent)

    plan = await shelf.plan(f"{HOST}/agents/x:1", user=flag)

    assert (plan.user, origin(plan, "user")) == (user, expected)


@pytest.mark.parametrize(
    ("config", "agent", "flag", "workdir", "expected"),
    [
        ({}, {}, None, "/", BUILT_IN),
        ({"WorkingDir": "/img"}, {}, None, "/img", IMAGE_ORIGIN),
        ({"WorkingDir": "/img"}, {"workdir": "/agent/"}, None, "/agent", AGENT),
        ({"WorkingDir": "/img"}, {"workdir": "/agent"}, "/flag", "/flag", FLAG),
        ({"WorkingDir": "/img"}, {"workdir": "/agent"}, "/", "/", FLAG),
    ],
)
async def test_the_directory_comes_from_flag_agent_or_image(
    shelf: Shelf, config: Any, agent: Any, flag: str | None, workdir: str, expected: OriginKind
) -> None:
    shelf.manifests.put_image(IMAGE, {"Cmd": ["x"], **config})
    shelf.agent("x", **agent)

    plan = await shelf.plan(f"{HOST}/agents/x:1", workdir=flag)

    assert (plan.workdir, origin(plan, "workdir")) == (workdir, expected)


def quantities(text: str) -> dict[str, str]:
    given = zip(("cpus", "memory", "disk"), text.split(), strict=False)
    return {name: value for name, value in given if value != "-"}


@pytest.mark.parametrize(
    ("sandbox", "defaults", "flags", "expected", "origins"),
    [
        ("", "", "", "1 1000 1024 0", "lns lns lns"),
        ("", "2 2g 5g", "", "2 2000 2048 5120", "config config config"),
        ("3 3Gi", "2 2g", "", "3 3000 3072 0", "sandbox sandbox lns"),
        ("1500m 512", "", "", "2 1500 512 0", "sandbox sandbox lns"),
        ("3 3Gi", "- - 1g", "4 4g 9g", "4 4000 4096 9216", "flag flag flag"),
        ("- 3Gi", "2", "- 100", "2 2000 100 0", "config flag lns"),
    ],
)  # fmt: skip
async def test_sizes_come_from_flag_sandbox_config_or_lns(
    shelf: Shelf, sandbox: str, defaults: str, flags: str, expected: str, origins: str
) -> None:
    """Quantities are CPUs, memory and disk; `-` stands for one that is not given."""
    resources = dict(zip(("cpu", "memory"), sandbox.split(), strict=False))
    resources = {name: value for name, value in resources.items() if value != "-"}
    reference = shelf.bundle(
        agent=shelf.agent(), sandbox=shelf.put(f.SANDBOX, "s", {"resources": resources})
    )

    plan = await shelf.plan(reference, Defaults(**quantities(defaults)), **quantities(flags))

    size = plan.resources
    found = (size.vcpus, size.cpu_millis, size.memory_mib, size.disk_mib)
    assert found == tuple(map(int, expected.split()))
    names = {"lns": BUILT_IN, "config": CONFIG, "sandbox": SANDBOX, "flag": FLAG}
    assert [
        origin(plan, f"resources.{name}") for name in ("cpu_millis", "memory_mib", "disk_mib")
    ] == [names[word] for word in origins.split()]
    assert origin(plan, "resources.vcpus") is origin(plan, "resources.cpu_millis")


async def test_environments_are_merged_by_name_and_sorted(shelf: Shelf) -> None:
    shelf.manifests.put_image(IMAGE, {"Cmd": ["x"], "Env": ["A=image", "B=image", "C=image"]})
    shelf.agent("x", env={"B": "agent", "C": "agent", "D": "agent"})

    plan = await shelf.plan(f"{HOST}/agents/x:1", env=(("C", "flag"), ("Z", "")))

    env = dict(plan.env)
    assert list(env) == sorted(env)
    assert {name: env[name] for name in "ABCDZ"} == {
        "A": "image", "B": "agent", "C": "flag", "D": "agent", "Z": "",
    }  # fmt: skip
    assert [origin(plan, f"env.{name}") for name in "ABCDZ"] == [
        IMAGE_ORIGIN, AGENT, FLAG, AGENT, FLAG,
    ]  # fmt: skip


async def test_a_path_is_set_where_nothing_sets_one(shelf: Shelf) -> None:
    shelf.manifests.put_image(IMAGE, {"Cmd": ["x"]})

    plan = await shelf.plan(IMAGE)

    assert dict(plan.env)["PATH"].startswith("/usr/local/sbin:")
    assert origin(plan, "env.PATH") is BUILT_IN


async def test_ports_and_volumes_of_flags_replace_those_of_the_agent(shelf: Shelf) -> None:
    shelf.agent(
        "x",
        ports=[{"host": 80, "container": 8080}, {"host": 0, "container": 81}],
        volumes=[{"name": "a", "target": "/a"}, {"name": "b", "target": "/b", "readOnly": True}],
    )
    reference = f"{HOST}/agents/x:1"

    own = await shelf.plan(reference)
    flagged = await shelf.plan(reference, ports=("9:90",), volumes=("c:/c:ro", "/h:/d"))

    assert [(p.host_ip, p.host_port, p.container_port) for p in own.ports] == [
        ("127.0.0.1", 80, 8080),
        ("127.0.0.1", 0, 81),
    ]
    assert [(v.source, v.target, v.read_only) for v in own.volumes] == [
        ("a", "/a", False),
        ("b", "/b", True),
    ]
    assert (origin(own, "ports"), origin(own, "volumes")) == (AGENT, AGENT)
    assert [(p.host_port, p.container_port) for p in flagged.ports] == [(9, 90)]
    assert [(v.source, v.target) for v in flagged.volumes] == [("c", "/c"), ("/h", "/d")]
    assert (origin(flagged, "ports"), origin(flagged, "volumes")) == (FLAG, FLAG)


async def test_labels_come_from_the_agent_and_flags(shelf: Shelf) -> None:
    metadata = {"name": "x", "labels": {"team": "agent", "tier": "1"}}
    shelf.put(f.AGENT, "x", {"image": IMAGE}, metadata=metadata)

    plan = await shelf.plan(f"{HOST}/agents/x:1", labels={"team": "flag", "new": "2"})

    assert plan.labels == {"new": "2", "team": "flag", "tier": "1"}
    assert [origin(plan, f"labels.{name}") for name in plan.labels] == [FLAG, FLAG, AGENT]


async def test_the_name_is_the_agents_the_images_or_the_flags(shelf: Shelf) -> None:
    shelf.agent("hello")
    agent = f"{HOST}/agents/hello:1"

    assert (await shelf.plan(agent)).name == "hello"
    assert (await shelf.plan(IMAGE)).name == "base"
    assert (await shelf.plan(agent, name="mine")).name == "mine"


async def test_an_image_passes_through(shelf: Shelf) -> None:
    plan = await shelf.plan(IMAGE)

    assert plan.source.kind is PlanKind.IMAGE
    assert (plan.source.reference, plan.source.digest) == (IMAGE, plan.image.manifest.digest)  # type: ignore[union-attr]  # an image has one
    assert plan.argv == ("/bin/agent",)
    assert (plan.mounts, plan.policy, plan.integrations, plan.credentials) == ((), None, (), ())
    assert [entry.role for entry in plan.closure] == ["image"]


async def test_an_imageless_run_has_a_command_and_no_image(shelf: Shelf) -> None:
    (plan,) = await shelf.resolver().resolve_imageless(
        overrides=Overrides(argv=("uname", "-a"), cpus="2", env=(("A", "1"),))
    )

    assert (plan.source.kind, plan.image, plan.name) == (PlanKind.IMAGELESS, None, "imageless")
    assert plan.argv == ("uname", "-a")
    assert plan.resources.vcpus == 2
    assert dict(plan.env)["A"] == "1"
    assert plan.closure == ()


async def test_every_value_of_a_plan_has_an_origin(shelf: Shelf) -> None:
    reference = shelf.bundle(
        agent=shelf.agent(
            env={"B": "1"},
            ports=[{"host": 0, "container": 1}],
            volumes=[{"name": "v", "target": "/v"}],
            credentials=[{"name": "c", "env": "K"}],
        ),
        sandbox=shelf.put(f.SANDBOX, "s", {"resources": {"cpu": 1, "memory": 64}}),
        policies=[shelf.put(f.POLICY, "p", {})],
        filesets=[shelf.fileset("fs", "/fs")],
    )

    plan = await shelf.plan(reference, labels={"l": "1"})

    paths = [one.path for one in plan.origins]
    assert paths == sorted(set(paths))
    expected = {
        "argv", "image", "name", "policy", "ports", "user", "volumes", "workdir", "labels.l",
        "credentials[c]", "mounts[/fs]",
        *(f"env.{name}" for name, _ in plan.env),
        *(f"resources.{name}" for name in ("vcpus", "cpu_millis", "memory_mib", "disk_mib")),
    }  # fmt: skip
    assert set(paths) == expected
