"""Filters of `lns ps`, as Docker has them: `name=web`, `status=exited`, `ancestor=alpine`.

Filters of one key are alternatives, but for labels, of which a run has to have all; those of
several keys have all to hold.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from lns.vm.v1 import run_pb2

from cli.render.runs import STATES, health
from lns.client.running.labels import parse_labels
from services.core.errors import RequestInvalid

_HEALTH = ("starting", "healthy", "unhealthy", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What runs are asked for.

    Attributes:
        labels: that a run has to have.
        label_names: of labels that it has to have, with any value.
        group: name or id of the group; empty for all.
        others: values of the other keys.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    label_names: frozenset[str] = frozenset()
    group: str = ""
    others: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def wants_ended(self) -> bool:
        """Whether runs that have ended are asked for, by their state or exit code."""
        return "status" in self.others or "exited" in self.others

    def matches(self, run: run_pb2.Run) -> bool:
        """Says whether a run of the group, with the labels, is one that is asked for."""
        return self.label_names <= run.plan.labels.keys() and all(
            any(_TESTS[key](run, value) for value in values) for key, values in self.others.items()
        )


def parse_filters(texts: Sequence[str]) -> Filters:
    """Returns filters given as `KEY=VALUE`.

    Raises:
        RequestInvalid: one is not KEY=VALUE, or has a value that its key does not know.
    """
    values: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not value or key not in (*_TESTS, "label", "group"):
            raise RequestInvalid(f"{text!r} is not a filter", hint=f"write KEY=VALUE with {_KEYS}")
        known = _KNOWN.get(key)
        if known is not None and value not in known:
            raise RequestInvalid(
                f"{value!r} is not a value of {key}", hint=f"choose one of {', '.join(known)}"
            )
        values.setdefault(key, []).append(value)
    groups = values.pop("group", [])
    if len(set(groups)) > 1:
        raise RequestInvalid("a run is of one group", hint="write group=NAME once")
    labels = values.pop("label", [])
    return Filters(
        labels=parse_labels([label for label in labels if "=" in label]),
        label_names=frozenset(label for label in labels if "=" not in label),
        group="".join(groups[:1]),
        others=values,
    )


def _is_named(run: run_pb2.Run, value: str) -> bool:
    return value.removeprefix("/") in run.name


def _has_id(run: run_pb2.Run, value: str) -> bool:
    return run.run_id.startswith(value)


def _is_in_state(run: run_pb2.Run, value: str) -> bool:
    return STATES.get(run.state) == value


def _has_exit_code(run: run_pb2.Run, value: str) -> bool:
    return run.HasField("exit") and str(run.exit.code) == value


def _is_as_well_as(run: run_pb2.Run, value: str) -> bool:
    return (health(run) or "none") == value


def _descends_from(run: run_pb2.Run, value: str) -> bool:
    """Says whether a run is of an image or artifact: its reference, without a tag, or a digest."""
    image, source = run.plan.image, run.plan.source
    digests = [image.manifest.digest, source.digest]
    bare = value.removeprefix("sha256:")
    if len(bare) >= _DIGEST_LEAST and any(
        digest.removeprefix("sha256:").startswith(bare) for digest in digests if digest
    ):
        return True
    references = [image.reference, image.requested, source.reference]
    return any(value in _names(reference) for reference in references if reference)


def _names(reference: str) -> set[str]:
    """Returns the ways to write a reference: with and without tag, digest and host."""
    repository, _, digest = reference.partition("@")
    head, slash, last = repository.rpartition("/")
    bare = f"{head}{slash}{last.partition(':')[0]}"
    names = {reference, repository, bare} if not digest else {reference, bare}
    return names | {name.split("/")[-1] for name in (repository, bare)}


_DIGEST_LEAST = 6
_TESTS: Mapping[str, Callable[[run_pb2.Run, str], bool]] = {
    "name": _is_named,
    "id": _has_id,
    "status": _is_in_state,
    "exited": _has_exit_code,
    "health": _is_as_well_as,
    "ancestor": _descends_from,
}
_KNOWN = {"status": tuple(STATES.values()), "health": _HEALTH}
_KEYS = "name, id, status, exited, health, ancestor, label or group"
