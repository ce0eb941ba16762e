"""The policy of one run: a file that is read again, if it changed, for each decision.

It is the project's own, or, where a bundle brings a policy or no file was named, one in the run's
directory. A file that became invalid, or vanished, changes nothing: the last valid text holds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from services.core.budgets.limits import BudgetLimit
from services.core.egress.compiled import PolicySource
from services.core.egress.decisions import Policies
from services.core.errors import LnsError, RunStateConflict
from services.core.policy_edit import placed_routes
from services.core.policy_file import parse_policy_file
from services.core.run_plan import Policy, PolicyRoute
from services.vm_runner.boundary.ports import BoundaryFiles

OWN_FILE = "policy.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedPolicy:
    """A policy that was read.

    Attributes:
        text: of the file.
        policy: what it says.
        policies: the same, ready to decide.
    """

    text: bytes
    policy: Policy
    policies: Policies


class RunPolicy:
    """The policy of one run.

    Args:
        files: reads and writes.
        directory: of the run.
        project_file: the project's policy file; None where the run has one of its own.
        planned: the policy of its plan, for its own file.
    """

    def __init__(
        self,
        files: BoundaryFiles,
        directory: Path,
        *,
        project_file: Callable[[], Path | None],
        planned: Callable[[], Policy | None],
    ) -> None:
        self._files = files
        self._directory = directory
        self._project_file = project_file
        self._planned = planned
        self._stamp: object = None
        self._loaded: LoadedPolicy | None = None
        self.problem = ""

    @property
    def path(self) -> Path:
        """The file."""
        return self._project_file() or self._directory / OWN_FILE

    @property
    def is_own(self) -> bool:
        """Whether the file is the run's own."""
        return self._project_file() is None

    async def current(self) -> LoadedPolicy:
        """Returns what holds now, after a look at the file."""
        stamp = await self._files.stamp(self.path)
        if self._loaded is None or stamp != self._stamp:
            await self._load()
        assert self._loaded is not None  # noqa: S101 - loading leaves something that holds
        return self._loaded

    async def replace(self, text: bytes) -> None:
        """Replaces the run's own file.

        Raises:
            ArtifactInvalid: the text is no policy.
            RunStateConflict: the file is the project's.
            CapacityExhausted: the disk is full.
        """
        if not self.is_own:
            raise RunStateConflict(
                f"the run's policy is {self.path}, a file of the project",
                hint=f"edit that file, or use lns policy --file {self.path}",
            )
        _parse(text, self.path.name, editable=False)
        await self._files.write(self.path, text)

    async def keep_copy(self, source: Path) -> str:
        """Keeps the text of a policy file as the run's own; returns a notice for the user.

        Raises:
            ArtifactInvalid: it is no policy.
            CapacityExhausted: the disk is full.
        """
        try:
            found = await self._files.read_policy(source)
        except OSError as error:
            found, self.problem = None, str(error)
        text = found[1] if found else policy_text(self._planned())
        _parse(text, source.name, editable=False)
        await self._files.write(self._directory / OWN_FILE, text)
        self._loaded = None
        return (
            f"the run can write to {source}: what it says now holds, later edits do not count; "
            f"edit {self._directory / OWN_FILE} instead"
        )

    async def _load(self) -> None:
        try:
            found = await self._files.read_policy(self.path)
            if found is None and self.is_own and self._loaded is None:
                await self._files.write(self.path, policy_text(self._planned()))
                found = await self._files.read_policy(self.path)
            if found is None:
                self.problem = f"{self.path} no longer exists: its last content stays in effect"
                self._stamp = None
            else:
                self._stamp, text = found
                self._loaded = _parse(text, self.path.name, editable=not self.is_own)
                self.problem = ""
        except (LnsError, OSError) as error:
            message = error.message if isinstance(error, LnsError) else str(error)
            where = "" if str(self.path) in message else f"{self.path}: "
            self.problem = f"{where}{message}: what the policy said last holds"
            self._stamp = await self._files.stamp(self.path)
        if self._loaded is None:  # nothing valid was ever there: the plan's policy, or ask
            text = policy_text(self._planned())
            self._loaded = _parse(text, self.path.name, editable=False)


def policy_text(policy: Policy | None) -> bytes:
    """Returns a policy as the text of a file."""
    policy = policy or Policy()
    network: dict[str, object] = {"defaultVerdict": str(policy.default_verdict or "ask")}
    network["allowedRoutes"] = [_route(route) for route in policy.routes]
    document: dict[str, object] = {"network": network}
    if policy.integrations:
        document["integrations"] = list(policy.integrations)
    if policy.budgets:
        document["budgets"] = _budgets(policy.budgets)
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True).encode()


def _budgets(limits: tuple[BudgetLimit, ...]) -> dict[str, str]:
    names = dict.fromkeys(limit.integration for limit in limits)
    return {
        name: "|".join(limit.text for limit in limits if limit.integration == name)
        for name in names
    }


def _route(route: PolicyRoute) -> dict[str, object]:
    fields: dict[str, object] = {"match": route.match, "verdict": str(route.verdict)}
    description = route.description or (f"from {route.origin}" if route.origin else "")
    if description:
        fields["description"] = description
    if route.rules:
        fields["rules"] = [{"method": rule.method, "path": rule.path} for rule in route.rules]
    return fields


def _parse(text: bytes, name: str, *, editable: bool) -> LoadedPolicy:
    policy = parse_policy_file(text, name=name)
    try:
        lines = tuple(placed.line for placed in placed_routes(text, name=name))
    except LnsError:  # the document of an artifact, which is not edited line by line
        lines = ()
    source = PolicySource(policy=policy, name=name, lines=lines, editable=editable)
    return LoadedPolicy(text=text, policy=policy, policies=Policies([source]))
