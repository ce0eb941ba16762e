"""Settings as trees of frozen dataclasses: from a YAML file and `LNS_…` variables, by type hint.

A variable's name is the path of its field in capitals, joined with two underscores:
`LNS_SERVER__GRACE` is `server.grace`. A variable wins over the file, the file over the default. A
field may have a further, given name: `field(metadata=setting(variable="LNS_HOME"))`. In a variable
a list is written with commas. Sections of other lns services are skipped, so that one file and one
environment can serve all processes of a machine; everything else that is unknown is refused. All
problems are reported together.
"""

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from services.chassis import settings_checks
from services.chassis import settings_values as values
from services.chassis.settings_checks import Check
from services.core.errors import SettingsInvalid, Violation

PREFIX = "LNS_"
MASKED = "(hidden)"
_MAX_DEPTH = 16
_MAX_VALUES = 10_000

T = TypeVar("T")


def setting(
    *,
    variable: str = "",
    default_from: Callable[[Mapping[str, str]], Any] | None = None,
    secret: bool = False,
    least: float | None = None,
    most: float | None = None,
    check: Check | None = None,
) -> Mapping[str, Any]:
    """Returns the metadata of a dataclass field that is more than a value with a default.

    Args:
        variable: a whole environment variable name that sets it too.
        default_from: computes the default from the environment when settings are loaded.
        secret: shown as `(hidden)` by `render`.
        least: the least number, seconds or bytes that can be set.
        most: the most.
        check: says what else is wrong with a value (see `settings_checks`).
    """
    return {
        "variable": variable,
        "default_from": default_from,
        "secret": secret,
        "least": least,
        "most": most,
        "check": check,
    }


def load(
    tree: type[T],
    *,
    file: Path | None,
    environment: Mapping[str, str],
    foreign: frozenset[str] = frozenset(),
) -> T:
    """Returns the settings of class `tree` that the file and the environment give.

    Args:
        tree: a dataclass whose fields are dataclasses or values (see `settings_values`).
        file: a YAML file, or None.
        environment: the variables of the process.
        foreign: top-level sections that belong to other services.

    Raises:
        SettingsInvalid: one violation a problem; its subject is the path or the variable.
    """
    loader = _Loader(environment)
    document = {k: v for k, v in loader.read(file).items() if k not in foreign}
    loader.overlay(tree, document, foreign)
    result = loader.build(tree, document, path="")
    if loader.problems:
        listing = "; ".join(f"{p.subject}: {p.description}" for p in loader.problems)
        raise SettingsInvalid(
            f"settings cannot be used: {listing}",
            hint="docs/configuration.md lists every setting",
            violations=loader.problems,
        )
    return typing.cast("T", result)


def render(settings: Any) -> str:
    """Returns the effective tree as YAML that `load` reads back; secrets are masked."""
    import yaml  # noqa: PLC0415  # a client without a settings file should not pay for it

    return yaml.safe_dump(_plain(settings), sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return values.plain(value)
    hints = typing.get_type_hints(type(value), include_extras=True)
    shown = {}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if field.metadata.get("secret") and item:
            shown[field.name] = MASKED
        elif dataclasses.is_dataclass(item):
            shown[field.name] = _plain(item)
        else:
            shown[field.name] = values.plain(item, hints[field.name])
    return shown


class _Variable(str):
    """The text of an environment variable; knows its name for messages."""

    __slots__ = ("name",)
    name: str

    def __new__(cls, text: str, name: str) -> "_Variable":
        made = super().__new__(cls, text)
        made.name = name
        return made


class _Loader:
    """One load: gathers problems instead of stopping at the first."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.problems: list[Violation] = []

    def problem(self, subject: str, description: str) -> None:
        self.problems.append(Violation(subject=subject, description=description, type="SETTING"))

    def read(self, file: Path | None) -> dict[str, Any]:
        if file is None:
            return {}
        # A client without a settings file should not pay for it.
        from services.core.artifacts.yaml_reader import YamlError, read_yaml  # noqa: PLC0415

        try:
            text = file.read_text(encoding="utf-8")
            document = read_yaml(text, max_depth=_MAX_DEPTH, max_nodes=_MAX_VALUES)
        except OSError as error:
            self.problem(str(file), error.strerror or "cannot be read")
            return {}
        except (YamlError, UnicodeDecodeError) as error:
            self.problem(str(file), str(error))
            return {}
        if document is None:
            return {}
        if not isinstance(document, dict):
            self.problem(str(file), "must hold a mapping of settings")
            return {}
        return document

    def overlay(self, tree: type, document: dict[str, Any], foreign: frozenset[str]) -> None:
        """Puts the variables that belong to `tree` into `document`."""
        given = {path: name for path, name in _given_names(tree, ()).items() if name}
        for path, name in given.items():
            if self.environment.get(name):
                self._place(document, path, _Variable(self.environment[name], name))
        for name in sorted(self.environment):
            if not name.startswith(PREFIX) or name in given.values():
                continue
            path = tuple(name.removeprefix(PREFIX).lower().split("__"))
            if path[0] in foreign or (len(path) == 1 and path[0] not in _fields(tree)):
                continue
            self._place(document, path, _Variable(self.environment[name], name))

    def _place(self, document: dict[str, Any], path: tuple[str, ...], value: _Variable) -> None:
        node = document
        for part in path[:-1]:
            below = node.get(part)
            if below is None:
                below = node[part] = {}
            if not isinstance(below, dict):
                self.problem(value.name, f"`{part}` is not a group of settings")
                return
            node = below
        node[path[-1]] = value

    def build(self, tree: type, document: Mapping[Any, Any], path: str, base: Any = None) -> Any:
        """Returns `tree` made of `document`, or None after noting why it cannot be.

        What `document` leaves out comes from `base`, else from the defaults of `tree`.
        """
        before = len(self.problems)
        fields = _fields(tree)
        for key, value in document.items():
            if key not in fields:
                self.problem(_subject(value, f"{path}{key}"), "is not a setting")
        hints = typing.get_type_hints(tree, include_extras=True)
        arguments: dict[str, Any] = {}
        for name, field in fields.items():
            default = _default(field) if base is None else getattr(base, name)
            default_from = field.metadata.get("default_from")
            given = document.get(name)
            if given is not None:
                arguments[name] = self.convert(hints[name], given, f"{path}{name}", default)
                self.check(field, hints[name], arguments[name], _subject(given, f"{path}{name}"))
            elif default_from is not None and base is None:
                arguments[name] = default_from(self.environment)
            elif default is dataclasses.MISSING and _group(hints[name]) is not None:
                arguments[name] = self.convert(hints[name], {}, f"{path}{name}", default)
            elif default is dataclasses.MISSING:
                self.problem(f"{path}{name}", "is required")
            else:
                arguments[name] = default
        return None if len(self.problems) > before else self.make(tree, arguments, path)

    def check(self, field: dataclasses.Field[Any], hint: Any, value: Any, subject: str) -> None:
        """Notes what is wrong with a value that has the right type; nothing of None."""
        if value is not None:
            for text in settings_checks.problems(field, hint, value):
                self.problem(subject, text)

    def make(self, tree: type, arguments: dict[str, Any], path: str) -> Any:
        """Returns `tree` of its values, or None after noting why they do not go together."""
        try:
            return tree(**arguments)
        except SettingsInvalid as error:
            for one in error.violations:
                self.problem(f"{path}{one.subject}", one.description)
            if not error.violations:
                self.problem(path.rstrip(".") or "settings", error.message)
            return None

    def convert(self, hint: Any, value: Any, path: str, default: Any) -> Any:
        """Returns `value` as `hint` wants it, or None after noting why it cannot be."""
        group = _group(hint)
        if group is not None:
            if isinstance(value, dict):
                base = default if isinstance(default, group) else None
                return self.build(group, value, f"{path}.", base)
            self.problem(_subject(value, path), "is a group of settings, not a value")
            return None
        try:
            if isinstance(value, _Variable):
                return values.from_text(hint, str(value))
            return values.from_yaml(hint, value)
        except ValueError as error:
            self.problem(_subject(value, path), str(error))
            return None


def _subject(value: Any, path: str) -> str:
    """Returns what to blame: a variable, also where it alone made a group, or the path."""
    while isinstance(value, dict) and len(value) == 1:
        (value,) = value.values()
    return value.name if isinstance(value, _Variable) else path


def _fields(tree: type) -> dict[str, dataclasses.Field[Any]]:
    return {field.name: field for field in dataclasses.fields(tree) if field.init}


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _group(hint: Any) -> type | None:
    """Returns the dataclass of a field that is a group, also of an optional one."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next((a for a in typing.get_args(hint) if a is not types.NoneType), hint)
    return hint if isinstance(hint, type) and dataclasses.is_dataclass(hint) else None


def _given_names(tree: type, path: tuple[str, ...]) -> dict[tuple[str, ...], str]:
    hints = typing.get_type_hints(tree, include_extras=True)
    found: dict[tuple[str, ...], str] = {}
    for name, field in _fields(tree).items():
        group = _group(hints[name])
        if group is not None:
            found.update(_given_names(group, (*path, name)))
        else:
            found[*path, name] = field.metadata.get("variable", "")
    return found
