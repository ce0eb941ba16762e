import json
from collections.abc import Sequence

import yaml
from lns.types.v1 import descriptor_pb2
from lns.types.v1 import run_plan_pb2 as pb

from cli.render.plan import write_plans

DIGEST = "sha256:" + "1f" * 32


def a_plan() -> pb.RunPlan:
    return pb.RunPlan(
        schema_version=1,
        name="reviewer",
        source=pb.PlanSource(kind="bundle", reference="r.example/bundles/b:1", digest=DIGEST),
        image=pb.PinnedImage(
            reference=f"r.example/i@{DIGEST}",
            platform=descriptor_pb2.Platform(os="linux", architecture="amd64"),
        ),
        argv=["/bin/sh", "-c", "echo 'hi there'"],
        env=[pb.EnvVar(name="HOME", value="/root")],
        resources=pb.Resources(vcpus=2, cpu_millis=1500, memory_mib=512),
        ports=[pb.PortMapping(host_port=8080, container_port=80, protocol="tcp")],
        volumes=[
            pb.VolumeMount(
                kind=pb.VolumeMount.KIND_BIND, source="/src", target="/work", read_only=True
            )
        ],
        mounts=[pb.ArtifactMount(family="model", path="/etc/agent/model", reference="r/m@x")],
        policy=pb.Policy(
            default_verdict="deny",
            routes=[pb.PolicyRoute(match="api.example", verdict="allow", origin="r/p:1")],
        ),
        credentials=[pb.CredentialNeed(name="github", env="GITHUB_TOKEN")],
        warnings=["agent credentials not set up: github"],
        origins=[
            pb.ValueOrigin(path="argv", kind=pb.ORIGIN_KIND_FLAG, detail="--"),
            pb.ValueOrigin(path="resources.memory_mib", kind=pb.ORIGIN_KIND_SANDBOX, detail="r/s"),
            pb.ValueOrigin(path="mounts[/etc/agent/model]", kind=pb.ORIGIN_KIND_COMPONENT),
        ],
        labels={"team": "a"},
    )


def rendered(form: str | None, plans: Sequence[pb.RunPlan]) -> str:
    lines: list[str] = []
    write_plans(plans, form=form, write=lines.append)
    return "\n".join(lines)


def test_the_table_names_every_value_with_its_origin() -> None:
    cells = {
        line.split("   ")[0].strip(): [cell.strip() for cell in line.split("   ") if cell.strip()]
        for line in rendered(None, [a_plan()]).splitlines()
    }

    assert cells["command"][1:] == ["/bin/sh -c 'echo '\"'\"'hi there'\"'\"''", "flag --"]
    assert cells["memory"][1:] == ["512 MiB", "sandbox r/s"]
    assert cells["cpus"][1] == "2 (1500m)"
    assert cells["mount /etc/agent/model"][1:] == ["r/m@x (writable)", "component"]
    assert cells["port 80"][1] == "at 127.0.0.1:8080"
    assert cells["bind /work"][1] == "/src (read-only)"
    assert cells["route api.example"][1:] == ["allow", "r/p:1"]
    assert cells["credential github"][1] == "as GITHUB_TOKEN"
    assert cells["label team"][1] == "a"
    assert "warning: agent credentials not set up: github" in cells


def test_json_and_yaml_are_the_plan_with_the_names_of_the_protos() -> None:
    as_json = json.loads(rendered("json", [a_plan()]))

    assert as_json["resources"]["memory_mib"] == 512
    assert as_json["origins"][0]["kind"] == "ORIGIN_KIND_FLAG"
    assert yaml.safe_load(rendered("yaml", [a_plan()])) == as_json


def test_several_plans_are_a_list() -> None:
    assert len(json.loads(rendered("json", [a_plan(), a_plan()]))) == 2
    assert rendered(None, [a_plan(), a_plan()]).count("command") == 2


def test_a_template_shows_one_value() -> None:
    assert rendered("{{.Resources.Vcpus}}", [a_plan()]) == "2"


def test_values_of_artifacts_cannot_steer_the_terminal() -> None:
    plan = a_plan()
    plan.env.add(name="EVIL", value="\x1b]0;owned\x07")
    plan.warnings.append("\x1b[2J")

    assert "\x1b" not in rendered(None, [plan])
