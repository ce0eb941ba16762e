"""The runs of a node: found by id, prefix, name, group or labels."""

from collections.abc import Mapping
from typing import Generic, Protocol, TypeVar

from services.core.errors import RequestInvalid, RunUnknown
from services.vm_runner.records import lifecycle, naming
from services.vm_runner.records.runs import Run

_PREFIX_LEAST = 4


class Recorded(Protocol):
    """Whoever owns a run."""

    @property
    def run(self) -> Run:
        """The run as it is recorded."""
        ...


OwnerT = TypeVar("OwnerT", bound=Recorded)


def place(run: Run) -> str:
    """Returns where a run stands among all: by the time it was recorded, then by its id."""
    return f"{run.create_time:%Y%m%dT%H%M%S.%f}-{run.run_id}"


class Register(Generic[OwnerT]):
    """Every recorded run of a node, by its owner."""

    def __init__(self) -> None:
        self._lives: dict[str, OwnerT] = {}
        self._by_request: dict[str, str] = {}

    def add(self, life: OwnerT) -> None:
        """Takes a run in."""
        self._lives[life.run.run_id] = life
        if life.run.request_id:
            self._by_request[life.run.request_id] = life.run.run_id

    def drop(self, run: Run) -> bool:
        """Takes a run out; returns whether it was registered."""
        self._by_request.pop(run.request_id, None)
        return self._lives.pop(run.run_id, None) is not None

    def find(self, text: str) -> OwnerT:
        """Returns the run of that name or id, of a group's member, or of a prefix of an id.

        Raises:
            RunUnknown: no run is called so.
            RequestInvalid: it may be several: members of several groups, or beginnings of ids.
        """
        if life := self._named(text) or self._lives.get(text):
            return life
        if text in naming.names_in_use(self.runs()):  # a group's; it may begin as an id does
            raise RunUnknown(
                f"{text} is a group of runs", hint="name one of them: `lns ps -a` lists them"
            )
        if life := self._only_member(text):
            return life
        found = [life for run_id, life in self._lives.items() if run_id.startswith(text)]
        if len(found) == 1 and len(text) >= _PREFIX_LEAST:
            return found[0]
        if len(found) > 1 and len(text) >= _PREFIX_LEAST:
            raise RequestInvalid(f"{len(found)} runs have an id that begins with {text}")
        raise RunUnknown(
            f"the run {text!r} does not exist",
            hint="`lns ps -a` lists them",
            metadata={"run": text},
        )

    def of_request(self, request_id: str) -> OwnerT | None:
        """Returns the run that a request made."""
        return self._lives.get(self._by_request.get(request_id, ""))

    def member(self, run: Run, member: str) -> OwnerT | None:
        """Returns the run that is another member of a run's group."""
        for life in self._lives.values():
            is_group = life.run.group is not None and life.run.group == run.group
            if is_group and life.run.plan.member == member:
                return life
        return None

    def select(self, *, labels: Mapping[str, str], ended: bool, group: str = "") -> list[Run]:
        """Returns runs with all of some labels, newest first; those that ended only if asked to.

        With a group's name or id, only its runs.
        """
        wanted = [
            run
            for run in self.runs()
            if (ended or lifecycle.has_machine(run))
            and (not group or naming.is_of_group(run, group))
            and all(run.plan.labels.get(name) == value for name, value in labels.items())
        ]
        # As `place` sorts, which writes times as texts: for a page's token, not for every run.
        return sorted(wanted, key=lambda run: (run.create_time, run.run_id), reverse=True)

    def lives(self) -> list[OwnerT]:
        """Returns every run."""
        return list(self._lives.values())

    def live(self) -> list[OwnerT]:
        """Returns the runs that are alive."""
        return [life for life in self._lives.values() if life.run.state in lifecycle.LIVE]

    def runs(self) -> list[Run]:
        """Returns what is recorded of every run."""
        return [life.run for life in self._lives.values()]

    def _only_member(self, name: str) -> OwnerT | None:
        """Returns the run that is the member of a group by that name.

        Raises:
            RequestInvalid: several groups have such a member.
        """
        found = [
            life
            for life in self._lives.values()
            if life.run.group is not None and life.run.plan.member == name
        ]
        if len(found) > 1:
            names = ", ".join(sorted(life.run.name for life in found))
            raise RequestInvalid(
                f"{len(found)} groups have a member {name}", hint=f"name one of the runs: {names}"
            )
        return found[0] if found else None

    def _named(self, name: str) -> OwnerT | None:
        return next((life for life in self._lives.values() if life.run.name == name), None)
