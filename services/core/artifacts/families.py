"""The ten families of artifacts: what each is called, and how one is recognized.

On push the reference's path or a flag names the family. On pull the manifest alone does, never the
path: `family_of_manifest`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from services.core.errors import ArtifactTypeUnsupported, RequestInvalid
from services.core.manifest import Manifest
from services.core.reference import Reference

API_VERSION: Final = "lens.dev/v1alpha1"

_VENDOR: Final = "application/vnd.lens."
_ARTIFACT_SUFFIX: Final = ".v1+json"
_CONFIG_SUFFIX: Final = ".config.v1+json"


class Layer(StrEnum):
    """The two classes of families."""

    RUNTIME = "runtime"
    """Applied around the agent."""
    APPLICATION = "application"
    """Mounted into the file system of the agent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One family of artifacts.

    Attributes:
        slug: its name in media types, flags and schemas: `agent`.
        kind: the document's `kind`: `Agent`.
        path_segment: segment of a repository path from which a push infers the family: `agents`.
        layer: its class.
        default_mount: where it is mounted unless something says otherwise, `<name>` standing for
            the artifact's name; empty where there is no default.
        has_content: whether layers of content belong to it.
    """

    slug: str
    kind: str
    path_segment: str
    layer: Layer
    default_mount: str = ""
    has_content: bool = False

    @property
    def artifact_type(self) -> str:
        """The manifest's `artifactType`."""
        return f"{_VENDOR}{self.slug}{_ARTIFACT_SUFFIX}"

    @property
    def config_media_type(self) -> str:
        """Media type of the config blob, which holds the document."""
        return f"{_VENDOR}{self.slug}{_CONFIG_SUFFIX}"

    @property
    def is_mountable(self) -> bool:
        """Whether it is of the application layer."""
        return self.layer is Layer.APPLICATION

    def default_mount_path(self, name: str) -> str:
        """Returns the default mount path of the artifact `name`; empty if the family has none."""
        return self.default_mount.replace("<name>", name)


AGENT: Final = Family(slug="agent", kind="Agent", path_segment="agents", layer=Layer.RUNTIME)
BUNDLE: Final = Family(
    slug="bundle", kind="AgentSystem", path_segment="bundles", layer=Layer.RUNTIME
)
SANDBOX: Final = Family(
    slug="sandbox", kind="Sandbox", path_segment="sandboxes", layer=Layer.RUNTIME
)
POLICY: Final = Family(slug="policy", kind="Policy", path_segment="policies", layer=Layer.RUNTIME)
INTEGRATION: Final = Family(
    slug="integration", kind="Integration", path_segment="integrations", layer=Layer.RUNTIME
)
WORKFLOW: Final = Family(
    slug="workflow", kind="Workflow", path_segment="workflows", layer=Layer.RUNTIME
)
MODEL: Final = Family(
    slug="model",
    kind="Model",
    path_segment="models",
    layer=Layer.APPLICATION,
    default_mount="/etc/agent/model",
)
TOOL: Final = Family(
    slug="tool",
    kind="Tool",
    path_segment="tools",
    layer=Layer.APPLICATION,
    default_mount="/etc/agent/tools/<name>",
    has_content=True,
)
KNOWLEDGE: Final = Family(
    slug="knowledge",
    kind="Knowledge",
    path_segment="knowledge",
    layer=Layer.APPLICATION,
    default_mount="/etc/agent/knowledge/<name>",
    has_content=True,
)
FILESET: Final = Family(
    slug="fileset",
    kind="FileSet",
    path_segment="filesets",
    layer=Layer.APPLICATION,
    has_content=True,
)

FAMILIES: Final = (
    AGENT,
    BUNDLE,
    SANDBOX,
    POLICY,
    INTEGRATION,
    WORKFLOW,
    MODEL,
    TOOL,
    KNOWLEDGE,
    FILESET,
)
"""The families, in the order of the contract."""

SLUGS: Final = tuple(family.slug for family in FAMILIES)
BY_SLUG: Final[Mapping[str, Family]] = MappingProxyType({one.slug: one for one in FAMILIES})
BY_KIND: Final[Mapping[str, Family]] = MappingProxyType({one.kind: one for one in FAMILIES})
_BY_SEGMENT = {one.path_segment: one for one in FAMILIES}
_BY_MEDIA_TYPE = {
    media_type: one for one in FAMILIES for media_type in (one.artifact_type, one.config_media_type)
}


def family_of_word(word: str) -> Family:
    """Returns the family that a person means by its slug, kind or path segment, in any case.

    Raises:
        RequestInvalid: no family has it; the message lists the slugs.
    """
    for family in FAMILIES:
        if word.lower() in (family.slug, family.kind.lower(), family.path_segment):
            return family
    return family_by_slug(word)


def family_by_slug(slug: str) -> Family:
    """Returns the family with a slug.

    Raises:
        RequestInvalid: no family has it; the message lists the ten.
    """
    family = BY_SLUG.get(slug)
    if family is None:
        raise RequestInvalid(
            f"the artifact family {slug[:80]!r} does not exist",
            hint=f"choose one of {', '.join(SLUGS)}",
        )
    return family


def infer_family(reference: Reference) -> Family:
    """Returns the family that a reference's path names.

    The segments are looked at right to left, without the last, which is the artifact's name:
    `localhost:5000/team/agents/hello` is an agent.

    Raises:
        RequestInvalid: no segment names one; the message names the flag and the ten slugs.
    """
    for segment in reversed(reference.path.split("/")[:-1]):
        family = _BY_SEGMENT.get(segment)
        if family is not None:
            return family
    raise RequestInvalid(
        f"no segment of {reference.repository} names an artifact family",
        hint=f"push with --family, one of {', '.join(SLUGS)}",
        metadata={"reference": str(reference)},
    )


def family_of_manifest(manifest: Manifest) -> Family | None:
    """Returns the family of a manifest, or None for one that is no artifact of lns.

    `artifactType` and the config's media type both name the family; older clients leave the first
    out, which makes the second take its place.

    Raises:
        ArtifactTypeUnsupported: it calls itself an artifact of lens of a family that lns does not
            know, or its two media types name two families.
    """
    types = (manifest.artifact_type, manifest.config.media_type)
    if not any(media_type.startswith(_VENDOR) for media_type in types):
        return None
    families = {_BY_MEDIA_TYPE.get(media_type) for media_type in types}
    family = families.pop()
    if family is None or families:
        raise ArtifactTypeUnsupported(
            f"manifest {manifest.descriptor.digest.short} has the type {types[0][:100]!r} and a"
            f" config of type {types[1][:100]!r}, which is no artifact family that lns knows",
            hint=f"lns knows {', '.join(SLUGS)}",
            metadata={"digest": manifest.descriptor.digest},
        )
    return family
