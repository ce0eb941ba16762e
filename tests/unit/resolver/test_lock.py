"""Locks: stable text, the same plan again, and what differs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.artifacts import families as f
from services.core.descriptor import OCI_MANIFEST, Descriptor
from services.core.digest import Digest
from services.core.errors import ManifestUnknown, PlanInvalid, RegistryUnavailable, RequestInvalid
from services.core.platforms import Platform
from services.core.run_plan import PinnedManifest, RunPlan
from services.resolver.lock import Lock, LockDifference, format_lock, parse_lock
from services.resolver.locking import Locking
from services.resolver.request import Defaults, Overrides
from tests.fakes.manifest_source import AMD64
from tests.support.outcomes import passes_or
from tests.support.shelf import HOST, IMAGE, Shelf


def locking(shelf: Shelf) -> Locking:
    return Locking(shelf.resolver(), shelf.manifests)


async def text_of(shelf: Shelf, reference: str) -> bytes:
    return format_lock(await locking(shelf).lock(reference, platform=None))


async def by_lock(shelf: Shelf, text: bytes, **flags: object) -> tuple[RunPlan, ...]:
    return await locking(shelf).resolve(
        text,
        overrides=Overrides(**flags),  # type: ignore[arg-type]  # flags of the test's own
        defaults=Defaults(),
        platform=None,
    )


def full(shelf: Shelf) -> str:
    platforms = (Platform(architecture="arm64"), AMD64)
    shelf.manifests.put_image(f"{HOST}/images/multi:1", platforms=platforms)
    return shelf.bundle(
        agents=[shelf.agent("one"), shelf.agent("two", image=f"{HOST}/images/multi:1")],
        sandbox=shelf.put(f.SANDBOX, "s", {}),
        policies=[shelf.put(f.POLICY, "p", {})],
        filesets=[shelf.fileset("fs", "/fs")],
    )


async def test_the_text_is_stable_and_has_the_root_first(shelf: Shelf) -> None:
    reference = full(shelf)

    text = await text_of(shelf, reference)

    assert text == await text_of(shelf, reference)
    lock = parse_lock(text)
    assert format_lock(lock) == text
    assert (lock.reference, lock.platform) == (reference, AMD64)
    assert [(entry.role, entry.requested) for entry in lock.manifests] == [
        ("bundle", reference),
        ("agent", "agents/one:1"),
        ("agent", "agents/two:1"),
        ("fileset", "filesets/fs:1"),
        ("image", IMAGE),
        ("image", f"{HOST}/images/multi:1"),
        ("index", f"{HOST}/images/multi:1"),
        ("policy", "policies/p:1"),
        ("sandbox", "sandboxes/s:1"),
    ]


async def test_the_text_of_a_lock_is_as_documented(shelf: Shelf) -> None:
    text = await text_of(shelf, IMAGE)

    digest = parse_lock(text).manifests[0].manifest.digest
    assert text.decode() == (
        "# Written by `lns lock`; `lns run --locked FILE` runs exactly this.\n"
        "version: 1\n"
        f'reference: "{IMAGE}"\n'
        'platform: "linux/amd64"\n'
        "manifests:\n"
        '  - role: "image"\n'
        f'    requested: "{IMAGE}"\n'
        f'    repository: "{HOST}/images/base"\n'
        f"    digest: {digest}\n"
        f'    mediaType: "{OCI_MANIFEST}"\n'
        "    size: 260\n"
    )


async def test_a_lock_resolves_to_the_same_plans_from_this_node_alone(shelf: Shelf) -> None:
    reference = full(shelf)
    plans = await shelf.resolve(reference)
    text = await text_of(shelf, reference)
    shelf.manifests.asked.clear()

    assert await by_lock(shelf, text) == plans
    assert all(ask.offline and "@sha256:" in ask.reference for ask in shelf.manifests.asked)


async def test_a_lock_holds_when_every_tag_has_moved(shelf: Shelf) -> None:
    reference = full(shelf)
    plans = await shelf.resolve(reference)
    text = await text_of(shelf, reference)
    shelf.agent("one", command=["changed"])
    shelf.manifests.put_image(IMAGE, {"Cmd": ["changed"]})
    shelf.bundle(agent=shelf.agent("three"))

    assert await by_lock(shelf, text) == plans


async def test_what_this_node_lacks_comes_by_digest(shelf: Shelf) -> None:
    reference = full(shelf)
    plans = await shelf.resolve(reference)
    text = await text_of(shelf, reference)
    shelf.manifests.node.clear()
    shelf.manifests.asked.clear()

    assert await by_lock(shelf, text) == plans
    online = [ask.reference for ask in shelf.manifests.asked if not ask.offline]
    assert online
    assert all("@sha256:" in one for one in online)


async def test_flags_apply_to_a_locked_run(shelf: Shelf) -> None:
    text = await text_of(shelf, IMAGE)

    (plan,) = await by_lock(shelf, text, argv=("x",), cpus="2")

    assert (plan.argv, plan.resources.vcpus) == (("x",), 2)


async def test_a_mount_flag_needs_a_digest_in_a_locked_run(shelf: Shelf) -> None:
    shelf.fileset("fs", "/fs")
    text = await text_of(shelf, IMAGE)
    reference = f"{HOST}/filesets/fs"
    digest = (await shelf.manifests.fetch(f"{reference}:1", platform=AMD64)).root.digest

    with pytest.raises(PlanInvalid) as caught:
        await by_lock(shelf, text, mounts=(f"{reference}:1",))
    (plan,) = await by_lock(shelf, text, mounts=(f"{reference}@{digest}",))

    assert "is not in the lock" in caught.value.violations[0].description
    assert plan.mounts[0].path == "/fs"


async def test_a_component_that_is_not_in_the_lock_is_a_problem(shelf: Shelf) -> None:
    text = await text_of(shelf, full(shelf))
    lines = text.decode().split("  - role: ")
    without = "  - role: ".join(one for one in lines if "filesets/fs:1" not in one).encode()

    with pytest.raises(PlanInvalid) as caught:
        await by_lock(shelf, without)

    assert [one.subject for one in caught.value.violations] == ["filesets[0] filesets/fs:1"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("size: ", "size: 1"),
        ('role: "sandbox"', 'role: "policy"'),
        ('mediaType: "application/vnd.oci.image.manifest', 'mediaType: "application/x.manifest'),
        ('requested: "filesets/fs:1"', 'requested: "filesets/fs"'),
    ],
)
async def test_a_lock_that_was_changed_is_refused(shelf: Shelf, before: str, after: str) -> None:
    text = (await text_of(shelf, full(shelf))).decode()
    changed = text.replace(before, after)
    assert changed != text

    with pytest.raises((RequestInvalid, PlanInvalid)):
        await by_lock(shelf, changed.encode())


async def test_an_entry_too_many_in_a_lock_is_refused_by_name(shelf: Shelf) -> None:
    text = await text_of(shelf, full(shelf))
    more = text.replace(b"manifests:\n", b"manifests:\n", 1) + (
        b'  - role: "tool"\n    requested: "tools/evil:1"\n'
        b'    repository: "registry.test/tools/evil"\n'
        b"    digest: sha256:" + b"0" * 64 + b'\n    mediaType: "application/x"\n    size: 1\n'
    )

    with pytest.raises(RequestInvalid, match="tool tools/evil:1"):
        await by_lock(shelf, more)


async def test_a_lock_without_its_registry_fails_as_unavailable(shelf: Shelf) -> None:
    text = await text_of(shelf, IMAGE)
    shelf.manifests.failures[f"{HOST}/images/base"] = RegistryUnavailable("down")

    with pytest.raises(RegistryUnavailable):
        await by_lock(shelf, text)


async def test_a_lock_for_another_platform_is_refused(shelf: Shelf) -> None:
    text = await text_of(shelf, IMAGE)

    with pytest.raises(RequestInvalid, match="linux/amd64"):
        await locking(shelf).resolve(
            text,
            overrides=Overrides(),
            defaults=Defaults(),
            platform=Platform(architecture="arm64"),
        )


async def test_a_current_lock_has_no_differences(shelf: Shelf) -> None:
    assert await locking(shelf).check(await text_of(shelf, full(shelf))) == ()


async def test_a_check_names_what_changed_came_and_went(shelf: Shelf) -> None:
    text = await text_of(shelf, full(shelf))
    before = {entry.requested: entry.manifest.digest for entry in parse_lock(text).manifests}
    shelf.agent("one", command=["changed"])
    shelf.bundle(
        agents=["agents/one:1"],
        sandbox="sandboxes/s:1",
        filesets=["filesets/fs:1", shelf.fileset("new", "/new")],
    )

    differences = await locking(shelf).check(text)

    now = {
        entry.requested: entry.manifest.digest
        for entry in parse_lock(await text_of(shelf, f"{HOST}/bundles/system:1")).manifests
    }
    multi = f"{HOST}/images/multi:1"
    assert [
        (one.component, bool(one.locked_digest), bool(one.current_digest)) for one in differences
    ] == [
        ("agent agents/one:1", True, True),
        ("agent agents/two:1", True, False),
        (f"bundle {HOST}/bundles/system:1", True, True),
        ("fileset filesets/new:1", False, True),
        (f"image {multi}", True, False),
        (f"index {multi}", True, False),
        ("policy policies/p:1", True, False),
    ]
    assert differences[0] == LockDifference(
        component="agent agents/one:1",
        locked_digest=before["agents/one:1"],
        current_digest=now["agents/one:1"],
    )


async def test_a_check_of_a_reference_that_is_gone_fails(shelf: Shelf) -> None:
    text = (await text_of(shelf, IMAGE)).replace(b"images/base", b"images/gone")

    with pytest.raises(ManifestUnknown):
        await locking(shelf).check(text)


GOOD = b"""
version: 1
reference: localhost:5000/a:1
platform: linux/amd64
manifests:
  - role: image
    requested: localhost:5000/a:1
    repository: localhost:5000/a
    digest: sha256:0000000000000000000000000000000000000000000000000000000000000000
    mediaType: application/vnd.oci.image.manifest.v1+json
    size: 5
"""


def test_a_lock_written_by_hand_is_read() -> None:
    assert parse_lock(GOOD).manifests[0].repository == "localhost:5000/a"


@pytest.mark.parametrize(
    ("before", "after", "path"),
    [
        (b"version: 1", b"version: 2", "$.version"),
        (b"version: 1", b"", "$.version"),
        (b"linux/amd64", b"linux", "$.platform"),
        (b"size: 5", b"size: -5", "$.manifests[0].size"),
        (b"sha256:00", b"sha256:", "$.manifests[0].digest"),
        (b"repository: localhost:5000/a", b"repository: a", "$.manifests[0].repository"),
        (b"repository: localhost:5000/a", b"repository: team/a", "$"),
        (b"repository: localhost:5000/a", b"repository: localhost:5000/a:tag", "$"),
        (b"role: image", b"role: image\n    more: 1", "$.manifests[0].more"),
        (b"  - role", b"  # - role", "$"),
        (GOOD, b"[]", "$"),
        (GOOD, b"\xff", "$"),
        (GOOD, b"", "$"),
    ],
)
def test_what_is_no_lock_is_refused_by_path(before: bytes, after: bytes, path: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        parse_lock(GOOD.replace(before, after, 1))

    assert caught.value.violations[0].subject.startswith(path)
    assert caught.value.hint == "`lns lock REF -o lns.lock` writes one"


@given(st.binary(max_size=100))
def test_any_bytes_are_a_lock_or_refused(data: bytes) -> None:
    with passes_or(RequestInvalid):
        parse_lock(data)


texts = st.text("abc:/@ .#'\"{}[]-é", min_size=1, max_size=20).filter(lambda one: " " not in one)


@given(
    st.lists(st.tuples(texts, st.sampled_from(["agent", "image", "tool"])), min_size=1, max_size=5)
)
def test_every_lock_is_read_back(entries: list[tuple[str, str]]) -> None:
    lock = Lock(
        reference=entries[0][0],
        platform=AMD64,
        manifests=tuple(
            PinnedManifest(
                role=role,
                requested=requested,
                repository="localhost:5000/a/b",
                manifest=Descriptor(
                    media_type=OCI_MANIFEST, digest=Digest.of(requested.encode()), size=5
                ),
            )
            for requested, role in entries
        ),
    )

    assert parse_lock(format_lock(lock)) == lock
