"""`WWW-Authenticate`: what a server wants to see, by RFC 9110 section 11.

A header may hold several challenges, several headers may come, values may be quoted or not, and
names of schemes and parameters are of any case. Hostile input parses to nothing and never fails.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

MAX_HEADER_CHARACTERS: Final = 8192
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SPACE = re.compile(r"[ \t,]*")
_SCHEME = re.compile(rf"({_WORD})(?=[ \t,]|\Z)")
_PARAMETER = re.compile(rf'({_WORD})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|({_WORD}))(?=[ \t,]|\Z)')
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|\Z))")


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """One challenge.

    Attributes:
        scheme: lower-case: `basic`, `bearer`.
        parameters: values by lower-case name; the first of a repeated name.
    """

    scheme: str
    parameters: Mapping[str, str]

    def get(self, name: str) -> str:
        """Returns a parameter, or the empty string."""
        return self.parameters.get(name, "")


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """Returns the challenges of all `WWW-Authenticate` headers, in order.

    What does not follow the grammar ends the header that it stands in; what came before counts.
    """
    return tuple(challenge for header in headers for challenge in _parse(header))


def _parse(header: str) -> list[Challenge]:
    if len(header) > MAX_HEADER_CHARACTERS:
        return []
    challenges: list[Challenge] = []
    at = _skip(header, 0)
    while at < len(header):
        scheme = _SCHEME.match(header, at)
        if scheme is None:
            break
        at = _skip(header, scheme.end())
        parameters: dict[str, str] = {}
        token = _TOKEN68.match(header, at)
        # A word before a comma is the next scheme rather than a token68, unless it ends in `=`.
        if token and (token[0].endswith("=") or not _SCHEME.match(header, at)):
            at = _skip(header, token.end())
        while parameter := _PARAMETER.match(header, at):
            value = parameter[3]
            if value is None:
                value = re.sub(r"\\(.)", r"\1", parameter[2], flags=re.DOTALL)
            parameters.setdefault(parameter[1].lower(), value)
            at = _skip(header, parameter.end())
        challenges.append(Challenge(scheme=scheme[1].lower(), parameters=parameters))
    return challenges


def _skip(header: str, at: int) -> int:
    match = _SPACE.match(header, at)
    return match.end() if match else at
