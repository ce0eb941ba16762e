"""Reads the harmful changes that are kept beside this module, one file for each area."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One change that would hurt.

    Attributes:
        area: the file of records it is from.
        name: what it breaks, in a few words.
        file: the file it changes, relative to the checkout.
        old: text that is in the file exactly once.
        new: what takes its place.
        reason: whom it would hurt, and how.
        tests: what pytest is given, the less the quicker; one of them must fail.
    """

    area: str
    name: str
    file: str
    old: str
    new: str
    reason: str
    tests: tuple[str, ...]

    def changed(self, text: str) -> str:
        """Returns the text of the file with the change.

        Raises:
            ValueError: the old text is not in it exactly once; the record has to follow the file.
        """
        count = text.count(self.old)
        if count != 1:
            raise ValueError(
                f"tests/mutants/{self.area}.toml, {self.name!r}: its old text is {count} times in "
                f"{self.file}; give it the text that has the same meaning now"
            )
        return text.replace(self.old, self.new)


def all_mutants() -> list[Mutant]:
    """Returns every record, in the order of areas and files."""
    return [
        Mutant(area=path.stem, **{**record, "tests": tuple(record["tests"])})
        for path in sorted(FOLDER.glob("*.toml"))
        for record in tomllib.loads(path.read_text())["mutant"]
    ]
