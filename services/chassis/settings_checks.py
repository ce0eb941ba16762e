"""What values a setting can have beyond its type, declared where the setting is.

    pids: int = field(default=4096, metadata=setting(least=1))
    listen: tuple[str, ...] = field(default=(), metadata=setting(check=address_problems))

`settings_tree.load` applies this to what it reads, setting by setting, so that every bad value is
reported at once. Trees check themselves with `check_fields` where they are made by code.
"""

import dataclasses
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from services.chassis import settings_values as values
from services.core.errors import LnsError, SettingsInvalid, Violation

Check = Callable[[Any], Iterable[str]]
"""Returns what is wrong with a value, for a person: nothing where it can be used."""


def problems(field: dataclasses.Field[Any], hint: Any, value: Any) -> Iterator[str]:
    """Yields what is wrong with the value of a field, by what its metadata say.

    Args:
        field: of a settings tree.
        hint: its type hint, with what is annotated.
        value: of that type.
    """
    least, most = field.metadata.get("least"), field.metadata.get("most")
    too_little = least is not None and value < least
    if too_little or (most is not None and value > most):
        yield _range(least, most, hint)
    check: Check | None = field.metadata.get("check")
    if check is not None:
        yield from check(value)


def check_fields(tree: Any) -> None:
    """Checks every field of a settings tree that code has made.

    Raises:
        SettingsInvalid: with one violation for each problem.
    """
    hints = typing.get_type_hints(type(tree), include_extras=True)
    found = [
        Violation(subject=field.name, description=text, type="SETTING")
        for field in dataclasses.fields(tree)
        for text in problems(field, hints[field.name], getattr(tree, field.name))
    ]
    if found:
        listing = "; ".join(f"{one.subject}: {one.description}" for one in found)
        raise SettingsInvalid(listing, violations=found)


def refused_by(parse: Callable[[str], object]) -> Check:
    """Returns a check of a text, or of each text of a list, by what parses it.

    Args:
        parse: raises LnsError or ValueError for a text that cannot be used.
    """

    def check(value: Any) -> Iterator[str]:
        for text in (value,) if isinstance(value, str) else value:
            try:
                parse(text)
            except LnsError as error:
                yield error.message
            except ValueError as error:
                yield str(error)

    return check


def _range(least: Any, most: Any, hint: Any) -> str:
    low, high = (None if bound is None else values.plain(bound, hint) for bound in (least, most))
    if most is None:
        return f"must be at least {low}"
    return f"must be at most {high}" if least is None else f"must be between {low} and {high}"
