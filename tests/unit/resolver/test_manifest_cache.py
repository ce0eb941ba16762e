from services.core.artifacts import families as f
from services.core.platforms import Platform
from services.resolver.manifest_cache import ManifestCache
from services.resolver.resolution import Settings
from services.resolver.resolve import Resolver
from tests.fakes.manifest_source import AMD64
from tests.support.shelf import HOST, IMAGE, Shelf


async def test_a_tag_is_always_asked_for(shelf: Shelf) -> None:
    cache = ManifestCache(shelf.manifests)

    for _ in range(2):
        await cache.fetch(IMAGE, platform=AMD64)

    assert len(shelf.manifests.asked) == 2


async def test_a_digest_is_asked_for_once_also_after_its_tag(shelf: Shelf) -> None:
    cache = ManifestCache(shelf.manifests)
    fetched = await cache.fetch(IMAGE, platform=AMD64)

    again = await cache.fetch(f"{HOST}/images/base@{fetched.root.digest}", platform=AMD64)

    assert again.manifest == fetched.manifest
    assert len(shelf.manifests.asked) == 1


async def test_another_platform_and_another_repository_are_asked_for(shelf: Shelf) -> None:
    arm = Platform(architecture="arm64")
    shelf.manifests.put_image(f"{HOST}/a:1", platforms=(AMD64, arm))
    shelf.manifests.put_image(f"{HOST}/b:1", platforms=(AMD64, arm))
    cache = ManifestCache(shelf.manifests)
    digest = (await cache.fetch(f"{HOST}/a:1", platform=AMD64)).root.digest

    other = await cache.fetch(f"{HOST}/a@{digest}", platform=arm)
    await cache.fetch(f"{HOST}/b@{digest}", platform=AMD64)

    assert len(shelf.manifests.asked) == 3
    assert other.manifest.descriptor.digest != digest


async def test_the_least_used_entries_go_when_it_is_full(shelf: Shelf) -> None:
    digests = [
        shelf.manifests.put_image(f"{HOST}/i{number}:1", {"Cmd": [str(number)]}).digest
        for number in range(10)
    ]
    cache = ManifestCache(shelf.manifests, max_bytes=1000)

    for number, digest in enumerate(digests):
        await cache.fetch(f"{HOST}/i{number}@{digest}", platform=AMD64)
    shelf.manifests.asked.clear()
    await cache.fetch(f"{HOST}/i9@{digests[9]}", platform=AMD64)
    await cache.fetch(f"{HOST}/i0@{digests[0]}", platform=AMD64)

    assert [ask.reference.partition("@")[0] for ask in shelf.manifests.asked] == [f"{HOST}/i0"]


async def test_a_warm_bundle_of_ten_pinned_components_asks_for_its_own_manifest_alone(
    shelf: Shelf,
) -> None:
    def pinned(reference: str) -> dict[str, str]:
        return {"ref": reference, "digest": shelf.manifests._tags[f"{HOST}/{reference}"]}

    image = shelf.manifests._tags[IMAGE]
    reference = shelf.bundle(
        agent=pinned(shelf.agent(image=f"{HOST}/images/base@{image}")),
        filesets=[pinned(shelf.fileset(f"f{number}", f"/f{number}")) for number in range(7)],
        sandbox=pinned(shelf.put(f.SANDBOX, "s", {})),
        policies=[pinned(shelf.put(f.POLICY, "p", {}))],
    )
    cache = ManifestCache(shelf.manifests)
    resolver = Resolver(cache, Settings(platform=AMD64, version="0.1.0"))
    cold = await resolver.resolve(reference)
    shelf.manifests.asked.clear()

    warm = await resolver.resolve(reference)

    assert warm == cold
    assert [ask.reference for ask in shelf.manifests.asked] == [reference]
