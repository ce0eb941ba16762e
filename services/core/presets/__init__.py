"""Policies for common needs, shipped as commented policy files; `lns policy presets` adds them.

Presets for package managers name no host of their own: the hosts that this machine's client uses
take the place of names below `.invalid` (RFC 2606), so that a mirror of a company is respected.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Final

from services.core.errors import RequestInvalid
from services.core.policy_file import parse_policy_file
from services.core.route_match import RouteMatch
from services.core.run_plan import Policy, PolicyRoute

NAMES: Final = (
    "anthropic",
    "openai",
    "google",
    "git-readonly",
    "github",
    "gitlab",
    "huggingface",
    "pypi",
    "npm",
    "debian",
    "host-models",
)

_SUMMARY: Final = re.compile(r"# (?P<summary>[^\n]+)")
_PLACEHOLDER: Final = re.compile(r"[a-z]+\.(?P<client>[a-z]+)\.invalid\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """Routes and integrations for one need.

    Attributes:
        name: its name.
        summary: one line for users.
        policy: routes and integrations.
        client: the package manager whose hosts the routes stand for; empty for none.
    """

    name: str
    summary: str
    policy: Policy
    client: str = ""

    def with_hosts(self, hosts: Mapping[str, Sequence[str]]) -> "Preset":
        """Returns the preset with the hosts of its package manager.

        Args:
            hosts: the hosts for each placeholder, `index.pip.invalid` for example. A route whose
                placeholder has none is left out.
        """
        routes = tuple(one for route in self.policy.routes for one in _routes(route, hosts))
        return replace(self, policy=replace(self.policy, routes=routes), client="")


def load_preset(name: str) -> Preset:
    """Returns a shipped preset.

    Raises:
        RequestInvalid: no preset has this name; the hint lists all.
    """
    if name not in NAMES:
        raise RequestInvalid(
            f"no preset is called {name!r}", hint=f"presets are {', '.join(NAMES)}"
        )
    text = resources.files(__name__).joinpath(f"{name}.yaml").read_bytes()
    found = _SUMMARY.match(text.decode())
    assert found is not None  # noqa: S101 - a test reads every shipped preset
    policy = parse_policy_file(text, name=f"preset {name}")
    clients = {
        match["client"]
        for route in policy.routes
        if (match := _PLACEHOLDER.match(RouteMatch.parse(route.match).name))
    }
    return Preset(
        name=name, summary=found["summary"], policy=policy, client="".join(sorted(clients))
    )


def _routes(route: PolicyRoute, hosts: Mapping[str, Sequence[str]]) -> list[PolicyRoute]:
    match = RouteMatch.parse(route.match)
    if not _PLACEHOLDER.match(match.name):
        return [route]
    return [
        replace(route, match=str(replace(match, name=host))) for host in hosts.get(match.name, ())
    ]
