"""Whatever the documents: a bundle resolves, or is refused with a typed error that names why."""

from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from services.chassis.run_plan_messages import format_run_plan, parse_run_plan
from services.core.artifacts import families as f
from services.core.errors import Kind, LnsError
from services.resolver.request import Defaults, Overrides, PolicyFile
from tests.support.documents import document
from tests.support.schema_strategies import documents
from tests.support.shelf import HOST, IMAGE, Shelf

COMPONENTS = {
    "agents": f.AGENT, "sandbox": f.SANDBOX, "policies": f.POLICY, "model": f.MODEL,
    "tools": f.TOOL, "knowledge": f.KNOWLEDGE, "filesets": f.FILESET,
    "integrations": f.INTEGRATION, "workflow": f.WORKFLOW,
}  # fmt: skip

# What no schema can express is given, so that most documents are valid.
given_members = {
    "image": st.sampled_from([IMAGE, IMAGE, "images/nope:1", f"{HOST}/images/bad:1"]),
    "ref": st.sampled_from(["integrations/x:1", "integrations/other"]),
    "match": st.sampled_from(["a.example", "*.example:443", "10.0.0.0/8"]),
    "cpu": st.sampled_from([1, 0.5, "1500m", "0"]),
    "memory": st.sampled_from([512, "2Gi", "1m"]),
    "baseImage": st.just(f"{HOST}/images/base@sha256:{'0' * 64}"),
    "capabilities": st.sampled_from([[], ["network"], ["gpu"]]),
    "isolation": st.just("microvm"),
    "supervisorVersion": st.sampled_from(["0.1", "9"]),
}
specs = {name: documents(family, **given_members) for name, family in COMPONENTS.items()}
others = {name: one for name, one in specs.items() if name != "agents"}
bundles = st.fixed_dictionaries({"agents": specs["agents"]}, optional=others)
texts = st.text(max_size=12)
flags = st.fixed_dictionaries(
    {},
    optional={
        "argv": st.lists(texts, max_size=3).map(tuple),
        "env": st.lists(st.tuples(texts, texts), max_size=2).map(tuple),
        "user": texts,
        "workdir": texts,
        "cpus": texts | st.sampled_from(["1", "500m", "2.5"]),
        "memory": texts | st.sampled_from(["1g", "512"]),
        "disk": texts,
        "ports": st.lists(texts | st.just("80:80"), max_size=2).map(tuple),
        "volumes": st.lists(texts | st.just("v:/v"), max_size=2).map(tuple),
        "mounts": st.lists(texts | st.just(f"{HOST}/filesets/x:1:/m"), max_size=2).map(tuple),
        "name": texts,
        "labels": st.dictionaries(texts, texts, max_size=2),
        "entrypoint": texts,
        "policy": st.builds(PolicyFile, name=texts, text=st.binary(max_size=20)),
    },
)  # fmt: skip
relaxed = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


async def outcome(shelf: Shelf, reference: str, **given_flags: Any) -> LnsError | None:
    """Returns how a resolution was refused; None for plans, which survive the wire."""
    try:
        plans = await shelf.resolver().resolve(
            reference, overrides=Overrides(**given_flags), defaults=Defaults()
        )
    except LnsError as error:
        return error
    for plan in plans:
        assert parse_run_plan(format_run_plan(plan)) == plan
    return None


def check(refusal: LnsError | None) -> None:
    """A refusal is one that a caller can act upon."""
    event("refused" if refusal is not None else "resolved")
    if refusal is None:
        return
    assert refusal.kind in (Kind.FAILED_PRECONDITION, Kind.INVALID_ARGUMENT, Kind.NOT_FOUND)
    assert refusal.message
    assert all(one.subject and one.description and one.type for one in refusal.violations)


@given(bundles, st.just({}) | flags)
@relaxed
async def test_any_bundle_of_documents_resolves_or_is_refused(
    components: dict[str, Any], given_flags: dict[str, Any]
) -> None:
    shelf = Shelf()
    shelf.manifests.put_image(f"{HOST}/images/bad:1", {"Cmd": ["\ud800"]})
    references = {}
    for name, value in components.items():
        family = COMPONENTS[name]
        references[name] = {"ref": f"{family.path_segment}/x:1"}
        shelf.manifests.put_artifact(f"{HOST}/{family.path_segment}/x:1", family, value)
    bundle = document(f.BUNDLE, "b", {"components": references})
    shelf.manifests.put_artifact(f"{HOST}/bundles/b:1", f.BUNDLE, bundle)

    check(await outcome(shelf, f"{HOST}/bundles/b:1", **given_flags))


@given(documents(f.BUNDLE))
@relaxed
async def test_any_bundle_resolves_or_is_refused(value: dict[str, Any]) -> None:
    shelf = Shelf()
    shelf.manifests.put_artifact(f"{HOST}/bundles/b:1", f.BUNDLE, value)

    check(await outcome(shelf, f"{HOST}/bundles/b:1"))


async def test_much_of_what_is_generated_resolves() -> None:
    """Keeps the property above from becoming one of refusals alone."""
    drawn: list[dict[str, Any]] = []

    @given(specs["agents"])
    @settings(relaxed, max_examples=300, derandomize=True)
    def collect(agent: dict[str, Any]) -> None:
        drawn.append(agent)

    collect()
    shelf = Shelf()
    resolved = 0
    for agent in drawn:
        shelf.manifests.put_artifact(f"{HOST}/agents/x:1", f.AGENT, agent)
        resolved += await outcome(shelf, f"{HOST}/agents/x:1") is None

    assert resolved >= len(drawn) / 8


@given(st.text(max_size=60))
async def test_any_reference_resolves_or_is_refused(reference: str) -> None:
    check(await outcome(Shelf(), reference))
