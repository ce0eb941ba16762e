"""What is pushed to, pulled from and asked of registries, on the command line."""

import hashlib
import json
import os
from pathlib import Path

import pytest
import yaml
from lns.registry.v1 import registry_service_pb2 as pb
from lns.types.v1 import descriptor_pb2, usage_pb2
from lns.vm.v1 import vm_service_pb2 as vm_pb

from services.core.descriptor import OCI_MANIFEST
from services.core.errors import (
    ArtifactInvalid,
    ImageUnknown,
    RegistryUnauthenticated,
    RegistryUnavailable,
    RunUnknown,
    Violation,
)
from tests.behaviour.cli.conftest import Client
from tests.support.scripted_pulls import DIGEST, MANIFEST, pulled
from tests.support.scripted_services import ScriptedServices


def test_a_file_is_pushed_as_an_artifact_with_its_content(
    services: ScriptedServices, lns: Client, tmp_path: Path
) -> None:
    (tmp_path / "f.yaml").write_text("kind: FileSet")
    (tmp_path / "content").mkdir()
    (tmp_path / "content" / "note").write_text("x" * 2_000_000)
    services["WriteBlob"] = pb.WriteBlobResponse()
    services["PushArtifact"] = pb.PushArtifactResponse(
        reference="r/filesets/f:1", descriptor=MANIFEST, family="fileset"
    )

    result = lns(
        *("push", "f.yaml", "r/filesets/f:1", "--content", "content"),
        *("--family", "fileset", "--annotation", "a=b=c"),
    )

    assert (result.code, result.out) == (0, f"{DIGEST}\n")
    assert "pushed r/filesets/f:1 as fileset" in result.err
    written = services.asked("WriteBlob")
    steps = [step.WhichOneof("step") for step in written]
    assert steps == ["header", *["chunk"] * (len(steps) - 2), "commit"]
    blob = b"".join(step.chunk for step in written[1:-1])
    request = services.asked("PushArtifact")[0]
    assert request.layers[0].digest == f"sha256:{hashlib.sha256(blob).hexdigest()}"
    assert request.layers[0].size_bytes == len(blob) == written[0].header.size_bytes
    assert request.document == b"kind: FileSet"
    assert (request.family, dict(request.annotations)) == ("fileset", {"a": "b=c"})


def test_the_problems_of_a_document_are_listed_by_their_place(
    services: ScriptedServices, lns: Client, tmp_path: Path
) -> None:
    (tmp_path / "f.yaml").write_text("x")
    services["PushArtifact"] = ArtifactInvalid(
        "2 problems",
        violations=[
            Violation(subject="$.spec.a", description="is required", type="SCHEMA"),
            Violation(subject="$.spec.b", description="must be text", type="SCHEMA"),
        ],
    )

    result = lns("push", "f.yaml", "r/models/m:1")

    assert result.code == 1
    assert "- $.spec.a: is required\n" in result.err
    assert "- $.spec.b: must be text\n" in result.err


@pytest.mark.parametrize(
    ("source", "sent"),
    [
        ("oci:layout:tag", "oci:{cwd}/layout:tag"),
        ("oci-archive:/abs.tar", "oci-archive:/abs.tar"),
        ("docker-archive:a.tar", "docker-archive:{cwd}/a.tar"),
        ("docker-daemon:name", "docker-daemon:name"),
        ("r/images/stored:1", "r/images/stored:1"),
    ],
)
def test_anything_else_is_pushed_as_an_image(
    services: ScriptedServices, lns: Client, tmp_path: Path, source: str, sent: str
) -> None:
    progress = usage_pb2.Progress(digest=DIGEST, stage=usage_pb2.STAGE_UPLOADING, total_bytes=10**6)
    services["PushImage"] = [
        pb.PushImageResponse(progress=progress),
        pb.PushImageResponse(result=pb.PushImageResult(reference="r/i:1", descriptor=MANIFEST)),
    ]

    result = lns("push", source, "r/i:1")

    assert result.out == f"{DIGEST}\n"
    assert "1f1f1f1f1f1f uploading 1MB" in result.err
    assert services.asked("PushImage")[0].source == sent.format(cwd=tmp_path)


NO_DOCUMENTS = [
    ("typo.yaml", "the file 'typo.yaml' does not exist"),
    ("/nonexistent/typo", "the file '/nonexistent/typo' does not exist"),
    ("./typo", "the file './typo' does not exist"),
    ("typo.json", "the file 'typo.json' does not exist"),
    ("", "the file '' does not exist"),
    ("./folder", "./folder is a directory"),
    ("folder/", "folder/ is a directory"),
    ("empty.yaml", "empty.yaml is empty"),
    ("blank", "blank is empty"),
    ("huge.yaml", "huge.yaml is larger than 1 MiB"),
]


@pytest.mark.parametrize("command", ["push", "validate"])
@pytest.mark.parametrize(("source", "why"), NO_DOCUMENTS)
def test_what_is_no_file_of_an_artifact_is_reported_as_what_it_is(
    lns: Client, tmp_path: Path, command: str, source: str, why: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.yaml").touch()
    (tmp_path / "blank").write_text(" \n\n")
    (tmp_path / "huge.yaml").write_bytes(b"x" * (1 << 20) + b"x")

    result = lns(command, source, *(["r/models/m:1"] if command == "push" else []))

    assert result.code == 1
    what, reason, way_out = result.err.splitlines()
    assert what.startswith(f"lns: cannot {command} ")
    assert reason == f"  why: {why}" or reason.startswith(f"  why: {why},")
    assert way_out.startswith("  try: ")


@pytest.mark.parametrize("flag", ["--family", "--annotation"])
def test_what_only_an_artifact_has_makes_the_source_a_file(lns: Client, flag: str) -> None:
    assert "the file 'typo' does not exist" in lns("push", "typo", "r/models/m:1", flag, "a=b").err
    assert "is an image, which has no" in lns("push", "oci:typo", "r/m:1", flag, "a=b").err


@pytest.mark.parametrize(
    ("source", "said"),
    [("typo", "the file 'typo' does not exist"), ("folder", "folder is a directory here")],
)
def test_what_is_neither_a_file_nor_an_image_is_reported_as_both(
    services: ScriptedServices, lns: Client, tmp_path: Path, source: str, said: str
) -> None:
    (tmp_path / "folder").mkdir()
    services["PushImage"] = ImageUnknown("the store has no image of that name")

    result = lns("push", source, "r/models/m:1")

    assert f"{said}, and the store has no image of that name" in result.err


def test_a_document_may_come_through_a_pipe(services: ScriptedServices, lns: Client) -> None:
    services["ValidateArtifact"] = pb.ValidateArtifactResponse(family="model", name="m")
    reading, writing = os.pipe()
    os.write(writing, b"kind: Model")
    os.close(writing)

    assert lns("validate", f"/dev/fd/{reading}").code == 0

    os.close(reading)
    assert services.asked("ValidateArtifact")[0].document == b"kind: Model"


def test_a_name_that_is_neither_a_run_nor_a_reference_is_reported_as_both(
    services: ScriptedServices, lns: Client
) -> None:
    services["GetRun"] = RunUnknown("there is no run")
    services["ListRuns"] = vm_pb.ListRunsResponse()
    services["InspectManifest"] = RegistryUnavailable("the hub does not answer")

    result = lns("inspect", "typo")

    assert "why: the hub does not answer" in result.err
    assert "try: `lns ps -a` lists the runs, none has that name; else: " in result.err


def test_an_artifact_is_pulled_to_standard_output_or_a_file(
    services: ScriptedServices, lns: Client, tmp_path: Path
) -> None:
    document = b'{"kind":"Model","spec":{"model":"m"}}'
    pulled(services, "model", document)

    assert json.loads(lns("pull", "r/x:1").out) == json.loads(document)
    assert json.loads(lns("pull", "r/x:1", "-o", "-").out) == json.loads(document)
    lns("pull", "r/x:1", "-o", "raw.json")
    assert (tmp_path / "raw.json").read_bytes() == document
    lns("pull", "r/x:1", "-o", "nice.yaml")
    assert yaml.safe_load((tmp_path / "nice.yaml").read_text()) == json.loads(document)
    assert services.asked("Pull")[0].mode == pb.PULL_MODE_ALWAYS


def test_an_image_is_pulled_into_the_store(services: ScriptedServices, lns: Client) -> None:
    pulled(services)

    assert lns("pull", "-q", "r/x:1").out == f"{DIGEST}\n"
    assert lns("pull", "r/x:1", "-o", "file").code == 1


@pytest.mark.parametrize(
    ("tag", "sent"), [("new", "new"), ("r.example/x:new", "new")], ids=["tag", "reference"]
)
def test_a_tag_is_one_of_the_same_repository(
    services: ScriptedServices, lns: Client, tag: str, sent: str
) -> None:
    services["TagManifest"] = pb.TagManifestResponse(reference="r/x:new", descriptor=MANIFEST)

    assert lns("tag", "r.example/x:1", tag).code == 0
    assert services.asked("TagManifest")[0].tag == sent
    assert "lns copy" in lns("tag", "r.example/x:1", "r.example/y:new").err


def test_tags_come_page_by_page_one_a_line(services: ScriptedServices, lns: Client) -> None:
    def answer(request: pb.ListTagsRequest) -> pb.ListTagsResponse:
        more = not request.page_token
        return pb.ListTagsResponse(
            tags=["a", "b"] if more else ["c\x1b"], next_page_token="next" if more else ""
        )

    services["ListTags"] = answer

    assert lns("tags", "r.example/x").out == "a\nb\nc\\x1b\n"
    assert lns("tags", "r.example/x", "--format", "json").out.splitlines()[0] == '{"tag": "a"}'


def test_referrers_are_listed_by_type(services: ScriptedServices, lns: Client) -> None:
    one = descriptor_pb2.Descriptor(
        media_type=OCI_MANIFEST, artifact_type="application/x.sig", digest=DIGEST, size_bytes=2000
    )
    services["ListReferrers"] = pb.ListReferrersResponse(referrers=[one])

    result = lns("referrers", "r.example/x:1", "--artifact-type", "application/x.sig")

    assert "application/x.sig" in result.out
    assert DIGEST[:19] in result.out
    assert services.asked("ListReferrers")[0].artifact_type == "application/x.sig"


def test_a_manifest_is_deleted_and_its_digest_printed(
    services: ScriptedServices, lns: Client
) -> None:
    services["DeleteManifest"] = pb.DeleteManifestResponse(digest=DIGEST)

    assert lns("delete", "--force", "r.example/x:1").out == f"{DIGEST}\n"
    assert services.asked("DeleteManifest")[0].force


def test_stored_credentials_are_listed(services: ScriptedServices, lns: Client) -> None:
    services["ListLogins"] = pb.ListLoginsResponse(
        logins=[pb.StoredLogin(registry="r.example", username="me", stored_in="file")]
    )

    assert lns("auth", "ls").out == lns("login", "--list").out
    assert "r.example" in lns("auth", "ls").out


def test_a_copy_is_whole_with_what_refers_to_it_by_default(
    services: ScriptedServices, lns: Client
) -> None:
    result = pb.PushImageResult(reference="r/y:1", descriptor=MANIFEST, warnings=["not \x1b"])
    services["CopyManifest"] = [pb.CopyManifestResponse(result=result)]

    whole = lns("copy", "r.example/x:1", "r.example/y:1")
    lns("copy", "--no-referrers", "--platform", "linux/arm64", "r.example/x:1", "r.example/y:1")
    contradicting = lns(
        "copy", "--all-platforms", "--platform", "linux/arm64", "r.example/x:1", "r.example/y:1"
    )

    first, second = services.asked("CopyManifest")
    assert (first.without_referrers, first.HasField("platform")) == (False, False)
    assert (second.without_referrers, second.platform.architecture) == (True, "arm64")
    assert "lns: warning: not \\x1b" in whole.err
    assert "contradict" in contradicting.err


def test_a_login_says_where_it_is_stored_and_what_is_missing(
    services: ScriptedServices, lns: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def log_in(*arguments: str) -> str:
        readable, writable = os.pipe()
        os.write(writable, b"secret\n")
        os.close(writable)
        with os.fdopen(readable) as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            return lns("login", "--password-stdin", *arguments, "r.example").err

    services["Login"] = pb.LoginResponse(stored_in="file", location="/home/me/logins.json")
    assert "stored in /home/me/logins.json" in log_in("-u", "me")
    services["Login"] = RegistryUnauthenticated("r.example refused the login")
    assert "no user name was given" in log_in()


def test_a_password_comes_from_standard_input_and_goes_nowhere_else(
    services: ScriptedServices, lns: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    readable, writable = os.pipe()
    os.write(writable, b"canary-secret\n")
    os.close(writable)
    with os.fdopen(readable) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        services["Login"] = RegistryUnauthenticated("the registry refused the credentials")
        result = lns("login", "-u", "me", "--password-stdin", "--debug", "r.example")

    assert result.code == 1
    assert services.asked("Login")[0].secret == "canary-secret"
    assert "canary-secret" not in result.out + result.err


def test_without_a_terminal_nobody_is_asked_for_a_password(
    lns: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path(os.devnull).open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert "--password-stdin" in lns("login", "r.example").err
        assert lns("login", "--password-stdin", "r.example").code == 1
        assert lns("login").code == 1


def test_a_device_login_says_where_to_enter_which_code(
    services: ScriptedServices, lns: Client
) -> None:
    services["StartDeviceLogin"] = pb.StartDeviceLoginResponse(
        login_id="1", user_code="AB-CD\x1b", verification_uri="https://r.example/device"
    )
    services["FinishDeviceLogin"] = pb.FinishDeviceLoginResponse(stored_in="file")

    result = lns("login", "--device", "r.example")

    assert "open https://r.example/device and enter AB-CD\\x1b" in result.err
    assert "stored in the file" in result.err


def test_a_copy_is_between_references(services: ScriptedServices, lns: Client) -> None:
    services["CopyManifest"] = [
        pb.CopyManifestResponse(result=pb.PushImageResult(reference="b/x:1", descriptor=MANIFEST))
    ]

    result = lns("copy", "a/x:1", "b/x:1", "--platform", "linux/arm64")

    assert result.out == f"{DIGEST}\n"
    assert services.asked("CopyManifest")[0].platform.architecture == "arm64"
