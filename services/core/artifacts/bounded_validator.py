"""JSON Schema 2020-12 checks whose cost is bounded, for schemas and documents of strangers.

Three things make a schema a weapon: patterns that backtrack without end, keywords that apply one
another without end, and messages that repeat a large document. Patterns are matched by RE2 in
linear time; one that RE2 cannot express (a look-around, a back-reference) is not checked here and
stays with the registry that wrote it. Each keyword that is applied costs steps of a budget, each
match the length of its text times the size of its pattern, and all together time of the processor.
Whoever waits for a check can end it. Values print short. References are resolved inside the schema,
the shared parts given with it and the metaschema, never by fetching.
"""

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from functools import lru_cache
from itertools import islice
from typing import Any, Final

import re2
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend
from jsonschema_specifications import REGISTRY as SPECIFICATIONS
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from services.core.errors import LimitExceeded, RegistryProtocol

MAX_STEPS: Final = 500_000
"""Steps that one check may take; a policy of 4096 routes takes 300,000, in two seconds."""

MAX_ERRORS: Final = 100
"""Errors after which a check stops looking for more."""

MAX_MATCHING: Final = 256_000_000
"""Bytes times instructions of patterns that one check may match; at 8 ns each, two seconds."""

MAX_SECONDS: Final = 10.0
"""Seconds of the processor that one check may take, whatever they are spent on."""

_MAX_SHOWN: Final = 60
_MAX_PATTERN: Final = 4096

_Keyword = Callable[[Any, Any, Any, Any], Iterable[ValidationError] | None]


class _Budget:
    """What a check may still cost, and whether it is still wanted."""

    def __init__(self, steps: int, wanted: Callable[[], None]) -> None:
        self._steps = steps
        self._matching = MAX_MATCHING
        self._until = time.thread_time() + MAX_SECONDS
        self._wanted = wanted

    def step(self, count: int) -> None:
        """Takes the cost of applying a keyword; raises LimitExceeded when the budget is spent."""
        self._steps -= count
        if self._steps < 0 or time.thread_time() > self._until:
            raise _too_much()
        self._wanted()

    def match(self, text: str, instructions: int) -> None:
        """Takes the cost of a match before it is made; raises as `step` does."""
        size = len(text) if text.isascii() else 4 * len(text)
        self._matching -= size * instructions
        if self._matching < 0:
            raise _too_much()
        self.step(1)


def _too_much() -> LimitExceeded:
    return LimitExceeded(
        "the check against the schema takes too much work",
        hint="make the document smaller, or the registry's schema simpler",
    )


def _by_anybody() -> None:
    """Is asked whether a check is wanted where nobody ends it."""


# A validator makes new validators as it goes, so the budget cannot live in one of them.
_budget: ContextVar[_Budget] = ContextVar("budget")


class SchemaValidator:
    """Checks documents against one schema.

    Args:
        schema: the schema as parsed JSON, of bounded size and depth.
        shared: schemas that it may refer to by their `$id`.
        max_steps: steps that one check may take.
        wanted: called again and again while the schema itself is checked; what it raises ends that.

    Raises:
        RegistryProtocol: it is no valid schema, or one that cannot be checked safely.
        LimitExceeded: checking it takes too much work.
    """

    def __init__(
        self,
        schema: Mapping[str, Any],
        *,
        shared: Iterable[Mapping[str, Any]] = (),
        max_steps: int = MAX_STEPS,
        wanted: Callable[[], None] = _by_anybody,
    ) -> None:
        metaschema = _Validator(Draft202012Validator.META_SCHEMA, registry=SPECIFICATIONS)
        budget = _Budget(MAX_STEPS, wanted)
        problem = next(iter(_errors(metaschema, schema, budget, limit=1)), None)
        if problem is not None:
            raise RegistryProtocol(
                f"schema is not valid at {problem.json_path}: {problem.message[:200]}"
            )
        _refuse_unsafe(schema)
        registry: Registry[Any] = SPECIFICATIONS.with_resources(
            (part["$id"], DRAFT202012.create_resource(part)) for part in shared
        )
        self._validator = _Validator(schema, registry=registry)
        self._max_steps = max_steps

    def errors(
        self, document: object, *, wanted: Callable[[], None] = _by_anybody
    ) -> list[ValidationError]:
        """Returns what is wrong with a parsed document, at most `MAX_ERRORS`.

        Args:
            document: the document.
            wanted: called again and again meanwhile; what it raises ends the check.

        Raises:
            RegistryProtocol: the schema refers to something outside itself or to itself endlessly.
            LimitExceeded: the check takes too much work.
        """
        budget = _Budget(self._max_steps, wanted)
        return _errors(self._validator, document, budget, limit=MAX_ERRORS)


def _errors(
    validator: Any, document: object, budget: _Budget, *, limit: int
) -> list[ValidationError]:
    token = _budget.set(budget)
    try:
        return list(islice(validator.iter_errors(_abridge(document)), limit))
    except Unresolvable as error:
        raise RegistryProtocol(
            f"schema refers to {str(error.ref)[:200]!r}, which is not in it"
        ) from error
    except RecursionError as error:
        raise RegistryProtocol("schema refers to itself without end") from error
    finally:
        _budget.reset(token)


def _counted(keyword: _Keyword) -> _Keyword:
    def check(
        validator: Any,
        value: Any,
        instance: Any,
        schema: Any,
    ) -> Iterable[ValidationError] | None:
        _budget.get().step(1 + _length(value) + _length(instance))
        return keyword(validator, value, instance, schema)

    return check


def _length(value: object) -> int:
    return len(value) if isinstance(value, list | dict) else 0


class _Object(dict[str, Any]):
    """An object that prints short."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "{…}" if self else "{}"


class _Array(list[Any]):
    """An array that prints short."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "[…]" if self else "[]"


class _Text(str):
    """A text that prints short."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(str(self[:_MAX_SHOWN]) + "…")


def _abridge(value: object) -> object:
    if isinstance(value, dict):
        return _Object((key, _abridge(member)) for key, member in value.items())
    if isinstance(value, list):
        return _Array(_abridge(element) for element in value)
    if isinstance(value, str) and len(value) > _MAX_SHOWN:
        return _Text(value)
    return value


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Any:
    """Returns the compiled pattern, or None for one that RE2 does not express."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1 << 20
    if len(pattern) > _MAX_PATTERN:
        return None
    try:
        return re2.compile(pattern, options)
    except re2.error:
        return None


def _matches(pattern: str, text: str) -> bool:
    compiled = _compiled(pattern)
    if compiled is None:
        return True
    _budget.get().match(text, compiled.programsize)
    return compiled.search(text) is not None


def _pattern(_: Any, pattern: str, instance: Any, __: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not _matches(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(
    validator: Any,
    patterns: Mapping[str, Any],
    instance: Any,
    _: Any,
) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    for pattern, schema in patterns.items():
        for name, value in instance.items():
            if _matches(pattern, name):
                yield from validator.descend(value, schema, path=name, schema_path=pattern)


def _additional_properties(
    validator: Any,
    allowed: Any,
    instance: Any,
    schema: Mapping[str, Any],
) -> Iterator[ValidationError]:
    """As the standard one, but with RE2 and one error for each property, at its own path."""
    if not isinstance(instance, dict):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name, value in instance.items():
        if name in known or any(_matches(pattern, name) for pattern in patterns):
            continue
        if isinstance(allowed, dict):
            yield from validator.descend(value, allowed, path=name)
        elif allowed is False:
            yield ValidationError("is not a field", path=[name])


def _required(_: Any, names: list[str], instance: Any, __: Any) -> Iterator[ValidationError]:
    """As the standard one, but at the path of what is missing."""
    if isinstance(instance, dict):
        for name in names:
            if name not in instance:
                yield ValidationError("is required", path=[name])


def _unique_items(_: Any, wanted: Any, instance: Any, __: Any) -> Iterator[ValidationError]:
    """As the standard one, but in linear time."""
    if wanted is True and isinstance(instance, list):
        texts = {json.dumps(element, sort_keys=True) for element in instance}
        if len(texts) != len(instance):
            yield ValidationError("holds an element twice")


def _refuse_unsafe(schema: Mapping[str, Any]) -> None:
    """Refuses the one pair of keywords that would still reach a backtracking engine."""
    names: set[str] = set()
    pending: deque[object] = deque([schema])
    while pending:
        value = pending.popleft()
        if isinstance(value, dict):
            names.update(value)
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    if {"patternProperties", "unevaluatedProperties"} <= names:
        raise RegistryProtocol("schema uses both patternProperties and unevaluatedProperties")


_OWN: Mapping[str, _Keyword] = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "required": _required,
    "uniqueItems": _unique_items,
}
_Validator: Any = extend(  # type: ignore[no-untyped-call] # jsonschema has no type for it
    Draft202012Validator,
    {
        name: _counted(_OWN.get(name, keyword))
        for name, keyword in Draft202012Validator.VALIDATORS.items()
    },
)


def _evolved(self: Any, **changes: Any) -> Any:
    """Returns a validator of the same class for another schema.

    The library's own picks the class by the `$schema` of a part: a part with one would leave the
    bounds, and every part of the metaschema has one.
    """
    for name, parameter in _FIELDS:
        changes.setdefault(parameter, getattr(self, name))
    return type(self)(**changes)


_FIELDS: Final = tuple(
    (member.name, member.alias) for member in _Validator.__attrs_attrs__ if member.init
)
_Validator.evolve = _evolved
