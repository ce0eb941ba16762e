import hashlib
import json
import os
from pathlib import Path

import pytest
import yaml
from lns.materializer.v1 import materializer_service_pb2 as images_pb
from lns.registry.v1 import registry_service_pb2 as pb
from lns.resolver.v1 import resolver_service_pb2 as resolver_pb
from lns.types.v1 import descriptor_pb2, usage_pb2
from lns.vm.v1 import vm_service_pb2 as vm_pb

from cli.app import dispatch
from lns.client.connection.config_keys import KEYS
from services.core.artifacts.documents import parse_artifact
from services.core.artifacts.families import FAMILIES, SLUGS
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
from tests.support.scripted_services import ScriptedServices

DIGEST = "sha256:" + "1f" * 32
MANIFEST = descriptor_pb2.Descriptor(digest=DIGEST, media_type="m", size_bytes=2)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


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


def pulled(services: ScriptedServices, family: str = "", document: bytes = b"") -> None:
    services["Pull"] = [
        pb.PullResponse(
            result=pb.PullResult(
                reference="r/x:1",
                root=MANIFEST,
                descriptor=MANIFEST,
                family=family,
                document=document,
            )
        )
    ]


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


def test_images_are_listed_without_artifacts(services: ScriptedServices, lns: Client) -> None:
    services["ListStoredImages"] = pb.ListStoredImagesResponse(
        images=[
            pb.StoredImage(reference=f"r/i@{DIGEST}", descriptor=MANIFEST, total_bytes=10**6),
            pb.StoredImage(reference="r/models/m:1", descriptor=MANIFEST, family="model"),
        ]
    )

    assert "models" not in lns("image", "ls").out
    assert "r/i@sha256:1f1f1f1f1f1f…" in lns("image", "ls").out
    assert "r/models/m:1 " in lns("image", "ls", "-a").out
    rows = [json.loads(line) for line in lns("image", "ls", "--format", "json").out.splitlines()]
    assert [(row["reference"], row["digest"]) for row in rows] == [(f"r/i@{DIGEST}", DIGEST)]


OTHER = "sha256:" + "2e" * 32


def stored(services: ScriptedServices) -> None:
    """Scripts a store with an image of two names, one of it a digest, and another image."""
    other = descriptor_pb2.Descriptor(digest=OTHER, media_type="m", size_bytes=2)
    index = descriptor_pb2.Descriptor(digest="sha256:" + "3d" * 32, media_type="m", size_bytes=3)
    services["ListStoredImages"] = pb.ListStoredImagesResponse(
        images=[
            pb.StoredImage(reference="r.example/i:1", descriptor=index, platform_manifest=MANIFEST),
            pb.StoredImage(reference=f"r.example/i@{DIGEST}", descriptor=MANIFEST),
            pb.StoredImage(reference=f"r.example/j@{OTHER}", descriptor=other),
        ]
    )


def test_an_image_that_has_a_name_is_listed_by_it_alone(
    services: ScriptedServices, lns: Client
) -> None:
    stored(services)

    assert "r.example/i@" not in lns("image", "ls").out
    assert "r.example/i:1" in lns("image", "ls").out
    assert "r.example/i@" in lns("image", "ls", "-a").out
    assert f"r.example/j@{OTHER}" in lns("image", "ls", "--no-trunc").out
    assert lns("image", "ls", "-q").out.splitlines() == ["3d" * 6, "2e" * 6]
    assert lns("image", "ls", "-q", "--no-trunc").out.splitlines()[1] == OTHER


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("r.example/i:1", "r.example/i:1"),
        ("1f1f1f1f1f1f", f"r.example/i@{DIGEST}"),
        ("1f1f", f"r.example/i@{DIGEST}"),
        (DIGEST, f"r.example/i@{DIGEST}"),
        ("sha256:2e2e2e2e2e2e", f"r.example/j@{OTHER}"),
        ("r.example/j@sha256:2e2e2e2e2e2e…", f"r.example/j@{OTHER}"),
        (f"r.example/j@{OTHER}", f"r.example/j@{OTHER}"),
        ("3d3d3d", "r.example/i@sha256:" + "3d" * 32),
        ("beef", "beef"),
        ("debian:12", "debian:12"),
    ],
)
def test_what_is_listed_is_taken_back(
    services: ScriptedServices, lns: Client, given: str, sent: str
) -> None:
    stored(services)
    services["RemoveStoredImage"] = pb.RemoveStoredImageResponse(references=["x"])
    services["TagStoredImage"] = pb.TagStoredImageResponse(reference="new:1")
    services["PushImage"] = [
        pb.PushImageResponse(result=pb.PushImageResult(reference="r/i:1", descriptor=MANIFEST))
    ]

    assert lns("image", "rm", given).code == 0
    assert lns("image", "tag", given, "new:1").out == "new:1\n"
    assert lns("push", given, "r.example/i:1").code == 0

    assert services.asked("RemoveStoredImage")[0].reference == sent
    assert services.asked("TagStoredImage")[0].source == sent
    assert services.asked("PushImage")[0].source == sent


def test_an_id_that_several_images_have_is_refused(services: ScriptedServices, lns: Client) -> None:
    services["ListStoredImages"] = pb.ListStoredImagesResponse(
        images=[
            pb.StoredImage(
                reference=f"r.example/{last}:1",
                descriptor=descriptor_pb2.Descriptor(digest="sha256:" + "1f" * 31 + last),
            )
            for last in ("aa", "bb")
        ]
    )

    assert "could be 2 images" in lns("image", "rm", "1f1f1f").err


def test_the_history_of_an_image_is_its_steps_the_latest_first(
    services: ScriptedServices, lns: Client
) -> None:
    history = [
        {"created_by": "ADD rootfs", "created": "2026-01-01T00:00:00Z"},
        {"created_by": "CMD  sh", "empty_layer": True, "comment": "c"},
        {"created_by": None},
    ]
    services["GetManifest"] = pb.GetManifestResponse(
        manifest=json.dumps({"layers": [{"size": 1000}, {"size": 20}]}).encode(),
        config=json.dumps({"history": history}).encode(),
    )

    result = lns("image", "history", "r.example/i:1", "--format", "json")

    rows = [json.loads(line) for line in result.out.splitlines()]
    assert [(row["created_by"], row["size_bytes"]) for row in rows] == [
        ("", 20), ("CMD  sh", 0), ("ADD rootfs", 1000),
    ]  # fmt: skip
    assert services.asked("GetManifest")[0].offline


def lockable(services: ScriptedServices) -> None:
    pulled(services)
    closure = [
        {"role": role, "requested": "r/x:1", "repository": "r.example/x", "manifest": manifest}
        for role, manifest in (
            ("index", descriptor_pb2.Descriptor(digest=OTHER)),
            ("image", MANIFEST),
        )
    ]
    services["Lock"] = resolver_pb.LockResponse(lock=b"version: 1\n", closure=closure)
    services["AcquireLease"] = pb.AcquireLeaseResponse()


def test_what_a_lock_names_is_pulled_and_kept(services: ScriptedServices, lns: Client) -> None:
    lockable(services)

    assert lns("lock", "r/x:1").out == "version: 1\n"

    assert [one.reference for one in services.asked("Pull")] == [f"r.example/x@{DIGEST}"]
    (lease,) = services.asked("AcquireLease")
    assert sorted(lease.digests) == [DIGEST, OTHER]
    assert lease.holder == "lock of r/x:1"
    assert lease.lease_id == "lock " + hashlib.sha256(b"version: 1\n").hexdigest()[:12]


def test_what_is_kept_for_locks_is_listed_and_given_up(
    services: ScriptedServices, lns: Client
) -> None:
    services["ListLeases"] = pb.ListLeasesResponse(
        leases=[usage_pb2.Lease(lease_id="lock abc123", holder="lock of r/x:1", digests=[DIGEST])]
    )
    services["ReleaseLease"] = pb.ReleaseLeaseResponse()

    assert "abc123   r/x:1       1" in lns("lock", "ls").out
    assert lns("lock", "rm", "abc1").out == "abc123\n"
    assert lns("lock", "rm", "r/x:1").out == "abc123\n"
    assert "lns lock ls" in lns("lock", "rm", "zzz").err
    assert [one.lease_id for one in services.asked("ReleaseLease")] == ["lock abc123"] * 2


@pytest.mark.parametrize("word", ["agent", "Agent", "agents", "AGENTS"])
def test_a_starter_is_asked_for_by_any_name_of_its_family(
    lns: Client, tmp_path: Path, word: str
) -> None:
    result = lns("init", word)

    assert result.out == "agent.yaml\n"
    assert "lns run ./agent.yaml" in result.err
    assert parse_artifact((tmp_path / "agent.yaml").read_bytes()).family.slug == "agent"


def image_of(path: Path) -> str:
    return str(yaml.safe_load(path.read_text())["spec"]["image"])


def test_the_image_of_an_agents_starter_is_one_that_the_user_has(
    lns: Client, tmp_path: Path
) -> None:
    result = lns("init", "agent")
    assert f"its image is {image_of(tmp_path / 'agent.yaml')}; --image names one" in result.err

    lns("config", "set", "starter-image", "localhost:5055/demo/images/surveyor:1")
    lns("init", "agent", "-o", "mine.yaml")
    lns("init", "agent", "-o", "other.yaml", "--image", "r.example/base@sha256:" + "1a" * 32)

    assert image_of(tmp_path / "mine.yaml") == "localhost:5055/demo/images/surveyor:1"
    assert image_of(tmp_path / "other.yaml") == "r.example/base@sha256:" + "1a" * 32


@pytest.mark.parametrize(
    ("family", "image"),
    [("model", "r.example/i:1"), ("agent", "https://r.example/i"), ("agent", "A B")],
)
def test_an_image_that_a_starter_cannot_have_is_refused(
    lns: Client, tmp_path: Path, family: str, image: str
) -> None:
    assert lns("init", family, "--image", image).code == 1
    assert list(tmp_path.glob("*.yaml")) == []


def test_a_starter_with_content_brings_its_folder(lns: Client, tmp_path: Path) -> None:
    result = lns("init", "fileset", "-o", "notes.yaml")

    assert (tmp_path / "notes").is_dir()
    assert "lns push ./notes.yaml localhost:5000/filesets/notes:1 --content notes" in result.err


def made(services: ScriptedServices) -> None:
    """Scripts an image that is pulled and materialized."""
    pulled(services)
    services["Materialize"] = [
        images_pb.MaterializeResponse(
            result=images_pb.MaterializeResult(image=images_pb.Image(composefs_digest=DIGEST))
        )
    ]


def test_an_image_is_inspected_with_its_composefs_digest(
    services: ScriptedServices, lns: Client
) -> None:
    made(services)
    services["InspectManifest"] = pb.InspectManifestResponse(
        reference="r/x:1", descriptor=MANIFEST, manifest=b'{"layers":[]}', config=b"{}"
    )

    document = json.loads(lns("image", "inspect", "r/x:1", "--format", "json").out)

    assert document["composefs_digest"] == DIGEST
    assert document["manifest"] == {"layers": []}
    assert services.asked("Materialize")[0].manifest_digest == DIGEST


def test_an_artifact_is_no_image(services: ScriptedServices, lns: Client) -> None:
    pulled(services, "model", b"{}")

    assert "the family model, not an image" in lns("image", "inspect", "r/x:1").err


def test_an_image_is_exported_whole_or_not_at_all(
    services: ScriptedServices, lns: Client, tmp_path: Path
) -> None:
    made(services)
    services["ReadImageFile"] = [
        images_pb.ReadImageFileResponse(data=b"one"),
        images_pb.ReadImageFileResponse(data=b"two"),
    ]
    assert lns("image", "export", "r/x:1", "--dump", "-").out == "onetwo"
    lns("image", "export", "r/x:1", "--image", "i.cfs")
    assert (tmp_path / "i.cfs").read_bytes() == b"onetwo"

    services["ReadImageFile"] = [
        images_pb.ReadImageFileResponse(data=b"one"),
        ArtifactInvalid("it broke"),
    ]
    assert lns("image", "export", "r/x:1", "--image", "j.cfs").code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["i.cfs"]
    assert lns("image", "export", "r/x:1").code == 1


@pytest.mark.parametrize(("repaired", "code"), [(True, 0), (False, 1)])
def test_damage_that_is_left_is_a_failure(
    services: ScriptedServices, lns: Client, repaired: bool, code: int
) -> None:
    made(services)
    services["VerifyImage"] = images_pb.VerifyImageResponse(
        object_count=3, damages=[images_pb.Damage(path="/bin/x", repaired=repaired)]
    )

    result = lns("image", "verify", "r/x:1")

    assert result.code == code
    assert "/bin/x" in result.out
    assert "1 damaged" in result.err


def test_pruning_is_of_images_and_blobs(services: ScriptedServices, lns: Client) -> None:
    services["PruneImages"] = images_pb.PruneImagesResponse(images=[DIGEST], freed_bytes=10**6)
    services["PruneBlobs"] = pb.PruneBlobsResponse(digests=["sha256:b"], freed_bytes=2 * 10**6)

    result = lns("image", "prune", "-f", "--dry-run")

    assert result.out == f"{DIGEST}\nsha256:b\n"
    assert "would free 3MB" in result.err
    assert services.asked("PruneBlobs")[0].dry_run


def test_families_are_listed_and_their_schemas_printed(
    services: ScriptedServices, lns: Client
) -> None:
    services["ListArtifactTypes"] = pb.ListArtifactTypesResponse(
        types=[pb.ArtifactType(slug="model", kind="Model", schema_json='{"a": 1}\n')]
    )

    assert "model    Model" in lns("types").out
    assert json.loads(lns("types", "model").out) == {"a": 1}
    assert ", ".join(SLUGS) in lns("types", "nonsense").err


@pytest.mark.parametrize("slug", SLUGS)
def test_a_starter_is_valid_and_replaces_nothing(lns: Client, tmp_path: Path, slug: str) -> None:
    family = next(one for one in FAMILIES if one.slug == slug)

    assert lns("init", slug).out == f"{slug}.yaml\n"
    text = (tmp_path / f"{slug}.yaml").read_bytes()
    assert parse_artifact(text, family).family is family
    assert lns("init", slug).code == 1
    assert lns("init", slug, "--force").code == 0
    assert lns("init", slug, "-o", "-").out.encode() == text


def test_a_document_is_validated_without_pushing(
    services: ScriptedServices, lns: Client, tmp_path: Path
) -> None:
    (tmp_path / "m.yaml").write_text("x")
    services["ValidateArtifact"] = pb.ValidateArtifactResponse(family="model", name="m")

    assert lns("validate", "m.yaml").out == "m.yaml: model m is valid\n"
    assert services.asked("PushArtifact") == []


@pytest.mark.parametrize(
    ("verdict", "code"),
    [(vm_pb.HostCheck.VERDICT_WARNING, 0), (vm_pb.HostCheck.VERDICT_FAILED, 1)],
)
def test_the_doctor_says_what_to_do(
    services: ScriptedServices,
    lns: Client,
    verdict: vm_pb.HostCheck.Verdict.ValueType,
    code: int,
) -> None:
    check = vm_pb.HostCheck(name="kvm", verdict=verdict, detail="hangs", remedy="use another")
    services["GetHost"] = vm_pb.GetHostResponse(checks=[check])
    services["ListLogins"] = pb.ListLoginsResponse(logins=[pb.StoredLogin(registry="r.example")])

    result = lns("doctor", NO_COLOR="1", HTTPS_PROXY="http://me:hunter2@proxy.example:1")

    assert result.code == code
    assert "HTTPS_PROXY http://proxy.example:1" in result.out
    assert "hunter2" not in result.out
    assert "kvm              hangs" in result.out
    assert "→ use another" in result.out
    assert "r.example" in result.out
    assert "\x1b" not in result.out


def test_the_doctor_says_when_no_service_answers(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    endpoints = [key for key in KEYS if key.startswith("endpoint-")]
    variables = {
        f"LNS_{key.upper().replace('-', '_')}": f"unix:{tmp_path}/nobody.sock" for key in endpoints
    }

    assert dispatch(["doctor"], {"HOME": str(tmp_path), **variables}) == 1
    assert "failed   services" in capfd.readouterr().out


def test_a_copy_is_between_references(services: ScriptedServices, lns: Client) -> None:
    services["CopyManifest"] = [
        pb.CopyManifestResponse(result=pb.PushImageResult(reference="b/x:1", descriptor=MANIFEST))
    ]

    result = lns("copy", "a/x:1", "b/x:1", "--platform", "linux/arm64")

    assert result.out == f"{DIGEST}\n"
    assert services.asked("CopyManifest")[0].platform.architecture == "arm64"


@pytest.mark.parametrize("output", [[], ["-o", "-"]])
def test_a_lock_goes_to_standard_output(
    services: ScriptedServices, lns: Client, output: list[str]
) -> None:
    services["Lock"] = resolver_pb.LockResponse(lock=b"version: 1\n")
    services["AcquireLease"] = pb.AcquireLeaseResponse()

    assert lns("lock", "r/x:1", *output).out == "version: 1\n"


def test_services_that_do_not_run_are_reported_in_words(lns: Client, short_directory: Path) -> None:
    peers = ("REGISTRY_GATEWAY", "RESOLVER", "MATERIALIZER", "VM_RUNNER")
    own = {f"LNS_ENDPOINT_{one}": "" for one in peers}  # the suite is looked at where none is set
    result = lns("service", "status", LNS_HOME=str(short_directory / "none"), **own)

    lines = dict(line.split(":", 1) for line in result.out.splitlines())
    assert result.code == 1
    assert (lines["running"].strip(), lines["pid"].strip()) == ("no", "-")
    assert lines["state directory"] == f" {short_directory}/none"
