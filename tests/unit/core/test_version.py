import tomllib
from pathlib import Path

from services.core.version import VERSION


def test_the_version_is_that_of_the_package() -> None:
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text()

    assert tomllib.loads(text)["project"]["version"] == VERSION
