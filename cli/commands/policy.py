"""`lns policy`: what runs started from here may reach."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cli.context import FAILURE, Context, subcommand
from cli.options import format_option
from cli.render.output import columns, write_document, write_rows
from services.chassis.edited_files import edit_file, read_edited_file
from services.core.egress.compiled import PolicySource
from services.core.egress.decisions import Decision, Policies
from services.core.egress.hosts import parse_authority
from services.core.egress.requests import decide_request
from services.core.errors import RequestInvalid
from services.core.integrations.catalogue import shipped_catalogue
from services.core.policy_edit import (
    POLICY_FILE_NAME,
    Edited,
    placed_routes,
    put_integration,
    put_route,
    remove_route,
    set_default,
)
from services.core.policy_file import parse_policy_file
from services.core.presets import NAMES, Preset, load_preset
from services.core.route_match import RouteMatch
from services.core.run_plan import PolicyRoute, PolicyRule, Verdict

_COLUMNS = columns(
    line="LINE", match="MATCH", verdict="VERDICT", rules="RULES", description="DESCRIPTION"
)
_PRESET_COLUMNS = columns(name="NAME", summary="WHAT IT ALLOWS")
_RULE_PARTS = 2
_HTTPS = 443

_file_option = click.option(
    "-f",
    "--file",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=POLICY_FILE_NAME,
    metavar="FILE",
    help=f"Policy file instead of {POLICY_FILE_NAME} in this directory.",
)


@click.group("policy", short_help="Edit and test what runs may reach")
def policy() -> None:
    """Edit and test lns-policy.yaml of this directory, which says what runs started here may reach.

    PATTERN is a host, *.host, an address range such as 10.0.0.0/8, or host.lns.internal for this
    machine, each with an optional :port. Live runs that use the file follow within a second.
    """


@subcommand(policy, "allow", doing="allow {patterns}")
@click.argument("patterns", metavar="[PATTERN...]", nargs=-1)
@click.option("--description", metavar="TEXT", default="", help="What the host is for.")
@click.option(
    "--integration",
    "integrations",
    multiple=True,
    metavar="ID",
    help="Permit an integration and its hosts; repeatable.",
)
@click.option(
    "--rule",
    "rules",
    multiple=True,
    metavar="'METHOD PATH'",
    help="Allow only such HTTP requests: 'GET /repos/**'; repeatable.",
)
@_file_option
def policy_allow(
    context: Context,
    patterns: tuple[str, ...],
    description: str,
    integrations: tuple[str, ...],
    rules: tuple[str, ...],
    path: Path,
) -> None:
    """Allow connections to each PATTERN, and the use of integrations with their credentials."""
    if not patterns and not integrations:
        raise RequestInvalid("neither a PATTERN nor an --integration is given")
    parsed = tuple(map(_parse_rule, rules))
    _put(context, path, patterns, Verdict.ALLOW, description, parsed)
    for one in integrations:
        _permit(context, path, one)


def _permit(context: Context, path: Path, integration: str) -> None:
    """Permits an integration, and the hosts of one that ships."""
    definition = shipped_catalogue().find(integration)
    routes = definition.routes if definition is not None else ()

    def change(text: bytes) -> Edited:
        for one in routes:
            route = PolicyRoute(
                match=one.match,
                verdict=Verdict.ALLOW,
                description=f"{integration}: {one.description}".removesuffix(": "),
                rules=one.rules,
            )
            text = put_route(text, route, name=str(path)).text
        return put_integration(text, integration, name=str(path))

    _edit(context, path, change)
    for one in routes:
        context.write(f"{one.match}: allow")
    context.write(f"integration {integration}: permitted")
    if definition is None:
        context.note(f"lns: {integration} does not ship with lns: allow its hosts yourself")


@subcommand(policy, "deny", doing="deny {patterns}")
@click.argument("patterns", metavar="PATTERN...", nargs=-1, required=True)
@click.option("--description", metavar="TEXT", default="", help="Why.")
@_file_option
def policy_deny(context: Context, patterns: tuple[str, ...], description: str, path: Path) -> None:
    """Refuse connections to each PATTERN."""
    _put(context, path, patterns, Verdict.DENY, description)


@subcommand(policy, "ask", doing="ask about {patterns}")
@click.argument("patterns", metavar="PATTERN...", nargs=-1, required=True)
@click.option("--description", metavar="TEXT", default="", help="What the host is for.")
@_file_option
def policy_ask(context: Context, patterns: tuple[str, ...], description: str, path: Path) -> None:
    """Ask before connections to each PATTERN."""
    _put(context, path, patterns, Verdict.ASK, description)


@subcommand(policy, "default", doing="set the default verdict")
@click.argument("verdict", type=click.Choice([str(one) for one in Verdict]))
@_file_option
def policy_default(context: Context, verdict: str, path: Path) -> None:
    """Say what becomes of connections that no route matches."""
    _edit(context, path, lambda text: set_default(text, Verdict(verdict), name=str(path)))
    context.write(f"default: {verdict}")


@subcommand(policy, "remove", doing="remove {patterns}")
@click.argument("patterns", metavar="PATTERN...", nargs=-1, required=True)
@_file_option
def policy_remove(context: Context, patterns: tuple[str, ...], path: Path) -> None:
    """Remove the routes of each PATTERN."""

    def change(text: bytes) -> Edited:
        for pattern in patterns:
            text = remove_route(text, pattern, name=str(path)).text
        return Edited(text=text)

    _edit(context, path, change)
    for pattern in patterns:
        context.write(f"{RouteMatch.parse(pattern)}: removed")


@subcommand(policy, "list", doing="list {path}")
@_file_option
@format_option
def policy_list(context: Context, path: Path, form: str | None) -> None:
    """List the routes in the order in which they are tried; the first that matches decides."""
    text = read_edited_file(path)
    rows = [
        {
            "line": one.line,
            "match": one.route.match,
            "verdict": str(one.route.verdict),
            "rules": [f"{rule.method} {rule.path}" for rule in one.route.rules],
            "description": one.route.description,
        }
        for one in placed_routes(text, name=str(path))
    ]
    default = str(parse_policy_file(text, name=str(path)).default_verdict)
    what = "everything else" if rows else "everything"
    rows.append({"line": "", "match": "", "verdict": default, "rules": [], "description": what})
    write_rows(rows, _COLUMNS, form=form, write=context.write)


@subcommand(policy, "test", doing="test {host}")
@click.argument("host", metavar="HOST[:PORT]")
@click.argument("request", metavar="[METHOD PATH]", nargs=-1)
@_file_option
@format_option
def policy_test(
    context: Context, host: str, request: tuple[str, ...], path: Path, form: str | None
) -> int:
    """Say what would happen to a connection, or to a request, and which rule decides.

    The port is 443 if none is given. Exit code 0 says that it would be allowed, 1 that it would not
    be, or be asked about.
    """
    if len(request) not in (0, _RULE_PARTS):
        raise RequestInvalid("a request is a method and a path", hint="GET /repos/acme/site")
    text = read_edited_file(path)
    source = PolicySource(
        policy=parse_policy_file(text, name=str(path)),
        name=str(path),
        lines=tuple(one.line for one in placed_routes(text, name=str(path))),
        editable=True,
    )
    name, port = parse_authority(host, default_port=_HTTPS)
    decision = Policies([source]).decide(name, port)
    answer = {
        "host": str(name),
        "port": port,
        "verdict": str(decision.verdict),
        "reason": decision.text,
        "place": decision.place,
        "how_to_allow": decision.how_to_allow,
    }
    if request and decision.verdict is not Verdict.DENY:
        answer |= _test_request(decision, *request)
    if form in (None, "", "table"):
        _write_answer(context, answer)
    else:
        write_document(answer, form=form, write=context.write)
    return 0 if answer["verdict"] == Verdict.ALLOW else FAILURE


def _test_request(decision: Decision, method: str, path: str) -> dict[str, Any]:
    found = decide_request(decision.rules, method.upper(), path)
    answer: dict[str, Any] = {"method": method.upper(), "path": found.path}
    if not found.permitted:
        why = "no two servers read its path alike" if found.ambiguous else "its rules refuse it"
        answer |= {
            "verdict": str(Verdict.DENY),
            "reason": f"{why}: {found.rule}",
            "how_to_allow": found.how_to_allow,
        }
    elif found.rule:
        answer |= {"reason": f"{answer['method']} {found.path} fits {found.rule}"}
    return answer


def _write_answer(context: Context, answer: dict[str, Any]) -> None:
    context.write(f"{answer['verdict']}: {answer['reason']}")
    if answer["place"]:
        context.write(f"  decided by: {answer['place']}")
    if answer["verdict"] != Verdict.ALLOW and answer["how_to_allow"]:
        context.write(f"  to allow it: {answer['how_to_allow']}")


@subcommand(policy, "presets", doing="add the presets {names}")
@click.argument("names", metavar="[PRESET...]", nargs=-1)
@_file_option
@format_option
def policy_presets(context: Context, names: tuple[str, ...], path: Path, form: str | None) -> None:
    """List the shipped presets, or add each PRESET to the policy file."""
    if not names:
        context.doing = "list the presets"
        rows = [{"name": one, "summary": load_preset(one).summary} for one in NAMES]
        write_rows(rows, _PRESET_COLUMNS, form=form, write=context.write)
        return
    presets = [_with_hosts(load_preset(name)) for name in names]

    def change(text: bytes) -> Edited:
        for one in presets:
            text = _add(text, one, name=str(path))
        return Edited(text=text)

    _edit(context, path, change)
    for one in presets:
        for route in one.policy.routes:
            context.write(f"{route.match}: {route.verdict}{_count(route)}")
        for integration in one.policy.integrations:
            context.write(f"integration {integration}: permitted")


def _with_hosts(preset: Preset) -> Preset:
    if not preset.client:
        return preset
    from cli.package_hosts import package_hosts  # noqa: PLC0415 - starts other programs

    return preset.with_hosts(package_hosts(preset.client))


def _add(text: bytes, preset: Preset, *, name: str) -> bytes:
    comment = f"preset {preset.name}: {preset.summary}"
    for route in preset.policy.routes:
        text = put_route(text, route, name=name, comment=comment).text
        comment = ""
    for integration in preset.policy.integrations:
        text = put_integration(text, integration, name=name).text
    return text


def _put(
    context: Context,
    path: Path,
    patterns: tuple[str, ...],
    verdict: Verdict,
    description: str,
    rules: tuple[PolicyRule, ...] = (),
) -> None:
    routes = [
        PolicyRoute(
            match=str(RouteMatch.parse(one)), verdict=verdict, description=description, rules=rules
        )
        for one in patterns
    ]

    def change(text: bytes) -> Edited:
        remarks = []
        for route in routes:
            edited = put_route(text, route, name=str(path))
            text = edited.text
            remarks.append(edited.remark)
        return Edited(text=text, remark="; ".join(filter(None, remarks)))

    _edit(context, path, change)
    for route in routes:
        context.write(f"{route.match}: {verdict}{_count(route)}")


def _count(route: PolicyRoute) -> str:
    if not route.rules:
        return ""
    return f", only {'; '.join(f'{rule.method} {rule.path}' for rule in route.rules)}"


def _edit(context: Context, path: Path, change: Callable[[bytes], Edited]) -> None:
    remarks: list[str] = []

    def change_text(text: bytes) -> bytes:
        edited = change(text)
        remarks[:] = [edited.remark] if edited.remark else []
        return edited.text

    edit_file(path, change_text)
    for remark in remarks:
        context.note(f"lns: {remark}")


def _parse_rule(text: str) -> PolicyRule:
    parts: Any = text.split(None, 1)
    if len(parts) != _RULE_PARTS or not parts[1].startswith("/"):
        raise RequestInvalid(
            f"{text!r} is not a rule", hint="write a method and a path: --rule 'GET /repos/**'"
        )
    return PolicyRule(method=parts[0].upper(), path=parts[1].strip())
