"""Edits of the text of a policy file that keep its comments, its order and its style.

Each edit is checked before it is returned: the new text, read by the strict reader of
`policy_file`, must be the old document with exactly the wanted change. Where the round trip through
ruamel.yaml would alter anything else, the edit is refused instead.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError
from ruamel.yaml.util import load_yaml_guess_indent

from services.core.artifacts.documents import parse_document, parse_value
from services.core.errors import ArtifactInvalid, RequestInvalid
from services.core.policy import policy_of_spec
from services.core.policy_file import parse_policy_file
from services.core.route_match import RouteMatch
from services.core.run_plan import PolicyRoute, PolicyRule, Verdict
from services.core.yaml_lines import BlockList, insert_item, remove_item

POLICY_FILE_NAME: Final = "lns-policy.yaml"

NEW_POLICY: Final = """\
# What the runs started from this directory may reach. The first route that matches decides.
# `lns policy allow|deny PATTERN` adds routes, `lns policy test HOST` says what would happen.
network:
  defaultVerdict: ask     # where no route matches: allow, deny or ask
  allowedRoutes: []
"""
"""The file that a first run in a directory makes: everything is asked about."""

_WIDTH: Final = 4096
_INDENT: Final = 4
_Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edited:
    """A policy file's new text, and what a person should know about the change."""

    text: bytes
    remark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedRoute:
    """A route and the line of the file that it begins on, counted from 1."""

    route: PolicyRoute
    line: int


def placed_routes(text: bytes, *, name: str) -> tuple[PlacedRoute, ...]:
    """Returns the routes of a policy file with their lines.

    Raises:
        ArtifactInvalid: it is not a valid policy file.
    """
    policy = parse_policy_file(text, name=name)
    routes = _spec(_load(text, name)[0]).get("network", {}).get("allowedRoutes", ())
    return tuple(
        PlacedRoute(route=route, line=node.lc.line + 1)
        for route, node in zip(policy.routes, routes, strict=True)
    )


def put_route(
    text: bytes, route: PolicyRoute, *, name: str = POLICY_FILE_NAME, comment: str = ""
) -> Edited:
    """Adds a route, or changes the one with the same match.

    A new route comes before the first one that matches all that it matches, since that one would
    decide in its place; else it is the last. A route that exists gets the verdict; a description
    replaces its own, rules are added to its own.

    Args:
        text: the file's text; empty for a file that does not exist.
        route: what to add.
        name: the file's name, for messages.
        comment: a line put above a new route.

    Raises:
        ArtifactInvalid: the file is not a valid policy file, or cannot be edited without a loss.
        RequestInvalid: the match cannot be understood, or a route without `allow` has rules.
    """
    match = RouteMatch.parse(route.match)
    if route.rules and route.verdict is not Verdict.ALLOW:
        raise RequestInvalid(
            "rules select requests of an allowed host",
            hint="leave the rules out, or allow the host",
        )
    text = _checked(text, name)
    routes = _routes(_plain(text))
    position = _find(routes, match)
    if position is not None:
        chosen = position
        return Edited(text=_edit_routes(text, lambda now: _change(now[chosen], route), name))
    position = _position(routes, match)
    new = _new_route(route)
    where = _block_list(text, name)
    if where is None:
        edited = _edit_routes(text, lambda now: _insert(now, position, new, comment), name)
    else:
        edited = insert_item(text.decode(), where, position, new, comment=comment).encode()
    routes.insert(position, new)
    remark = "; ".join(_exceptions(routes[:position], match, route.verdict))
    return Edited(text=_verified(edited, routes, name), remark=remark)


def remove_route(text: bytes, match: str, *, name: str = POLICY_FILE_NAME) -> Edited:
    """Removes the route of a match, with the comment directly above it.

    Raises:
        ArtifactInvalid: the file is not a valid policy file, or cannot be edited without a loss.
        RequestInvalid: no route has this match, or it cannot be understood.
    """
    wanted = RouteMatch.parse(match)
    text = _checked(text, name)
    routes = _routes(_plain(text))
    position = _find(routes, wanted)
    if position is None:
        raise RequestInvalid(
            f"{name} has no route for {wanted}", hint="`lns policy list` shows every route"
        )
    chosen = position
    where = _block_list(text, name)
    if where is None or len(routes) == 1:
        edited = _edit_routes(text, lambda now: now.pop(chosen), name)
    else:
        edited = remove_item(text.decode(), where, position).encode()
    del routes[position]
    return Edited(text=_verified(edited, routes, name))


def set_default(text: bytes, verdict: Verdict, *, name: str = POLICY_FILE_NAME) -> Edited:
    """Sets the verdict on what no route matches.

    Raises:
        ArtifactInvalid: the file is not a valid policy file, or cannot be edited without a loss.
    """

    def change(spec: _Document) -> None:
        _section(spec, "network", dict)["defaultVerdict"] = str(verdict)

    return Edited(text=_edit(text, change, name))


def put_integration(text: bytes, integration: str, *, name: str = POLICY_FILE_NAME) -> Edited:
    """Permits an integration; one that is permitted already changes nothing.

    Raises:
        ArtifactInvalid: the file is not a valid policy file, or cannot be edited without a loss.
    """

    def change(spec: _Document) -> None:
        if integration not in policy_of_spec(spec, origin=name).integrations:
            _section(spec, "integrations", list).append(integration)

    return Edited(text=_edit(text, change, name))


# ---- routes ----


def _find(routes: Sequence[_Document], match: RouteMatch) -> int | None:
    for position, one in enumerate(routes):
        if RouteMatch.parse(one["match"]) == match:
            return position
    return None


def _position(routes: Sequence[_Document], match: RouteMatch) -> int:
    """Returns where a new route decides all that it matches, apart from narrower routes."""
    for position, one in enumerate(routes):
        if match.intersect(RouteMatch.parse(one["match"])) == match:
            return position
    return len(routes)


def _exceptions(earlier: Sequence[_Document], match: RouteMatch, verdict: Verdict) -> list[str]:
    return [
        f"{one['match']} stays at {one['verdict']}: its route comes first"
        for one in earlier
        if one["verdict"] != verdict and match.intersect(RouteMatch.parse(one["match"])) is not None
    ]


def _new_route(route: PolicyRoute) -> _Document:
    new: _Document = {"match": str(RouteMatch.parse(route.match)), "verdict": str(route.verdict)}
    if route.description:
        new["description"] = route.description
    if route.rules:
        new["rules"] = [_rule(rule) for rule in route.rules]
    return new


def _insert(routes: list[_Document], position: int, new: _Document, comment: str) -> None:
    routes.insert(position, dict(new))
    if comment and isinstance(routes, CommentedSeq):
        routes.yaml_set_comment_before_after_key(position, before=comment, indent=_INDENT)


def _change(one: _Document, route: PolicyRoute) -> None:
    one["verdict"] = str(route.verdict)
    if route.description:
        one["description"] = route.description
    if route.verdict is not Verdict.ALLOW:
        one.pop("rules", None)
    elif route.rules:
        rules = _section(one, "rules", list)
        rules.extend(rule for rule in map(_rule, route.rules) if rule not in rules)


def _rule(rule: PolicyRule) -> _Document:
    flow = CommentedMap({"method": rule.method, "path": rule.path})
    flow.fa.set_flow_style()
    return flow


# ---- the text ----


def _checked(text: bytes, name: str) -> bytes:
    """Returns the text of a valid policy file; that of a new one for an empty text."""
    text = text if text.strip() else NEW_POLICY.encode()
    parse_policy_file(text, name=name)
    return text


def _verified(text: bytes, routes: Sequence[_Document], name: str) -> bytes:
    parse_policy_file(text, name=name)
    if _routes(_plain(text)) != routes:
        raise _uneditable(name)
    return text


def _routes(document: _Document) -> list[_Document]:
    return list((_spec(document).get("network") or {}).get("allowedRoutes") or [])


def _block_list(text: bytes, name: str) -> BlockList | None:
    """Returns where the routes are, or None if they are not a block list with an item."""
    node = (_spec(_load(text, name)[0]).get("network") or {}).get("allowedRoutes")
    if not node or not isinstance(node, CommentedSeq) or node.fa.flow_style():
        return None
    return BlockList(column=node.lc.col, lines=tuple(node.lc.item(i)[0] for i in range(len(node))))


def _edit_routes(text: bytes, change: Callable[[list[_Document]], object], name: str) -> bytes:
    def change_spec(spec: _Document) -> None:
        routes = _section(_section(spec, "network", dict), "allowedRoutes", list)
        was_empty = not routes
        change(routes)
        if was_empty and isinstance(routes, CommentedSeq):
            routes.fa.set_block_style()  # an empty list is written [] and would stay on one line

    return _edit(text, change_spec, name)


def _edit(text: bytes, change: Callable[[_Document], None], name: str) -> bytes:
    """Returns the text with a change, made the same way in the plain document and in the text."""
    text = _checked(text, name)
    wanted = _plain(text)
    change(_spec(wanted))
    document, yaml = _load(text, name)
    change(_spec(document))
    stream = io.BytesIO()
    yaml.dump(document, stream)
    edited = stream.getvalue()
    if _plain(edited) != wanted:
        raise _uneditable(name)
    return edited


def _plain(text: bytes) -> _Document:
    return dict(parse_document(text)) if parse_value(text) is not None else {}


def _load(text: bytes, name: str) -> tuple[Any, YAML]:
    try:
        return _load_round_trip(text.decode())
    except (YAMLError, UnicodeDecodeError) as error:
        raise _uneditable(name) from error


def _load_round_trip(text: str) -> tuple[Any, YAML]:
    _, indent, offset = load_yaml_guess_indent(text)
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = _WIDTH
    offset = 2 if offset is None else offset
    yaml.indent(mapping=2, sequence=max(indent or 4, offset + 2), offset=offset)
    document = yaml.load(text)
    return (CommentedMap() if document is None else document), yaml


def _uneditable(name: str) -> ArtifactInvalid:
    return ArtifactInvalid(
        f"{name} is written in a way that lns cannot edit without changing more of it",
        hint="edit the file yourself; `lns policy test HOST` checks it",
    )


def _spec(document: _Document) -> _Document:
    """Returns the part with the policy: `spec` of an artifact's document, else all of it."""
    is_artifact = "kind" in document or "apiVersion" in document
    spec: _Document = document["spec"] if is_artifact else document
    return spec


def _section(parent: _Document, key: str, kind: type) -> Any:
    """Returns a member that is a collection, made if it is absent or null."""
    if parent.get(key) is None:
        commented = isinstance(parent, CommentedMap)
        parent[key] = (CommentedMap if kind is dict else CommentedSeq)() if commented else kind()
    return parent[key]
