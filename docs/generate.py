"""Generates the tables of `docs/errors.md` and `docs/configuration.md` from what they document.

    python docs/generate.py            rewrite what lies between the marks
    python docs/generate.py --check    write nothing; exit 1 and name what is not current

The prose around the marks `<!-- generated: NAME -->` and `<!-- end -->` is written by hand.
"""

import argparse
import ast
import dataclasses
import importlib
import inspect
import itertools
import re
import sys
import typing
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "protos" / "gen")]

from protos.descriptors import iter_enum_values, iter_methods, read_files  # noqa: E402  # the path is set above
from services.chassis import settings_values as values  # noqa: E402  # see above
from services.chassis.settings import ProcessSettings  # noqa: E402  # see above
from services.core.errors import LEAVES  # noqa: E402  # see above

PREFIX = "ERROR_REASON_"


def errors_table() -> str:
    """Returns the table of reasons: code, meaning, and the calls that declare it."""
    files = read_files()
    raised: dict[str, list[str]] = defaultdict(list)
    for method in iter_methods(files):
        for reason in re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", method.comment.partition("Errors:")[2]):
            raised[reason].append(f"{method.service.rpartition('.')[2]}.{method.name}")
    lines = ["| reason | code | meaning | declared by |", "|---|---|---|---|"]
    for value in iter_enum_values(files, "lns.errors.v1.ErrorReason"):
        reason = value.name.removeprefix(PREFIX)
        if reason not in LEAVES:
            continue
        meaning = re.sub(r" \([A-Z_]+(, with RetryInfo)?\)\.$", ".", value.comment)
        calls = ", ".join(f"`{name}`" for name in raised[reason])
        lines.append(f"| `{reason}` | `{LEAVES[reason].kind}` | {meaning} | {calls} |")
    return "\n".join(lines)


def settings_tables() -> str:
    """Returns a table of settings for the shared part and for each section of the services."""
    parts = [_section("Shared by every process", ProcessSettings, (), skip=frozenset())]
    for path in sorted((ROOT / "services").glob("*/settings.py")):
        module = importlib.import_module(f"services.{path.parent.name}.settings")
        for process in vars(module).values():
            if _is_process(process) and process.__module__ == module.__name__:
                # The suite has the sections of the services too, which are shown once.
                others = {field.name for field in dataclasses.fields(process)} - {path.parent.name}
                title = f"`python -m services.{path.parent.name}`"
                parts.append(_section(title, process, (), skip=frozenset(others)))
    return "\n\n".join(parts)


def _is_process(value: Any) -> bool:
    return (
        isinstance(value, type)
        and issubclass(value, ProcessSettings)
        and value is not ProcessSettings
    )


def _section(title: str, tree: type, path: tuple[str, ...], skip: frozenset[str]) -> str:
    lines = [f"### {title}", "", "| setting | value | default | meaning |", "|---|---|---|---|"]
    lines += [" | ".join(("", *row, "")).strip() for row in _rows(tree, path, None, skip)]
    return "\n".join(lines)


def _rows(
    tree: type, path: tuple[str, ...], base: Any, skip: frozenset[str]
) -> Iterator[tuple[str, str, str, str]]:
    hints = typing.get_type_hints(tree, include_extras=True)
    documentation = field_documentation(tree)
    for field in dataclasses.fields(tree):
        if field.name in skip:
            continue
        here = (*path, field.name)
        hint = hints[field.name]
        default = _default(field) if base is None else getattr(base, field.name)
        group = _group(hint)
        if group is None:
            name = f"`{'.'.join(here)}`"
            if field.metadata.get("variable"):
                name += f" (`{field.metadata['variable']}`)"
            yield name, _form(hint), _shown(field, default, hint), documentation[field.name]
        elif default is None:
            yield f"`{'.'.join(here)}`", "a group", "none", documentation[field.name]
            yield from _rows(group, here, None, frozenset())
        else:
            yield from _rows(
                group, here, default if isinstance(default, group) else None, frozenset()
            )


def field_documentation(tree: type) -> Mapping[str, str]:
    """Returns the docstring under each field of a dataclass and of those it derives from."""
    found: dict[str, str] = {}
    for ancestor in reversed(tree.__mro__):
        if not dataclasses.is_dataclass(ancestor):
            continue
        (body,) = ast.parse(inspect.cleandoc("\n" + inspect.getsource(ancestor))).body
        statements = typing.cast("ast.ClassDef", body).body
        for field, following in itertools.pairwise(statements):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(following, ast.Expr)
                and isinstance(following.value, ast.Constant)
            ):
                found[field.target.id] = " ".join(str(following.value.value).split())
    return found


def _group(hint: Any) -> type | None:
    candidates = [hint, *typing.get_args(hint)]
    return next(
        (c for c in candidates if isinstance(c, type) and dataclasses.is_dataclass(c)), None
    )


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _form(hint: Any) -> str:
    args = [arg for arg in typing.get_args(hint) if arg is not type(None)]
    words = {
        str: "text",
        int: "number",
        float: "number",
        bool: "true · false",
        Path: "path",
        values.Seconds: "duration",
        values.ByteCount: "size",
    }
    if hint in words:
        return words[hint]
    if typing.get_origin(hint) is tuple:
        return f"list of {_form(args[0])}"
    if len(args) == 2:  # noqa: PLR2004  # key and value
        return f"mapping to {_form(args[1])}"
    if args:
        return _form(args[0])
    return " · ".join(f"`{member}`" for member in hint)


def _shown(field: dataclasses.Field[Any], default: Any, hint: Any) -> str:
    if field.metadata.get("default_from") is not None:
        return "from the environment"
    if default is dataclasses.MISSING:
        return "required"
    if default is None or default in ("", (), {}):
        return "none"
    shown = values.plain(default, hint)
    if isinstance(shown, bool):
        return "true" if shown else "false"
    return f"`{', '.join(shown) if isinstance(shown, list) else shown}`"


DOCUMENTS = {"errors.md": errors_table, "configuration.md": settings_tables}


def current(name: str) -> str:
    """Returns the document with its generated part made anew."""
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    pattern = re.compile(r"(<!-- generated: [^>]* -->\n).*?(<!-- end -->)", re.DOTALL)
    made = DOCUMENTS[name]()
    return pattern.sub(lambda match: f"{match[1]}\n{made}\n\n{match[2]}", text)


def main() -> int:
    """Brings the documents up to date, or checks that they are; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if not current")
    check: bool = parser.parse_args().check
    stale = 0
    for name in DOCUMENTS:
        path = ROOT / "docs" / name
        text = current(name)
        if text == path.read_text(encoding="utf-8"):
            continue
        stale += 1
        print(f"{'not current' if check else 'changed'}: docs/{name}")
        if not check:
            path.write_text(text, encoding="utf-8")
    return int(check and stale > 0)


if __name__ == "__main__":
    raise SystemExit(main())
