"""Documents of artifacts: hostile YAML or JSON in, a validated value and canonical JSON out."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from services.core.artifacts.bounded_validator import SchemaValidator
from services.core.artifacts.families import BY_KIND, Family
from services.core.artifacts.rules import rule_problems
from services.core.artifacts.schemas import envelope_validator_of, validator_of
from services.core.artifacts.violations import RULE, SYNTAX, json_path, to_violations
from services.core.artifacts.yaml_reader import YamlError, read_yaml
from services.core.errors import ArtifactInvalid, Violation

MAX_DOCUMENT_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 32
MAX_NODES: Final = 50_000
_MAX_INTEGER: Final = (1 << 53) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A document that fits its family's schema.

    Attributes:
        family: its family.
        name: `metadata.name`.
        labels: `metadata.labels`.
        mount_path: `mount.path`, or empty where the document has none.
        mount_read_only: `mount.readOnly`; true where the document does not say.
        spec: its `spec`, as the types of JSON.
        document: the whole document, as the types of JSON.
    """

    family: Family
    name: str
    labels: Mapping[str, str]
    mount_path: str
    mount_read_only: bool
    spec: Mapping[str, Any]
    document: Mapping[str, Any]

    @property
    def config_blob(self) -> bytes:
        """The document as it is pushed: canonical JSON."""
        return canonical_json(self.document)


def parse_document(data: bytes) -> dict[str, Any]:
    """Parses one YAML or JSON object from hostile bytes; see `parse_value`.

    Raises:
        ArtifactInvalid: as `parse_value`, or it is something else than an object.
    """
    document = parse_value(data)
    if not isinstance(document, dict):
        raise _invalid_syntax("it is not an object with named members")
    return document


def parse_value(data: bytes) -> object:
    """Parses one YAML or JSON value from hostile bytes into the types of JSON.

    Raises:
        ArtifactInvalid: it is neither, larger than 1 MiB, nested too deeply, repeats a key, or
            holds what JSON or a command line cannot: NaN, NUL, half a surrogate pair, an integer
            beyond 2^53.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise _invalid_syntax(
            f"it has {len(data)} bytes; at most {MAX_DOCUMENT_BYTES} are accepted"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _invalid_syntax(f"byte {error.start} is not UTF-8") from error
    document = _parse_json(text) if text.lstrip()[:1] == "{" else _parse_yaml(text)
    found = tuple(_unfit(document))
    if found:
        raise ArtifactInvalid(
            f"document holds values that cannot be used: {_summary(found)}", violations=found
        )
    return document


def parse_artifact(
    data: bytes,
    family: Family | None = None,
    *,
    validator: SchemaValidator | None = None,
    wanted: Callable[[], None] = lambda: None,
) -> Artifact:
    """Parses and validates the document of an artifact.

    Args:
        data: YAML or JSON from anywhere.
        family: what it has to be; None takes the document's `kind`.
        validator: a registry's own schema for the family, instead of schema and rules of lns; the
            envelope has to be that of lns all the same.
        wanted: called again and again meanwhile; what it raises ends the check.

    Raises:
        LimitExceeded: the check against the schema takes too much work.
        ArtifactInvalid: it is not one; `violations` has every problem by its JSON path.
    """
    document = parse_document(data)
    family = family or family_of_document(document)
    found = to_violations((validator or validator_of(family)).errors(document, wanted=wanted))
    if validator is not None:
        found += to_violations(envelope_validator_of(family).errors(document))
    elif not found:
        found = tuple(
            Violation(subject=json_path(path), description=problem, type=RULE)
            for path, problem in rule_problems(family, document)
        )
    if found:
        raise ArtifactInvalid(
            f"document is not a valid {family.slug}: {_summary(found)}",
            hint=f"`lns types {family.slug}` prints the schema",
            violations=found,
            metadata={"family": family.slug},
        )
    mount: Mapping[str, Any] = document.get("mount") or {}
    return Artifact(
        family=family,
        name=document["metadata"]["name"],
        labels=document["metadata"].get("labels", {}),
        mount_path=mount.get("path", ""),
        mount_read_only=mount.get("readOnly", True),
        spec=document["spec"],
        document=document,
    )


def family_of_document(document: Mapping[str, Any]) -> Family:
    """Returns the family that a parsed document's `kind` names.

    Raises:
        ArtifactInvalid: it names none.
    """
    kind = document.get("kind")
    family = BY_KIND.get(kind) if isinstance(kind, str) else None
    if family is None:
        description = f"must be one of {', '.join(BY_KIND)}"
        raise ArtifactInvalid(
            f"document has no kind that lns knows: $.kind {description}",
            violations=[Violation(subject="$.kind", description=description, type=RULE)],
        )
    return family


def canonical_json(document: Mapping[str, Any]) -> bytes:
    """Returns the one JSON form of a document: keys sorted, no white space, UTF-8."""
    return json.dumps(
        document, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    ).encode()


def _summary(found: tuple[Violation, ...]) -> str:
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{found[0].subject} {found[0].description}{more}"


def _parse_json(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise _invalid_syntax(f"it is nested deeper than {MAX_DEPTH} levels") from error
    except ValueError as error:
        if isinstance(error, json.JSONDecodeError):
            try:
                return read_yaml(text, max_depth=MAX_DEPTH, max_nodes=MAX_NODES)
            except YamlError:
                pass  # YAML may begin with a brace too; where it is neither, JSON was meant
        raise _invalid_syntax(str(error)) from error


def _parse_yaml(text: str) -> object:
    try:
        return read_yaml(text, max_depth=MAX_DEPTH, max_nodes=MAX_NODES)
    except YamlError as error:
        raise _invalid_syntax(str(error)) from error


def _unfit(document: object) -> Iterator[Violation]:
    """Finds values that are no JSON or that no command line and no file can hold."""
    nodes = 0
    pending: list[tuple[object, tuple[str | int, ...]]] = [(document, ())]
    while pending:
        value, path = pending.pop()
        nodes += 1
        if len(path) > MAX_DEPTH or nodes > MAX_NODES:
            limit = f"{MAX_DEPTH} levels" if len(path) > MAX_DEPTH else f"{MAX_NODES} values"
            yield Violation(subject="$", description=f"has more than {limit}", type=SYNTAX)
            return
        if isinstance(value, dict):
            pending.extend((member, (*path, name)) for name, member in value.items())
            for name in value:
                yield from _unfit_scalar(name, path)
        elif isinstance(value, list):
            pending.extend((element, (*path, index)) for index, element in enumerate(value))
        else:
            yield from _unfit_scalar(value, path)


def _unfit_scalar(value: object, path: tuple[str | int, ...]) -> Iterator[Violation]:
    problem = ""
    if isinstance(value, str) and "\0" in value:
        problem = "holds a NUL character"
    elif isinstance(value, str) and not _is_encodable(value):
        problem = "holds half a surrogate pair"
    elif isinstance(value, float) and not math.isfinite(value):
        problem = "is no finite number"
    elif isinstance(value, int) and abs(value) > _MAX_INTEGER:
        problem = "is beyond 2^53"
    if problem:
        yield Violation(subject=_printable(json_path(path)), description=problem, type=SYNTAX)


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(text: str) -> str:
    return text.encode(errors="replace").decode()


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:80]!r} occurs twice")
    return result


def _refuse_constant(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")


def _invalid_syntax(reason: str) -> ArtifactInvalid:
    text = _printable(reason[:300])
    return ArtifactInvalid(
        f"document is neither YAML nor JSON that lns accepts: {text}",
        violations=[Violation(subject="$", description=text, type=SYNTAX)],
    )
