"""In CI a skipped test is a failure."""

import pytest

pytest_plugins = ["pytester"]


@pytest.mark.parametrize(("ci", "code"), [("true", 1), ("", 0)])
def test_a_skipped_test_fails_a_run_in_ci_only(
    ci: str, code: int, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", ci)
    pytester.makeconftest("from tests.conftest import pytest_sessionfinish")
    pytester.makepyfile("import pytest\ndef test_it():\n    pytest.skip('no Docker')")

    result = pytester.runpytest_inprocess("-p", "no:asyncio", "-p", "no:cacheprovider")

    assert result.ret == code
